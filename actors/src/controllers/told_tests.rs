//! A pod tells its owner: the owner acts while the watch of its member's mirror is held back, and what is not so
//! changes nothing.

use super::activation::Activation;
use super::activation::Keeper;
use super::control::Look as _;
use super::controlled;
use super::engine::shared::Shared;
use super::engine::worker::Worker;
use super::late::late;
use super::mirror::{Change, Mirror};
use super::{job, replica_set};
use crate::testing::{LIMIT, Machine, eventually};
use impresario_client::protocol::control::{ControlRole, Told};
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Consistency, Epoch, Fence, Key, Revision, Transaction, shard_of};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::time::Instant;
use tokio::sync::watch::Sender;

/// A registry of which the watches of pods tell nothing until they are opened, and what looks at it.
struct World {
    registry: MemoryRegistry,
    shared: Shared,
    opener: Sender<bool>,
}

impl World {
    /// With a replica set and a job that want one pod, and have it.
    async fn new(member: &str) -> Self {
        let registry = MemoryRegistry::default();
        registry.assign_shards(&[member.to_owned()]);
        let (objects, opener) = late(registry.clone(), "pods");
        objects.lay_foundation("pem", 6443).await.unwrap();
        let world = Self { registry, shared: Shared::start(objects, "test"), opener };
        let template = json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
        let selector = json!({"matchLabels": {"app": "web"}});
        let made = [
            (
                "apps/replicasets",
                "apps/v1",
                "ReplicaSet",
                "set",
                json!({"replicas": 1, "selector": selector, "template": template}),
            ),
            (
                "batch/jobs",
                "batch/v1",
                "Job",
                "job",
                json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "template": template}),
            ),
        ];
        for (resource, api_version, kind, name, spec) in made {
            let object = json!({"apiVersion": api_version, "kind": kind, "spec": spec,
                "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 1,
                    "creationTimestamp": "2024-01-01T00:00:00Z"}});
            world.put(Key::new(resource, "default", name), &object).await;
            let owner = json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": name,
                "controller": true});
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("{name}-p"), "namespace": "default",
                    "uid": format!("{name}-p"), "labels": {"app": "web"},
                    "creationTimestamp": "2024-01-01T00:00:00Z",
                    "finalizers": (kind == "Job").then(|| json!(["batch.kubernetes.io/job-tracking"])),
                    "ownerReferences": [owner]},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": "Pending"}});
            world.put(pod_of(name), &pod).await;
        }
        let pods: Mirror<Pod> = world.shared.mirrors.of();
        pods.reached(1, LIMIT).await.unwrap();
        assert_eq!(pods.all().len(), 2);
        world
    }

    async fn put(&self, key: Key, object: &Value) -> Revision {
        let put = Transaction::new().put(key, object.to_string());
        self.registry.transact(put).await.unwrap().revision
    }

    async fn get(&self, key: Key) -> Value {
        let (entry, _) = self.registry.get(key, Consistency::Local).await.unwrap();
        entry.map(|entry| serde_json::from_slice(&entry.value).unwrap()).unwrap_or_default()
    }

    /// Writes a pod's status, as its node does. What it tells its owner then.
    async fn report(&self, owner: &str, status: Value) -> Told {
        let key = pod_of(owner);
        let mut pod = self.get(key.clone()).await;
        pod["status"] = status;
        let revision = self.put(key.clone(), &pod).await;
        Told { node: "n1".into(), uid: key.name.clone(), key, revision }
    }

    async fn until(&self, key: Key, holds: impl Fn(&Value) -> bool) {
        eventually(&key.to_string(), async || {
            let object = self.get(key.clone()).await;
            if holds(&object) { Ok(()) } else { Err(object) }
        })
        .await;
    }

    fn shown(&self, owner: &str) -> Revision {
        let pods: Mirror<Pod> = self.shared.mirrors.of();
        pods.get("default", &pod_of(owner).name).map_or(0, |seen| seen.entry.mod_revision)
    }

    fn worker(&self, name: &str) -> Worker<job::Reconciler> {
        Worker::new(
            self.shared.clone(),
            &Activation {
                actor: name.into(),
                namespace: "default".into(),
                name: name.into(),
                fence: Fence { shard: shard_of(name), epoch: Epoch(1) },
                uid: name.into(),
                since: Instant::now(),
            },
        )
    }
}

fn pod_of(owner: &str) -> Key {
    Key::new("pods", "default", format!("{owner}-p"))
}

fn ready() -> Value {
    json!({"phase": "Running", "podIP": "127.1.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:01Z"}]})
}

fn over() -> Value {
    json!({"phase": "Succeeded", "containerStatuses": [{"name": "c", "image": "i", "imageID": "i",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0,
            "startedAt": "2024-01-01T00:00:01Z", "finishedAt": "2024-01-01T00:00:02Z"}}}]})
}

#[actix::test]
async fn an_owner_acts_on_what_its_pod_tells_while_the_watch_is_held_back_and_once_when_both_come()
{
    let machine = Machine::start(1000).await;
    let world = World::new("n1").await;
    let kinds = vec![
        controlled::<replica_set::Reconciler>(&world.shared),
        controlled::<job::Reconciler>(&world.shared),
    ];
    let _keeper = Keeper::start(machine.node.clone(), world.registry.shards(), kinds);
    let (set, job) =
        (Key::new("apps/replicasets", "default", "set"), Key::new("batch/jobs", "default", "job"));
    world.until(set.clone(), |set| set["status"]["replicas"] == 1).await;
    world.until(job.clone(), |job| job["status"]["active"] == 1).await;

    let told = world.report("set", ready()).await;
    let ended = world.report("job", over()).await;
    let actor = |name: &str| machine.node.local::<ControlRole>(name.to_owned());
    assert_ne!(world.get(set.clone()).await["status"]["readyReplicas"], 1);
    let (before, last) = (world.shown("set"), told.revision);
    assert!(before < last, "the watch has not brought it");
    for hint in [told.clone(), told.clone()] {
        actor("replicaset/set").tell(hint).unwrap();
    }
    actor("job/job").tell(ended).unwrap();
    world.until(set.clone(), |set| set["status"]["readyReplicas"] == 1).await;
    world.until(job, |job| job["status"]["succeeded"] == 1).await;
    assert_eq!(world.shown("set"), last);

    let pods: Mirror<Pod> = world.shared.mirrors.of();
    let mut changes = pods.changes();
    world.opener.send_replace(true);
    let mark = world.report("job", json!({"phase": "Succeeded", "message": "late"})).await;
    actor("replicaset/set").tell(told).unwrap();
    let until_mark = async {
        loop {
            match changes.next().await.expect("the mirror goes on") {
                Change::Put { now, .. } => {
                    let entry = now.entry;
                    assert_ne!(
                        entry.key,
                        pod_of("set"),
                        "it was told of before: nobody is woken again"
                    );
                    if entry.mod_revision >= mark.revision {
                        return;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, until_mark).await.expect("the watch goes on");
    assert_eq!(world.shown("set"), last);
}

#[tokio::test]
async fn what_is_not_so_changes_nothing() {
    let world = World::new("test").await;
    let worker = world.worker("job");
    let told = world.report("job", over()).await;
    let of_the_set = world.report("set", ready()).await;
    let before = world.shown("job");
    let other = |change: fn(&mut Told)| {
        let mut other = told.clone();
        change(&mut other);
        other
    };
    let forged = [
        ("another node's pod", other(|told| told.node = "n2".into())),
        ("another uid", other(|told| told.uid = "another".into())),
        ("a revision of the future", other(|told| told.revision = Revision::MAX)),
        ("the pod of another owner", of_the_set.clone()),
        ("no such pod", other(|told| told.key.name = "none".into())),
        ("another namespace", other(|told| told.key.namespace = "kube-system".into())),
        ("another kind", other(|told| told.key.resource = "secrets".into())),
        (
            "its own owner",
            other(|told| {
                told.key = Key::new("batch/jobs", "default", "job");
                told.uid = "job".into();
            }),
        ),
        ("a revision that the watch has brought", other(|told| told.revision = 1)),
    ];
    for (what, hint) in forged {
        assert!(!worker.told(&hint).await, "{what}");
        assert_eq!(world.shown("job"), before, "{what}");
    }
    assert!(world.shown("set") < of_the_set.revision, "who is not its owner files nothing of it");
    assert!(worker.told(&told).await, "what is so is news");
    assert_eq!(world.shown("job"), told.revision);
    assert!(!worker.told(&told).await, "once");

    // Out of order: the later one comes first.
    let earlier = world.report("job", json!({"phase": "Failed"})).await;
    let later = world.report("job", over()).await;
    assert!(worker.told(&later).await && !worker.told(&earlier).await);
    assert_eq!(world.shown("job"), later.revision);

    // What is deleted is not shown anew, whoever says what.
    let late = world.report("job", over()).await;
    let gone = Transaction::new().delete(late.key.clone());
    let gone = world.registry.transact(gone).await.unwrap().revision;
    assert!(!worker.told(&late).await);
    world.opener.send_replace(true);
    let pods: Mirror<Pod> = world.shared.mirrors.of();
    pods.reached(gone, LIMIT).await.unwrap();
    for hint in [told, later, late] {
        assert!(!worker.told(&hint).await);
    }
    assert_eq!(world.shown("job"), 0, "it stays gone");
}
