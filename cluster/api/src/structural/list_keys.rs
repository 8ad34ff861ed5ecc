//! What a schema must say of the entries of a list that is a set or a map, and of a map's fields.

use super::findings::Findings;
use super::node::{Kind, ListType, Node};
use super::place::Place;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Checks the list and map types of one node.
pub fn check(node: &Node, place: &Place<'_>, findings: &mut Findings) {
    if node.granular.is_some() && node.kind != Some(Kind::Object) {
        wrong_kind(node, "must be object if x-kubernetes-map-type is specified", place, findings);
    }
    let keys = place.field("x-kubernetes-list-map-keys");
    let Some(list_type) = node.list_type else {
        if !node.list_keys.is_empty() {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            findings.required(&place.field("x-kubernetes-list-type"), why);
        }
        return;
    };
    if node.kind != Some(Kind::Array) {
        wrong_kind(node, "must be array if x-kubernetes-list-type is specified", place, findings);
        return;
    }
    if list_type != ListType::Map && !node.list_keys.is_empty() {
        let word = if list_type == ListType::Set { "set" } else { "atomic" };
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        findings.invalid(&place.field("x-kubernetes-list-type"), &json!(word), why);
    }
    match list_type {
        ListType::Atomic => {}
        ListType::Set => set(node, place, findings),
        ListType::Map => map(node, &keys, place, findings),
    }
}

fn wrong_kind(node: &Node, why: &str, place: &Place<'_>, findings: &mut Findings) {
    let place = place.field("type");
    match node.kind {
        None => findings.required(&place, why),
        Some(kind) => findings.invalid(&place, &json!(kind.as_str()), why),
    }
}

fn set(node: &Node, place: &Place<'_>, findings: &mut Findings) {
    let Some(items) = &node.items else { return };
    let place = place.field("items");
    if items.nullable {
        let why = "cannot be nullable when x-kubernetes-list-type is set";
        findings.forbidden(&place.field("nullable"), why);
    }
    match items.kind {
        Some(Kind::Array) if items.list_type.is_some_and(|list| list != ListType::Atomic) => {
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            findings.invalid(&place.field("x-kubernetes-list-type"), &json!("set"), why);
        }
        Some(Kind::Object) if items.granular != Some(false) => {
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            findings.invalid(&place.field("x-kubernetes-map-type"), &Value::Null, why);
        }
        _ => {}
    }
}

fn map(node: &Node, keys: &Place<'_>, place: &Place<'_>, findings: &mut Findings) {
    let listed = json!(node.list_keys);
    if node.list_keys.is_empty() {
        findings.required(keys, "must not be empty if x-kubernetes-list-type is map");
    }
    let items_place = place.field("items");
    let Some(items) = &node.items else {
        findings.required(&items_place, "must have a schema if x-kubernetes-list-type is map");
        return;
    };
    if items.kind != Some(Kind::Object) {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        wrong_kind(items, why, &items_place, findings);
        return;
    }
    if items.nullable {
        let why = "cannot be nullable when x-kubernetes-list-type is map";
        findings.forbidden(&items_place.field("nullable"), why);
    }
    let properties = items_place.field("properties");
    let mut seen = BTreeSet::new();
    for key in &node.list_keys {
        if !seen.insert(key) {
            findings.invalid(keys, &listed, "must not contain duplicate entries");
            continue;
        }
        let Some(property) = items.properties.get(key) else {
            findings.invalid(keys, &listed, "entries must all be names of item properties");
            continue;
        };
        let place = properties.key(key);
        if let Some(kind @ (Kind::Object | Kind::Array)) = property.kind {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            findings.invalid(&place.field("type"), &json!(kind.as_str()), why);
        }
        if property.nullable {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            findings.forbidden(&place.field("nullable"), why);
        }
        if property.default.is_none() && !items.bounds.required.contains(key) {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            findings.required(&place.field("default"), why);
        }
    }
}
