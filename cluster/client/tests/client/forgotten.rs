//! What a node says of pods that went before the members came that it asks.

use crate::{AsTheyAre, LIMIT, resource};
use futures_util::StreamExt;
use impresario_client::objects::{Binding, WriteOptions};
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::protocol::{OBJECTS_ACTOR, ObjectsRole};
use impresario_objects::rbac::Roles;
use impresario_objects::{
    Bindings, ObjectEvent, Objects, ObjectsActor, ObjectsParts, Reader, Refusals, RemoteDoor,
    WatchQuery,
};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{
    Around, BoxFuture, Consistency, Entry, Key, ReadError, Registry, Revision,
};
use impresario_runtime::{ActorNode, ClusterAuthority, NodeConfig, PeerRole, SpawnOptions};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A member's registry, and how often it was asked for the newest state of the node: once for each event in doubt.
struct Counted {
    registry: Arc<MemoryRegistry>,
    asked: AtomicUsize,
}

impl Around for Counted {
    fn inner(&self) -> &dyn Registry {
        &*self.registry
    }

    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        if key.resource == "nodes" && consistency == Consistency::Linearizable {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        self.registry.get(key, consistency)
    }
}

#[test]
fn of_a_pod_that_no_member_remembers_each_is_told_once_and_the_next_event_does_not_wait() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(async {
        let authority = ClusterAuthority::create("test").unwrap();
        let start = async |name: &str, role| {
            let credential = authority.issue(name, role, &[], Duration::from_hours(1)).unwrap();
            let gate = Arc::new(AsTheyAre);
            let config = NodeConfig { gate, ..NodeConfig::new(credential) };
            ActorNode::start(config).await.unwrap()
        };
        let registry = Arc::new(MemoryRegistry::new());
        let objects = Objects::new(registry.clone());
        objects.lay_foundation("authority", 6443).await.unwrap();
        let pod = json!({
            "metadata": {"name": "lives"}, "spec": {"containers": [{"name": "c", "image": "i"}]}
        });
        let options = WriteOptions::default();
        let pod = objects.create(&resource("pods"), "default", pod, &options).await.unwrap();
        objects.bind("default", "lives", &Binding::to("w1"), &options).await.unwrap();

        let worker = start("w1", PeerRole::Node).await;
        let (mut nodes, mut members) = (Vec::new(), Vec::new());
        for name in ["n1", "n2", "n3"] {
            let member = Arc::new(Counted { registry: registry.clone(), asked: 0.into() });
            let bindings = Arc::new(Bindings::follow(member.clone()));
            let parts = ObjectsParts {
                objects: Objects::new(member.clone()),
                bindings: bindings.clone(),
                roles: Roles::follow(&Reader::new(member.clone())),
                refusals: Arc::new(Refusals::default()),
                is_member: Arc::new(|_| false),
                workers: tokio::runtime::Handle::current(),
            };
            let node = start(name, PeerRole::Control).await;
            worker.addresses().set(node.name().clone(), node.local_addr());
            node.spawn::<ObjectsRole, _>(OBJECTS_ACTOR, SpawnOptions::default(), move |_| {
                ObjectsActor::new(parts.clone())
            })
            .unwrap();
            let follows = async {
                while !bindings.is_current() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(LIMIT, follows).await.expect("the pods are followed");
            nodes.push(node);
            members.push(member);
        }
        let mut events = objects.watch(&resource("events"), WatchQuery::default()).await.unwrap();
        let names = nodes.iter().map(|node| node.name().clone()).collect();
        let (_members, names) = watch::channel(names);
        let door = RemoteDoor::new(worker.clone(), names);
        let recorder = Recorder::start(Objects::new(Arc::new(door)), "kubelet", "w1");
        let went = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "went", "namespace": "default", "uid": "u"}
        });
        recorder.record(&went, Severity::Normal, "Killing", "stopped");
        recorder.record(&pod, Severity::Normal, "Started", "runs");
        let started = async {
            loop {
                if let ObjectEvent::Added(event) = events.next().await.unwrap().unwrap() {
                    break event;
                }
            }
        };
        let event = tokio::time::timeout(LIMIT, started).await.unwrap();
        assert_eq!(event["involvedObject"]["name"], "lives");
        let asked: Vec<_> =
            members.iter().map(|member| member.asked.load(Ordering::SeqCst)).collect();
        assert_eq!(asked, [1, 1, 1]);
        for node in nodes.into_iter().chain([worker]) {
            node.stop(LIMIT).await;
        }
    });
}
