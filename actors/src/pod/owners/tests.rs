//! What owners are told, by real actors on real actor nodes.

use super::*;
use crate::controllers::control::{Control, Look, LookError, Next};
use crate::testing::{LIMIT, Machine};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_registry_api::{Epoch, Fence, Shard, Transaction};
use impresario_runtime::{ClusterAuthority, NodeConfig, PeerRole, PermitAll, SpawnOptions};
use serde_json::{Value, json};

/// Says what it is told.
struct Listener(mpsc::UnboundedSender<Told>);

impl Look for Listener {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        async { Ok(Next::WhenTold) }.boxed()
    }

    fn told<'a>(&'a self, told: &'a Told) -> BoxFuture<'a, bool> {
        // Who does not listen any more has ended.
        let _ = self.0.send(told.clone());
        async { false }.boxed()
    }
}

/// An actor of this name that says what it is told.
fn listen(node: &ActorNode, name: &'static str) -> mpsc::UnboundedReceiver<Told> {
    let (said, heard) = mpsc::unbounded_channel();
    let look: Arc<dyn Look> = Arc::new(Listener(said));
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    node.spawn::<ControlRole, _>(name, SpawnOptions::default(), move |_| {
        Control::new(name.to_owned(), fence, look.clone())
    })
    .unwrap();
    heard
}

fn owned_by(kind: &str, uid: &str) -> ObjectMeta {
    let api_version =
        TOLD.iter().find(|(_, told)| *told == kind).map_or("v1", |(version, _)| version);
    let owner = |controls: bool, uid: &str| json!({"apiVersion": api_version, "kind": kind, "name": "o", "uid": uid, "controller": controls});
    let metadata =
        json!({"uid": "u", "ownerReferences": [owner(false, "other"), owner(true, uid)]});
    serde_json::from_value(metadata).unwrap()
}

fn entry(name: &str, mod_revision: u64) -> Entry {
    let key = Key::new("pods", "ns", name);
    Entry { key, value: "{}".into(), create_revision: 1, mod_revision }
}

#[actix::test]
async fn a_pod_tells_the_actor_of_its_job_each_revision_that_it_wrote() {
    let machine = Machine::start(4000).await;
    let mut heard = listen(&machine.node, "job/j");
    let key = Key::new("pods", "ns", "p");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "p",
            "creationTimestamp": "2024-01-01T00:00:00Z", "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}]},
        "spec": {"nodeName": "n1", "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i", "command": ["exit", "0"]}]},
        "status": {"phase": "Pending"}
    });
    machine.registry.transact(Transaction::create(key.clone(), pod.to_string())).await.unwrap();
    let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    machine.until(&key, "over", ended).await;
    let (stored, _) = machine
        .registry
        .get(key.clone(), impresario_registry_api::Consistency::Local)
        .await
        .unwrap();
    let last = stored.unwrap().mod_revision;
    let until_last = async {
        let mut before = 0;
        loop {
            let told = heard.recv().await.expect("it listens");
            assert_eq!((told.node.as_str(), &told.key, told.uid.as_str()), ("n1", &key, "p"));
            assert!(told.revision > before, "each is a later one");
            before = told.revision;
            if before >= last {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, until_last).await.expect("it is told of the last write");
}

#[test]
fn who_controls_a_pod_is_told_by_the_name_of_its_actor_and_nobody_else() {
    let table = [
        ("ReplicaSet", Some("replicaset/u")),
        ("ReplicationController", Some("replicationcontroller/u")),
        ("DaemonSet", Some("daemonset/u")),
        ("StatefulSet", Some("statefulset/u")),
        ("Job", Some("job/u")),
        ("TrainingJob", None),
        ("Node", None),
    ];
    for (kind, expected) in table {
        assert_eq!(owner_of(&owned_by(kind, "u")).as_deref(), expected, "{kind}");
    }
    assert_eq!(owner_of(&ObjectMeta::default()), None);
}

#[test]
fn of_each_pod_the_last_write_is_told() {
    let told = |name: &str, revision| {
        let Entry { key, mod_revision, .. } = entry(name, revision);
        let told = Told { node: "n".into(), key, uid: "u".into(), revision: mod_revision };
        ("job/j".to_owned(), told)
    };
    let hints = [told("a", 5), told("b", 6), told("a", 9), told("a", 7)];
    let kept: Vec<_> =
        newest(hints.into_iter()).map(|(_, told)| (told.key.name, told.revision)).collect();
    assert_eq!(kept, [("a".to_owned(), 9), ("b".to_owned(), 6)]);
}

#[actix::test]
async fn hints_that_have_no_place_are_dropped_and_counted_and_nobody_waits() {
    let machine = Machine::start(1000).await;
    let (_members, names) = watch::channel(Vec::new());
    let owners = Owners::start(machine.node.clone(), names);
    // The task has no turn before this ends.
    let all = WAITING as u64 * 4;
    for revision in 1..=all {
        owners.tell(&entry("p", revision), &owned_by("Job", "j"));
    }
    assert_eq!(owners.dropped(), all - WAITING as u64);
}

async fn node(authority: &ClusterAuthority, name: &str) -> ActorNode {
    let credential =
        authority.issue(name, PeerRole::Control, &[], Duration::from_hours(1)).unwrap();
    let gate = Arc::new(PermitAll);
    ActorNode::start(NodeConfig { gate, ..NodeConfig::new(credential) }).await.unwrap()
}

#[actix::test]
async fn an_owner_is_found_at_the_member_that_has_it_wherever_it_was_before() {
    let authority = ClusterAuthority::create("test").unwrap();
    let (here, without, with) =
        (node(&authority, "n1").await, node(&authority, "m1").await, node(&authority, "m2").await);
    for member in [&without, &with] {
        here.addresses().set(member.name().clone(), member.local_addr());
    }
    let mut heard = listen(&with, "job/j");
    let members = [without.name().clone(), with.name().clone()];
    let told = |revision| Told {
        node: "n1".into(),
        key: Key::new("pods", "ns", "p"),
        uid: "p".into(),
        revision,
    };
    let cases =
        [None, Some(with.name().clone()), Some(without.name().clone()), Some("gone".into())];
    for (revision, known) in (1..).zip(cases) {
        let found = send(&here, &members, known, "job/j".into(), told(revision)).await;
        assert_eq!(found.as_ref(), Some(with.name()));
        let one = tokio::time::timeout(LIMIT, heard.recv()).await.unwrap();
        assert_eq!(one, Some(told(revision)));
    }
    assert_eq!(send(&here, &members, None, "job/k".into(), told(9)).await, None);
    for node in [here, without, with] {
        node.stop(LIMIT).await;
    }
}
