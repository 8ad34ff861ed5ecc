//! What the tables say of a kind: fields that must be given, and closed sets of values.
//!
//! The walk ends at what has rules of its own (`APART`): metadata, pod templates, selectors. What ties fields
//! together, and what a format or a range is, is said by the kind.

use crate::field::{Causes, Path, get};
use crate::schema::{self, Cardinality, Field, FieldType, Message, Shape};
use serde_json::Value;

/// Messages that are looked at by rules of their own, wherever they stand.
const APART: [&str; 6] = [
    "apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.Condition",
    "api.core.v1.NodeSelector",
    "api.core.v1.PodTemplateSpec",
    "api.core.v1.PersistentVolumeSpec",
];
/// Lists that the tables call required and that may be empty: they are written in any case.
const MAY_BE_EMPTY: [(&str, &str); 2] =
    [("api.core.v1.LimitRangeSpec", "limits"), ("api.storage.v1.CSINodeSpec", "drivers")];

/// All of an object but its metadata and its status, by the message of its kind.
pub fn validate(kind: &str, object: &Value, causes: &mut Causes) {
    let Some(message) = schema::message(kind) else { return };
    for field in message.json_fields() {
        if !matches!(field.name, "metadata" | "status") {
            field_of(message, field, object, &Path::new(field.name), causes);
        }
    }
}

/// A part of an object, by its message.
pub fn validate_part(name: &str, part: &Value, path: &Path, causes: &mut Causes) {
    if let Some(message) = schema::message(name) {
        fields_of(message, part, path, causes);
    }
}

fn fields_of(message: &'static Message, object: &Value, path: &Path, causes: &mut Causes) {
    for field in message.json_fields() {
        if causes.is_full() {
            return;
        }
        field_of(message, field, object, &path.child(field.name), causes);
    }
}

fn field_of(
    message: &'static Message,
    field: &'static Field,
    object: &Value,
    path: &Path,
    causes: &mut Causes,
) {
    let value = get(object, field.name);
    match field.cardinality {
        Cardinality::Single => single(field, value, path, causes),
        Cardinality::Repeated => {
            let all = value.as_array().map_or(&[][..], Vec::as_slice);
            let spared = MAY_BE_EMPTY.contains(&(message.name, field.name));
            if all.is_empty() && field.required && !spared {
                causes.required(path, "");
            }
            for (index, one) in all.iter().enumerate() {
                if causes.is_full() {
                    return;
                }
                given(field, one, &path.index(index), causes);
            }
        }
        Cardinality::Map => {
            let all = value.as_object();
            if field.required && all.is_none_or(serde_json::Map::is_empty) {
                causes.required(path, "");
            }
            for (key, one) in all.into_iter().flatten() {
                if causes.is_full() {
                    return;
                }
                given(field, one, &path.key(key), causes);
            }
        }
    }
}

/// A field of one value. Numbers and flags cannot be told from ones that are not given, so that these never miss.
fn single(field: &'static Field, value: &Value, path: &Path, causes: &mut Causes) {
    let missing = value.is_null() || value.as_str().is_some_and(str::is_empty);
    if !missing {
        given(field, value, path, causes);
        return;
    }
    match (field.kind, field.message()) {
        (FieldType::String | FieldType::Bytes, _) if field.required => causes.required(path, ""),
        (_, Some(message)) if field.required => {
            // What must be given within it is told, as that is what has to be written.
            let mut within = Causes::default();
            match message.shape {
                Shape::Object => fields_of(message, &Value::Null, path, &mut within),
                Shape::Raw | Shape::Time | Shape::MicroTime => {}
                _ => return,
            }
            if within.is_empty() {
                causes.required(path, "");
            } else {
                causes.append(within.into_vec());
            }
        }
        _ => {}
    }
}

fn given(field: &'static Field, value: &Value, path: &Path, causes: &mut Causes) {
    if let Some(message) = field.message() {
        if message.shape == Shape::Object && !APART.contains(&message.name) {
            fields_of(message, value, path, causes);
        }
        return;
    }
    let (Some(mut known), Some(text)) = (field.values(), value.as_str()) else { return };
    if !text.is_empty() && !known.any(|one| one == text) {
        let supported: Vec<&str> = field.values().into_iter().flatten().collect();
        causes.not_supported(path, text, &supported);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(kind: &str, object: &Value) -> Vec<String> {
        let mut causes = Causes::default();
        validate(kind, object, &mut causes);
        causes.into_vec().into_iter().map(|cause| cause.to_string()).collect()
    }

    #[test]
    fn what_the_tables_require_and_what_they_allow_is_told_with_its_place() {
        let ingress = json!({"spec": {"rules": [
            {"http": {"paths": [{"path": "/", "pathType": "Near", "backend": {"service": {"name": "s"}}}]}},
            {"http": {"paths": [{"path": "/", "backend": {"service": {}}}, {"pathType": "Exact"}]}},
            {"http": {}},
        ]}});
        let wanted = [
            "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Near\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            "spec.rules[1].http.paths[0].backend.service.name: Required value",
            "spec.rules[1].http.paths[0].pathType: Required value",
            "spec.rules[1].http.paths[1].backend: Required value",
            "spec.rules[2].http.paths: Required value",
        ];
        let mut told = told("api.networking.v1.Ingress", &ingress);
        told.sort();
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_is_missing_in_a_part_that_is_missing_is_told() {
        let told = told("api.autoscaling.v2.HorizontalPodAutoscaler", &json!({}));
        assert_eq!(
            told,
            [
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Required value"
            ]
        );
    }

    #[test]
    fn every_message_with_rules_of_its_own_is_in_the_tables() {
        for name in APART {
            assert!(schema::message(name).is_some(), "{name}");
        }
        for (name, field) in MAY_BE_EMPTY {
            assert!(schema::message(name).unwrap().field(field).unwrap().required, "{name}");
        }
    }
}
