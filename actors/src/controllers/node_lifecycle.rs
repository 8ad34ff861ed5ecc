//! Notices lost nodes, says so in their objects, and has their pods replaced.

pub mod plan;

use super::control::{Look, LookError, Next};
use super::mirror::Seen;
use super::owned;
use super::retries::Retries;
use super::view::{CATCH_UP, View, served};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::{DeleteOptions, WriteOptions};
use impresario_registry_api::{Consistency, Fence, Key, Remedy, Transaction};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
pub use plan::Heard;
use plan::{Action, UNREACHABLE};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the heartbeats are looked at: they live in the leader's memory, where no watch shows
/// them.
const INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// Who knows when each node was last heard.
pub trait Silence: Send + Sync + 'static {
    /// Asks the leader.
    fn heard(&self) -> BoxFuture<'_, Result<Heard, LookError>>;
}

/// The node lifecycle controller of the cluster.
pub struct NodeLifecycleLook {
    view: View,
    fence: Fence,
    silence: Arc<dyn Silence>,
    /// Since when nodes that have pods have had no object.
    missing: Mutex<HashMap<String, Instant>>,
    retries: Retries,
}

impl NodeLifecycleLook {
    /// A look at all nodes.
    #[must_use]
    pub fn new(view: View, fence: Fence, silence: Arc<dyn Silence>) -> Self {
        let (missing, retries) = (Mutex::default(), Retries::default());
        Self { view, fence, silence, missing, retries }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let view = &self.view;
        view.nodes.reached(1, CATCH_UP).await?;
        view.pods.reached(1, CATCH_UP).await?;
        let heard = self.silence.heard().await?;
        let seen = view.nodes.all();
        let nodes: Vec<_> = seen.iter().map(|node| node.object.clone()).collect();
        let (now, instant) = (Timestamp::now(), Instant::now());
        let well: HashSet<&str> = seen
            .iter()
            .filter(|node| !heard.is_lost(&node.object, now))
            .map(|node| node.entry.key.name.as_str())
            .collect();
        // Nothing is asked of the pods of nodes that are well, which are nearly all.
        let pods = view.pods.picked(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            node.is_some_and(|node| !node.is_empty() && !well.contains(node))
        });
        let pods: Vec<_> = pods.into_iter().map(|pod| pod.object).collect();
        let missing = self.missing(&nodes, &pods, instant);
        let actions = plan::reconcile(&nodes, &pods, &heard, &missing, now);
        // One that fails, however often, keeps nobody else waiting.
        for action in actions {
            let (key, what) = action.about();
            if !self.retries.may_try(&key, instant) {
                continue;
            }
            let outcome = self.act(&seen, action, now).await;
            self.retries.note(&key, what, outcome, instant)?;
        }
        // It looks again before any of them is due.
        let _ = self.retries.next(instant);
        Ok(Next::At(now + INTERVAL))
    }

    /// For how long the nodes of these pods that have no object have had none, as far as was seen.
    fn missing(
        &self,
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        now: Instant,
    ) -> HashMap<String, Duration> {
        let present: HashSet<&str> =
            nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        let named = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref());
        let without: HashSet<&str> = named.filter(|node| !present.contains(node)).collect();
        let mut missing = self.missing.lock();
        missing.retain(|node, _| without.contains(node.as_str()));
        for node in without {
            missing.entry(node.to_owned()).or_insert(now);
        }
        missing.iter().map(|(node, since)| (node.clone(), now.duration_since(*since))).collect()
    }

    async fn act(
        &self,
        seen: &[Seen<Node>],
        action: Action,
        now: Timestamp,
    ) -> Result<(), LookError> {
        let of = |name: &str| seen.iter().find(|seen| seen.entry.key.name == name);
        match action {
            Action::Lose { node } => {
                let Some(seen) = of(&node) else { return Ok(()) };
                if self.change(seen, |object| lose(object, now)).await? {
                    let message = format!("Node {node} status is now: NodeNotReady");
                    self.view.normal(seen, "NodeNotReady", &message);
                    tracing::warn!(node, "node is lost: no heartbeat");
                }
            }
            Action::Welcome { node } => {
                let Some(seen) = of(&node) else { return Ok(()) };
                if self.change(seen, welcome).await? {
                    tracing::info!(node, "node is back");
                }
            }
            Action::Unready { pod } => self.make_unready(&pod, now).await?,
            Action::Evict { pod } => self.delete(pod, None).await?,
            Action::Remove { node, pod } => {
                // The mirror leaves out what it cannot read, and may be late.
                let key = Key::new("nodes", "", &node);
                let registry = self.view.registry();
                if registry.get(key, Consistency::Linearizable).await?.0.is_none() {
                    tracing::warn!(
                        node,
                        namespace = pod.0,
                        pod = pod.1,
                        "pod is removed: its node has no object"
                    );
                    self.delete(pod, Some(0)).await?;
                }
            }
        }
        Ok(())
    }

    /// Changes an object as it was seen. False if it changed meanwhile: seen again with the next look.
    async fn change<K>(
        &self,
        seen: &Seen<K>,
        change: impl FnOnce(&mut Value),
    ) -> Result<bool, LookError> {
        let (compare, operation) = owned::change(seen, change)?;
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        match self.view.registry().transact(transaction).await {
            Ok(_) => Ok(true),
            Err(error) if error.remedy() == Remedy::ReadAgain => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes that a pod of a lost node is not ready. Its node says so again when it is back.
    async fn make_unready(
        &self,
        (namespace, name, uid): &(String, String, String),
        now: Timestamp,
    ) -> Result<(), LookError> {
        let Some(seen) = self.view.pods.get(namespace, name) else { return Ok(()) };
        if seen.object.metadata.uid.as_ref() != Some(uid) {
            return Ok(());
        }
        if self.change(&seen, |object| unready(object, now)).await? {
            self.view.warning(&seen, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    async fn delete(
        &self,
        (namespace, name, uid): (String, String, String),
        grace: Option<i64>,
    ) -> Result<(), LookError> {
        let options = DeleteOptions {
            grace_period_seconds: grace,
            uid: Some(uid),
            ..DeleteOptions::default()
        };
        let objects = self.view.objects.fenced(self.fence);
        match objects
            .delete(&served("", "pods"), &namespace, &name, &options, &WriteOptions::default())
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if status.is_superseded() => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}

impl Look for NodeLifecycleLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

/// Conditions become unknown, the taint is set.
fn lose(node: &mut Value, now: Timestamp) {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in node["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["status"] = "Unknown".into();
        condition["reason"] = "NodeStatusUnknown".into();
        condition["message"] = "The node stopped sending heartbeats.".into();
        condition["lastTransitionTime"] = time.clone().into();
    }
    let taints = &mut node["spec"]["taints"];
    if !taints.is_array() {
        *taints = json!([]);
    }
    if let Some(taints) = taints.as_array_mut() {
        for effect in ["NoSchedule", "NoExecute"] {
            taints.push(json!({ "key": UNREACHABLE, "effect": effect, "timeAdded": time }));
        }
    }
}

/// The pod's `Ready` becomes false.
fn unready(pod: &mut Value, now: Timestamp) {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if condition["type"] == "Ready" && condition["status"] == "True" {
            condition["status"] = "False".into();
            condition["lastTransitionTime"] = time.clone().into();
        }
    }
}

fn welcome(node: &mut Value) {
    if let Some(spec) = node["spec"].as_object_mut()
        && let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut)
    {
        taints.retain(|taint| taint["key"] != UNREACHABLE);
        if taints.is_empty() {
            spec.remove("taints");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::activation::Activation;
    use super::super::engine::worker::Worker;
    use super::super::service;
    use super::*;
    use impresario_objects::Objects;
    use impresario_registry::{Epoch, MemoryRegistry, Registry as _, Shard};
    use k8s_openapi::api::core::v1::Service;

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
        let long_ago = Instant::now().checked_sub(Duration::from_secs(41)).unwrap();
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
            let conditions =
                conditions.map(|(kind, status)| json!({"type": kind, "status": status}));
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
            since: Instant::now(),
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
            let of =
                |n: usize| pod["status"]["conditions"][n]["status"].as_str().unwrap().to_owned();
            [of(0), of(1)]
        };
        assert_eq!(conditions("n1").await, ["False", "True"], "only its readiness has changed");
        assert_eq!(conditions("n2").await, ["True", "True"]);
        let written = objects.get(&served("", "pods"), "default", "n1").await.unwrap();
        let revision = written["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        view.pods.reached(revision, CATCH_UP).await.unwrap();
        assert_eq!(addresses().await, (names(&["n2"]), names(&["n1"])));
    }

    #[test]
    fn a_node_that_is_welcome_again_looks_as_before_but_for_its_conditions() {
        let before = json!({"spec": {"podCIDR": "127.1.0.0/24"}, "status": {"conditions": []}});
        let mut node = before.clone();
        lose(&mut node, Timestamp::UNIX_EPOCH);
        assert_eq!(node["spec"]["taints"].as_array().unwrap().len(), 2);
        welcome(&mut node);
        assert_eq!(node, before);
    }
}
