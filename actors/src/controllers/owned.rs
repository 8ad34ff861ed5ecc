//! Pods that a controller owns: made from a template, adopted, released, deleted.
//!
//! (API reference, ObjectMeta v1, `ownerReferences`: at most one owner has `controller: true`.)

use super::control::LookError;
use super::mirror::Seen;
use super::view::put;
use super::wrote::Wrote;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use impresario_api::admission::{Deletion, admit_delete};
use impresario_api::patch::merge_patch;
use impresario_api::resource::{Resource, Row};
use impresario_api::status::{Reason, Status};
use impresario_objects::{DeleteOptions, Objects, WriteOptions};
use impresario_registry_api::{Compare, Entry, Operation, Revision, TransactError};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Writes that are under way at once for one controller; the registry commits them in groups.
pub(super) const CONCURRENT: usize = 64;
/// So many bytes of objects, as they are stored, are created at once for one controller, and one object in any
/// case: in memory an object may take twenty times that.
const CREATED_AT_ONCE: usize = 4 * 1024 * 1024;

/// Who owns.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The object.
    pub object: &'a Value,
    /// Its apiVersion.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
}

impl Owner<'_> {
    /// The reference to the owner that its pods carry.
    #[must_use]
    pub fn reference(&self) -> Value {
        let metadata = &self.object["metadata"];
        json!({
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// A pod from a template, with a name that begins with `base`.
#[must_use]
pub fn pod_from(template: &Value, owner: &Owner<'_>, base: &str) -> Value {
    let mut metadata = match &template["metadata"] {
        Value::Object(metadata) => Value::Object(metadata.clone()),
        _ => json!({}),
    };
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|field, _| matches!(field.as_str(), "labels" | "annotations" | "finalizers"));
    }
    // Names are cut at 63 characters where a suffix of five must fit.
    metadata["generateName"] = format!("{}-", base.get(..57).unwrap_or(base)).into();
    metadata["ownerReferences"] = json!([owner.reference()]);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
}

/// Makes an orphan ours.
pub fn adopt(orphan: &Entry, owner: &Owner<'_>) -> Result<(Compare, Operation), LookError> {
    change_entry(orphan, |object| {
        let references = &mut object["metadata"]["ownerReferences"];
        match references.as_array_mut() {
            Some(list) => list.push(owner.reference()),
            None => *references = json!([owner.reference()]),
        }
    })
}

/// Takes the reference to the owner of this uid off what it owns.
pub fn release(owned: &Entry, owner: &str) -> Result<(Compare, Operation), LookError> {
    change_entry(owned, |object| {
        if let Some(list) = object["metadata"]["ownerReferences"].as_array_mut() {
            list.retain(|reference| reference["uid"] != owner);
            if list.is_empty()
                && let Some(metadata) = object["metadata"].as_object_mut()
            {
                metadata.remove("ownerReferences");
            }
        }
    })
}

/// An object as it is stored.
pub(super) fn object_of(entry: &Entry) -> Result<Value, LookError> {
    serde_json::from_slice(&entry.value).map_err(|error| damaged(entry, &error))
}

fn damaged(entry: &Entry, cause: &impl ToString) -> LookError {
    LookError::Damaged { key: entry.key.to_string(), cause: cause.to_string() }
}

/// The write that changes a stored object, if nobody else did.
pub fn change<K>(
    seen: &Seen<K>,
    change: impl FnOnce(&mut Value),
) -> Result<(Compare, Operation), LookError> {
    change_entry(&seen.entry, change)
}

/// The same, of what it is stored as.
pub fn change_entry(
    entry: &Entry,
    change: impl FnOnce(&mut Value),
) -> Result<(Compare, Operation), LookError> {
    let mut object = object_of(entry)?;
    change(&mut object);
    put(entry, &object)
}

/// Merges a patch into an object (RFC 7386), if nobody else changed it.
pub fn rewrite(entry: &Entry, patch: &Value) -> Result<(Compare, Operation), LookError> {
    let object = merge_patch(&object_of(entry)?, patch).map_err(|error| damaged(entry, &error))?;
    put(entry, &object)
}

/// Takes a finalizer off an object, which goes with it when its deletion waited for nothing else.
pub fn without_finalizer(
    entry: &Entry,
    finalizer: &str,
) -> Result<(Compare, Operation), LookError> {
    let mut held = true;
    let (compare, operation) = change_entry(entry, |object| {
        take_finalizer(object, finalizer);
        let metadata = &object["metadata"];
        let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        held = metadata["deletionTimestamp"].is_null()
            || metadata.get("finalizers").is_some()
            || grace > 0;
    })?;
    if held {
        return Ok((compare, operation));
    }
    Ok((compare, Operation::Delete { key: entry.key.clone() }))
}

/// The one write by which a controller ends an object and lets it go by a finalizer of its own: no moment
/// between the two can be seen, in which it ends by itself and is not counted.
pub fn end_uncounted(
    entry: &Entry,
    resource: &Resource,
    finalizer: &str,
    now: Timestamp,
) -> Result<(Compare, Operation), LookError> {
    let mut object = object_of(entry)?;
    take_finalizer(&mut object, finalizer);
    let revision = entry.mod_revision.to_string();
    let options = DeleteOptions::default();
    match admit_delete(resource, &object, &revision, &options, now)? {
        Deletion::Gone => {
            let key = entry.key.clone();
            let compare = Compare::Revision { key: key.clone(), revision: entry.mod_revision };
            Ok((compare, Operation::Delete { key }))
        }
        Deletion::Marked(marked) => put(entry, &marked),
        Deletion::Unchanged => put(entry, &object),
    }
}

fn take_finalizer(object: &mut Value, finalizer: &str) {
    let metadata = &mut object["metadata"];
    if let Some(list) = metadata["finalizers"].as_array_mut() {
        list.retain(|held| held != finalizer);
        if list.is_empty()
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.remove("finalizers");
        }
    }
}

/// Whether what failed is done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// It is not, or it did not fail.
    No,
    /// It may be: what was answered does not say.
    MayBeDone,
    /// It may be, or may be done yet: nobody has answered.
    MayCome,
}

/// What is in doubt after this.
pub(super) fn doubt(outcome: &Result<(), LookError>) -> Doubt {
    match outcome {
        Ok(()) => Doubt::No,
        Err(LookError::Refused(status)) => match status.code() {
            504 => Doubt::MayCome,
            429 | 500.. => Doubt::MayBeDone,
            _ => Doubt::No,
        },
        Err(LookError::Transact(TransactError::Unknown { .. })) => Doubt::MayCome,
        Err(_) => Doubt::MayBeDone,
    }
}

/// Creates objects and tells of each: one, then with each that is made one more at a time, until one cannot be
/// created. What is wrong with one, a template or a namespace that goes, is wrong with all, nearly always; a name
/// that another has is its own affair.
/// The failure that leaves most in doubt counts. Each is about `size` bytes long and taken from `wanted` when its
/// turn comes, with what is given back when it is told of.
pub(super) async fn create_all<T>(
    objects: &Objects,
    (resource, namespace): (&Row, &str),
    (wanted, size): (impl Iterator<Item = (T, Value)>, usize),
    wrote: &Wrote,
    mut told: impl FnMut(T, &Result<Value, Status>),
) -> Result<(), LookError> {
    let options = WriteOptions::default();
    let most = (CREATED_AT_ONCE / size.max(1)).clamp(1, CONCURRENT);
    let mut creations = wanted.map(|(with, object)| {
        let creation = objects.create(resource, namespace, object, &options);
        async move { (with, creation.await) }
    });
    let mut at_once = 1;
    let mut under_way = FuturesUnordered::new();
    let mut failed: Result<(), LookError> = Ok(());
    let mut goes_on = true;
    loop {
        if goes_on {
            let free = at_once - under_way.len();
            under_way.extend(creations.by_ref().take(free));
        }
        let Some((with, outcome)) = under_way.next().await else { return failed };
        told(with, &outcome);
        match outcome {
            Ok(object) => {
                wrote.at(revision_of(&object));
                at_once = (at_once + 1).min(most);
            }
            Err(error) => {
                goes_on &= error.reason == Reason::AlreadyExists;
                // Nothing is missing of what goes with its namespace.
                if !error.is_of_ending_namespace() {
                    failed = worse(failed, error);
                }
            }
        }
    }
}

/// The failure that counts of these: that the shard is lost, else the first of those that leave most in doubt.
pub(super) fn worse(first: Result<(), LookError>, error: Status) -> Result<(), LookError> {
    let is_fenced = error.is_fenced();
    let next = Err(error.into());
    let counts = first.is_ok() || is_fenced || doubt(&first) < doubt(&next);
    if counts { next } else { first }
}

/// Deletes objects by name and uid; one that is gone already is fine. All are tried, unless the shard is lost;
/// then the first failure counts.
pub(super) async fn delete_all(
    objects: &Objects,
    resource: &Row,
    namespace: &str,
    unwanted: Vec<(String, String)>,
    wrote: &Wrote,
    mut told: impl FnMut(&str),
) -> Result<(), LookError> {
    use impresario_objects::Deleted;
    let deletions = unwanted.into_iter().map(|(name, uid)| async move {
        let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
        let outcome =
            objects.delete(resource, namespace, &name, &options, &WriteOptions::default()).await;
        (name, outcome)
    });
    let mut outcomes = futures_util::stream::iter(deletions).buffer_unordered(CONCURRENT);
    let mut failed = Ok(());
    while let Some((name, outcome)) = outcomes.next().await {
        match outcome {
            Ok(Deleted::Lingers(object) | Deleted::Gone(object)) => {
                wrote.at(revision_of(&object));
                told(&name);
            }
            Err(error) if error.is_fenced() => return Err(error.into()),
            Err(error) if error.is_superseded() => {}
            Err(error) => failed = worse(failed, error),
        }
    }
    failed
}

/// The revision that an object's `resourceVersion` names; 1 where there is none.
#[must_use]
pub fn revision_of(object: &Value) -> Revision {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.and_then(|version| version.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::view::served;
    use super::*;
    use impresario_registry::{MemoryRegistry, RegistryHandle};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    #[tokio::test]
    async fn what_is_refused_once_is_not_tried_for_every_pod() {
        let objects = Objects::new(Arc::new(MemoryRegistry::default()) as RegistryHandle);
        let tried = async |pods: Vec<Value>| {
            let mut tried = 0;
            let wrote = Wrote::default();
            let (place, wanted) =
                ((&served("", "pods"), "gone"), (pods.into_iter().map(|pod| ((), pod)), 100));
            let made = create_all(&objects, place, wanted, &wrote, |(), _| tried += 1).await;
            assert!(made.is_err(), "there is no such namespace");
            tried
        };
        let pod = json!({"metadata": {"generateName": "web-"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(tried(vec![pod; 500]).await, 1);
    }

    #[tokio::test]
    async fn nothing_is_missing_in_a_namespace_that_goes() {
        let objects = Objects::new(Arc::new(MemoryRegistry::default()) as RegistryHandle);
        let (namespaces, options) = (served("", "namespaces"), WriteOptions::default());
        let going = json!({"metadata": {"name": "going"}});
        objects.create(&namespaces, "", going, &options).await.unwrap();
        let deletion = DeleteOptions::default();
        objects.delete(&namespaces, "", "going", &deletion, &options).await.unwrap();
        let pod = json!({"metadata": {"generateName": "web-"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let wanted = (std::iter::repeat_n(((), pod), 500), 100);
        let (mut tried, wrote) = (0, Wrote::default());
        let pods = served("", "pods");
        let place = (&pods, "going");
        create_all(&objects, place, wanted, &wrote, |(), outcome| {
            assert!(outcome.is_err());
            tried += 1;
        })
        .await
        .unwrap();
        assert_eq!(tried, 1);
    }

    #[tokio::test]
    async fn what_is_large_is_written_out_when_its_turn_comes() {
        let objects = Objects::new(Arc::new(MemoryRegistry::default()) as RegistryHandle);
        objects.lay_foundation("pem", 6443).await.unwrap();
        for (size, most) in [(1_500_000, 2), (5_000_000, 1), (0, CONCURRENT)] {
            let (taken, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let under_way = AtomicUsize::new(0);
            let pods = (0..200).map(|_| {
                let now = taken.fetch_add(1, Relaxed) + 1 - done.load(Relaxed);
                under_way.fetch_max(now, Relaxed);
                let pod = json!({"metadata": {"generateName": "web-"},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}});
                ((), pod)
            });
            let (place, wrote) = ((&served("", "pods"), "default"), Wrote::default());
            let told = |(), _: &Result<Value, Status>| {
                done.fetch_add(1, Relaxed);
            };
            create_all(&objects, place, (pods, size), &wrote, told).await.unwrap();
            let under_way = under_way.into_inner();
            assert!(under_way <= most, "{under_way} of {size} bytes");
            assert_eq!(done.into_inner(), 200);
        }
    }

    #[test]
    fn a_pod_from_a_template_carries_labels_and_owner_and_a_name_that_fits() {
        let owner = json!({"metadata": {"name": "web", "uid": "u1"}});
        let owner = Owner { object: &owner, api_version: "v1", kind: "ReplicationController" };
        let template =
            json!({"metadata": {"name": "ignored", "labels": {"a": "b"}}, "spec": {"x": 1}});
        let pod = pod_from(&template, &owner, &"n".repeat(80));
        assert_eq!(pod["metadata"]["generateName"].as_str().unwrap().len(), 58);
        assert_eq!(pod["metadata"]["labels"]["a"], "b");
        assert_eq!(pod["metadata"].get("name"), None);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!(pod["spec"]["x"], 1);
    }
}
