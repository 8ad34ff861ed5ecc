//! Who is revoked, or removed, keeps nothing that it had opened.

use super::{Cluster, ClusterGate, LIMIT, intruder::Intruder, kind, with_cluster};
use crate::layout::NodeDir;
use crate::node::revoked::{self, Following, Known};
use actix::{Actor, Context, Handler};
use futures_util::{Stream, StreamExt as _};
use impresario_gateway::Fingerprint;
use impresario_objects::protocol::{self as objects, OBJECTS_ACTOR, ObjectsRole};
use impresario_objects::{DeleteOptions, RemoteDoor, WriteOptions};
use impresario_registry::protocol as registry;
use impresario_registry::{
    Beginning, Member, MemberConfig, REGISTRY_ACTOR, RegistryRole, Selection, WatchRequest,
};
use impresario_runtime::{
    ActorNode, ActorPath, AskError, ItemStream, NodeConfig, Open, PeerRole, Refusal, SpawnOptions,
    role, stream_message,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// A stream of nothing, for as long as its link stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Listen;
stream_message!(Listen => u64, "test.Listen");

role! {
    /// An actor of a machine that an admin may ask.
    ListenerRole = "listener" { asks: [], streams: [Listen] }
}

struct Listener;

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Open<Listen>> for Listener {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, open: Open<Listen>, _: &mut Self::Context) -> Self::Result {
        actix::spawn(async move { open.sink.closed().await });
        Ok(())
    }
}

/// A node with the gate of every node.
async fn node(cluster: &Cluster, name: &str, role: PeerRole, gate: &ClusterGate) -> ActorNode {
    let credential = cluster.authority.issue(name, role, &[], Duration::from_hours(1)).unwrap();
    let config = NodeConfig { gate: Arc::new(gate.clone()), ..NodeConfig::new(credential) };
    let node = ActorNode::start(config).await.unwrap();
    node.addresses().set(cluster.node.name().clone(), cluster.node.local_addr());
    node
}

/// Waits until a stream is over, whatever it brings before.
async fn ends<T, E>(mut stream: impl Stream<Item = Result<T, E>> + Unpin) {
    timeout(LIMIT, async { while let Some(Ok(_)) = stream.next().await {} })
        .await
        .expect("it ends");
}

fn secrets() -> WatchRequest {
    WatchRequest { select: Selection::all("secrets"), ..WatchRequest::default() }
}

#[test]
fn whose_certificate_is_revoked_keeps_nothing_that_it_had_opened_at_any_node() {
    with_cluster(async |cluster| {
        let gate = ClusterGate::default();
        let plain = node(cluster, "n1", PeerRole::Node, &gate).await;
        let members = tokio::sync::watch::channel(vec![cluster.node.name().clone()]).1;
        let door = RemoteDoor::new(plain.clone(), members);
        let _plain = revoked::follow(Known::default(), Arc::new(door), plain.clone(), &gate, drop);
        let (handle, me) = (cluster.member.handle(), cluster.node.clone());
        let _member = revoked::follow(Known::default(), handle, me, &cluster.gate, drop);
        let options = SpawnOptions::default();
        plain.spawn::<ListenerRole, _>("listener", options, |_| Listener).unwrap();

        let lost = cluster.join("lost", PeerRole::Admin).await;
        let kept = cluster.join("kept", PeerRole::Admin).await;
        let listen = async |who: &Intruder| listen(who, &plain).await;
        let follow = async |who: &Intruder| {
            let path = ActorPath::new(who.member.clone(), OBJECTS_ACTOR);
            let follow = objects::Follow { sender: who.door.sender().clone(), request: secrets() };
            who.node.actor::<ObjectsRole>(path).open(follow, LIMIT).await
        };
        let (heard, seen) = (listen(&lost).await.unwrap(), follow(&lost).await.unwrap());
        let mut others = listen(&kept).await.unwrap();

        revoke(cluster, &lost.node.identity().fingerprint).await;
        ends(heard).await;
        ends(seen).await;
        assert!(listen(&lost).await.is_err());
        assert!(follow(&lost).await.is_err());
        listen(&kept).await.unwrap();
        follow(&kept).await.unwrap();
        let still = timeout(Duration::ZERO, others.next()).await;
        assert!(still.is_err(), "a link of another certificate ended");

        // A key that is taken out is trusted again.
        let (maps, space) = (kind("configmaps"), "kube-system");
        let name = "revoked-certificates";
        let (options, write) = (DeleteOptions::default(), WriteOptions::default());
        cluster.objects.delete(&maps, space, name, &options, &write).await.unwrap();
        let again = timeout(LIMIT, async {
            while listen(&lost).await.is_err() || follow(&lost).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        again.await.expect("trusted again");
        for node in [lost.node, kept.node, plain] {
            node.stop(LIMIT).await;
        }
    });
}

async fn listen(who: &Intruder, at: &ActorNode) -> Result<ItemStream<u64>, AskError> {
    who.node.addresses().set(at.name().clone(), at.local_addr());
    let path = ActorPath::new(at.name().clone(), "listener");
    who.node.actor::<ListenerRole>(path).open(Listen, LIMIT).await
}

async fn revoke(cluster: &Cluster, print: &str) {
    let map = json!({"metadata": {"name": "revoked-certificates"}, "data": {print: "lost"}});
    let write = WriteOptions::default();
    cluster.objects.create(&kind("configmaps"), "kube-system", map, &write).await.unwrap();
}

/// A node that begins with what lies in its folder and, where it asks nobody, hears of no member.
async fn starts(cluster: &Cluster, dir: &NodeDir, asks: Option<&Cluster>) -> Started {
    let known = Known::of(dir).unwrap();
    let gate = known.gate();
    let plain = node(cluster, "n1", PeerRole::Node, &gate).await;
    let options = SpawnOptions::default();
    plain.spawn::<ListenerRole, _>("listener", options, |_| Listener).unwrap();
    let members = asks.map(|cluster| cluster.node.name().clone()).into_iter().collect();
    let door = RemoteDoor::new(plain.clone(), tokio::sync::watch::channel(members).1);
    let (tell, told) = mpsc::unbounded_channel();
    let told_now = move |prints| drop(tell.send(prints));
    let following = revoked::follow(known, Arc::new(door), plain.clone(), &gate, told_now);
    Started { node: plain, following, told }
}

struct Started {
    node: ActorNode,
    following: Following,
    told: mpsc::UnboundedReceiver<HashSet<Fingerprint>>,
}

#[test]
fn who_was_revoked_stays_so_at_a_node_that_starts_and_reaches_nobody() {
    with_cluster(async |cluster| {
        let folder = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(folder.path().to_owned());
        let lost = cluster.join("lost", PeerRole::Admin).await;
        let kept = cluster.join("kept", PeerRole::Admin).await;
        revoke(cluster, &lost.node.identity().fingerprint).await;

        let mut first = starts(cluster, &dir, Some(cluster)).await;
        assert_eq!(first.told.recv().await.unwrap(), HashSet::new(), "nothing is kept yet");
        assert!(first.following.has_read_within(LIMIT).await);
        assert_eq!(first.told.recv().await.unwrap().len(), 1);
        let written = timeout(LIMIT, async {
            while !dir.revoked().exists() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        written.await.expect("it is written down");
        first.node.stop(LIMIT).await;
        drop(first.following);

        let mut again = starts(cluster, &dir, None).await;
        // The API's certificates are judged by what is told.
        assert_eq!(again.told.recv().await.unwrap().len(), 1);
        assert!(listen(&lost, &again.node).await.is_err());
        listen(&kept, &again.node).await.unwrap();
        assert!(!again.following.has_read_within(Duration::ZERO).await);
        for node in [lost.node, kept.node, again.node] {
            node.stop(LIMIT).await;
        }
    });
}

#[test]
fn what_a_member_reads_of_a_leader_takes_the_place_of_what_it_has_kept() {
    with_cluster(async |cluster| {
        let folder = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(folder.path().to_owned());
        let (here, there) = ("0a".repeat(32), "0b".repeat(32));
        std::fs::write(dir.revoked(), json!([here.clone()]).to_string()).unwrap();
        revoke(cluster, &there).await;
        let known = Known::of(&dir).unwrap();
        let (gate, me) = (known.gate(), cluster.node.clone());
        assert_eq!(*gate.revoked.read(), HashSet::from([here]));
        gate.is_unread.store(true, Ordering::Relaxed);
        let handle = cluster.member.handle();
        let mut following = revoked::follow(known, handle, me, &gate, drop);
        assert!(following.has_read_within(LIMIT).await);
        assert_eq!(*gate.revoked.read(), HashSet::from([there]));
        assert!(!gate.is_unread.load(Ordering::Relaxed));
    });
}

#[test]
fn a_member_that_was_removed_keeps_no_watch_on_the_registry() {
    with_cluster(async |cluster| {
        let following = revoked::end_links_of_removed(&cluster.member, cluster.node.clone());
        let following = tokio::spawn(following);
        let other = node(cluster, "m2", PeerRole::Control, &ClusterGate::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let beginning = Beginning::Join { members: vec![cluster.node.name().clone()] };
        let config = MemberConfig::new(folder.path(), other.clone(), other.local_addr(), beginning);
        let second = Member::start(config).await.unwrap();
        let votes = timeout(LIMIT, async {
            while cluster.member.status().voters.len() < 2 {
                sleep(Duration::from_millis(10)).await;
            }
        });
        votes.await.expect("it has a vote");
        let path = ActorPath::new(cluster.node.name().clone(), REGISTRY_ACTOR);
        let registry = other.actor::<RegistryRole>(path);
        let watch = registry.open(registry::Follow(secrets()), LIMIT).await.unwrap();
        let removed = timeout(LIMIT, async {
            loop {
                match cluster.member.remove_member("m2", false).await {
                    // It may have been done although the answer was lost.
                    Ok(()) | Err(registry::MembershipError::Unknown { .. }) => return,
                    // On a busy machine there is no leader for a moment.
                    Err(registry::MembershipError::Unavailable { .. }) => {
                        sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        removed.await.expect("it is removed");
        ends(watch).await;
        // Over a new link it is refused.
        let refused = timeout(LIMIT, async {
            loop {
                match registry.open(registry::Follow(secrets()), LIMIT).await {
                    Ok(_) => panic!("it was let in again"),
                    Err(AskError::Refused { .. }) => return,
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        });
        refused.await.expect("it is told");
        following.abort();
        second.stop().await;
        other.stop(LIMIT).await;
    });
}
