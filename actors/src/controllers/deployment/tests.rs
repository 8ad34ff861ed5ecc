//! Deployments and the replica sets under them over a registry in memory, each with the one worker that its actor
//! has, and pods on a node that takes its time to end them.

mod refused;

use super::super::activation::Activation;
use super::super::control::Look;
use super::super::engine::controller::Controller;
use super::super::engine::kind_name::KindName;
use super::super::engine::shared::Shared;
use super::super::engine::worker::Worker;
use super::super::mirror::Mirrored;
use super::super::replica_set;
use super::super::view::served;
use crate::testing::eventually;
use impresario_objects::{DeleteOptions, Door, Objects, Propagation, WriteOptions};
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Epoch, Fence, Key, ListRequest, Selection, Transaction, shard_of};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

struct World {
    registry: MemoryRegistry,
    objects: Objects,
    shared: Shared,
    /// Seconds of its clock.
    time: Arc<AtomicI64>,
    /// By the uids of their objects.
    workers: Mutex<HashMap<String, Arc<dyn Look>>>,
    /// Whether a look may fail: what is refused is said in the object, and tried again by the next look.
    refuses: AtomicBool,
}

impl World {
    async fn new() -> Self {
        let registry = MemoryRegistry::default();
        registry.assign_shards(&["test".to_owned()]);
        let objects = Objects::new(Arc::new(registry.clone()));
        objects.lay_foundation("pem", 6443).await.unwrap();
        Self::over(registry, objects)
    }

    fn over(registry: MemoryRegistry, objects: Objects) -> Self {
        let time = Arc::new(AtomicI64::new(1_000_000));
        let clock = time.clone();
        let shared = Shared {
            clock: Arc::new(move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap()),
            ..Shared::start(objects.clone(), "test")
        };
        let (workers, refuses) = (Mutex::default(), AtomicBool::new(false));
        Self { registry, objects, shared, time, workers, refuses }
    }

    async fn all(&self, resource: &str) -> Vec<Value> {
        let request = ListRequest::of(Selection::all(resource));
        let entries = self.registry.list(request).await.unwrap().entries;
        entries.iter().map(|entry| serde_json::from_slice(&entry.value).unwrap()).collect()
    }

    async fn deploy(&self, spec: Value) {
        let labels = json!({"app": "web"});
        let mut object = json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let deployments = served("apps", "deployments");
        self.objects
            .create(&deployments, "default", object, &WriteOptions::default())
            .await
            .unwrap();
    }

    /// Changes the deployment as its user does.
    async fn change(&self, change: impl Fn(&mut Value) + Send + Sync) {
        let (deployments, options) = (served("apps", "deployments"), WriteOptions::default());
        let change = |old: &Value| {
            let mut new = old.clone();
            change(&mut new);
            Ok(new)
        };
        let door = Door::Main;
        self.objects.modify(&deployments, door, "default", "web", &options, change).await.unwrap();
    }

    /// Stores an object past all rules.
    async fn put(&self, resource: &str, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let put = Transaction::new().put(Key::new(resource, "default", name), object.to_string());
        self.registry.transact(put).await.unwrap();
    }

    async fn image(&self, image: &str) {
        self.change(|it| it["spec"]["template"]["spec"]["containers"][0]["image"] = image.into())
            .await;
    }

    async fn deployment(&self) -> Value {
        self.all("apps/deployments").await.remove(0)
    }

    fn worker<C: Controller>(&self, object: &Value) -> Worker<C> {
        let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
        let uid = text("uid");
        let activation = Activation {
            actor: uid.as_str().into(),
            namespace: "default".into(),
            name: text("name"),
            fence: Fence { shard: shard_of(&uid), epoch: Epoch(1) },
            uid,
            since: std::time::Instant::now(),
        };
        Worker::new(self.shared.clone(), &activation)
    }

    /// Waits until the mirror shows what there is.
    async fn seen<K: Mirrored>(&self) {
        let (mirror, resource) = (self.shared.mirrors.of::<K>(), KindName::of::<K>().key());
        eventually(&resource, async || {
            let request = ListRequest::of(Selection::all(&resource));
            let there = self.registry.list(request).await.unwrap().entries;
            let seen: Vec<_> = mirror.all().into_iter().map(|seen| seen.entry).collect();
            if there == seen { Ok(()) } else { Err((there, seen)) }
        })
        .await;
    }

    async fn look<C: Controller>(&self, object: &Value) {
        self.seen::<Deployment>().await;
        self.seen::<ReplicaSet>().await;
        self.seen::<Pod>().await;
        let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
        let worker = {
            let mut workers = self.workers.lock();
            workers.entry(uid).or_insert_with(|| self.worker::<C>(object).shared()).clone()
        };
        let outcome = worker.look().await;
        if !self.refuses.load(Ordering::Relaxed) {
            outcome.unwrap();
        }
    }

    /// What was ending has ended; the deployment looks, then its sets, and the pods that `becomes_ready` do.
    async fn round(&self, becomes_ready: impl Fn(&Value) -> bool) {
        for pod in self.all("pods").await.iter().filter(|pod| is_ending(pod)) {
            let key = Key::new("pods", "default", pod["metadata"]["name"].as_str().unwrap());
            self.registry.transact(Transaction::new().delete(key)).await.unwrap();
        }
        self.look::<super::Reconciler>(&self.deployment().await).await;
        for set in self.all("apps/replicasets").await {
            self.look::<replica_set::Reconciler>(&set).await;
        }
        for mut pod in self.all("pods").await {
            if becomes_ready(&pod) && pod["status"]["phase"] != "Running" {
                pod["spec"]["nodeName"] = "node".into();
                pod["status"] = json!({"phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True"}]});
                self.put("pods", &pod).await;
            }
        }
        for set in self.all("apps/replicasets").await {
            self.look::<replica_set::Reconciler>(&set).await;
        }
    }

    async fn rounds(&self, count: usize) {
        for _ in 0..count {
            self.round(|_| true).await;
        }
    }

    /// Waits for an event of this reason.
    async fn until_told(&self, reason: &str) {
        eventually(reason, async || {
            let events = self.all("events").await;
            let is_told = events.iter().any(|event| event["reason"] == reason);
            if is_told { Ok(()) } else { Err(events) }
        })
        .await;
    }

    /// `image:size` of each set, by revision.
    async fn sets(&self) -> Vec<String> {
        let mut sets = self.all("apps/replicasets").await;
        let revision = |set: &Value| {
            let annotations = &set["metadata"]["annotations"];
            annotations[super::marks::REVISION].as_str().unwrap().parse::<i64>().unwrap()
        };
        sets.sort_by_key(revision);
        let word = |set: &Value| {
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
            format!("{}={image}:{}", revision(set), set["spec"]["replicas"])
        };
        sets.iter().map(word).collect()
    }
}

fn is_ending(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// `status reason` of a condition.
fn condition(deployment: &Value, type_: &str) -> String {
    let conditions = deployment["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_);
    let text = |field: &str| found.and_then(|it| it[field].as_str()).unwrap_or("-").to_owned();
    format!("{} {}", text("status"), text("reason"))
}

#[tokio::test]
async fn each_template_becomes_a_revision_and_an_old_one_is_gone_back_to() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 3})).await;
    world.rounds(4).await;
    assert_eq!(world.sets().await, ["1=one:3"]);
    let deployment = world.deployment().await;
    assert_eq!(deployment["status"]["availableReplicas"], 3, "{deployment:#}");
    assert_eq!(condition(&deployment, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(condition(&deployment, "Available"), "True MinimumReplicasAvailable");
    assert_eq!(deployment["metadata"]["annotations"][super::marks::REVISION], "1");

    world
        .change(|it| it["metadata"]["annotations"]["kubernetes.io/change-cause"] = "two".into())
        .await;
    world.image("two").await;
    world.rounds(10).await;
    assert_eq!(world.sets().await, ["1=one:0", "2=two:3"]);
    let sets = world.all("apps/replicasets").await;
    let causes: Vec<_> = sets
        .iter()
        .map(|it| &it["metadata"]["annotations"]["kubernetes.io/change-cause"])
        .collect();
    assert!(causes.contains(&&json!("two")), "{causes:?}");

    world.image("one").await;
    world.rounds(10).await;
    assert_eq!(
        world.sets().await,
        ["2=two:0", "3=one:3"],
        "the set of the first revision is the third"
    );
    let pods = world.all("pods").await;
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert_eq!(pod["spec"]["containers"][0]["image"], "one");
        assert!(pod["metadata"]["labels"][super::marks::HASH].is_string());
    }
}

#[tokio::test]
async fn a_rollout_never_has_more_pods_than_it_may_nor_fewer_available() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}))
        .await;
    world.rounds(4).await;
    world.image("two").await;
    for _ in 0..20 {
        world.round(|_| true).await;
        let mut pods = world.all("pods").await;
        pods.retain(|pod| !is_ending(pod));
        let ready = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        assert!(pods.len() <= 5 && ready >= 3, "{} pods, {ready} ready", pods.len());
    }
    assert_eq!(world.sets().await, ["1=one:0", "2=two:4"]);
}

#[tokio::test]
async fn a_rollout_that_does_not_get_on_says_so_when_its_time_is_over_and_keeps_the_old_pods() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 2, "progressDeadlineSeconds": 60})).await;
    world.rounds(4).await;
    world.image("broken").await;
    let works = |pod: &Value| pod["spec"]["containers"][0]["image"] != "broken";
    for _ in 0..6 {
        world.round(works).await;
    }
    assert_eq!(condition(&world.deployment().await, "Progressing"), "True ReplicaSetUpdated");
    world.time.fetch_add(61, Ordering::Relaxed);
    world.round(works).await;
    let deployment = world.deployment().await;
    assert_eq!(condition(&deployment, "Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(deployment["status"]["availableReplicas"], 2, "{deployment:#}");
    assert_eq!(world.sets().await, ["1=one:2", "2=broken:1"]);

    world.image("one").await;
    world.rounds(6).await;
    assert_eq!(world.sets().await, ["2=broken:0", "3=one:2"]);
    let deployment = world.deployment().await;
    assert_eq!(condition(&deployment, "Progressing"), "True NewReplicaSetAvailable");
}

#[tokio::test]
async fn what_is_paused_waits_with_its_template_and_follows_its_size() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 2})).await;
    world.rounds(4).await;
    world.change(|it| it["spec"]["paused"] = true.into()).await;
    world.image("two").await;
    world.change(|it| it["spec"]["replicas"] = 3.into()).await;
    world.rounds(4).await;
    assert_eq!(world.sets().await, ["1=one:3"]);
    assert_eq!(condition(&world.deployment().await, "Progressing"), "Unknown DeploymentPaused");
    world.change(|it| it["spec"]["paused"] = false.into()).await;
    world.rounds(10).await;
    assert_eq!(world.sets().await, ["1=one:0", "2=two:3"]);
}

#[tokio::test]
async fn a_recreation_has_no_new_pod_beside_an_old_one() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 2, "strategy": {"type": "Recreate"}})).await;
    world.rounds(4).await;
    world.image("two").await;
    for _ in 0..8 {
        world.round(|_| true).await;
        let mut images: Vec<_> = world
            .all("pods")
            .await
            .iter()
            .map(|pod| pod["spec"]["containers"][0]["image"].to_string())
            .collect();
        images.dedup();
        assert!(images.len() <= 1, "{images:?}");
    }
    assert_eq!(world.sets().await, ["1=one:0", "2=two:2"]);
}

#[tokio::test]
async fn as_many_old_revisions_are_kept_as_are_asked_for() {
    let world = World::new().await;
    world.deploy(json!({"revisionHistoryLimit": 1})).await;
    for image in ["one", "two", "three", "four"] {
        world.image(image).await;
        world.rounds(10).await;
    }
    assert_eq!(world.sets().await, ["3=three:0", "4=four:1"]);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_drawn_anew() {
    let world = World::new().await;
    world.deploy(json!({})).await;
    world.rounds(4).await;
    let mut set = world.all("apps/replicasets").await.remove(0);
    // The set leaves its deployment, and keeps the name that the template gives.
    for path in [
        "/metadata/labels/app",
        "/spec/selector/matchLabels/app",
        "/spec/template/metadata/labels/app",
    ] {
        *set.pointer_mut(path).unwrap() = "free".into();
    }
    let name = set["metadata"]["name"].as_str().unwrap().to_owned();
    world.put("apps/replicasets", &set).await;

    let deployment = world.deployment().await;
    let uid = deployment["metadata"]["uid"].as_str().unwrap();
    let worker = world.worker::<super::Reconciler>(&deployment);
    assert!(worker.look_once().await.is_err(), "the name is taken");
    worker.look_once().await.unwrap();
    let deployment = world.deployment().await;
    assert_eq!(deployment["status"]["collisionCount"], 1);
    assert_eq!(condition(&deployment, "ReplicaFailure"), "- -", "it is no failure");
    assert_ne!(condition(&deployment, "Progressing"), "False FailedCreate");
    world.rounds(3).await;
    let sets = world.all("apps/replicasets").await;
    let owned = |set: &&Value| set["metadata"]["ownerReferences"][0]["uid"] == uid;
    let owned: Vec<_> = sets.iter().filter(owned).collect();
    assert_eq!((sets.len(), owned.len()), (2, 1));
    assert_ne!(owned[0]["metadata"]["name"], name.as_str());
}

#[tokio::test]
async fn a_deployment_that_goes_changes_nothing_more() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 2})).await;
    world.rounds(4).await;
    world.image("two").await;
    let foreground =
        DeleteOptions { propagation: Propagation::Foreground, ..DeleteOptions::default() };
    let (deployments, options) = (served("apps", "deployments"), WriteOptions::default());
    world.objects.delete(&deployments, "default", "web", &foreground, &options).await.unwrap();
    world.rounds(3).await;
    assert_eq!(world.sets().await, ["1=one:2"]);

    // One that is let go of now would outlive it.
    let mut set = world.all("apps/replicasets").await.remove(0);
    set["metadata"]["labels"]["app"] = "other".into();
    world.put("apps/replicasets", &set).await;
    world.rounds(2).await;
    let sets = world.all("apps/replicasets").await;
    assert_eq!(sets[0]["metadata"]["ownerReferences"][0]["name"], "web");
}
