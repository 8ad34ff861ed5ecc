//! ConfigMap: texts and bytes by key, which pods read as files or environment.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, entries, flag, get, map};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::metadata;
use crate::table::{age, entry_count, name};
use serde_json::Value;
use std::sync::Arc;

/// Most bytes of all values of a config map or secret together.
pub const DATA_MAX: usize = 1024 * 1024;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["cm"]),
        columns: vec![Column::name(), Column::text("Data", "How many keys it has."), Column::age()],
        cells: Arc::new(|object, now| {
            vec![name(object), entry_count(object, &["data", "binaryData"]), age(object, now)]
        }),
        effect: Effect::by("nodes, which show it to the pods that name it"),
        rules: Rules {
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        ..Resource::named("", "v1", "ConfigMap", "configmaps", "configmap", "api.core.v1.ConfigMap")
    }
}

fn validate(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let mut size = 0;
    let binary = map(object, "binaryData");
    for (key, value) in entries(object, "data") {
        if causes.is_full() {
            break;
        }
        let path = Path::new("data").key(key);
        causes.invalid_all(&path, key, names::config_key(key));
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            causes.invalid(&path, key, "duplicate of key present in binaryData");
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(object, "binaryData") {
        if causes.is_full() {
            break;
        }
        causes.invalid_all(&Path::new("binaryData").key(key), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > DATA_MAX {
        causes.too_long(&Path::whole(), DATA_MAX);
    }
    causes.into_vec()
}

/// How many bytes a base64 text stands for.
pub(crate) fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

/// An object marked immutable keeps its data and the mark.
pub(crate) fn validate_immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<Cause> {
    let mut causes = Causes::default();
    if flag(old, "immutable") {
        if !flag(new, "immutable") {
            causes.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
        }
        for field in fields {
            if !crate::field::same(get(new, field), at(old, field)) {
                causes.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
            }
        }
    }
    causes.into_vec()
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate_immutable(new, old, &["data", "binaryData"]));
    causes.append(metadata::validate_again(new));
    causes.append(validate(new));
    causes.into_vec()
}
