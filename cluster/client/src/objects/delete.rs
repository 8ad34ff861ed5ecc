//! Deleting: at once, after a grace period, or when the last finalizer is gone.
//!
//! [`decide`] says what a deletion means for an object as it is; no IO, no clock. A bound pod is only
//! marked: its node ends it and deletes it for good with a grace of zero. Asked again, a deletion can
//! become shorter and never longer.

use super::stored::text;
use super::write::{Change, WriteOptions};
use super::{ListQuery, Objects};
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// What becomes of the objects that an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// They follow when it is gone.
    #[default]
    Background,
    /// They go first.
    Foreground,
    /// They stay, and belong to nobody.
    Orphan,
}

impl Propagation {
    /// Reads the word of a `propagationPolicy`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "Background" => Some(Self::Background),
            "Foreground" => Some(Self::Foreground),
            "Orphan" => Some(Self::Orphan),
            _ => None,
        }
    }

    fn finalizer(self) -> Option<&'static str> {
        match self {
            Self::Background => None,
            Self::Foreground => Some(FOREGROUND),
            Self::Orphan => Some(ORPHAN),
        }
    }
}

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What must be true of an object for it to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// Its uid.
    pub uid: Option<String>,
    /// Its resourceVersion.
    pub version: Option<String>,
}

/// How an object is to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that a pod has to end; its own when missing.
    pub grace: Option<i64>,
    /// What becomes of what it owns; the resource's default when missing.
    pub propagation: Option<Propagation>,
    /// What must be true of it.
    pub preconditions: Preconditions,
    /// Do everything but the deletion.
    pub dry_run: bool,
}

/// What a deletion came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// It is gone; so it looked at last.
    Gone(Value),
    /// It is marked and will go later.
    Lingers(Value),
}

impl Objects {
    /// Deletes an object.
    pub async fn delete(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let now = Timestamp::now();
        let write = WriteOptions { dry_run: options.dry_run, ..WriteOptions::default() };
        let (change, object) = self
            .settle(resource, namespace, name, &write, &mut |stored| decide(resource, &stored.object, options, now))
            .await?;
        Ok(match change {
            Change::Remove(_) => Deleted::Gone(object),
            Change::Put(_) | Change::Keep => Deleted::Lingers(object),
        })
    }

    /// Deletes every object of a collection that matches; tells which they were.
    pub async fn delete_collection(
        &self,
        resource: &'static Resource,
        query: &ListQuery,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>, Status> {
        let listed = self.list(resource, query).await?;
        let mut deleted = Vec::with_capacity(listed.items.len());
        for object in listed.items {
            // What was listed is deleted, not another of the same name that came since.
            let mut options = options.clone();
            options.preconditions.uid = Some(text(&object, "/metadata/uid").to_owned());
            let (namespace, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
            match self.delete(resource, namespace, name, &options).await {
                Ok(Deleted::Gone(object) | Deleted::Lingers(object)) => deleted.push(object),
                Err(status) if status.code() == 404 || status.code() == 409 => {}
                Err(status) => return Err(status),
            }
        }
        Ok(deleted)
    }

    /// Takes the last finalizer of a namespace's content away, which lets it go.
    pub async fn finalize_namespace(
        &self,
        resource: &'static Resource,
        name: &str,
        finalizers: &[Value],
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let (_, object) = self
            .settle(resource, "", name, options, &mut |stored| {
                let mut object = stored.object.clone();
                object["spec"]["finalizers"] = Value::Array(finalizers.to_vec());
                Ok(if super::write::is_finished(&object) { Change::Remove(object) } else { Change::Put(object) })
            })
            .await?;
        Ok(object)
    }
}

/// What deleting an object with these options means now.
fn decide(resource: &Resource, object: &Value, options: &DeleteOptions, now: Timestamp) -> Result<Change, Status> {
    let name = text(object, "/metadata/name");
    check_preconditions(resource, name, object, &options.preconditions)?;
    let core = |kind: &str| resource.group.is_empty() && resource.kind == kind;
    if core("Namespace") && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(Status::forbidden(resource, name, "this namespace may not be deleted"));
    }
    let mut next = object.clone();
    if let Some(propagation) = options.propagation {
        set_propagation(&mut next, propagation);
    }
    let finalizers = !super::stored::is_empty_list(&next, "/metadata/finalizers")
        || (core("Namespace") && !super::stored::is_empty_list(&next, "/spec/finalizers"));
    let grace = if core("Pod") { pod_grace(object, options.grace) } else { 0 };
    let marked = text(object, "/metadata/deletionTimestamp").parse::<Timestamp>().ok();
    if grace == 0 && !finalizers {
        return Ok(Change::Remove(next));
    }
    let left = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let (end, grace) = match marked {
        // Never longer than before; a grace counts from when the deletion was first asked for.
        Some(end) if grace < left => {
            let begun = end.checked_sub(SignedDuration::from_secs(left)).unwrap_or(end);
            (begun.checked_add(SignedDuration::from_secs(grace)).unwrap_or(begun), grace)
        }
        Some(end) => (end, left),
        None => (now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now), grace),
    };
    let metadata = &mut next["metadata"];
    metadata["deletionTimestamp"] = seconds(end).into();
    metadata["deletionGracePeriodSeconds"] = grace.into();
    if marked.is_none()
        && let Some(generation) = metadata.get("generation").and_then(Value::as_i64)
    {
        metadata["generation"] = (generation + 1).into();
    }
    if core("Namespace") {
        if !next["status"].is_object() {
            next["status"] = json!({});
        }
        next["status"]["phase"] = "Terminating".into();
    }
    Ok(if next == *object { Change::Keep } else { Change::Put(next) })
}

fn check_preconditions(
    resource: &Resource,
    name: &str,
    object: &Value,
    wanted: &Preconditions,
) -> Result<(), Status> {
    let uid = text(object, "/metadata/uid");
    if let Some(asked) = wanted.uid.as_deref().filter(|asked| *asked != uid) {
        let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
        return Err(Status::conflict(resource, name, why));
    }
    let version = text(object, "/metadata/resourceVersion");
    if let Some(asked) = wanted.version.as_deref().filter(|asked| *asked != version) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in object meta: {version}"
        );
        return Err(Status::conflict(resource, name, why));
    }
    Ok(())
}

fn set_propagation(object: &mut Value, propagation: Propagation) {
    let present = object.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut finalizers: Vec<Value> =
        present.into_iter().filter(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN).collect();
    finalizers.extend(propagation.finalizer().map(Value::from));
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
}

/// Nothing has to be ended of a pod that no node has, or that has ended.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if text(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    match asked.or(own).unwrap_or(30) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}

fn seconds(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_api::resource::find;

    fn pod(extra: Value) -> Value {
        let mut pod = json!({
            "kind": "Pod", "metadata": {"name": "p", "uid": "u", "resourceVersion": "7", "generation": 1},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"},
        });
        json_merge(&mut pod, extra);
        pod
    }

    fn json_merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    json_merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn deletion(object: &Value, options: &DeleteOptions) -> String {
        let pods = find("", "v1", "pods").unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        match decide(pods, object, options, now) {
            Ok(Change::Remove(_)) => "removed".into(),
            Ok(Change::Keep) => "kept".into(),
            Ok(Change::Put(object)) => format!(
                "{} {} {}",
                text(&object, "/metadata/deletionTimestamp"),
                object["metadata"]["deletionGracePeriodSeconds"],
                object["metadata"]["finalizers"],
            ),
            Err(status) => format!("{}", status.code()),
        }
    }

    #[test]
    fn a_pod_is_marked_while_its_node_has_to_end_it_and_removed_otherwise() {
        let grace = |grace| DeleteOptions { grace: Some(grace), ..DeleteOptions::default() };
        let marked = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}});
        let unbound = json!({"spec": {"nodeName": ""}});
        let ended = json!({"status": {"phase": "Failed"}});
        let held = json!({"metadata": {"finalizers": ["x"]}});
        let foreground =
            DeleteOptions { propagation: Some(Propagation::Foreground), grace: Some(0), ..DeleteOptions::default() };
        let foreign = DeleteOptions {
            preconditions: Preconditions { uid: Some("other".into()), version: None },
            ..DeleteOptions::default()
        };
        let table = [
            (json!({}), DeleteOptions::default(), "2026-01-01T00:00:30Z 30 null"),
            (json!({}), grace(5), "2026-01-01T00:00:05Z 5 null"),
            (json!({}), grace(0), "removed"),
            (unbound, DeleteOptions::default(), "removed"),
            (ended, DeleteOptions::default(), "removed"),
            (held, grace(0), "2026-01-01T00:00:00Z 0 [\"x\"]"),
            (json!({}), foreground, "2026-01-01T00:00:00Z 0 [\"foregroundDeletion\"]"),
            (marked.clone(), grace(5), "2026-01-01T00:00:05Z 5 null"),
            (marked.clone(), grace(60), "kept"),
            (marked, grace(0), "removed"),
            (json!({}), foreign, "409"),
        ];
        for (extra, options, expected) in table {
            assert_eq!(deletion(&pod(extra.clone()), &options), expected, "{extra} {options:?}");
        }
    }
}
