//! Watches pods and nodes during the whole run, and keeps what the promises are about: who was bound
//! where, how much of everything each node carried, and which containers ran.

use crate::cluster::Session;
use crate::effects::Effects;
use crate::held::{Amounts, Hold, amounts, ended};
use crate::workload::{CONTROLLERS, JOB};
use futures_util::StreamExt as _;
use impresario_registry_api::{
    Entry, ListRequest, RegistryHandle, Selection, WatchEvent, WatchRequest,
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
    /// For each node and resource the most that its pods ever held at once, and since when.
    pub carried: BTreeMap<String, BTreeMap<String, (i128, String)>>,
    /// What each node can give.
    pub allocatable: BTreeMap<String, Amounts>,
    /// Containers of replication controllers that did not go on as they were, in words.
    pub restarted: Vec<String>,
    /// Containers of replication controllers that were seen to run, by pod uid and name.
    pub containers: BTreeMap<(String, String), Life>,
    /// The pods of the job whose deletion was counted while they ran, by uid.
    pub(crate) deleted_first: BTreeSet<String>,
    /// The uids of the pods that hold something, by name.
    pub(crate) names: BTreeMap<String, String>,
    /// What pods held, by uid.
    pub(crate) holds: BTreeMap<String, Hold>,
}

/// What a container must keep as long as its pod lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    id: String,
    started_at: String,
    restarts: i64,
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
            .map(|resource| tokio::spawn(follow(session.roaming(), resource, seen.clone())));
        Self { seen, tasks }
    }

    /// What was seen until now.
    pub async fn seen(&self) -> Seen {
        self.seen.lock().await.clone()
    }
}

impl Seen {
    /// The same, weighed with what the pods left behind. That is to be read after they were seen: who was seen to
    /// succeed has done its work by then.
    #[must_use]
    pub fn weighed(mut self, left: [&Effects; 2]) -> Self {
        for (uid, second) in left.into_iter().flat_map(|effects| &effects.stopped) {
            if let Some(hold) = self.holds.get_mut(uid) {
                hold.stopped(*second);
            }
        }
        self.weigh();
        self
    }
}

async fn follow(registry: RegistryHandle, resource: &'static str, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Ok(page) = registry.list(ListRequest::of(Selection::all(resource))).await {
            {
                let mut seen = seen.lock().await;
                if resource == "pods" {
                    let there = page.entries.iter().map(|entry| &entry.key.name).collect();
                    seen.forget_unless(&there);
                }
                for entry in &page.entries {
                    seen.put(resource, entry);
                }
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
                            WatchEvent::Delete { previous, .. } => seen.gone(resource, previous),
                        }
                    }
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
            let given = amounts(&object["status"]["allocatable"]);
            self.allocatable.insert(entry.key.name.clone(), given);
            return;
        }
        let node = text("/spec/nodeName");
        if node.is_empty() {
            return;
        }
        let uid = text("/metadata/uid");
        self.bound.entry(uid.clone()).or_default().insert(node.clone());
        self.look_at_containers(&uid, &object);
        let of_job = object["metadata"]["labels"]["app"] == JOB;
        if of_job {
            self.count(&uid, &object);
        }
        if let Some(hold) = Hold::of(node, &object) {
            self.names.insert(entry.key.name.clone(), uid.clone());
            self.holds.insert(uid, hold);
        }
    }

    /// Counts the success of a pod of the job.
    ///
    /// A pod's end is counted once, in the transaction that takes the finalizer. One that is being deleted
    /// may be counted before its end, as a failure, and another one is started for it: if it succeeds in its
    /// grace period after all, that is one success more than completions and none that counts. Without the
    /// mark nothing but the end is counted. Of one that was first seen when all was over nobody can tell.
    fn count(&mut self, uid: &str, pod: &Value) {
        let finalizers = pod["metadata"]["finalizers"].as_array();
        let is_counted = !finalizers.into_iter().flatten().any(|one| one == TRACKING);
        let is_marked = !pod["metadata"]["deletionTimestamp"].is_null();
        let is_deleted_first = is_marked && is_counted;
        if !ended(pod) && is_deleted_first {
            self.deleted_first.insert(uid.to_owned());
        }
        if pod["status"]["phase"] != "Succeeded" || self.succeeded.contains(uid) {
            return;
        }
        if self.deleted_first.contains(uid) {
            self.late.insert(uid.to_owned());
        } else if !is_deleted_first {
            self.succeeded.insert(uid.to_owned());
        }
    }

    /// What was deleted had an end, or one that nobody can tell.
    fn gone(&mut self, resource: &str, previous: &Entry) {
        if resource == "pods" {
            self.put(resource, previous);
            if let Some(uid) = self.names.remove(&previous.key.name) {
                self.forget_endless(&uid);
            }
        }
    }

    /// Pods that went while nobody looked.
    fn forget_unless(&mut self, there: &BTreeSet<&String>) {
        let (stay, went) = std::mem::take(&mut self.names)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, _)| there.contains(name));
        self.names = stay;
        for uid in went.values() {
            self.forget_endless(uid);
        }
    }

    fn forget_endless(&mut self, uid: &str) {
        if self.holds.get(uid).is_some_and(|hold| hold.until.is_none()) {
            self.holds.remove(uid);
        }
    }

    /// The pods of replication controllers run until they are deleted: their containers never change.
    fn look_at_containers(&mut self, uid: &str, pod: &Value) {
        let app = pod["metadata"]["labels"]["app"].as_str().unwrap_or_default();
        if !CONTROLLERS.iter().any(|(name, _)| *name == app) {
            return;
        }
        let statuses = pod["status"]["containerStatuses"].as_array();
        for status in statuses.into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let started = &status["state"]["running"]["startedAt"];
            if started.is_null() {
                continue;
            }
            let life = Life {
                id: text(&status["containerID"]),
                started_at: text(started),
                restarts: status["restartCount"].as_i64().unwrap_or(0),
            };
            let place = (uid.to_owned(), text(&status["name"]));
            if let Some(before) = self.containers.get(&place)
                && *before != life
            {
                self.restarted.push(format!("pod {uid}: {before:?} became {life:?}"));
            }
            self.containers.insert(place, life);
        }
    }

    /// Adds up what pods held at the same time.
    fn weigh(&mut self) {
        // In one second ends come before beginnings, since nobody knows better.
        let mut turns: Vec<(&str, bool, &Hold)> = Vec::new();
        for hold in self.holds.values() {
            match hold.until.as_deref() {
                Some(until) if until <= hold.since.as_str() => {}
                until => {
                    turns.push((&hold.since, true, hold));
                    turns.extend(until.map(|until| (until, false, hold)));
                }
            }
        }
        turns.sort_by_key(|(at, begins, _)| (*at, *begins));
        let mut now: BTreeMap<&str, Amounts> = BTreeMap::new();
        for (at, begins, hold) in turns {
            let on_node = now.entry(&hold.node).or_default();
            let carried = self.carried.entry(hold.node.clone()).or_default();
            for (name, amount) in &hold.requests {
                let held = on_node.entry(name.clone()).or_default();
                *held += if begins { *amount } else { -amount };
                let most = carried.entry(name.clone()).or_default();
                if *held > most.0 {
                    *most = (*held, at.to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry_api::Key;
    use serde_json::json;

    fn put(seen: &mut Seen, resource: &str, object: &Value) {
        let uid = object["metadata"]["uid"].as_str().unwrap_or("n");
        let entry = Entry {
            key: Key::new(resource, "default", uid),
            value: object.to_string().into_bytes().into(),
            create_revision: 1,
            mod_revision: 1,
        };
        seen.put(resource, &entry);
    }

    fn seen(seen: &mut Seen, uid: &str, phase: &str, tracked: bool, marked: bool) {
        let finalizers = if tracked { json!([TRACKING]) } else { json!([]) };
        let marked = marked.then_some("2024-01-01T00:00:00Z");
        let object = json!({
            "metadata": {"uid": uid, "labels": {"app": JOB}, "finalizers": finalizers,
                "deletionTimestamp": marked},
            "spec": {"nodeName": "n"}, "status": {"phase": phase},
        });
        put(seen, "pods", &object);
    }

    #[test]
    fn a_success_counts_unless_the_pod_s_deletion_was_counted_before_it() {
        // As it is seen to run and to have succeeded, each tracked and marked; whether that counts, and
        // whether it came too late.
        for (ran, ended, counts, late) in [
            ((true, false), (true, false), true, false),
            ((true, false), (true, true), true, false),
            ((true, true), (true, true), true, false),
            ((true, false), (false, false), true, false),
            ((false, true), (false, true), false, true),
            // Its success may have been counted before it was let go: nobody looked.
            ((true, false), (false, true), false, false),
        ] {
            let mut all = Seen::default();
            seen(&mut all, "a", "Running", ran.0, ran.1);
            assert!(all.succeeded.is_empty() && all.late.is_empty());
            seen(&mut all, "a", "Succeeded", ended.0, ended.1);
            // Nothing that happens to it afterwards changes that.
            seen(&mut all, "a", "Succeeded", false, true);
            assert_eq!(
                (all.succeeded.len(), all.late.len()),
                (counts.into(), late.into()),
                "{ran:?} {ended:?}"
            );
        }
    }

    #[test]
    fn a_node_carries_everything_that_pods_ask_for_from_when_it_takes_them_until_they_end() {
        let at = |second: u32| format!("2024-01-01T00:00:{second:02}Z");
        let pod = |uid: &str, since: Option<u32>, ended: Option<u32>, deleted: Option<u32>| {
            let state = ended.map(|end| json!({"terminated": {"finishedAt": at(end)}}));
            json!({
                "metadata": {"uid": uid, "deletionTimestamp": deleted.map(at),
                    "deletionGracePeriodSeconds": 1},
                "spec": {
                    "nodeName": "n",
                    "initContainers": [{"resources": {"requests": {"memory": "3Gi"}}}],
                    "containers": [
                        {"resources": {"requests": {"cpu": "500m", "nvidia.com/gpu": "1"}}},
                        {"resources": {"requests": {"memory": "1Gi", "cpu": "1"}}},
                    ],
                },
                "status": {
                    "phase": if ended.is_some() { "Failed" } else { "Running" },
                    "startTime": since.map(at),
                    "containerStatuses": [{"state": state}],
                },
            })
        };
        let most = |pods: &[Value], name: &str| {
            let mut all = Seen::default();
            for one in pods {
                put(&mut all, "pods", one);
            }
            all.weigh();
            all.carried.get("n").map_or(0, |carried| carried[name].0)
        };
        let one = [pod("a", Some(1), None, None)];
        for (name, amount) in
            [("cpu", 1500), ("memory", (3 << 30) * 1000), ("nvidia.com/gpu", 1000), ("pods", 1000)]
        {
            assert_eq!(most(&one, name), amount, "{name}");
        }
        for (other, pods) in [
            (pod("b", Some(2), None, None), 2),
            // Bound, and never taken on; refused.
            (pod("b", None, None, None), 1),
            (pod("b", Some(2), Some(2), None), 1),
        ] {
            assert_eq!(most(&[one[0].clone(), other.clone()], "pods"), pods * 1000, "{other}");
        }
        for (before, pods) in [
            (pod("a", Some(1), Some(5), None), 1),
            (pod("a", Some(1), Some(6), None), 2),
            // The last that was seen: it ended in the second between, or goes on through it.
            (pod("a", Some(1), None, Some(6)), 1),
            (pod("a", Some(1), None, Some(7)), 2),
            (pod("a", Some(1), Some(5), Some(6)), 1),
            (pod("a", Some(1), Some(9), Some(5)), 1),
            (pod("a", Some(1), None, None), 2),
        ] {
            // Whichever is heard of first.
            let after = pod("b", Some(5), None, None);
            assert_eq!(most(&[before.clone(), after.clone()], "pods"), pods * 1000, "{before}");
            assert_eq!(most(&[after, before.clone()], "pods"), pods * 1000, "{before}");
        }
    }

    #[test]
    fn a_pod_that_is_deleted_counts_as_long_as_its_command_goes_on_in_its_grace_period() {
        let pod = |uid: &str, since: u32, deleted: Option<u32>| {
            let at = |second: u32| format!("2024-01-01T00:00:{second:02}Z");
            json!({
                "metadata": {"uid": uid, "deletionTimestamp": deleted.map(at),
                    "deletionGracePeriodSeconds": 3},
                "spec": {"nodeName": "n"},
                "status": {"phase": "Running", "startTime": at(since)},
            })
        };
        let start = "2024-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second();
        // Asked to end in second 5, with time up to second 8; the other one begins in second 6.
        for (stopped, most) in [(None, 1), (Some(5), 1), (Some(6), 1), (Some(7), 2), (Some(20), 2)]
        {
            let mut all = Seen::default();
            put(&mut all, "pods", &pod("a", 1, Some(8)));
            put(&mut all, "pods", &pod("b", 6, None));
            if let (Some(second), Some(hold)) = (stopped, all.holds.get_mut("a")) {
                hold.stopped(start + second);
            }
            all.weigh();
            assert_eq!(all.carried["n"]["pods"].0, most * 1000, "{stopped:?}");
        }
        let mut late = Hold::of("n".into(), &pod("a", 1, Some(8))).unwrap();
        late.stopped(start + 20);
        assert_eq!(late.until.as_deref(), Some("2024-01-01T00:00:08Z"), "forced away by then");
    }

    #[test]
    fn a_pod_that_goes_without_an_end_holds_nothing_that_can_be_told() {
        let object = json!({
            "metadata": {"uid": "a"}, "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "startTime": "2024-01-01T00:00:00Z"},
        });
        let mut all = Seen::default();
        put(&mut all, "pods", &object);
        assert_eq!(all.holds.len(), 1);
        let mut unseen = all.clone();
        unseen.forget_unless(&BTreeSet::new());
        assert!(unseen.holds.is_empty());
        let entry = Entry {
            key: Key::new("pods", "default", "a"),
            value: object.to_string().into_bytes().into(),
            create_revision: 1,
            mod_revision: 1,
        };
        all.gone("pods", &entry);
        assert!(all.holds.is_empty());
    }

    #[test]
    fn a_container_that_is_another_one_or_began_anew_was_restarted() {
        let pod = |id: &str, started: &str, restarts: i64| {
            json!({
                "metadata": {"uid": "a", "labels": {"app": CONTROLLERS[0].0}},
                "spec": {"nodeName": "n"},
                "status": {"containerStatuses": [{"name": "c", "containerID": id,
                    "restartCount": restarts, "state": {"running": {"startedAt": started}}}]},
            })
        };
        for (then, restarted) in [
            (pod("x", "1", 0), 0),
            (pod("y", "1", 0), 1),
            (pod("x", "2", 0), 1),
            (pod("x", "1", 1), 1),
        ] {
            let mut all = Seen::default();
            put(&mut all, "pods", &pod("x", "1", 0));
            put(&mut all, "pods", &then);
            assert_eq!(all.restarted.len(), restarted, "{then}");
        }
    }
}
