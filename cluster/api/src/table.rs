//! Server-side tables: what `kubectl get` prints.
//!
//! [`render`] makes the `Table` of some objects from the columns and cells of their resource; the
//! cells of each kind are in its own file. Spans of time are printed as people read them: coarser
//! the longer they are.

pub mod admission;
mod cell;
pub mod pod;
mod span;

pub use cell::{
    NONE, UNKNOWN, age, containers_and_images, entry_count, first_three, label_list, name, or_none,
    or_unset, since,
};
pub use span::human_duration;

use crate::field::at;
use crate::resource::Resource;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// How much of each object comes with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, as `PartialObjectMetadata`; what clients get that do not ask.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter `includeObject`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The `Table` of some objects. The caller sets `metadata.resourceVersion` and the like.
pub fn render<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": column_definitions(resource),
        "rows": objects.into_iter().map(|object| row(resource, object, include, now)).collect::<Vec<_>>(),
    })
}

/// The column definitions of a resource's table; a watch sends them in its first event only.
pub fn column_definitions(resource: &Resource) -> Value {
    resource
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect()
}

/// One row of the table.
pub fn row(resource: &Resource, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), (resource.cells)(object, now).into());
    if let Some(conditions) = resource.row_conditions {
        row.insert("conditions".to_owned(), conditions(object));
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row.insert("object".to_owned(), partial_metadata(object));
        }
        IncludeObject::Object => {
            row.insert("object".to_owned(), object.clone());
        }
    }
    Value::Object(row)
}

/// An object's metadata alone.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": at(object, "metadata"),
    })
}
