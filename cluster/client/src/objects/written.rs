//! How a write is meant, and what it came to.

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
    /// The groups of who writes.
    pub groups: Vec<String>,
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
