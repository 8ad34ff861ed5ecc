//! How objects and lists are shown: whole, as a Table, or their metadata alone.
//!
//! Plain functions of objects as they are kept; the table of resources knows the columns, and how they are told in
//! another version.

use crate::negotiate::View;
use impresario_api::catalog::find;
use impresario_api::managed;
use impresario_api::resource::Resource;
use impresario_api::table::{self, IncludeObject};
use impresario_runtime::clock;
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
    let mut table = table::render(resource, objects, include, clock::timestamp());
    if version != "v1" {
        table["apiVersion"] = format!("meta.k8s.io/{version}").into();
        let rows = table.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten();
        rows.for_each(|row| typed_row(row, version));
    }
    table
}

/// What a row carries of its object has the version of the table.
fn typed_row(row: &mut Value, version: &str) {
    let kind = row.pointer("/object/kind");
    if kind.is_some_and(|kind| kind == "PartialObjectMetadata") {
        row["object"]["apiVersion"] = format!("meta.k8s.io/{version}").into();
    }
}

/// An object as clients read it: who owns what of it is written out, but for tables, which nobody reads for that.
fn told(resource: &Resource, mut object: Value, view: View) -> Value {
    match view {
        View::Whole | View::Metadata(_) => {
            // What is owned is a part of what is kept.
            let kept = resource.conversion.as_ref();
            let kept = kept.and_then(|kept| find(kept.group, kept.version, kept.plural));
            managed::tell(kept.as_deref().unwrap_or(resource), &mut object);
        }
        View::Table(_) => {
            let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
            metadata.map(|metadata| metadata.remove("managedFields"));
        }
    }
    object
}

/// One object in this view.
pub fn one(resource: &Resource, object: Value, view: View, include: IncludeObject) -> Value {
    let object = resource.told(told(resource, object, view));
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

/// What stands around the items of a list in this view, and the name of the field that they are in; `metadata` is
/// the list's own.
pub fn envelope(
    resource: &Resource,
    metadata: Map<String, Value>,
    view: View,
) -> (Map<String, Value>, &'static str) {
    let (kind, version) = match view {
        View::Whole => (format!("{}List", resource.kind), resource.api_version()),
        View::Metadata(version) => {
            ("PartialObjectMetadataList".to_owned(), format!("meta.k8s.io/{version}"))
        }
        View::Table(version) => ("Table".to_owned(), format!("meta.k8s.io/{version}")),
    };
    let mut envelope = Map::new();
    envelope.insert("kind".to_owned(), kind.into());
    envelope.insert("apiVersion".to_owned(), version.into());
    envelope.insert("metadata".to_owned(), metadata.into());
    if !matches!(view, View::Table(_)) {
        return (envelope, "items");
    }
    envelope.insert("columnDefinitions".to_owned(), table::column_definitions(resource));
    (envelope, "rows")
}

/// An item of a list in this view.
pub fn item(resource: &Resource, object: Value, view: View, include: IncludeObject) -> Value {
    let object = resource.told(told(resource, object, view));
    match view {
        View::Whole => without_type(object),
        View::Metadata(version) => metadata_only(&object, version),
        View::Table(version) => {
            let mut row = table::row(resource, &object, include, clock::timestamp());
            typed_row(&mut row, version);
            row
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
    let (mut list, field) = envelope(resource, metadata, view);
    let items = items.into_iter().map(|object| item(resource, object, view, include));
    list.insert(field.to_owned(), items.collect());
    list.into()
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
