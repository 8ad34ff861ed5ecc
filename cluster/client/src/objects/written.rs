//! How a write is meant, and what it came to.

use super::stored::text;
use impresario_api::patch;
use impresario_api::resource::Resource;
use impresario_api::schema;
use impresario_api::status::Status;
use serde_json::Value;

/// How something is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but the write.
    pub dry_run: bool,
    /// The name of who manages the fields that are written.
    pub manager: String,
    /// Who writes.
    pub user: String,
}

/// A change to parts of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 6902, a list of operations.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Kubernetes's merge by the keys of lists.
    Strategic(Value),
}

impl Patch {
    /// The object with the change made, and nothing else: no defaults, no rules.
    pub fn apply(&self, resource: &Resource, object: &Value) -> Result<Value, Status> {
        let outcome = match self {
            Self::Json(operations) => patch::json_patch(object, operations.clone()),
            Self::Merge(change) => patch::merge_patch(object, change),
            Self::Strategic(change) => {
                let message = schema::for_kind(resource.group, resource.version, resource.kind)
                    .ok_or_else(|| Status::internal(format!("no schema for {}", resource.kind)))?;
                patch::strategic_merge(message, object, change.clone())
            }
        };
        outcome.map_err(|error| Status::patch(resource, text(object, "/metadata/name"), &error))
    }
}

/// Which node a pod gets, and which pod was meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// The node.
    pub node: String,
    /// The uid that the pod must have.
    pub uid: Option<String>,
    /// The resource version that the pod must have.
    pub resource_version: Option<String>,
}

impl Binding {
    /// Any pod of the name to this node.
    pub fn to(node: impl Into<String>) -> Self {
        Self { node: node.into(), ..Self::default() }
    }
}

/// What a deletion came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// It is gone; so it looked at last.
    Gone(Value),
    /// It is marked and will go later.
    Lingers(Value),
}
