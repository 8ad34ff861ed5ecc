//! Secret: bytes by key that are not for everyone; some types promise certain keys.

use crate::cause::Cause;
use crate::field::{
    Causes, Path, as_map, at, default_text, entries, map, object_mut, remove, text,
};
use crate::kinds::configmaps::{DATA_MAX, decoded_len, validate_immutable};
use crate::names;
use crate::resource::{Column, Effect, FieldLabel, Resource, Rules};
use crate::table::{age, entry_count, name};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: vec![
            Column::name(),
            Column::text("Type", "What the keys of the secret mean."),
            Column::text("Data", "How many keys it has."),
            Column::age(),
        ],
        cells: Arc::new(|secret, now| {
            vec![
                name(secret),
                text(secret, "type").into(),
                entry_count(secret, &["data"]),
                age(secret, now),
            ]
        }),
        effect: Effect::by("nodes, which show it to the pods that name it"),
        rules: Rules {
            default: Arc::new(default),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        fields: vec![FieldLabel::new("type", "/type")],
        ..Resource::named("", "v1", "Secret", "secrets", "secret", "api.core.v1.Secret")
    }
}

/// `stringData` is a way to write `data` and is never read back.
fn default(secret: &mut Value) {
    default_text(secret, "type", "Opaque");
    if let Some(Value::Object(texts)) = remove(secret, "stringData") {
        if texts.is_empty() {
            return;
        }
        let data = as_map(object_mut(secret, "data"));
        for (key, value) in texts {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}

fn validate(secret: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let data = Path::new("data");
    let mut size = 0;
    for (key, value) in entries(secret, "data") {
        if causes.is_full() {
            break;
        }
        causes.invalid_all(&data.key(key), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > DATA_MAX {
        causes.too_long(&data, DATA_MAX);
    }
    let has = |key: &str| map(secret, "data").is_some_and(|data| data.contains_key(key));
    match text(secret, "type") {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            let named = map(secret, "metadata.annotations")
                .and_then(|annotations| annotations.get(annotation))
                .and_then(Value::as_str)
                .is_some_and(|name| !name.is_empty());
            if !named {
                causes.required(&Path::new("metadata").child("annotations").key(annotation), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(secret, ".dockercfg", &mut causes),
        "kubernetes.io/dockerconfigjson" => docker(secret, ".dockerconfigjson", &mut causes),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            causes.required(&data.key("username"), "");
            causes.required(&data.key("password"), "");
        }
        "kubernetes.io/ssh-auth" => {
            let key = at(secret, "data").get("ssh-privatekey").and_then(Value::as_str);
            if key.unwrap_or_default().is_empty() {
                causes.required(&data.key("ssh-privatekey"), "");
            }
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    causes.required(&data.key(key), "");
                }
            }
        }
        _ => {}
    }
    causes.into_vec()
}

/// A registry credential must be there and must be JSON.
fn docker(secret: &Value, key: &str, causes: &mut Causes) {
    let path = Path::new("data").key(key);
    let Some(encoded) = at(secret, "data").get(key).and_then(Value::as_str) else {
        causes.required(&path, "");
        return;
    };
    let json = STANDARD.decode(encoded).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
    if !json.is_some_and(|json| json.is_object()) {
        causes.invalid(&path, "<secret contents redacted>", "must be a JSON object");
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.unchanged(&Path::new("type"), at(new, "type"), at(old, "type"));
    causes.append(validate_immutable(new, old, &["data"]));
    causes.append(validate(new));
    causes.into_vec()
}
