//! Watches pods and nodes during the whole run, and keeps what the promises are about: who was bound
//! where, and how much each node carried.

use crate::cluster::Session;
use crate::workload::{JOB, millicores};
use futures_util::StreamExt as _;
use impresario_registry_api::{
    Entry, ListRequest, RegistryHandle, Revision, Selection, WatchEvent, WatchRequest,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How long the observer waits before it lists again.
const PAUSE: Duration = Duration::from_millis(200);

/// On a pod of a job until its end is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// The nodes that each pod uid was ever bound to.
    pub bound: BTreeMap<String, BTreeSet<String>>,
    /// The pods of the job whose success counts, by uid.
    pub succeeded: BTreeSet<String>,
    /// The pods of the job that succeeded after their deletion had been counted as a failure.
    pub late: BTreeSet<String>,
    /// For each node the most that its pods ever asked for at once: millicores, at which revision.
    pub carried: BTreeMap<String, (u64, Revision)>,
    /// What each node can give: millicores.
    pub allocatable: BTreeMap<String, u64>,
    pods: BTreeMap<(String, String), Pod>,
}

#[derive(Debug, Clone)]
struct Pod {
    node: String,
    milli: u64,
    ended: bool,
}

/// The task that watches. Ends when dropped.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Observer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Observer {
    /// Starts to watch.
    #[must_use]
    pub fn start(session: &Session) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tasks = ["pods", "nodes"]
            .map(|resource| tokio::spawn(follow(session.registry.clone(), resource, seen.clone())));
        Self { seen, tasks }
    }

    /// What was seen until now.
    pub async fn seen(&self) -> Seen {
        self.seen.lock().await.clone()
    }
}

async fn follow(registry: RegistryHandle, resource: &'static str, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Ok(page) = registry.list(ListRequest::of(Selection::all(resource))).await {
            {
                let mut seen = seen.lock().await;
                if resource == "pods" {
                    seen.pods.clear();
                }
                for entry in &page.entries {
                    seen.put(resource, entry);
                }
                seen.weigh(page.revision);
            }
            let request = WatchRequest {
                select: Selection::all(resource),
                after: page.revision,
                bookmarks: false,
            };
            if let Ok(mut watch) = registry.watch(request).await {
                while let Some(Ok(batch)) = watch.next().await {
                    let mut seen = seen.lock().await;
                    for event in &batch.events {
                        match event {
                            WatchEvent::Put { entry, .. } => seen.put(resource, entry),
                            WatchEvent::Delete { previous, .. } if resource == "pods" => {
                                let key = &previous.key;
                                seen.pods.remove(&(key.namespace.clone(), key.name.clone()));
                            }
                            WatchEvent::Delete { .. } => {}
                        }
                    }
                    seen.weigh(batch.revision);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Seen {
    fn put(&mut self, resource: &str, entry: &Entry) {
        let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if resource == "nodes" {
            let cpu = text("/status/allocatable/cpu");
            self.allocatable.insert(entry.key.name.clone(), millicores(&cpu));
            return;
        }
        let node = text("/spec/nodeName");
        if node.is_empty() {
            return;
        }
        let uid = text("/metadata/uid");
        self.bound.entry(uid.clone()).or_default().insert(node.clone());
        let phase = text("/status/phase");
        let of_job = object["metadata"]["labels"]["app"] == JOB;
        if phase == "Succeeded" && of_job {
            // A pod's end is counted once, in the transaction that takes the finalizer. One that is
            // being deleted may be counted before its end, as a failure, and another one is started
            // for it: if it succeeds in its grace period after all, that is one success more than
            // completions and none that counts. Without the mark nothing but the end is counted.
            let finalizers = object["metadata"]["finalizers"].as_array();
            let is_counted = !finalizers.into_iter().flatten().any(|one| one == TRACKING);
            let is_marked = !object["metadata"]["deletionTimestamp"].is_null();
            if !(is_marked && is_counted) {
                self.succeeded.insert(uid);
            } else if !self.succeeded.contains(&uid) {
                self.late.insert(uid);
            }
        }
        let containers = object["spec"]["containers"].as_array();
        let milli = containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["resources"]["requests"]["cpu"].as_str())
            .map(millicores)
            .sum();
        let ended = matches!(phase.as_str(), "Succeeded" | "Failed");
        let place = (entry.key.namespace.clone(), entry.key.name.clone());
        self.pods.insert(place, Pod { node, milli, ended });
    }

    fn weigh(&mut self, revision: Revision) {
        let mut now: BTreeMap<&str, u64> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| !pod.ended) {
            *now.entry(&pod.node).or_default() += pod.milli;
        }
        for (node, milli) in now {
            let most = self.carried.entry(node.to_owned()).or_default();
            if milli > most.0 {
                *most = (milli, revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry_api::Key;
    use serde_json::json;

    fn seen(seen: &mut Seen, uid: &str, phase: &str, tracked: bool, marked: bool) {
        let finalizers = if tracked { json!([TRACKING]) } else { json!([]) };
        let marked = marked.then_some("2024-01-01T00:00:00Z");
        let object = json!({
            "metadata": {"uid": uid, "labels": {"app": JOB}, "finalizers": finalizers,
                "deletionTimestamp": marked},
            "spec": {"nodeName": "n"}, "status": {"phase": phase},
        });
        let entry = Entry {
            key: Key::new("pods", "default", uid),
            value: object.to_string().into_bytes().into(),
            create_revision: 1,
            mod_revision: 1,
        };
        seen.put("pods", &entry);
    }

    #[test]
    fn a_success_counts_unless_the_pod_s_deletion_was_counted_before_it() {
        // Tracked and marked when it succeeded; whether that counts.
        for (tracked, marked, counts) in
            [(true, false, true), (true, true, true), (false, false, true), (false, true, false)]
        {
            let mut all = Seen::default();
            seen(&mut all, "a", "Running", true, false);
            assert!(all.succeeded.is_empty() && all.late.is_empty());
            seen(&mut all, "a", "Succeeded", tracked, marked);
            // Nothing that happens to it afterwards changes that.
            seen(&mut all, "a", "Succeeded", false, true);
            assert_eq!((all.succeeded.len(), all.late.len()), (counts.into(), (!counts).into()));
        }
    }
}
