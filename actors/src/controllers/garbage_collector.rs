//! Deletes what nobody owns any more.
//!
//! [`plan`] decides from the metadata of everything that is mirrored; because mirrors of different
//! resources may lag differently, an owner is looked up in the registry itself before its dependents
//! are deleted, a dependent is deleted as it was seen or not at all, and dependents are looked up before
//! their owner is let go: a pod that a mirror had not shown yet
//! would be garbage as soon as the owner that was to leave it alone is gone. (Kubernetes
//! documentation, "Garbage collection": background, foreground, orphan.)
//!
//! And it deletes what is in no namespace (`strays`).

mod graph;
pub mod plan;
mod strays;
mod sweep;

pub use graph::Graph;
use impresario_runtime::clock;

use super::any_mirror::AnyObject;
use super::control::{Look, LookError, Next};
use super::job::plan::TRACKING;
use super::mirror::Seen;
use super::owned;
use super::owners::controller;
use super::partial::Partial;
use super::retries::Retries;
use super::view::CATCH_UP;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_api::catalog::{find, served};
use impresario_api::resource::{Resource, Row, resource_key};
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::{DeleteOptions, Objects, Propagation, WriteOptions};
use impresario_registry_api::{
    Compare, Consistency, Fence, Key, ListRequest, Operation, Remedy, Selection, Transaction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use plan::{Action, Presence};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The singleton that deletes what nobody owns.
pub const GARBAGE_COLLECTOR: &str = "garbage-collector";

/// A mirror shows what the registry has after so long, nearly always.
const SHOWN_WITHIN: Duration = Duration::from_millis(100);
/// Objects that are read at a time.
const PAGE: usize = 1000;
/// So many listings are under way at once; of more namespaces than this, all are looked through.
const FEW: usize = 8;
/// Writes that are under way at once.
const CONCURRENT: usize = 64;

/// The garbage collector of the cluster.
pub struct GarbageCollectorLook {
    objects: Objects,
    graph: Graph,
    fence: Fence,
    events: Recorder,
    retries: Retries,
}

/// An action that is under way: the uid and key of its object, and what came of it.
type Trial<'a> = BoxFuture<'a, (&'a str, &'a Key, Result<Done, LookError>)>;

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
        Self { objects: objects.fenced(fence), graph, fence, events, retries: Retries::default() }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    /// Every action is tried: one that fails, however often, keeps no other from being done.
    async fn look_once(&self) -> Result<Next, LookError> {
        for part in self.graph.parts().iter() {
            part.mirror.reached(1, CATCH_UP).await?;
        }
        let seen = self.graph.mattering();
        let held: Vec<&ObjectMeta> = seen.iter().map(|(_, object)| object.object.meta()).collect();
        let actions =
            plan::reconcile(&held, |dependent, owner| self.graph.presence(dependent, owner));
        let now = clock::now();
        let uid = |action: &Action<'_>| held[action.at()].uid.as_deref().unwrap_or_default();
        let actions = actions.into_iter().filter(|action| self.retries.may_try(uid(action), now));
        // Whose dependents must be looked for in all of the registry comes last: nobody else waits for that.
        let owner = |action: &Action<'_>| match action {
            Action::LetGo { at, finalizer } if *finalizer != TRACKING => {
                Some((held[*at], *finalizer))
            }
            _ => None,
        };
        let (owners, others): (Vec<_>, Vec<_>) =
            actions.partition(|action| owner(action).is_some());
        let first = self.all_of(&seen, &HashSet::new(), others, now).await;
        let let_go: Vec<_> = owners.iter().filter_map(owner).collect();
        let then = match self.held_up(&let_go).await {
            Ok(held_up) => self.all_of(&seen, &held_up, owners, now).await,
            Err(error) => Err(error),
        };
        let swept = self.sweep(now).await;
        let again = first? | then? | swept?;
        Ok(match (again, self.retries.next(now)) {
            (true, _) => Next::At(clock::timestamp() + SHOWN_WITHIN),
            (false, Some(wait)) => Next::At(clock::timestamp() + wait),
            (false, None) => Next::WhenTold,
        })
    }

    /// Tries these actions. Whether anything was written; the first failure that is not one object's own.
    async fn all_of(
        &self,
        seen: &[(Row, Seen<dyn AnyObject>)],
        held_up: &HashSet<(String, &'static str)>,
        actions: Vec<Action<'_>>,
        now: Instant,
    ) -> Result<bool, LookError> {
        // In boxes: the compiler does not see that futures of actions that borrow are Send.
        let each: Vec<Trial<'_>> = actions
            .into_iter()
            .map(|action| {
                let (_, object) = &seen[action.at()];
                let uid = object.object.meta().uid.as_deref().unwrap_or_default();
                let about = &object.entry.key;
                async move { (uid, about, self.act(seen, held_up, action).await) }.boxed()
            })
            .collect();
        self.tried(each, now).await
    }

    /// Waits for these actions, each on the object of a uid. What comes of it as for [`Self::all_of`].
    async fn tried(&self, each: Vec<Trial<'_>>, now: Instant) -> Result<bool, LookError> {
        let mut outcomes = futures_util::stream::iter(each).buffer_unordered(CONCURRENT);
        let mut again = false;
        let mut failed = None;
        while let Some((uid, about, outcome)) = outcomes.next().await {
            match outcome {
                Err(error) if error.is_fenced() => return Err(error),
                Ok(Done::NotYet) => self.retries.postpone(uid, now),
                outcome => match self.retries.note(uid, about, outcome, now) {
                    Ok(done) => again |= done == Some(Done::Written),
                    Err(error) => failed = failed.or(Some(error)),
                },
            }
        }
        failed.map_or(Ok(again), Err)
    }

    async fn act(
        &self,
        seen: &[(Row, Seen<dyn AnyObject>)],
        held_up: &HashSet<(String, &'static str)>,
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
                    if !self.exists(object.object.meta(), owner).await? {
                        off.push(&owner.uid);
                    }
                }
                if off.is_empty() && unblocked.is_empty() {
                    return Ok(Done::NotYet);
                }
                let (compare, operation) = owned::change_entry(&object.entry, |object| {
                    rewrite_owners(object, &off, &unblocked);
                })?;
                self.write(compare, operation).await
            }
            Action::LetGo { at, finalizer } => {
                let object = &seen[at].1;
                let metadata = object.object.meta();
                // A job that no mirror shows yet will count the end of its pod.
                if let Some(job) = controller(metadata).filter(|_| finalizer == TRACKING)
                    && self.exists(metadata, job).await?
                {
                    return Ok(Done::NotYet);
                }
                let uid = metadata.uid.clone().unwrap_or_default();
                if held_up.contains(&(uid, finalizer)) {
                    return Ok(Done::NotYet);
                }
                let (compare, operation) = owned::without_finalizer(&object.entry, finalizer)?;
                self.write(compare, operation).await
            }
        }
    }

    /// Which of these owners may not be let go by which finalizer: the registry has a dependent that must
    /// be dealt with before. Every object that could be one is read, once for all owners.
    async fn held_up(
        &self,
        owners: &[(&ObjectMeta, &'static str)],
    ) -> Result<HashSet<(String, &'static str)>, LookError> {
        if owners.is_empty() {
            return Ok(HashSet::new());
        }
        let waiting: HashSet<(&str, &'static str)> = owners
            .iter()
            .map(|(owner, finalizer)| (owner.uid.as_deref().unwrap_or_default(), *finalizer))
            .collect();
        let namespaces: BTreeSet<&str> = owners
            .iter()
            .map(|(owner, _)| owner.namespace.as_deref().unwrap_or_default())
            .collect();
        let parts = self.graph.parts();
        let selections = parts.iter().flat_map(|part| {
            let all = Selection::all(resource_key(&part.resource));
            // Dependents of what is in no namespace can be anywhere; many namespaces are nearly everywhere.
            if namespaces.contains("") || namespaces.len() > FEW {
                vec![all]
            } else {
                namespaces.iter().map(|namespace| all.clone().within(*namespace)).collect()
            }
        });
        let each: Vec<BoxFuture<'_, _>> =
            selections.map(|select| self.held_up_within(select, &waiting).boxed()).collect();
        let mut found = futures_util::stream::iter(each).buffer_unordered(FEW);
        let mut held_up = HashSet::new();
        while let Some(some) = found.next().await {
            held_up.extend(some?);
        }
        Ok(held_up)
    }

    /// Which of those that are `waiting` the objects of this selection hold up.
    async fn held_up_within(
        &self,
        select: Selection,
        waiting: &HashSet<(&str, &'static str)>,
    ) -> Result<HashSet<(String, &'static str)>, LookError> {
        let mut held_up = HashSet::new();
        let mut request = ListRequest { limit: Some(PAGE), ..ListRequest::of(select) };
        loop {
            let page = self.objects.registry().list(request.clone()).await?;
            for entry in &page.entries {
                // What is no object has no owners.
                let Ok(object) = serde_json::from_slice::<Partial>(&entry.value) else { continue };
                for owner in object.meta().owner_references.iter().flatten() {
                    for finalizer in [plan::FOREGROUND, plan::ORPHAN] {
                        if waiting.contains(&(owner.uid.as_str(), finalizer))
                            && plan::holds_up(owner, finalizer)
                        {
                            held_up.insert((owner.uid.clone(), finalizer));
                        }
                    }
                }
            }
            let last = page.entries.last().map(|entry| &entry.key);
            request.after = last.map(|key| (key.namespace.clone(), key.name.clone()));
            if page.remaining == 0 || request.after.is_none() {
                return Ok(held_up);
            }
        }
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
        resource: &Row,
        object: &Seen<dyn AnyObject>,
        how: plan::Propagation,
    ) -> Result<Done, LookError> {
        let metadata = object.object.meta();
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
        self.delete_as_seen(resource, object, how).await
    }

    /// Deletes an object, if it is as it was seen.
    async fn delete_as_seen(
        &self,
        resource: &Row,
        object: &Seen<dyn AnyObject>,
        how: plan::Propagation,
    ) -> Result<Done, LookError> {
        let metadata = object.object.meta();
        let options = DeleteOptions {
            propagation: match how {
                plan::Propagation::Background => Propagation::Background,
                plan::Propagation::Foreground => Propagation::Foreground,
                plan::Propagation::Orphan => Propagation::Orphan,
            },
            uid: metadata.uid.clone(),
            // Only as it was seen: it may have an owner by now that keeps it, or none that it went with.
            resource_version: Some(object.entry.mod_revision.to_string()),
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
            Err(status) if status.code() == 409 && !status.is_fenced() => Ok(Done::NotYet),
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
        let Some((resource, namespace)) = self.graph.place(dependent, owner) else {
            return Ok(true);
        };
        if !served().is_served(&resource) && self.is_defined(&resource).await? {
            return Ok(true);
        }
        let found =
            self.objects.find(&resource, namespace, &owner.name, Consistency::Linearizable).await?;
        Ok(found.is_some_and(|stored| stored.object["metadata"]["uid"] == owner.uid))
    }

    /// Whether the registry has a definition of a kind that is not served here: it may be served again, under other
    /// names or elsewhere, so nobody can say what became of its objects.
    async fn is_defined(&self, resource: &Resource) -> Result<bool, LookError> {
        let Some(kind) = find("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
            return Ok(true);
        };
        let name = format!("{}.{}", resource.plural, resource.group);
        Ok(self.objects.find(&kind, "", &name, Consistency::Linearizable).await?.is_some())
    }

    fn tell_of_invalid_namespace(
        &self,
        resource: &Resource,
        dependent: &Seen<dyn AnyObject>,
        owner: &OwnerReference,
    ) {
        let key = &dependent.entry.key;
        let about = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": {
                "namespace": key.namespace,
                "name": key.name,
                "uid": dependent.object.meta().uid,
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
mod tests;
