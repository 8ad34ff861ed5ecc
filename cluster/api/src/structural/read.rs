//! Reads a schema from JSON: every keyword has its type, none is there that Kubernetes does not take.

use super::findings::Findings;
use super::node::{Additional, Bounds, Junctors, Kind, ListType, Node};
use super::place::Place;
use super::room::Room;
use super::rule;
use crate::pattern::Pattern;
use serde_json::{Map, Number, Value, json};
use std::collections::HashMap;

/// How deep schemas may nest.
pub const MAX_DEPTH: usize = 64;
/// How many schemas a schema may be made of.
pub const MAX_NODES: usize = 50_000;
/// How many different patterns a schema may have.
pub const MAX_PATTERNS: usize = 256;

/// A reader of one schema.
#[derive(Default)]
pub struct Reader {
    /// What is wrong so far.
    pub findings: Findings,
    /// What may yet be compiled.
    pub room: Room,
    patterns: HashMap<String, Option<Pattern>>,
    nodes: usize,
    over: bool,
}

const UNSUPPORTED: [(&str, &str); 8] = [
    ("$ref", "$ref is not supported"),
    ("id", "id is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("if", "if is not supported"),
    ("const", "const is not supported"),
];

impl Reader {
    /// Reads a schema and those below.
    pub fn node(&mut self, value: &Value, place: &Place<'_>, depth: usize) -> Node {
        let mut node = Node::default();
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            if !std::mem::replace(&mut self.over, true) {
                let why = format!("may have {MAX_NODES} schemas, nested {MAX_DEPTH} deep");
                self.findings.forbidden(place, &why);
            }
            return node;
        }
        let Value::Object(map) = value else {
            self.wrong(place, value, "must be a schema object");
            return node;
        };
        for (keyword, why) in UNSUPPORTED {
            if map.get(keyword).is_some_and(|value| !nothing(value)) {
                self.findings.forbidden(&place.field(keyword), why);
            }
        }
        if self.flag(map, "uniqueItems", place) {
            let why =
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.findings.forbidden(&place.field("uniqueItems"), why);
        }
        self.kind(map, place, &mut node);
        node.title = self.text(map, "title", place).is_some_and(|text| !text.is_empty());
        node.description = self.text(map, "description", place).is_some_and(|t| !t.is_empty());
        node.nullable = self.flag(map, "nullable", place);
        node.default = map.get("default").filter(|value| !value.is_null()).cloned();
        self.extensions(map, place, &mut node);
        *node.bounds = self.bounds(map, place);
        self.parts(map, place, depth, &mut node);
        *node.junctors = self.junctors(map, place, depth);
        let rules = map.get(rule::KEYWORD).unwrap_or(&Value::Null);
        node.rules = rule::read(rules, place, &mut self.findings);
        node
    }

    fn kind(&mut self, map: &Map<String, Value>, place: &Place<'_>, node: &mut Node) {
        let Some(word) = self.text(map, "type", place).filter(|word| !word.is_empty()) else {
            return;
        };
        node.kind = Kind::parse(word);
        if node.kind.is_none() {
            let place = place.field("type");
            if word == "null" {
                let why = "type cannot be set to null, use nullable as an alternative";
                self.findings.forbidden(&place, why);
            } else {
                let kinds = ["array", "boolean", "integer", "number", "object", "string"];
                let kinds = kinds.map(|kind| json!(kind));
                self.findings.not_supported(&place, &json!(word), &kinds);
            }
        }
    }

    fn extensions(&mut self, map: &Map<String, Value>, place: &Place<'_>, node: &mut Node) {
        node.int_or_string = self.flag(map, "x-kubernetes-int-or-string", place);
        node.embedded = self.flag(map, "x-kubernetes-embedded-resource", place);
        let preserve = "x-kubernetes-preserve-unknown-fields";
        node.preserve_unknown = self.flag(map, preserve, place);
        if map.get(preserve) == Some(&Value::Bool(false)) {
            let place = place.field(preserve);
            self.findings.invalid(&place, &json!(false), "must be true or undefined");
        }
        if let Some(word) = self.text(map, "x-kubernetes-list-type", place) {
            node.list_type = match word {
                "atomic" => Some(ListType::Atomic),
                "set" => Some(ListType::Set),
                "map" => Some(ListType::Map),
                _ => {
                    let place = place.field("x-kubernetes-list-type");
                    let known = [json!("atomic"), json!("map"), json!("set")];
                    self.findings.not_supported(&place, &json!(word), &known);
                    None
                }
            };
        }
        if let Some(word) = self.text(map, "x-kubernetes-map-type", place) {
            node.granular = match word {
                "granular" => Some(true),
                "atomic" => Some(false),
                _ => {
                    let place = place.field("x-kubernetes-map-type");
                    let known = [json!("atomic"), json!("granular")];
                    self.findings.not_supported(&place, &json!(word), &known);
                    None
                }
            };
        }
        node.list_keys = self.texts(map, "x-kubernetes-list-map-keys", place);
    }

    fn bounds(&mut self, map: &Map<String, Value>, place: &Place<'_>) -> Bounds {
        let mut bounds = Bounds {
            maximum: self.number(map, "maximum", place),
            exclusive_maximum: self.flag(map, "exclusiveMaximum", place),
            minimum: self.number(map, "minimum", place),
            exclusive_minimum: self.flag(map, "exclusiveMinimum", place),
            multiple_of: self.number(map, "multipleOf", place),
            max_length: self.count(map, "maxLength", place),
            min_length: self.count(map, "minLength", place),
            pattern: None,
            format: self.text(map, "format", place).filter(|f| !f.is_empty()).map(str::to_owned),
            max_items: self.count(map, "maxItems", place),
            min_items: self.count(map, "minItems", place),
            max_properties: self.count(map, "maxProperties", place),
            min_properties: self.count(map, "minProperties", place),
            required: self.texts(map, "required", place),
            enumeration: Vec::new(),
        };
        if let Some(factor) = &bounds.multiple_of
            && factor.as_f64().is_none_or(|factor| factor <= 0.0)
        {
            let value = Value::Number(factor.clone());
            self.findings.invalid(&place.field("multipleOf"), &value, "must be greater than 0");
            bounds.multiple_of = None;
        }
        if let Some(source) = self.text(map, "pattern", place).filter(|p| !p.is_empty()) {
            bounds.pattern = self.pattern(source, place);
        }
        match map.get("enum") {
            None | Some(Value::Null) => {}
            Some(Value::Array(values)) => bounds.enumeration.clone_from(values),
            Some(other) => self.wrong(&place.field("enum"), other, "must be a list"),
        }
        bounds
    }

    fn pattern(&mut self, source: &str, place: &Place<'_>) -> Option<Pattern> {
        if let Some(known) = self.patterns.get(source) {
            // One that was wrong has been told.
            return known.clone();
        }
        let place = place.field("pattern");
        let compiled = if self.patterns.len() >= MAX_PATTERNS {
            let why = format!("there may be {MAX_PATTERNS} different patterns in one schema");
            self.findings.forbidden(&place, &why);
            None
        } else {
            match self.room.pattern(source) {
                Ok(pattern) => Some(pattern),
                Err(error) => {
                    self.findings.invalid(&place, &json!(source), &error.to_string());
                    None
                }
            }
        };
        self.patterns.insert(source.to_owned(), compiled.clone());
        compiled
    }

    fn parts(
        &mut self,
        map: &Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
        node: &mut Node,
    ) {
        match map.get("properties") {
            None | Some(Value::Null) => {}
            Some(Value::Object(properties)) => {
                let place = place.field("properties");
                for (name, value) in properties {
                    let property = self.node(value, &place.key(name), depth + 1);
                    node.properties.insert(name.clone(), property);
                }
            }
            Some(other) => self.wrong(&place.field("properties"), other, "must be an object"),
        }
        let inner = place.field("additionalProperties");
        match map.get("additionalProperties") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(true)) => node.additional = Additional::Any,
            Some(Value::Bool(false)) => {
                self.findings.forbidden(&inner, "additionalProperties cannot be set to false");
            }
            Some(value) => {
                node.additional = Additional::Of(Box::new(self.node(value, &inner, depth + 1)));
            }
        }
        if !matches!(node.additional, Additional::None) && !node.properties.is_empty() {
            let why = "additionalProperties and properties are mutual exclusive";
            self.findings.forbidden(&inner, why);
        }
        let inner = place.field("items");
        match map.get("items") {
            None | Some(Value::Null) => {}
            Some(Value::Array(_)) => {
                let why = "items must be a schema object and not an array";
                self.findings.forbidden(&inner, why);
            }
            Some(value) => node.items = Some(Box::new(self.node(value, &inner, depth + 1))),
        }
    }

    fn junctors(&mut self, map: &Map<String, Value>, place: &Place<'_>, depth: usize) -> Junctors {
        let mut lists = ["allOf", "anyOf", "oneOf"].map(|keyword| {
            let place = place.field(keyword);
            match map.get(keyword) {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(list)) => list
                    .iter()
                    .enumerate()
                    .map(|(at, value)| self.node(value, &place.index(at), depth + 1))
                    .collect(),
                Some(other) => {
                    self.wrong(&place, other, "must be a list");
                    Vec::new()
                }
            }
        });
        let not = map.get("not").filter(|value| !value.is_null());
        Junctors {
            all_of: std::mem::take(&mut lists[0]),
            any_of: std::mem::take(&mut lists[1]),
            one_of: std::mem::take(&mut lists[2]),
            not: not.map(|value| Box::new(self.node(value, &place.field("not"), depth + 1))),
        }
    }

    fn wrong(&mut self, place: &Place<'_>, value: &Value, why: &str) {
        self.findings.type_invalid(place, value, why);
    }

    fn flag(&mut self, map: &Map<String, Value>, keyword: &str, place: &Place<'_>) -> bool {
        match map.get(keyword) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.wrong(&place.field(keyword), other, "must be a boolean");
                false
            }
        }
    }

    fn text<'m>(
        &mut self,
        map: &'m Map<String, Value>,
        keyword: &str,
        place: &Place<'_>,
    ) -> Option<&'m str> {
        match map.get(keyword) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.wrong(&place.field(keyword), other, "must be a string");
                None
            }
        }
    }

    fn texts(&mut self, map: &Map<String, Value>, keyword: &str, place: &Place<'_>) -> Vec<String> {
        match map.get(keyword) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
            }
            Some(other) => {
                self.wrong(&place.field(keyword), other, "must be a list of strings");
                Vec::new()
            }
        }
    }

    fn number(
        &mut self,
        map: &Map<String, Value>,
        keyword: &str,
        place: &Place<'_>,
    ) -> Option<Number> {
        match map.get(keyword) {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => Some(number.clone()),
            Some(other) => {
                self.wrong(&place.field(keyword), other, "must be a number");
                None
            }
        }
    }

    fn count(&mut self, map: &Map<String, Value>, keyword: &str, place: &Place<'_>) -> Option<u64> {
        let number = self.number(map, keyword, place)?;
        // What is below zero bounds nothing from below, and everything from above.
        match number.as_i64() {
            Some(count) => Some(u64::try_from(count).unwrap_or(0)),
            None => {
                self.wrong(&place.field(keyword), &Value::Number(number), "must be an integer");
                None
            }
        }
    }
}

/// Whether a keyword is as good as not given.
fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
