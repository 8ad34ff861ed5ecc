//! A schema as it is held: one node a place, with what is asked of the value there.

use super::rule::Rule;
use crate::json_equality::is_whole;
use crate::pattern::Pattern;
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it all
pub enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    /// Reads the word of a schema.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The word of a schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    /// Whether a value is of this type. A whole number is one however it is written.
    pub fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Object, Value::Object(_))
            | (Self::Array, Value::Array(_))
            | (Self::String, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_)) => true,
            (Self::Integer, Value::Number(number)) => is_whole(number),
            _ => false,
        }
    }
}

/// What the entries of a list are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value.
    Atomic,
    /// Each entry is there once.
    Set,
    /// The entries have keys.
    Map,
}

/// What may stand in an object besides its properties.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Nothing that is known.
    #[default]
    None,
    /// Anything.
    Any,
    /// Values of one schema.
    Of(Box<Node>),
}

/// What is asked of a value besides its type.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // the names are those of the schema
pub struct Bounds {
    pub maximum: Option<Number>,
    pub exclusive_maximum: bool,
    pub minimum: Option<Number>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<Number>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub format: Option<String>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub enumeration: Vec<Value>,
}

/// Schemas that a value must match besides.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // the names are those of the schema
pub struct Junctors {
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

impl Junctors {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
    }
}

/// The schema of one place.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // the names are those of the schema
pub struct Node {
    pub kind: Option<Kind>,
    pub nullable: bool,
    pub default: Option<Value>,
    pub title: bool,
    pub description: bool,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub list_type: Option<ListType>,
    pub list_keys: Vec<String>,
    /// Whether the fields of the object are owned one by one; none where it is not said.
    pub granular: Option<bool>,
    pub properties: BTreeMap<String, Node>,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    pub bounds: Box<Bounds>,
    pub junctors: Box<Junctors>,
    /// The rules in CEL.
    pub rules: Vec<Rule>,
    /// Whether there are rules here or below.
    pub has_rules: bool,
}

impl Node {
    /// Whether this says that a null is to be taken for nothing.
    pub fn drops_null(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable
    }

    /// Every schema directly below that describes a part of the value.
    pub fn parts(&self) -> impl Iterator<Item = &Node> {
        let additional = match &self.additional {
            Additional::Of(node) => Some(&**node),
            _ => None,
        };
        self.properties.values().chain(self.items.as_deref()).chain(additional)
    }
}

/// The entry of an old list that is the same as one of the new: the one with the same keys.
pub fn correlate<'a>(
    keys: &[String],
    new: &Value,
    old: &'a std::collections::HashMap<String, &'a Value>,
) -> Option<&'a Value> {
    old.get(&key_of(keys, new)).copied()
}

/// The keys of an entry as one text.
pub fn key_of(keys: &[String], entry: &Value) -> String {
    let mut text = String::new();
    for key in keys {
        text.push_str(&crate::json_equality::canonical(entry.get(key).unwrap_or(&Value::Null)));
        text.push(',');
    }
    text
}

/// The entries of a list by their keys; the first of those with the same.
pub fn by_key<'a>(
    keys: &[String],
    list: &'a [Value],
) -> std::collections::HashMap<String, &'a Value> {
    let mut entries = std::collections::HashMap::with_capacity(list.len());
    for entry in list {
        entries.entry(key_of(keys, entry)).or_insert(entry);
    }
    entries
}
