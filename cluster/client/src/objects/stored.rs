//! Between the bytes that the registry keeps and the objects that everybody reads.
//!
//! What is kept has no `metadata.resourceVersion`: it would have to be known before it is drawn.
//! Readers put the entry's revision there, writers take it out.

use bytes::Bytes;
use impresario_api::status::Status;
use impresario_registry_api::{Entry, Revision};
use serde::de::IgnoredAny;
use serde_json::Value;

/// The resource of the keys that are there while a namespace is going: nothing is created in it then.
pub const CLOSING_NAMESPACES: &str = "impresario.dev/closingnamespaces";

/// An object with the revision that last wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The object, with its resourceVersion.
    pub object: Value,
    /// The revision.
    pub revision: Revision,
}

impl Stored {
    /// Reads an entry of the registry.
    pub fn read(entry: &Entry) -> Result<Self, Status> {
        let object = object_at(entry, entry.mod_revision)?;
        Ok(Self { object, revision: entry.mod_revision })
    }
}

/// Whether an entry's object can be read, without reading it.
pub fn readable(entry: &Entry) -> Result<(), Status> {
    let read = serde_json::from_slice::<IgnoredAny>(&entry.value);
    read.map(drop).map_err(|error| unreadable(entry, &error))
}

fn unreadable(entry: &Entry, error: &serde_json::Error) -> Status {
    Status::internal(format!("{} cannot be read: {error}", entry.key))
}

/// An entry's object with this revision as its resourceVersion.
pub fn object_at(entry: &Entry, revision: Revision) -> Result<Value, Status> {
    let mut object = read(entry)?;
    set_revision(&mut object, revision);
    Ok(object)
}

/// An entry's object as it is kept.
pub(super) fn read(entry: &Entry) -> Result<Value, Status> {
    serde_json::from_slice(&entry.value).map_err(|error| unreadable(entry, &error))
}

/// Puts a revision into an object as its resourceVersion.
pub fn set_revision(object: &mut Value, revision: Revision) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
}

/// The object without its resourceVersion, and what that was.
pub fn take_revision(object: &mut Value) -> Option<String> {
    let taken =
        object.get_mut("metadata").and_then(Value::as_object_mut)?.remove("resourceVersion")?;
    taken.as_str().filter(|version| !version.is_empty()).map(ToOwned::to_owned)
}

/// The bytes that are kept of an object.
pub fn bytes_of(object: &Value) -> Result<Bytes, Status> {
    let mut kept = object.clone();
    take_revision(&mut kept);
    serde_json::to_vec(&kept).map(Bytes::from).map_err(Status::internal)
}

/// A string inside an object, or the empty one.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
