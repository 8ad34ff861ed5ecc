//! Schemas of messages, with what clients need to merge and validate.

use super::edition::Edition;
use crate::dynamic::{DynamicSchema, Schema};
use crate::patch::PatchType;
use crate::resource::{Resource, Row};
use crate::schema::{self, Cardinality, Field, FieldType, Message, Shape, Structure};
use crate::wire::APPLY_YAML;
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
pub(super) fn of(resources: &[Row], edition: Edition) -> Value {
    let mut kinds: BTreeMap<&str, Vec<(&str, &str, &str)>> = BTreeMap::new();
    let mut roots: Vec<&'static Message> =
        COMMON.iter().filter_map(|name| schema::message(name)).collect();
    let mut own = Map::new();
    for row in resources {
        match &row.schema {
            Schema::Table(message) => {
                let list = schema::message(&format!("{}List", message.name));
                let list_kind = list.map(Message::go_name);
                for (message, kind) in
                    [(Some(*message), Some(row.kind.as_ref())), (list, list_kind)]
                {
                    let (Some(message), Some(kind)) = (message, kind) else { continue };
                    kinds.entry(message.name).or_default().push((&row.group, &row.version, kind));
                    roots.push(message);
                }
            }
            Schema::Structural(schema) => {
                own.extend(of_own(row, &**schema, edition));
                roots.extend(METADATA.iter().filter_map(|name| schema::message(name)));
            }
        }
        for sub in &row.subresources {
            let group = if sub.group.is_empty() { row.group.as_ref() } else { sub.group };
            let version = if sub.version.is_empty() { row.version.as_ref() } else { sub.version };
            let Some(message) = schema::for_kind(group, version, &sub.kind) else { continue };
            let said = kinds.entry(message.name).or_default();
            if !said.contains(&(group, version, &sub.kind)) {
                said.push((group, version, &sub.kind));
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
    let mut schemas: Map<String, Value> = seen
        .into_iter()
        .filter_map(schema::message)
        .map(|message| {
            let kinds = kinds.get(message.name).map_or(&[][..], Vec::as_slice);
            (public_name(message), of_message(message, kinds, edition))
        })
        .collect();
    schemas.append(&mut own);
    Value::Object(schemas)
}

/// What a kind with a schema of its own is made of besides.
const METADATA: [&str; 2] =
    ["apimachinery.pkg.apis.meta.v1.ObjectMeta", "apimachinery.pkg.apis.meta.v1.ListMeta"];

/// The schemas of such a kind and of its lists.
fn of_own(row: &Resource, schema: &dyn DynamicSchema, edition: Edition) -> [(String, Value); 2] {
    let name = own_name(&row.group, &row.version, &row.kind);
    let list_kind = format!("{}List", row.kind);
    let kind = |kind: &str| json!([{"group": row.group, "version": row.version, "kind": kind}]);
    let said = match edition {
        Edition::V2 => schema.openapi_v2(),
        Edition::V3 => schema.openapi(),
    };
    let mut one = match said {
        Value::Object(schema) => schema,
        _ => Map::new(),
    };
    one.insert("type".to_owned(), "object".into());
    one.insert("x-kubernetes-group-version-kind".to_owned(), kind(&row.kind));
    let properties = one.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        properties.extend(typed(METADATA[0], edition));
    }
    let mut properties = typed(METADATA[1], edition);
    let items = json!({"type": "array", "items": reference(&name, edition)});
    properties.insert("items".to_owned(), items);
    let list = json!({
        "type": "object",
        "required": ["items"],
        "properties": properties,
        "x-kubernetes-group-version-kind": kind(&list_kind),
    });
    [(format!("{name}List"), list), (name, Value::Object(one))]
}

/// The properties that every kind has.
fn typed(metadata: &str, edition: Edition) -> Map<String, Value> {
    let text = |what: &str| json!({"type": "string", "description": what});
    let mut properties = Map::new();
    properties.insert("apiVersion".to_owned(), text("The group and version of the kind."));
    properties.insert("kind".to_owned(), text("What kind of object this is."));
    if let Some(message) = schema::message(metadata) {
        let reference = reference(&public_name(message), edition);
        let property = match edition {
            Edition::V2 => reference,
            Edition::V3 => json!({"allOf": [reference]}),
        };
        properties.insert("metadata".to_owned(), property);
    }
    properties
}

/// Under which names the schemas of a kind are found, and in which forms its objects are read.
pub(super) struct Named {
    pub(super) one: Option<String>,
    pub(super) list: Option<String>,
    /// Whether it has a message in the tables.
    pub(super) has_message: bool,
    is_built_in: bool,
}

impl Named {
    pub(super) fn of(row: &Resource) -> Self {
        match &row.schema {
            Schema::Table(message) => {
                Self { is_built_in: row.is_built_in(), ..Self::table(Some(message)) }
            }
            Schema::Structural(_) => {
                let name = own_name(&row.group, &row.version, &row.kind);
                let list = Some(format!("{name}List"));
                Self { one: Some(name), list, has_message: false, is_built_in: false }
            }
        }
    }

    /// Those of a kind of the tables.
    pub(super) fn known(group: &str, version: &str, kind: &str) -> Self {
        Self::table(schema::for_kind(group, version, kind))
    }

    fn table(message: Option<&Message>) -> Self {
        let list = message.and_then(|it| schema::message(&format!("{}List", it.name)));
        Self {
            one: message.map(public_name),
            list: list.map(public_name),
            has_message: message.is_some(),
            is_built_in: true,
        }
    }

    /// The media types that a patch may have.
    pub(super) fn patches(&self) -> Vec<&'static str> {
        let strategic = PatchType::MEDIA_TYPES[2];
        let known = PatchType::MEDIA_TYPES.into_iter();
        known.filter(|form| self.is_built_in || *form != strategic).chain([APPLY_YAML]).collect()
    }
}

/// The name of a kind that is none of the tables': its group from behind, as Kubernetes has it.
fn own_name(group: &str, version: &str, kind: &str) -> String {
    let mut labels: Vec<&str> = group.split('.').collect();
    labels.reverse();
    format!("{}.{version}.{kind}", labels.join("."))
}

/// The name under which clients know a message.
pub(super) fn public_name(message: &Message) -> String {
    if message.name.starts_with("dev.impresario.") {
        message.name.to_owned()
    } else {
        format!("io.k8s.{}", message.name)
    }
}

pub(super) fn reference(name: &str, edition: Edition) -> Value {
    let root = match edition {
        Edition::V2 => "#/definitions/",
        Edition::V3 => "#/components/schemas/",
    };
    json!({"$ref": format!("{root}{name}")})
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
            Edition::V2 => reference(&public_name(schema::get(id)), edition),
            // A bare reference may have no siblings, and a property has a description.
            Edition::V3 => json!({"allOf": [reference(&public_name(schema::get(id)), edition)]}),
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
