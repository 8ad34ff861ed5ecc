//! What is in no namespace: in one that is not there, or in one that was made after it.
//!
//! Whoever empties a namespace deletes what its own program knows of. While members are updated that may be
//! the older one: what is of a newer kind stays, and the next namespace of that name would get it, running.

use impresario_api::resource::Resource;
use impresario_registry_api::{Entry, Revision};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// When a namespace was made.
#[derive(Debug, Clone)]
pub(super) struct Space {
    revision: Revision,
    time: Option<Time>,
}

impl Space {
    pub(super) fn of(entry: &Entry, namespace: &ObjectMeta) -> Self {
        Self { revision: entry.create_revision, time: namespace.creation_timestamp.clone() }
    }
}

/// Whether these are namespaces.
pub(super) fn is_space(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "namespaces"
}

/// Whether an object is not of its namespace, if there is one. Made before it by the registry's count and by the clock,
/// both: revisions alone say nothing where somebody has written everything anew, and where that was made within one
/// second, as one manifest is, the clock does not say which came first.
pub(super) fn is_stray(entry: &Entry, object: &ObjectMeta, space: Option<&Space>) -> bool {
    let Some(space) = space else { return true };
    let times = object.creation_timestamp.as_ref().zip(space.time.as_ref());
    entry.create_revision < space.revision
        && times.is_some_and(|(object, space)| object.0 < space.0)
}
