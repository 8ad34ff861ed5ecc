//! How objects and lists are shown: whole, as a Table, or their metadata alone.
//!
//! Plain functions of objects; the table of resources knows the columns.

use crate::negotiate::View;
use impresario_api::resource::Resource;
use impresario_api::table::{self, IncludeObject};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

fn metadata_only(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or(Value::Null),
    })
}

/// A table of these objects.
fn table_of(
    resource: &Resource,
    objects: &[Value],
    version: &str,
    include: IncludeObject,
) -> Value {
    let mut table = table::render(resource, objects, include, Timestamp::now());
    if version != "v1" {
        table["apiVersion"] = format!("meta.k8s.io/{version}").into();
        let rows = table.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten();
        for row in rows.filter(|row| {
            row.pointer("/object/kind").is_some_and(|kind| kind == "PartialObjectMetadata")
        }) {
            row["object"]["apiVersion"] = format!("meta.k8s.io/{version}").into();
        }
    }
    table
}

/// One object in this view.
pub fn one(resource: &Resource, object: Value, view: View, include: IncludeObject) -> Value {
    match view {
        View::Whole => object,
        View::Metadata(version) => metadata_only(&object, version),
        View::Table(version) => {
            let revision = object.pointer("/metadata/resourceVersion").cloned();
            let mut table = table_of(resource, &[object], version, include);
            table["metadata"] = json!({});
            if let Some(revision) = revision {
                table["metadata"]["resourceVersion"] = revision;
            }
            table
        }
    }
}

/// A list in this view; `metadata` is the list's own.
pub fn list(
    resource: &Resource,
    items: Vec<Value>,
    metadata: Map<String, Value>,
    view: View,
    include: IncludeObject,
) -> Value {
    match view {
        View::Whole => {
            let items: Vec<Value> = items.into_iter().map(without_type).collect();
            json!({
                "kind": format!("{}List", resource.kind),
                "apiVersion": resource.api_version(),
                "metadata": metadata,
                "items": items,
            })
        }
        View::Metadata(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": metadata,
            "items": items.iter().map(|item| metadata_only(item, version)).collect::<Vec<_>>(),
        }),
        View::Table(version) => {
            let mut table = table_of(resource, &items, version, include);
            table["metadata"] = metadata.into();
            table
        }
    }
}

/// An item of a list has the type that the list says.
fn without_type(mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

/// A watch's object in this view. Only the first table of a watch tells its columns.
pub fn event(
    resource: &Resource,
    object: Value,
    view: View,
    include: IncludeObject,
    first: bool,
) -> Value {
    let mut shown = one(resource, object, view, include);
    if matches!(view, View::Table(_)) && !first {
        shown["columnDefinitions"] = Value::Null;
    }
    shown
}

/// The object of a bookmark.
pub fn bookmark(resource: &Resource, revision: u64, initial_end: bool, view: View) -> Value {
    let mut metadata =
        json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if initial_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata });
    match view {
        View::Whole => object,
        View::Metadata(version) => metadata_only(&object, version),
        View::Table(version) => json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": { "resourceVersion": revision.to_string() },
            "columnDefinitions": null,
            "rows": [{ "cells": [], "object": metadata_only(&object, version) }],
        }),
    }
}
