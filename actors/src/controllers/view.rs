//! What the controllers of a process share: the mirrors of what they look at, and the objects that
//! they write.

use super::control::LookError;
use super::engine::mirrors::Mirrors;
use super::engine::shared::Shared;
use super::mirror::{Mirror, Mirrored, Seen};
use impresario_api::catalog;
use impresario_api::managed::{self, Writer};
use impresario_api::resource::Row;
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::{CONTROLLER, Objects};
use impresario_registry_api::{Compare, Entry, Operation, RegistryHandle};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long a look waits for its mirrors to see what it wrote before.
pub const CATCH_UP: Duration = Duration::from_secs(5);

/// Mirrors and objects. Cheap to clone; the mirrors follow as long as one clone lives.
#[derive(Clone)]
pub struct View {
    /// Reads and writes by the rules of the API.
    pub objects: Objects,
    /// Writes events.
    pub events: Recorder,
    /// The mirrors of all kinds that anybody looks at.
    pub mirrors: Mirrors,
    /// All pods.
    pub pods: Mirror<Pod>,
    /// All nodes.
    pub nodes: Mirror<Node>,
    /// All endpoints.
    pub endpoints: Mirror<Endpoints>,
    /// All endpoint slices.
    pub endpoint_slices: Mirror<EndpointSlice>,
}

impl View {
    /// Starts to follow.
    #[must_use]
    pub fn start(objects: Objects, component: &str) -> Self {
        let Shared { objects, events, mirrors, .. } = Shared::start(objects, component);
        Self {
            events,
            pods: mirrors.of(),
            nodes: mirrors.of(),
            endpoints: mirrors.of(),
            endpoint_slices: mirrors.of(),
            mirrors,
            objects,
        }
    }

    /// What controllers share that know no kinds but their own.
    #[must_use]
    pub fn shared(&self) -> Shared {
        Shared {
            objects: self.objects.clone(),
            events: self.events.clone(),
            mirrors: self.mirrors.clone(),
            clock: Arc::new(clock::timestamp),
            authority: Arc::default(),
        }
    }

    /// Writes an event about an object that is as it should be.
    pub fn normal<K: Mirrored>(&self, about: &Seen<K>, reason: &str, message: &str) {
        self.events.record(&reference(about), Severity::Normal, reason, message);
    }

    /// Writes an event about an object that somebody should look at.
    pub fn warning<K: Mirrored>(&self, about: &Seen<K>, reason: &str, message: &str) {
        self.events.record(&reference(about), Severity::Warning, reason, message);
    }

    /// The registry underneath.
    #[must_use]
    pub fn registry(&self) -> &RegistryHandle {
        self.objects.registry()
    }
}

/// What an event says it is about.
fn reference<K: Mirrored>(about: &Seen<K>) -> Value {
    let key = &about.entry.key;
    json!({
        "apiVersion": K::API_VERSION,
        "kind": K::KIND,
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "uid": about.object.metadata().uid,
        },
    })
}

/// A resource that is served for certain.
///
/// # Panics
/// If it is not in the table of resources, which a test of this module excludes.
#[must_use]
pub(super) fn served(group: &str, plural: &str) -> Row {
    #[allow(clippy::expect_used)]
    // a constant of the program; see `everything_that_controllers_write_is_served`
    catalog::find(group, "v1", plural).expect("a resource of the controllers is in the table")
}

/// Writes `object` where `entry` is, if nobody changed it in between.
pub(super) fn put(entry: &Entry, object: &Value) -> Result<(Compare, Operation), LookError> {
    let damaged = |cause: String| LookError::Damaged { key: entry.key.to_string(), cause };
    let noted = noted(entry, object).map_err(damaged)?;
    let value = serde_json::to_vec(noted.as_ref().unwrap_or(object))
        .map_err(|error| damaged(error.to_string()))?;
    Ok((
        Compare::Revision { key: entry.key.clone(), revision: entry.mod_revision },
        Operation::Put { key: entry.key.clone(), value: value.into() },
    ))
}

/// The object with what controllers own of it by what they changed, where it is known who owns what.
fn noted(entry: &Entry, object: &Value) -> Result<Option<Value>, String> {
    let row = catalog::served().find_key(&entry.key.resource);
    let Some(row) = row.filter(|_| managed::may_have_entries(&entry.value)) else {
        return Ok(None);
    };
    let old = serde_json::from_slice(&entry.value).map_err(|error| error.to_string())?;
    let mut new = object.clone();
    let now = clock::timestamp();
    let writer = Writer { manager: CONTROLLER, subresource: "status", now };
    managed::updated_through(&row, &old, &mut new, &writer, &["", "status"])
        .map_err(|error| error.to_string())?;
    Ok(Some(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_controllers_write_is_served() {
        for (group, plural) in [
            ("", "pods"),
            ("", "nodes"),
            ("", "namespaces"),
            ("", "services"),
            ("", "endpoints"),
            ("discovery.k8s.io", "endpointslices"),
            ("", "configmaps"),
        ] {
            assert_eq!(served(group, plural).plural, plural);
        }
    }
}
