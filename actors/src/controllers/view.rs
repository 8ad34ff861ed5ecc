//! What the controllers of a process share: the mirrors of what they look at, and the objects that
//! they write.

use super::activation::Activation;
use super::control::LookError;
use super::engine::mirrors::Mirrors;
use super::engine::shared::Shared;
use super::mirror::{Mirror, Mirrored, Seen};
use impresario_api::catalog;
use impresario_api::resource::Resource;
use impresario_objects::Objects;
use impresario_objects::events::{Recorder, Severity};
use impresario_registry_api::{
    Compare, Entry, Fence, Operation, RegistryHandle, Revision, TransactError, Transaction,
};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// All namespaces.
    pub namespaces: Mirror<Namespace>,
    /// All services.
    pub services: Mirror<Service>,
    /// All endpoints.
    pub endpoints: Mirror<Endpoints>,
    /// All endpoint slices.
    pub endpoint_slices: Mirror<EndpointSlice>,
}

impl View {
    /// Starts to follow.
    #[must_use]
    pub fn start(objects: Objects, component: &str) -> Self {
        let mirrors = Mirrors::over(objects.registry().clone());
        Self {
            events: Recorder::start(objects.clone(), component, ""),
            pods: mirrors.of(),
            nodes: mirrors.of(),
            namespaces: mirrors.of(),
            services: mirrors.of(),
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
            clock: Arc::new(Timestamp::now),
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

/// What one look is about: an object by name and uid, the right to write for it, and the view.
#[derive(Clone)]
pub struct Assignment {
    /// Mirrors and objects.
    pub view: View,
    /// The right by which it writes.
    pub fence: Fence,
    /// Since when, by this member's table of shards.
    pub since: Instant,
    /// The object's namespace; empty for one without.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid: another object of that name is not meant.
    pub uid: String,
}

impl Assignment {
    /// What an activation is about.
    #[must_use]
    pub fn of(view: &View, activation: &Activation) -> Self {
        Self {
            view: view.clone(),
            fence: activation.fence,
            since: activation.since,
            namespace: activation.namespace.clone(),
            name: activation.name.clone(),
            uid: activation.uid.clone(),
        }
    }

    /// Writes as the holder of the shard, by the rules of the API.
    #[must_use]
    pub fn objects(&self) -> Objects {
        self.view.objects.fenced(self.fence)
    }

    /// Applies these writes as the holder of the shard, if nothing changed in between.
    pub async fn transact(
        &self,
        writes: impl IntoIterator<Item = (Compare, Operation)>,
    ) -> Result<Revision, TransactError> {
        let mut transaction = Transaction { fence: Some(self.fence), ..Transaction::default() };
        for (compare, operation) in writes {
            transaction.compares.push(compare);
            transaction.operations.push(operation);
        }
        Ok(self.view.registry().transact(transaction).await?.revision)
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
pub(super) fn served(group: &str, plural: &str) -> &'static Resource {
    #[allow(clippy::expect_used)]
    // a constant of the program; see `everything_that_controllers_write_is_served`
    catalog::find(group, "v1", plural).expect("a resource of the controllers is in the table")
}

/// Replaces `path` of an object as it was seen, if nobody changed it in between. Everything else,
/// also what the typed view does not know, stays.
pub(super) fn replace<K, T: Serialize>(
    seen: &Seen<K>,
    path: &[&str],
    value: &T,
) -> Result<(Compare, Operation), LookError> {
    let entry = &seen.entry;
    let damaged = |error: serde_json::Error| LookError::Damaged {
        key: entry.key.to_string(),
        cause: error.to_string(),
    };
    let mut object: Value = serde_json::from_slice(&entry.value).map_err(damaged)?;
    let value = serde_json::to_value(value).map_err(damaged)?;
    let mut place = &mut object;
    for step in path {
        place = &mut place[*step];
    }
    *place = value;
    remove_nulls(&mut object);
    put(entry, &object)
}

/// Writes `object` where `entry` is, if nobody changed it in between.
pub(super) fn put(entry: &Entry, object: &Value) -> Result<(Compare, Operation), LookError> {
    let value = serde_json::to_vec(object).map_err(|error| LookError::Damaged {
        key: entry.key.to_string(),
        cause: error.to_string(),
    })?;
    Ok((
        Compare::Revision { key: entry.key.clone(), revision: entry.mod_revision },
        Operation::Put { key: entry.key.clone(), value: value.into() },
    ))
}

/// Takes out what is null at the top of metadata: an emptied list of finalizers or owners.
fn remove_nulls(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
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
