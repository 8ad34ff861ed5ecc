//! Deletes what nobody owns any more.
//!
//! [`plan`] decides from the metadata of everything that is mirrored; because mirrors of different
//! resources may lag differently, an owner is looked up in the registry itself before its dependents
//! are deleted, and so are its dependents before it is let go: a pod that a mirror had not shown yet
//! would be garbage as soon as the owner that was to leave it alone is gone. (Kubernetes
//! documentation, "Garbage collection": background, foreground, orphan.)

mod graph;
pub mod plan;

pub use graph::{Graph, Partial};

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned;
use super::view::CATCH_UP;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_api::resource::{Resource, resource_key};
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::{DeleteOptions, Objects, Propagation, WriteOptions};
use impresario_registry_api::{
    Compare, Consistency, Fence, ListRequest, Operation, Remedy, Selection, Transaction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use plan::{Action, Presence};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A mirror shows what the registry has after so long, nearly always.
const SHOWN_WITHIN: Duration = Duration::from_millis(100);
/// Writes that are under way at once.
const CONCURRENT: usize = 64;

/// The garbage collector of the cluster.
pub struct GarbageCollectorLook {
    objects: Objects,
    graph: Graph,
    fence: Fence,
    events: Recorder,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// The mirrors will show what was done, and the rest follows from that.
    Written,
    /// The registry has what no mirror shows yet, and it speaks against the action.
    NotYet,
    /// There was nothing to do any more.
    Nothing,
}

impl GarbageCollectorLook {
    /// A look at everything in `graph`.
    #[must_use]
    pub fn new(objects: &Objects, graph: Graph, fence: Fence, events: Recorder) -> Self {
        Self { objects: objects.fenced(fence), graph, fence, events }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    /// Every action is tried; then the first failure counts.
    async fn look_once(&self) -> Result<Next, LookError> {
        for (_, mirror) in self.graph.parts() {
            mirror.reached(1, CATCH_UP).await?;
        }
        let seen = self.graph.mattering();
        let held: Vec<&ObjectMeta> =
            seen.iter().map(|(_, object)| &object.object.metadata).collect();
        let actions =
            plan::reconcile(&held, |dependent, owner| self.graph.presence(dependent, owner));
        // In boxes: the compiler does not see that futures of actions that borrow are Send.
        let each: Vec<BoxFuture<'_, _>> =
            actions.into_iter().map(|action| self.act(&seen, action).boxed()).collect();
        let mut outcomes = futures_util::stream::iter(each).buffer_unordered(CONCURRENT);
        let mut again = false;
        let mut failed = None;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(done) => again |= done != Done::Nothing,
                Err(error) if error.is_fenced() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None if again => Ok(Next::At(Timestamp::now() + SHOWN_WITHIN)),
            None => Ok(Next::WhenTold),
        }
    }

    async fn act(
        &self,
        seen: &[(&'static Resource, Seen<Partial>)],
        action: Action<'_>,
    ) -> Result<Done, LookError> {
        match action {
            Action::Delete { at, how } => {
                let (resource, object) = &seen[at];
                self.delete(resource, object, how).await
            }
            Action::Rewrite { at, without, without_absent, unblocked } => {
                let object = &seen[at].1;
                let mut off: Vec<&str> = without;
                for owner in without_absent {
                    if !self.exists(&object.object.metadata, owner).await? {
                        off.push(&owner.uid);
                    }
                }
                if off.is_empty() && unblocked.is_empty() {
                    return Ok(Done::NotYet);
                }
                let (compare, operation) =
                    owned::change(object, |object| rewrite_owners(object, &off, &unblocked))?;
                self.write(compare, operation).await
            }
            Action::LetGo { at, finalizer } => {
                let object = &seen[at].1;
                if self.holds_up(&object.object.metadata, finalizer).await? {
                    return Ok(Done::NotYet);
                }
                let (compare, operation) = owned::without_finalizer(object, finalizer)?;
                self.write(compare, operation).await
            }
        }
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
        for (resource, _) in self.graph.parts() {
            let mut select = Selection::all(resource_key(resource));
            if let Some(namespace) = owner.namespace.as_deref().filter(|name| !name.is_empty()) {
                select = select.within(namespace);
            }
            let page = self.objects.registry().list(ListRequest::of(select)).await?;
            for entry in &page.entries {
                // What is no object has no owners.
                let Ok(object) = serde_json::from_slice::<Partial>(&entry.value) else { continue };
                if object.metadata.owner_references.iter().flatten().any(holds) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn write(&self, compare: Compare, operation: Operation) -> Result<Done, LookError> {
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        match self.objects.registry().transact(transaction).await {
            Ok(_) => Ok(Done::Written),
            Err(error) if error.remedy() == Remedy::ReadAgain => Ok(Done::NotYet),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what no owner keeps, if the registry agrees that none is left of those that no mirror
    /// shows.
    async fn delete(
        &self,
        resource: &'static Resource,
        object: &Seen<Partial>,
        how: plan::Propagation,
    ) -> Result<Done, LookError> {
        let metadata = &object.object.metadata;
        for owner in metadata.owner_references.iter().flatten() {
            if self.graph.presence(metadata, owner) != Presence::Absent {
                continue;
            }
            if self.exists(metadata, owner).await? {
                return Ok(Done::NotYet);
            }
            if self.graph.elsewhere(metadata, owner) {
                self.tell_of_invalid_namespace(resource, object, owner);
            }
        }
        let options = DeleteOptions {
            propagation: match how {
                plan::Propagation::Background => Propagation::Background,
                plan::Propagation::Foreground => Propagation::Foreground,
                plan::Propagation::Orphan => Propagation::Orphan,
            },
            uid: metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        let (namespace, name) = (&object.entry.key.namespace, &object.entry.key.name);
        match self
            .objects
            .delete(resource, namespace, name, &options, &WriteOptions::default())
            .await
        {
            Ok(_) => Ok(Done::Written),
            Err(status) if status.code() == 404 => Ok(Done::Nothing),
            Err(status) if status.code() == 409 => Ok(Done::NotYet),
            Err(status) => Err(status.into()),
        }
    }

    /// Whether the owner is in the registry; one of which nobody can say that it is gone counts as
    /// there.
    async fn exists(
        &self,
        dependent: &ObjectMeta,
        owner: &OwnerReference,
    ) -> Result<bool, LookError> {
        let Some((resource, namespace)) = graph::place(dependent, owner) else { return Ok(true) };
        let found =
            self.objects.find(resource, namespace, &owner.name, Consistency::Linearizable).await?;
        Ok(found.is_some_and(|stored| stored.object["metadata"]["uid"] == owner.uid))
    }

    fn tell_of_invalid_namespace(
        &self,
        resource: &Resource,
        dependent: &Seen<Partial>,
        owner: &OwnerReference,
    ) {
        let key = &dependent.entry.key;
        let about = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": {
                "namespace": key.namespace,
                "name": key.name,
                "uid": dependent.object.metadata.uid,
            },
        });
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace \"{}\"",
            owner.api_version, owner.kind, key.namespace, owner.name, owner.uid, key.namespace
        );
        self.events.record(&about, Severity::Warning, "OwnerRefInvalidNamespace", message);
    }
}

/// Takes owners off an object, and lets others not wait for it.
fn rewrite_owners(object: &mut Value, without: &[&str], unblocked: &[&str]) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    let Some(list) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return;
    };
    let is_of = |uids: &[&str], reference: &Value| {
        reference["uid"].as_str().is_some_and(|uid| uids.contains(&uid))
    };
    list.retain(|reference| !is_of(without, reference));
    for reference in list.iter_mut().filter(|reference| is_of(unblocked, reference)) {
        reference["blockOwnerDeletion"] = false.into();
    }
    if list.is_empty() {
        metadata.remove("ownerReferences");
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
    use impresario_registry::{Epoch, Key, MemoryRegistry, Registry as _, RegistryHandle, Shard};

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
        now.assign_shards(&["test".to_owned()]);
        let dependent = create(&now, "pods", &pod).await;
        let key = Key::new("replicationcontrollers", "ns", "web");
        let look = |graph: &MemoryRegistry| {
            let graph = Graph::start(&(Arc::new(graph.clone()) as RegistryHandle));
            let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
            let objects = Objects::new(Arc::new(now.clone()) as RegistryHandle);
            let events = Recorder::start(objects.clone(), "garbage-collector-controller", "");
            GarbageCollectorLook::new(&objects, graph, fence, events)
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
