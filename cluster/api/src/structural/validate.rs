//! What is wrong with a value by its schema: types, bounds, alternatives, keys of lists.
//!
//! On a change, what is wrong with a part that is as it was is left alone: a schema may become
//! stricter without locking up the objects that are there. Entries of a list are the same by their
//! keys alone, so a list without keys is judged as one part.

use super::bounds;
use super::findings::Findings;
use super::node::{Additional, Kind, ListType, Node, by_key, correlate, key_of};
use super::place::Place;
use crate::cause::CauseReason;
use crate::formats::type_name;
use crate::json_equality::{canonical, equal};
use crate::names;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// Finds what is wrong with a value, where it is not as it was.
pub fn value(
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    place: &Place<'_>,
    findings: &mut Findings,
) {
    if !findings.goes_on(place) || (new.is_null() && node.nullable) {
        return;
    }
    let mut part = findings.part();
    own(node, new, place, &mut part);
    children(node, new, old, place, &mut part);
    if !findings.ended(&part) && old.is_none_or(|old| !equal(new, old)) {
        findings.take(part);
    }
}

/// The value itself; its parts are looked at apart.
fn own(node: &Node, value: &Value, place: &Place<'_>, findings: &mut Findings) {
    if let Some(expected) = mismatch(node, value) {
        let found = type_name(value);
        let why = format!("{} in body must be of type {expected}: {found:?}", place.bare());
        findings.type_invalid(place, &json!(found), &why);
        return;
    }
    bounds::check(&node.bounds, value, place, findings);
    junctors(node, value, place, findings);
    if let (Value::Array(list), Some(list_type)) = (value, node.list_type) {
        unique(node, list_type, list, place, findings);
    }
    if let (Value::Object(map), true) = (value, node.embedded) {
        embedded(map, place, findings);
    }
}

/// The type that the value should have, where it has another.
fn mismatch(node: &Node, value: &Value) -> Option<&'static str> {
    if node.int_or_string {
        return (!Kind::Integer.fits(value) && !value.is_string()).then_some("integer,string");
    }
    match node.kind {
        Some(kind) => (!kind.fits(value)).then(|| kind.as_str()),
        None => None,
    }
}

fn children(
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    place: &Place<'_>,
    findings: &mut Findings,
) {
    match new {
        Value::Object(map) => {
            for (name, entry) in map {
                let schema = match (node.properties.get(name), &node.additional) {
                    (Some(property), _) => property,
                    (None, Additional::Of(additional)) => additional,
                    _ => continue,
                };
                let old = old.and_then(|old| old.get(name));
                value(schema, entry, old, &place.field(name), findings);
            }
        }
        Value::Array(list) => {
            let Some(items) = &node.items else { return };
            let olds = match (node.list_type, old.and_then(Value::as_array)) {
                (Some(ListType::Map), Some(old)) => by_key(&node.list_keys, old),
                _ => HashMap::new(),
            };
            for (at, entry) in list.iter().enumerate() {
                let old =
                    if olds.is_empty() { None } else { correlate(&node.list_keys, entry, &olds) };
                value(items, entry, old, &place.index(at), findings);
            }
        }
        _ => {}
    }
}

/// Whether a value matches one of the schemas that stand beside the first.
fn matches(node: &Node, value_: &Value, place: &Place<'_>, findings: &mut Findings) -> bool {
    let mut probe = findings.probe();
    value(node, value_, None, place, &mut probe);
    findings.ended(&probe)
}

fn junctors(node: &Node, value_: &Value, place: &Place<'_>, findings: &mut Findings) {
    let junctors = &node.junctors;
    if junctors.is_empty() {
        return;
    }
    let path = place.bare();
    let composite = |findings: &mut Findings, what: String| {
        let why = format!("{path:?} must {what}");
        findings.invalid(&Place::Root(""), &json!(""), &why);
    };
    if !junctors.any_of.is_empty()
        && !junctors.any_of.iter().any(|one| matches(one, value_, place, findings))
    {
        composite(findings, "validate at least one schema (anyOf)".to_owned());
        value(&junctors.any_of[0], value_, None, place, findings);
    }
    if !junctors.one_of.is_empty() {
        let valid =
            junctors.one_of.iter().filter(|one| matches(one, value_, place, findings)).count();
        if valid == 0 {
            let what = "validate one and only one schema (oneOf). Found none valid";
            composite(findings, what.to_owned());
            value(&junctors.one_of[0], value_, None, place, findings);
        } else if valid > 1 {
            let what = "validate one and only one schema (oneOf). Found";
            composite(findings, format!("{what} {valid} valid alternatives"));
        }
    }
    if !junctors.all_of.is_empty() {
        let mut failed = false;
        for one in &junctors.all_of {
            let mut part = findings.part();
            value(one, value_, None, place, &mut part);
            failed |= !findings.ended(&part);
            findings.take(part);
        }
        if failed {
            composite(findings, "validate all the schemas (allOf)".to_owned());
        }
    }
    if let Some(not) = &junctors.not
        && matches(not, value_, place, findings)
    {
        composite(findings, "not validate the schema (not)".to_owned());
    }
}

fn unique(
    node: &Node,
    list_type: ListType,
    list: &[Value],
    place: &Place<'_>,
    findings: &mut Findings,
) {
    if list_type == ListType::Atomic {
        return;
    }
    findings.spend(list.len());
    let mut seen = HashSet::with_capacity(list.len());
    for (at, entry) in list.iter().enumerate() {
        let (key, shown) = match list_type {
            ListType::Map if entry.is_object() => {
                let keys: Map<String, Value> = node
                    .list_keys
                    .iter()
                    .filter_map(|key| Some((key.clone(), entry.get(key)?.clone())))
                    .collect();
                (key_of(&node.list_keys, entry), Value::Object(keys))
            }
            ListType::Set => (canonical(entry), entry.clone()),
            _ => continue,
        };
        if !seen.insert(key) {
            findings.duplicate(&place.index(at), &shown);
        }
    }
}

/// What an object of the API must have wherever it stands.
fn embedded(map: &Map<String, Value>, place: &Place<'_>, findings: &mut Findings) {
    for name in ["apiVersion", "kind"] {
        let place = place.field(name);
        match map.get(name) {
            None | Some(Value::Null) => findings.required(&place, "must not be empty"),
            Some(Value::String(text)) if text.is_empty() => {
                findings.required(&place, "must not be empty");
            }
            Some(Value::String(text)) if name == "kind" => {
                for why in names::dns_1035_label(&text.to_ascii_lowercase()) {
                    findings.invalid(&place, &json!(text), &why);
                }
            }
            Some(Value::String(text)) if text.matches('/').count() > 1 => {
                let why = format!("unexpected GroupVersion string: {text}");
                findings.invalid(&place, &json!(text), &why);
            }
            Some(Value::String(_)) => {}
            Some(other) => findings.type_invalid(&place, other, "must be a string"),
        }
    }
    match map.get("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(metadata)) => {
            if let Some(Value::String(name)) = metadata.get("name")
                && (name.contains(['/', '%']) || name == "." || name == "..")
            {
                let why = "must be a name that can stand in a path: without '/' and '%'";
                findings.invalid(&place.field("metadata").field("name"), &json!(name), why);
            }
        }
        Some(other) => {
            let place = place.field("metadata");
            findings.push(
                &place,
                CauseReason::TypeInvalid,
                format!("Invalid value: {:?}: must be an object", type_name(other)),
            );
        }
    }
}
