//! Server-side tables: what `kubectl get` prints.
//!
//! [`render`] makes the `Table` of some objects from the columns and cells of their resource; the
//! cells of each kind are in its own file. Spans of time are printed as people read them: coarser
//! the longer they are.

pub mod pod;
mod span;

pub use span::human_duration;

use crate::field::{at, entries, list, map, text};
use crate::resource::Resource;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Shown where nothing is set.
pub const NONE: &str = "<none>";
/// Shown where nothing is known.
pub const UNKNOWN: &str = "<unknown>";

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
    if resource.plural == "pods" && resource.group.is_empty() {
        row.insert("conditions".to_owned(), pod::row_conditions(object));
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

/// The cell with the object's name.
pub fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

/// The cell with the object's age.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "metadata.creationTimestamp"), now).into()
}

/// How long ago a time was; `<unknown>` when it is not given.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A text, or `<none>`.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// `a=b,c=d` of a map of labels, or `<none>`.
pub fn label_list(object: &Value, path: &str) -> Value {
    let labels: Vec<String> = entries(object, path)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&labels.join(","))
}

/// The names and images of a pod template's containers, as two cells.
pub fn containers_and_images(object: &Value, path: &str) -> [Value; 2] {
    let column = |field: &str| {
        let all: Vec<&str> =
            list(object, path).iter().map(|container| text(container, field)).collect();
        Value::from(all.join(","))
    };
    [column("name"), column("image")]
}

/// How many entries some maps have together.
pub fn entry_count(object: &Value, paths: &[&str]) -> Value {
    paths.iter().map(|path| map(object, path).map_or(0, Map::len)).sum::<usize>().into()
}

/// The first three of a list and how many more there are.
pub fn first_three(all: &[String], empty: &str) -> Value {
    match all {
        [] => empty.into(),
        all if all.len() <= 3 => all.join(",").into(),
        all => format!("{} + {} more...", all[..3].join(","), all.len() - 3).into(),
    }
}
