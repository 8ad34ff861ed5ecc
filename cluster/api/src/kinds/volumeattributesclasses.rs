//! VolumeAttributesClass: attributes of a volume that may change while it is used.

use crate::cause::Cause;
use crate::field::{Causes, Path, map, text};
use crate::resource::{Column, Resource, Rules, words};
use crate::rules::storage;
use crate::table::{age, name};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["vac"]),
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("DriverName", "Whose attributes they are."),
            Column::age(),
        ],
        cells: Arc::new(|class, now| {
            vec![name(class), text(class, "driverName").into(), age(class, now)]
        }),
        rules: Rules {
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                storage::not_updated(new, old, &["driverName", "parameters"], &mut causes);
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "storage.k8s.io",
            "v1",
            "VolumeAttributesClass",
            "volumeattributesclasses",
            "volumeattributesclass",
            "api.storage.v1.VolumeAttributesClass",
        )
    }
}

fn validate(class: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    storage::driver_name(text(class, "driverName"), &Path::new("driverName"), &mut causes);
    if map(class, "parameters").is_none_or(serde_json::Map::is_empty) {
        causes.required(&Path::new("parameters"), "must contain at least one key/value pair");
    }
    storage::parameters(class, &mut causes);
    causes.into_vec()
}
