//! Whether a schema is structural: every field has one type that is said once, so that what is
//! unknown can be dropped and what is owned can be told.

use super::findings::Findings;
use super::node::{Additional, Junctors, Kind, Node};
use super::place::Place;
use serde_json::json;

/// Where in a schema a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Checks the schema of a whole object.
pub fn check(root: &Node, place: &Place<'_>, findings: &mut Findings) {
    node(root, Level::Root, place, findings);
}

fn node(node_: &Node, level: Level, place: &Place<'_>, findings: &mut Findings) {
    kind(node_, level, place, findings);
    extensions(node_, place, findings);
    if node_.kind == Some(Kind::Object) && (level == Level::Root || node_.embedded) {
        resource(node_, level, place, findings);
    }
    super::list_keys::check(node_, place, findings);
    junctors(node_, &node_.junctors, place, findings);

    let properties = place.field("properties");
    for (name, property) in &node_.properties {
        node(property, Level::Field, &properties.key(name), findings);
    }
    if let Additional::Of(additional) = &node_.additional {
        node(additional, Level::Field, &place.field("additionalProperties"), findings);
    }
    match &node_.items {
        Some(items) => node(items, Level::Item, &place.field("items"), findings),
        None if node_.kind == Some(Kind::Array) => {
            findings.required(&place.field("items"), "must be specified");
        }
        None => {}
    }
}

fn kind(node: &Node, level: Level, place: &Place<'_>, findings: &mut Findings) {
    let place = place.field("type");
    match node.kind {
        None if node.embedded => {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            findings.required(&place, why);
        }
        Some(kind) if node.embedded && kind != Kind::Object => {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            findings.invalid(&place, &json!(kind.as_str()), why);
        }
        None if level == Level::Root => {
            findings.required(&place, "must not be empty at the root");
        }
        Some(kind) if level == Level::Root && kind != Kind::Object => {
            findings.invalid(&place, &json!(kind.as_str()), "must be object at the root");
        }
        None if !node.int_or_string && !node.preserve_unknown => {
            let of = if level == Level::Item { "array items" } else { "object fields" };
            findings.required(&place, &format!("must not be empty for specified {of}"));
        }
        Some(kind) if node.int_or_string => {
            let why = "must be empty if x-kubernetes-int-or-string is true";
            findings.invalid(&place, &json!(kind.as_str()), why);
        }
        _ => {}
    }
}

fn extensions(node: &Node, place: &Place<'_>, findings: &mut Findings) {
    if node.int_or_string && node.preserve_unknown {
        let why = "must be false if x-kubernetes-int-or-string is true";
        findings.invalid(&place.field("x-kubernetes-preserve-unknown-fields"), &json!(true), why);
    }
    if !node.embedded {
        return;
    }
    if !matches!(node.additional, Additional::None) {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        findings.forbidden(&place.field("additionalProperties"), why);
    }
    if node.properties.is_empty() && !node.preserve_unknown {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        findings.required(&place.field("properties"), why);
    }
}

/// What every object of the API has is known without the schema, and is not for it to change.
fn resource(node: &Node, level: Level, place: &Place<'_>, findings: &mut Findings) {
    let properties = place.field("properties");
    for name in ["apiVersion", "kind"] {
        if let Some(property) = node.properties.get(name)
            && let Some(kind) = property.kind.filter(|kind| *kind != Kind::String)
        {
            let place = properties.key(name);
            findings.invalid(&place.field("type"), &json!(kind.as_str()), "must be string");
        }
    }
    let Some(metadata) = node.properties.get("metadata") else { return };
    let place = properties.key("metadata");
    if let Some(kind) = metadata.kind.filter(|kind| *kind != Kind::Object) {
        findings.invalid(&place.field("type"), &json!(kind.as_str()), "must be object");
        return;
    }
    let named = |name: &str| matches!(name, "name" | "generateName");
    let more = metadata.properties.keys().any(|name| !named(name))
        || !matches!(metadata.additional, Additional::None)
        || metadata.preserve_unknown
        || metadata.embedded
        || metadata.default.is_some()
        || !metadata.bounds.required.iter().all(|name| named(name));
    if more && level == Level::Root {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        findings.forbidden(&place, why);
    }
}

/// The schemas that stand beside a node may say of a value what it must be, and nothing else.
fn junctors(of: &Node, junctors: &Junctors, place: &Place<'_>, findings: &mut Findings) {
    for (keyword, list) in
        [("allOf", &junctors.all_of), ("anyOf", &junctors.any_of), ("oneOf", &junctors.one_of)]
    {
        let list_place = place.field(keyword);
        for (at, nested_) in list.iter().enumerate() {
            if of.int_or_string && keyword != "oneOf" && says_int_or_string(nested_) {
                continue;
            }
            nested(nested_, Some(of), &list_place.index(at), place, findings);
        }
    }
    if let Some(not) = &junctors.not {
        nested(not, Some(of), &place.field("not"), place, findings);
    }
}

/// `{type: integer}`, `{type: string}`, or both as alternatives: how `x-kubernetes-int-or-string` is
/// said for other tools.
fn says_int_or_string(node: &Node) -> bool {
    let simple = |node: &Node| {
        matches!(node.kind, Some(Kind::Integer | Kind::String)) && node.junctors.is_empty()
    };
    simple(node) || (node.kind.is_none() && node.junctors.any_of.iter().any(simple))
}

/// Checks a schema that stands beside `of`, which may not be described where `of` is none.
fn nested(
    node: &Node,
    of: Option<&Node>,
    place: &Place<'_>,
    base: &Place<'_>,
    findings: &mut Findings,
) {
    let Some(of) = of else {
        findings.required(base, &format!("because it is defined in {place}"));
        return;
    };
    must_be_empty(node, place, findings);
    let (properties, of_properties) = (place.field("properties"), base.field("properties"));
    for (name, property) in &node.properties {
        let place = properties.key(name);
        if name == "metadata" && of.embedded {
            findings.forbidden(&place, "must not be specified in a nested context");
        }
        let known = of.properties.get(name);
        let any = match &of.additional {
            Additional::Of(node) => Some(&**node),
            _ => None,
        };
        if known.is_none() && (of.preserve_unknown || matches!(of.additional, Additional::Any)) {
            nested(property, Some(property), &place, &of_properties.key(name), findings);
        } else {
            nested(property, known.or(any), &place, &of_properties.key(name), findings);
        }
    }
    if let Some(items) = &node.items {
        nested(items, of.items.as_deref(), &place.field("items"), &base.field("items"), findings);
    }
    let inner = &node.junctors;
    for (keyword, list) in
        [("allOf", &inner.all_of), ("anyOf", &inner.any_of), ("oneOf", &inner.one_of)]
    {
        let list_place = place.field(keyword);
        for (at, one) in list.iter().enumerate() {
            if of.int_or_string && keyword == "anyOf" && says_int_or_string(one) {
                continue;
            }
            nested(one, Some(of), &list_place.index(at), base, findings);
        }
    }
    if let Some(not) = &inner.not {
        nested(not, Some(of), &place.field("not"), base, findings);
    }
}

fn must_be_empty(node: &Node, place: &Place<'_>, findings: &mut Findings) {
    let mut refuse = |given: bool, keyword: &str, what: &str| {
        if given {
            findings.forbidden(&place.field(keyword), &format!("must be {what} to be structural"));
        }
    };
    refuse(node.kind.is_some(), "type", "empty");
    refuse(node.title, "title", "empty");
    refuse(node.description, "description", "empty");
    refuse(node.default.is_some(), "default", "undefined");
    refuse(node.nullable, "nullable", "false");
    let additional = !matches!(node.additional, Additional::None);
    refuse(additional, "additionalProperties", "undefined");
    refuse(node.preserve_unknown, "x-kubernetes-preserve-unknown-fields", "false");
    refuse(node.embedded, "x-kubernetes-embedded-resource", "false");
    refuse(node.int_or_string, "x-kubernetes-int-or-string", "false");
    refuse(node.list_type.is_some(), "x-kubernetes-list-type", "undefined");
    refuse(!node.list_keys.is_empty(), "x-kubernetes-list-map-keys", "undefined");
    refuse(node.granular.is_some(), "x-kubernetes-map-type", "undefined");
    refuse(!node.rules.is_empty(), "x-kubernetes-validations", "empty");
}
