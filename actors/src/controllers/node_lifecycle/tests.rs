use super::super::activation::Activation;
use super::super::engine::worker::Worker;
use super::super::service;
use super::*;
use impresario_objects::Objects;
use impresario_registry::{Epoch, MemoryRegistry, Registry as _, Shard};
use impresario_registry_api::Revision;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

struct Nobody;

impl Silence for Nobody {
    fn heard(&self) -> BoxFuture<'_, Result<Heard, LookError>> {
        async { Ok(Heard::default()) }.boxed()
    }
}

#[tokio::test]
async fn pods_stay_where_only_a_mirror_has_lost_the_node() {
    let (before, now) = (MemoryRegistry::default(), MemoryRegistry::default());
    now.assign_shards(&["test".to_owned()]);
    for node in ["there", "gone"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": node, "namespace": "ns", "uid": node},
            "spec": {"nodeName": node, "containers": []}});
        for registry in [&before, &now] {
            let key = Key::new("pods", "ns", node);
            registry.transact(Transaction::create(key, pod.to_string())).await.unwrap();
        }
    }
    // What is there cannot even be read.
    let node = Transaction::create(Key::new("nodes", "", "there"), "{}");
    now.transact(node).await.unwrap();
    let mut view = View::start(Objects::new(Arc::new(before)), "test");
    view.objects = Objects::new(Arc::new(now.clone()));
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let look = NodeLifecycleLook::new(view, fence, Arc::new(Nobody));
    let left = async || {
        let mut left = Vec::new();
        for name in ["gone", "there"] {
            let key = Key::new("pods", "ns", name);
            let found = now.get(key, Consistency::Local).await.unwrap().0;
            left.extend(found.map(|entry| entry.key.name));
        }
        left
    };
    look.look_once().await.unwrap();
    assert_eq!(left().await, ["gone", "there"], "they have just been missed");
    let long_ago = clock::now().checked_sub(Duration::from_secs(41)).unwrap();
    look.missing.lock().values_mut().for_each(|since| *since = long_ago);
    look.look_once().await.unwrap();
    assert_eq!(left().await, ["there"]);
}

/// The leader has heard the first node long ago, and the second just now.
struct FirstIsSilent;

impl Silence for FirstIsSilent {
    fn heard(&self) -> BoxFuture<'_, Result<Heard, LookError>> {
        let ages = [("n1", 11), ("n2", 0)];
        let ages = ages.map(|(node, age)| (node.to_owned(), Duration::from_secs(age)));
        let leading_for = Duration::from_hours(1);
        async move { Ok(Heard { leading_for, ages: ages.into() }) }.boxed()
    }
}

#[tokio::test]
async fn nobody_is_sent_to_the_pods_of_a_lost_node_any_more() {
    let registry = MemoryRegistry::default();
    registry.assign_shards(&["test".to_owned()]);
    let objects = Objects::new(Arc::new(registry.clone()));
    objects.lay_foundation("pem", 6443).await.unwrap();
    let put = async |key: Key, object: Value| {
        let write = Transaction::create(key, object.to_string());
        registry.transact(write).await.unwrap();
    };
    for (number, node) in ["n1", "n2"].into_iter().enumerate() {
        put(
            Key::new("nodes", "", node),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "uid": node},
                "status": {"nodeInfo": {"kubeletVersion": "v1"},
                    "conditions": [{"type": "Ready", "status": "True"}]}}),
        )
        .await;
        let conditions = [("Ready", "True"), ("Initialized", "True")];
        let conditions = conditions.map(|(kind, status)| json!({"type": kind, "status": status}));
        put(
            Key::new("pods", "default", node),
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": node, "namespace": "default", "uid": format!("uid-{node}"),
                    "labels": {"app": "web"}},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": "Running", "podIP": format!("127.1.0.{}", number + 1),
                    "conditions": conditions}}),
        )
        .await;
    }
    let service = json!({"metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let options = WriteOptions::default();
    let service = objects.create(&served("", "services"), "default", service, &options).await;
    let uid = service.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let view = View::start(objects.clone(), "test");
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let activation = Activation {
        actor: "service/web".into(),
        namespace: "default".into(),
        name: "web".into(),
        uid,
        fence,
        since: clock::now(),
    };
    let endpoints = Worker::<service::Reconciler>::new(view.shared(), &activation).shared();
    let addresses = async || {
        endpoints.look().await.unwrap();
        let found = objects.get(&served("", "endpoints"), "default", "web").await.unwrap();
        let of = |list: &str| -> Vec<String> {
            let addresses = found["subsets"][0][list].as_array().cloned().unwrap_or_default();
            let names = addresses.iter().map(|address| address["targetRef"]["name"].as_str());
            names.map(|name| name.unwrap().to_owned()).collect()
        };
        (of("addresses"), of("notReadyAddresses"))
    };
    let names = |of: &[&str]| of.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    view.mirrors.of::<Service>().reached(1, CATCH_UP).await.unwrap();
    assert_eq!(addresses().await, (names(&["n1", "n2"]), names(&[])));

    let look = NodeLifecycleLook::new(view.clone(), fence, Arc::new(FirstIsSilent));
    look.look_once().await.unwrap();
    let conditions = async |name: &str| {
        let pod = objects.get(&served("", "pods"), "default", name).await.unwrap();
        let of = |n: usize| pod["status"]["conditions"][n]["status"].as_str().unwrap().to_owned();
        [of(0), of(1)]
    };
    assert_eq!(conditions("n1").await, ["False", "True"], "only its readiness has changed");
    assert_eq!(conditions("n2").await, ["True", "True"]);
    let written = objects.get(&served("", "pods"), "default", "n1").await.unwrap();
    let revision = written["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    view.pods.reached(revision, CATCH_UP).await.unwrap();
    assert_eq!(addresses().await, (names(&["n2"]), names(&["n1"])));
}

/// The leader has heard this node just now.
struct IsHeard(&'static str);

impl Silence for IsHeard {
    fn heard(&self) -> BoxFuture<'_, Result<Heard, LookError>> {
        let ages = [(self.0.to_owned(), Duration::ZERO)].into();
        async move { Ok(Heard { leading_for: Duration::from_hours(1), ages }) }.boxed()
    }
}

/// A cluster of one node, which is heard and has these fields, and a pod on it.
async fn one_node(spec: Value) -> (Objects, NodeLifecycleLook) {
    let registry = MemoryRegistry::default();
    registry.assign_shards(&["test".to_owned()]);
    let objects = Objects::new(Arc::new(registry.clone()));
    objects.lay_foundation("pem", 6443).await.unwrap();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "n1"},
        "spec": spec, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "p"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for (key, object) in
        [(Key::new("nodes", "", "n1"), node), (Key::new("pods", "default", "p"), pod)]
    {
        registry.transact(Transaction::create(key, object.to_string())).await.unwrap();
    }
    let view = View::start(objects.clone(), "test");
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let look = NodeLifecycleLook::new(view, fence, Arc::new(IsHeard("n1")));
    (objects, look)
}

/// Looks once, after all that was written before is seen.
async fn look_again(objects: &Objects, look: &NodeLifecycleLook) {
    for (resource, namespace, name) in [("nodes", "", "n1"), ("pods", "default", "p")] {
        let written = objects.get(&served("", resource), namespace, name).await.unwrap();
        let revision = written["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        if resource == "nodes" {
            look.view.nodes.reached(revision, CATCH_UP).await.unwrap();
        } else {
            look.view.pods.reached(revision, CATCH_UP).await.unwrap();
        }
    }
    look.look_once().await.unwrap();
}

#[tokio::test]
async fn a_pod_that_a_taint_drives_out_says_so_before_it_goes() {
    let taint = json!({"key": "mine", "effect": "NoExecute"});
    let (objects, look) = one_node(json!({ "taints": [taint] })).await;
    look_again(&objects, &look).await;
    let pod = objects.get(&served("", "pods"), "default", "p").await.unwrap();
    let said = &pod["status"]["conditions"][1];
    assert_eq!((&said["type"], &said["reason"]), (&"DisruptionTarget".into(), &BY_TAINT.0.into()));
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");
    let node = objects.get(&served("", "nodes"), "", "n1").await.unwrap();
    let since = &node["spec"]["taints"][0]["timeAdded"];
    assert!(since.is_string(), "the time goes on whoever leads: {node}");
    look_again(&objects, &look).await;
    for (resource, namespace, before) in [("pods", "default", pod), ("nodes", "", node)] {
        let name = before["metadata"]["name"].as_str().unwrap();
        let now = objects.get(&served("", resource), namespace, name).await.unwrap();
        assert_eq!(now, before, "nothing is left to be done");
    }
}

#[tokio::test]
async fn a_node_that_is_cordoned_has_the_taint_of_it_for_as_long() {
    let (objects, look) = one_node(json!({"unschedulable": true})).await;
    let taints = async || {
        look_again(&objects, &look).await;
        let node = objects.get(&served("", "nodes"), "", "n1").await.unwrap();
        node["spec"].get("taints").map(|all| all[0]["key"].clone())
    };
    assert_eq!(taints().await, Some("node.kubernetes.io/unschedulable".into()));
    look_again(&objects, &look).await;
    let seen = look.view.nodes.get("", "n1").unwrap();
    assert!(look.change(&seen, |node| node["spec"]["unschedulable"] = false.into()).await.unwrap());
    assert_eq!(taints().await, None);
    let pod = objects.get(&served("", "pods"), "default", "p").await.unwrap();
    assert_eq!(pod["metadata"].get("deletionTimestamp"), None);
}

/// The taint of a node that is certified to be off.
fn certified() -> Value {
    json!({"key": taints::OUT_OF_SERVICE, "effect": "NoExecute", "value": "nodeshutdown"})
}

/// The pod of [`one_node`] belongs to a job, which keeps its object until it has counted it.
async fn keep_for_a_job(objects: &Objects, look: &NodeLifecycleLook) {
    look.view.pods.reached(pod_revision(objects).await, CATCH_UP).await.unwrap();
    let seen = look.view.pods.get("default", "p").unwrap();
    let finalizers = json!(["batch.kubernetes.io/job-tracking"]);
    assert!(look.change(&seen, |pod| pod["metadata"]["finalizers"] = finalizers).await.unwrap());
}

#[tokio::test]
async fn a_pod_of_a_job_is_failed_before_it_is_removed_from_a_node_that_is_off() {
    let (objects, mut look) = one_node(json!({ "taints": [certified()] })).await;
    keep_for_a_job(&objects, &look).await;
    look.silence = Arc::new(IsHeard("another"));
    let pod = async || objects.get(&served("", "pods"), "default", "p").await.unwrap();
    // It is driven out first, and has its time to end.
    let mut ends = pod().await;
    for _ in 0..3 {
        if ends["metadata"]["deletionTimestamp"].is_null() {
            look_again(&objects, &look).await;
            ends = pod().await;
        }
    }
    assert!(ends["metadata"]["deletionTimestamp"].is_string(), "{ends}");
    assert_eq!(ends["status"]["phase"], "Running");
    look_again(&objects, &look).await;
    let failed = pod().await;
    assert_eq!(failed["metadata"]["deletionGracePeriodSeconds"], 0, "{failed}");
    assert_eq!(failed["status"]["phase"], "Failed");
    let reasons = failed["status"]["conditions"].as_array().unwrap().iter();
    let reasons: Vec<_> = reasons.filter_map(|said| said["reason"].as_str()).collect();
    assert_eq!(reasons, [BY_TAINT.0]);
    look_again(&objects, &look).await;
    assert_eq!(pod().await, failed, "its job takes it from here");
}

#[tokio::test]
async fn a_pod_of_a_job_is_failed_before_it_is_removed_from_a_node_without_an_object() {
    let (objects, look) = one_node(json!({})).await;
    keep_for_a_job(&objects, &look).await;
    let pod = async || objects.get(&served("", "pods"), "default", "p").await.unwrap();
    look_again(&objects, &look).await;
    let options = DeleteOptions::default();
    let gone =
        objects.delete(&served("", "nodes"), "", "n1", &options, &WriteOptions::default()).await;
    gone.unwrap();
    look.view.nodes.reached(pod_revision(&objects).await + 1, CATCH_UP).await.unwrap();
    look.look_once().await.unwrap();
    let long_ago = clock::now().checked_sub(Duration::from_secs(41)).unwrap();
    look.missing.lock().values_mut().for_each(|since| *since = long_ago);
    look.look_once().await.unwrap();
    let failed = pod().await;
    assert_eq!(failed["metadata"]["deletionGracePeriodSeconds"], 0, "{failed}");
    assert_eq!(failed["status"]["phase"], "Failed");
    let said = &failed["status"]["conditions"][1];
    assert_eq!((&said["type"], &said["reason"]), (&"DisruptionTarget".into(), &BY_LOSS.0.into()));
}

async fn pod_revision(objects: &Objects) -> Revision {
    let pod = objects.get(&served("", "pods"), "default", "p").await.unwrap();
    pod["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_lost_node_that_can_write_is_contradicted_seldom() {
    let (objects, mut look) = one_node(json!({})).await;
    look.silence = Arc::new(IsHeard("another"));
    let node = async || objects.get(&served("", "nodes"), "", "n1").await.unwrap();
    look_again(&objects, &look).await;
    assert_eq!(node().await["status"]["conditions"][0]["status"], "Unknown");
    look_again(&objects, &look).await;
    let seen = look.view.nodes.get("", "n1").unwrap();
    let insists = |node: &mut Value| node["status"]["conditions"][0]["status"] = "True".into();
    assert!(look.change(&seen, insists).await.unwrap());
    let before = node().await;
    look_again(&objects, &look).await;
    assert_eq!(node().await, before, "the two must not write in turns");
    let long_ago = clock::now().checked_sub(SAID_AGAIN).unwrap();
    look.said_lost.lock().values_mut().for_each(|at| *at = long_ago);
    look_again(&objects, &look).await;
    assert_eq!(node().await["status"]["conditions"][0]["status"], "Unknown");
}
