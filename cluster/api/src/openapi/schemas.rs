//! Schemas of messages, with what clients need to merge and validate.

use super::edition::Edition;
use crate::resource::Resource;
use crate::schema::{self, Cardinality, Field, FieldType, Message, Shape, Structure};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// Messages that every document speaks of.
const COMMON: [&str; 3] = [
    "apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "apimachinery.pkg.apis.meta.v1.Status",
    "apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// The schemas of the resources and of everything that they are made of.
pub(super) fn of(resources: &[&Resource], edition: Edition) -> Value {
    let mut kinds: BTreeMap<&str, Vec<(&str, &str, &str)>> = BTreeMap::new();
    let mut roots: Vec<&'static Message> =
        COMMON.iter().filter_map(|name| schema::message(name)).collect();
    for row in resources {
        let list = format!("{}List", row.schema);
        let list_kind = schema::message(&list).map(Message::go_name);
        for (name, kind) in [(row.schema, Some(row.kind)), (list.as_str(), list_kind)] {
            let (Some(message), Some(kind)) = (schema::message(name), kind) else { continue };
            kinds.entry(message.name).or_default().push((row.group, row.version, kind));
            roots.push(message);
        }
        for sub in row.subresources {
            let group = if sub.group.is_empty() { row.group } else { sub.group };
            let version = if sub.version.is_empty() { row.version } else { sub.version };
            let Some(message) = schema::for_kind(group, version, sub.kind) else { continue };
            let said = kinds.entry(message.name).or_default();
            if !said.contains(&(group, version, sub.kind)) {
                said.push((group, version, sub.kind));
            }
            roots.push(message);
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(message) = roots.pop() {
        if seen.insert(message.name) {
            roots.extend(message.json_fields().into_iter().filter_map(Field::message));
        }
    }
    let schemas: Map<String, Value> = seen
        .into_iter()
        .filter_map(schema::message)
        .map(|message| {
            let kinds = kinds.get(message.name).map_or(&[][..], Vec::as_slice);
            (public_name(message), of_message(message, kinds, edition))
        })
        .collect();
    Value::Object(schemas)
}

/// The name under which clients know a message.
pub(super) fn public_name(message: &Message) -> String {
    if message.name.starts_with("dev.impresario.") {
        message.name.to_owned()
    } else {
        format!("io.k8s.{}", message.name)
    }
}

pub(super) fn reference(message: &Message, edition: Edition) -> Value {
    let root = match edition {
        Edition::V2 => "#/definitions/",
        Edition::V3 => "#/components/schemas/",
    };
    json!({"$ref": format!("{root}{}", public_name(message))})
}

fn of_message(message: &'static Message, kinds: &[(&str, &str, &str)], edition: Edition) -> Value {
    let mut schema = match (message.shape, edition) {
        (Shape::Object, _) => of_object(message, edition),
        (Shape::Time | Shape::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Shape::Quantity, Edition::V3) => {
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
        }
        (Shape::Quantity, Edition::V2) => json!({"type": "string"}),
        (Shape::IntOrString, Edition::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Shape::IntOrString, Edition::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Shape::Raw, _) => json!({"type": "object"}),
        (Shape::Strings, _) => json!({"type": "array", "items": {"type": "string"}}),
        (Shape::Json | Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings, _) => {
            json!({})
        }
    };
    if let Some(text) = description(message.name, "") {
        schema["description"] = text.into();
    }
    if message.atomic {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    if !kinds.is_empty() {
        schema["x-kubernetes-group-version-kind"] = kinds
            .iter()
            .map(|(group, version, kind)| json!({"group": group, "version": version, "kind": kind}))
            .collect();
    }
    schema
}

fn of_object(message: &'static Message, edition: Edition) -> Value {
    let mut properties = Map::new();
    if message.is_kind() {
        let text = |what: &str| json!({"type": "string", "description": what});
        properties.insert("apiVersion".to_owned(), text("The group and version of the kind."));
        properties.insert("kind".to_owned(), text("What kind of object this is."));
    }
    let fields = message.json_fields();
    for field in &fields {
        let mut property = of_field(field, edition);
        if let Some(text) = description(message.name, field.name) {
            property["description"] = text.into();
        }
        if let Some(value) = defaults().get(&(message.name, field.name)) {
            property["default"] = value.clone();
        }
        properties.insert(field.name.to_owned(), property);
    }
    let mut schema = json!({"type": "object"});
    let required: Vec<&str> =
        fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if !properties.is_empty() {
        schema["properties"] = Value::Object(properties);
    }
    schema
}

fn of_field(field: &'static Field, edition: Edition) -> Value {
    let mut value = match field.kind {
        FieldType::String => json!({"type": "string"}),
        FieldType::Int32 => json!({"type": "integer", "format": "int32"}),
        FieldType::Int64 => json!({"type": "integer", "format": "int64"}),
        FieldType::Bool => json!({"type": "boolean"}),
        FieldType::Double => json!({"type": "number", "format": "double"}),
        FieldType::Bytes => json!({"type": "string", "format": "byte"}),
        FieldType::Message(id) => match edition {
            Edition::V2 => reference(schema::get(id), edition),
            // A bare reference may have no siblings, and a property has a description.
            Edition::V3 => json!({"allOf": [reference(schema::get(id), edition)]}),
        },
    };
    if let Some(values) = field.values() {
        value["enum"] = values.collect();
    }
    let mut whole = match field.cardinality {
        Cardinality::Single => value,
        Cardinality::Repeated => json!({"type": "array", "items": value}),
        Cardinality::Map => json!({"type": "object", "additionalProperties": value}),
    };
    extend(field, &mut whole);
    whole
}

/// The `x-kubernetes` extensions that say how a field merges.
fn extend(field: &'static Field, schema: &mut Value) {
    let kind = if field.cardinality == Cardinality::Repeated { "list" } else { "map" };
    let structure = match field.structure {
        Structure::Default => "",
        Structure::Atomic => "atomic",
        Structure::Set => "set",
        Structure::Map => "map",
        Structure::Granular => "granular",
    };
    if !structure.is_empty() {
        schema[format!("x-kubernetes-{kind}-type")] = structure.into();
    }
    let keys: Vec<&str> = field.map_keys().collect();
    if !keys.is_empty() {
        schema["x-kubernetes-list-map-keys"] = keys.into();
    }
    let patch = field.patch;
    let strategies =
        [(patch.merge, "merge"), (patch.replace, "replace"), (patch.retain_keys, "retainKeys")];
    let said: Vec<&str> =
        strategies.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
    if !said.is_empty() {
        schema["x-kubernetes-patch-strategy"] = said.join(",").into();
    }
    if !field.merge_key.is_empty() {
        schema["x-kubernetes-patch-merge-key"] = field.merge_key.into();
    }
}

/// What admission writes into a field that is left out, whatever the other fields say, by message and field.
/// A test holds the table against admission.
pub(super) fn defaults() -> &'static BTreeMap<(&'static str, &'static str), Value> {
    static TABLE: OnceLock<BTreeMap<(&'static str, &'static str), Value>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let rows = include_str!("../../data/defaults.tsv").lines();
        rows.filter_map(|row| {
            let mut cells = row.splitn(3, '\t');
            Some(((cells.next()?, cells.next()?), serde_json::from_str(cells.next()?).ok()?))
        })
        .collect()
    })
}

/// What a message, or a field of it, is for; the table holds what `kubectl explain` should tell.
fn description(message: &str, field: &str) -> Option<&'static str> {
    static TABLE: OnceLock<BTreeMap<(&'static str, &'static str), &'static str>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let rows = include_str!("../../data/descriptions.tsv").lines();
        rows.filter_map(|row| {
            let mut cells = row.splitn(3, '\t');
            Some(((cells.next()?, cells.next()?), cells.next()?))
        })
        .collect()
    });
    table.get(&(message, field)).copied()
}
