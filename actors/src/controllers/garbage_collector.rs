//! Deletes what nobody owns any more.
//!
//! [`plan`] decides from the metadata of everything that is mirrored; because mirrors of different
//! resources may lag differently, an owner is looked up in the registry itself before its dependents
//! are deleted, and so are its dependents before it is let go: a pod that a mirror had not shown yet
//! would be garbage as soon as the owner that was to leave it alone is gone. (Kubernetes
//! documentation, "Garbage collection": background, foreground, orphan.)

pub mod plan;

use super::control::{Look, LookError, Next};
use super::mirror::{Change, Mirror, Seen};
use super::owned;
use super::view::CATCH_UP;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::resource::{self, Resource, Verb, resource_key, resources};
use impresario_client::objects::{DeleteOptions, Objects, Propagation, WriteOptions};
use impresario_registry::{
    Compare, Consistency, Fence, ListRequest, Operation, RegistryHandle, Selection, Transaction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::{ClusterResourceScope, Metadata};
use plan::{Action, Held};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::sync::broadcast::error::RecvError;

/// A mirror shows what the registry has after so long, nearly always.
const SHOWN_WITHIN: Duration = Duration::from_millis(100);

/// The metadata of any object.
#[derive(Debug, Default, Deserialize)]
pub struct Partial {
    metadata: ObjectMeta,
}

impl k8s_openapi::Resource for Partial {
    const API_VERSION: &'static str = "meta.k8s.io/v1";
    const GROUP: &'static str = "meta.k8s.io";
    const KIND: &'static str = "PartialObjectMetadata";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "";
    type Scope = ClusterResourceScope;
}

impl Metadata for Partial {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The mirrors of all resources whose objects can own or be owned. Shared, cheap to clone.
#[derive(Clone)]
pub struct Graph(Arc<Vec<(&'static Resource, Mirror<Partial>)>>);

impl Graph {
    /// Starts to follow everything but events, which own nothing and are owned by nobody.
    #[must_use]
    pub fn start(registry: &RegistryHandle) -> Self {
        let kept = |r: &&Resource| r.plural != "events" && r.verbs.contains(&Verb::Delete);
        let mirror = |r: &'static Resource| (r, Mirror::start(registry.clone(), &resource_key(r)));
        Self(Arc::new(resources().iter().filter(kept).map(mirror).collect()))
    }

    /// Waits until something changed that can leave garbage behind.
    pub async fn changed(&self) {
        let each = self.0.iter().map(|(_, mirror)| {
            let mut changes = mirror.changes();
            async move {
                loop {
                    match changes.recv().await {
                        Ok(Change::Put { now, .. })
                            if now.object.metadata.deletion_timestamp.is_none() => {}
                        Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                    }
                }
            }
            .boxed()
        });
        let _ = futures_util::future::select_all(each).await;
    }
}

/// The garbage collector of the cluster.
pub struct GarbageCollectorLook {
    objects: Objects,
    graph: Graph,
    fence: Fence,
}

impl GarbageCollectorLook {
    /// A look at everything in `graph`.
    #[must_use]
    pub fn new(objects: Objects, graph: Graph, fence: Fence) -> Self {
        Self { objects: objects.fenced(fence), graph, fence }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        for (_, mirror) in self.graph.0.iter() {
            mirror.reached(1, CATCH_UP).await?;
        }
        let mut seen: Vec<(&'static Resource, Seen<Partial>)> = Vec::new();
        for (resource, mirror) in self.graph.0.iter() {
            seen.extend(mirror.all().into_iter().map(|object| (*resource, object)));
        }
        let held: Vec<Held<'_>> =
            seen.iter().map(|(_, object)| Held { metadata: &object.object.metadata }).collect();
        let mut next = Next::WhenTold;
        for action in plan::reconcile(&held) {
            match action {
                Action::Delete { at, foreground } => {
                    let (resource, object) = &seen[at];
                    self.delete(resource, object, foreground).await?;
                }
                Action::Disown { at, owner } => {
                    let (compare, operation) = owned::change(&seen[at].1, |object| {
                        let Some(metadata) = object["metadata"].as_object_mut() else { return };
                        let Some(list) = metadata.get_mut("ownerReferences") else { return };
                        let Some(list) = list.as_array_mut() else { return };
                        list.retain(|reference| reference["uid"] != owner);
                        if list.is_empty() {
                            metadata.remove("ownerReferences");
                        }
                    })?;
                    self.write(compare, operation).await?;
                }
                Action::LetGo { at, finalizer } => {
                    if self.holds_up(&seen[at].1.object.metadata, finalizer).await? {
                        next = Next::At(Timestamp::now() + SHOWN_WITHIN);
                        continue;
                    }
                    let (compare, operation) = owned::without_finalizer(&seen[at].1, finalizer)?;
                    self.write(compare, operation).await?;
                }
            }
        }
        Ok(next)
    }

    /// Whether the registry has a dependent that must be dealt with before `owner` is let go. Reads
    /// every object that could be one: such deletions are rare.
    async fn holds_up(&self, owner: &ObjectMeta, finalizer: &str) -> Result<bool, LookError> {
        if !matches!(finalizer, plan::FOREGROUND | plan::ORPHAN) {
            return Ok(false);
        }
        let uid = owner.uid.as_deref().unwrap_or_default();
        let holds = |reference: &OwnerReference| {
            reference.uid == uid && plan::holds_up(reference, finalizer)
        };
        for (resource, _) in self.graph.0.iter() {
            let mut select = Selection::all(resource_key(resource));
            if let Some(namespace) = owner.namespace.as_deref().filter(|name| !name.is_empty()) {
                select = select.within(namespace);
            }
            let page = self.objects.registry().list(ListRequest::of(select)).await?;
            for entry in &page.entries {
                let object: Partial = serde_json::from_slice(&entry.value).map_err(|error| {
                    LookError::Damaged { key: entry.key.to_string(), cause: error.to_string() }
                })?;
                if object.metadata.owner_references.iter().flatten().any(holds) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn write(&self, compare: Compare, operation: Operation) -> Result<(), LookError> {
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        self.objects.registry().transact(transaction).await?;
        Ok(())
    }

    async fn delete(
        &self,
        resource: &'static Resource,
        object: &Seen<Partial>,
        foreground: bool,
    ) -> Result<(), LookError> {
        let metadata = &object.object.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        if !foreground {
            for owner in metadata.owner_references.iter().flatten() {
                if self.exists(owner, namespace).await? {
                    return Ok(());
                }
            }
        }
        let options = DeleteOptions {
            propagation: if foreground { Propagation::Foreground } else { Propagation::Background },
            uid: metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        let name = metadata.name.as_deref().unwrap_or_default();
        match self
            .objects
            .delete(resource, namespace, name, &options, &WriteOptions::default())
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), 404 | 409) => Ok(()),
            Err(status) => Err(status.into()),
        }
    }

    /// Whether the owner is in the registry; one of a kind that is not served counts as there, since
    /// nobody can say that it is gone.
    async fn exists(&self, owner: &OwnerReference, namespace: &str) -> Result<bool, LookError> {
        let (group, version) =
            owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let Some(resource) = resource::find_kind(group, version, &owner.kind) else {
            return Ok(true);
        };
        let found =
            self.objects.find(resource, namespace, &owner.name, Consistency::Linearizable).await?;
        Ok(found.is_some_and(|stored| stored.object["metadata"]["uid"] == owner.uid))
    }
}

impl Look for GarbageCollectorLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::{Epoch, Key, MemoryRegistry, Registry as _, Shard};
    use serde_json::{Value, json};

    async fn create(registry: &MemoryRegistry, resource: &str, object: &Value) -> Key {
        let key = Key::new(resource, "ns", object["metadata"]["name"].as_str().unwrap());
        registry.transact(Transaction::create(key.clone(), object.to_string())).await.unwrap();
        key
    }

    /// A mirror that lags is a mirror of the registry as it was.
    #[tokio::test]
    async fn an_owner_is_not_let_go_while_the_registry_has_a_dependent_that_no_mirror_shows() {
        let owner = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {
            "name": "web", "namespace": "ns", "uid": "u1", "finalizers": [plan::ORPHAN],
            "deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "web-1", "namespace": "ns", "uid": "u2", "ownerReferences": [{
                "apiVersion": "v1", "kind": "ReplicationController", "name": "web", "uid": "u1"}]}});
        let (now, before) = (MemoryRegistry::default(), MemoryRegistry::default());
        for registry in [&now, &before] {
            create(registry, "replicationcontrollers", &owner).await;
        }
        let dependent = create(&now, "pods", &pod).await;
        let key = Key::new("replicationcontrollers", "ns", "web");
        let look = |graph: &MemoryRegistry| {
            let graph = Graph::start(&(Arc::new(graph.clone()) as RegistryHandle));
            let fence = Fence { shard: Shard(0), epoch: Epoch(0) };
            let objects = Objects::new(Arc::new(now.clone()) as RegistryHandle);
            GarbageCollectorLook::new(objects, graph, fence)
        };
        assert!(matches!(look(&before).look_once().await.unwrap(), Next::At(_)));
        let held = now.get(key.clone(), Consistency::Local).await.unwrap().0;
        assert!(held.is_some(), "it waits until the mirrors show the pod");

        let caught_up = look(&now);
        caught_up.look_once().await.unwrap();
        let pod = now.get(dependent, Consistency::Local).await.unwrap().0.unwrap();
        let pod: Value = serde_json::from_slice(&pod.value).unwrap();
        assert_eq!(
            pod["metadata"].get("ownerReferences"),
            None,
            "the pod stays, without its owner"
        );
    }
}
