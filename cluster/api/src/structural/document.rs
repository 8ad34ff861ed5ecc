//! A schema as clients read it.

use serde_json::{Map, Value, json};

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// In OpenAPI v3.
pub fn v3(schema: &Value) -> Value {
    let mut document = schema.clone();
    whole(&mut document, "#/components/schemas/");
    walk(&mut document, &mut |map| {
        if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
            implied(map, "#/components/schemas/");
        }
    });
    document
}

/// In OpenAPI v2: alternatives are left out, and so is all that is said of a value that may be null
/// or have fields that nobody knows, which older clients would take for mistakes.
pub fn v2(schema: &Value) -> Value {
    let mut document = schema.clone();
    whole(&mut document, "#/definitions/");
    walk(&mut document, &mut |map| {
        for keyword in ["oneOf", "anyOf", "not"] {
            map.remove(keyword);
        }
        let is =
            |map: &Map<String, Value>, keyword: &str| map.get(keyword) == Some(&Value::Bool(true));
        if is(map, "x-kubernetes-embedded-resource") {
            implied(map, "#/definitions/");
        }
        if is(map, "nullable") {
            for keyword in ["type", "nullable", "items", "properties", "enum"] {
                map.remove(keyword);
            }
        }
        if is(map, "x-kubernetes-preserve-unknown-fields") {
            for keyword in ["items", "properties", "type"] {
                map.remove(keyword);
            }
        }
        if is(map, "x-kubernetes-int-or-string") {
            map.remove("type");
        }
    });
    document
}

fn whole(document: &mut Value, at: &str) {
    if let Value::Object(map) = document {
        implied(map, at);
    }
}

/// What every object of the API has.
fn implied(map: &mut Map<String, Value>, at: &str) {
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        for (name, what) in [
            ("apiVersion", "The group and version of the schema that this object is written by."),
            ("kind", "The kind of this object, as in the paths of its group."),
        ] {
            properties.insert(name.to_owned(), json!({"type": "string", "description": what}));
        }
        let metadata = json!({
            "description": "What every object has: name, labels, annotations and the like.",
            "allOf": [{"$ref": format!("{at}{METADATA}")}],
            "default": {},
        });
        properties.insert("metadata".to_owned(), metadata);
    }
}

/// Every schema of a document, those above first. No deeper than documents are read.
fn walk(value: &mut Value, each: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(map) = value else { return };
    each(map);
    for (keyword, inner) in map {
        match (keyword.as_str(), inner) {
            ("properties", Value::Object(properties)) => {
                for property in properties.values_mut() {
                    walk(property, each);
                }
            }
            ("items" | "additionalProperties" | "not", inner) => walk(inner, each),
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                for inner in list {
                    walk(inner, each);
                }
            }
            _ => {}
        }
    }
}
