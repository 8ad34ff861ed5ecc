//! Prints whether a message from who wrote a pod could reach its owner before the watch of the owner's member does.
//!
//! Three members in this process, on disks under the system's temporary directory, speak QUIC over loopback with each
//! other and with a node that writes pods through one of them, as many other writers as the argument says beside it. As
//! soon as a write is acknowledged its writer tells the revision: `cargo run --example told -- 64`. The same of what a
//! controller writes at a member and a node reads. docs/decisions/0010 and 0011 have what came of it.

use actix::prelude::*;
use impresario_actors::controllers::mirror::{Change, Mirror};
use impresario_registry::{
    Beginning, Consistency, Key, Member, MemberConfig, RegistryHandle, RemoteRegistry, Revision,
    Transaction,
};
use impresario_runtime::{
    ActorNode, ActorPath, ClusterAuthority, NodeConfig, PeerRole, PermitAll, SpawnOptions, message,
    role,
};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

const WRITES: usize = 500;
/// So that each ear has a name of its own.
static ROUND: AtomicUsize = AtomicUsize::new(0);
const LIMIT: Duration = Duration::from_secs(10);

role! {
    /// Who is told.
    pub EarRole = "ear" {
        asks: [Hint],
        streams: []
    }
}

/// A pod was written at this revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hint(String, Revision);
message!(Hint => (), "ear.Hint");

/// What was seen of a write by one who was told of it.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Instant,
    /// Whether the mirror showed it already.
    mirror_has_it: bool,
    /// When the write was read, or was found not to be there yet.
    read: Instant,
    /// Whether it was there then, and the mirror did not show it yet.
    was_first: bool,
}

#[derive(Clone)]
struct Ear {
    mirror: Mirror<Pod>,
    registry: RegistryHandle,
    told: Arc<Mutex<HashMap<Revision, Arrival>>>,
}

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Hint> for Ear {
    type Result = ();

    fn handle(&mut self, Hint(name, revision): Hint, context: &mut Self::Context) {
        let (at, mirror_has_it) = (Instant::now(), self.mirror.revision() >= revision);
        let this = self.clone();
        let read = async move {
            let read = this.registry.get(Key::new("pods", "ns", name), Consistency::Local).await;
            let found = read.ok().and_then(|(entry, _)| entry);
            let is_there = found.is_some_and(|entry| entry.mod_revision >= revision);
            let was_first = is_there && this.mirror.revision() < revision;
            let read = Instant::now();
            this.told.lock().insert(revision, Arrival { at, mirror_has_it, read, was_first });
        };
        context.spawn(read.into_actor(self));
    }
}

fn main() -> Outcome<()> {
    let others = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let runtime = std::cell::Cell::new(Some(runtime));
    let system = actix::System::with_tokio_rt(|| {
        runtime.take().unwrap_or_else(|| unreachable!("one runtime is made"))
    });
    system.block_on(measure(directory.path(), others))
}

async fn start(authority: &ClusterAuthority, name: &str) -> Outcome<ActorNode> {
    let credential = authority.issue(name, PeerRole::Control, &[], Duration::from_hours(1))?;
    let gate = Arc::new(PermitAll);
    Ok(ActorNode::start(NodeConfig { gate, ..NodeConfig::new(credential) }).await?)
}

async fn measure(directory: &Path, others: usize) -> Outcome<()> {
    let authority = ClusterAuthority::create("bench")?;
    let mut nodes = Vec::new();
    for name in ["m0", "m1", "m2"] {
        nodes.push(start(&authority, name).await?);
    }
    let worker = start(&authority, "worker").await?;
    for node in nodes.iter().chain([&worker]) {
        for other in &nodes {
            node.addresses().set(other.name().clone(), other.local_addr());
        }
    }
    let mut members = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let beginning = match index {
            0 => Beginning::Found { peers: Vec::new() },
            _ => Beginning::Join { members: vec![nodes[0].name().clone()] },
        };
        let folder = directory.join(node.name().as_str());
        let mut config = MemberConfig::new(folder, node.clone(), node.local_addr(), beginning);
        config.harness = Some("worker".to_owned());
        members.push(Member::start(config).await?);
    }
    while members.iter().any(|member| member.status().voters.len() < 3) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let leader = members[0].status().leader.ok_or("there is no leader")?;
    let leads = |node: &ActorNode| node.name().as_str() == leader;
    let at = |node: &ActorNode, through: &ActorNode| -> RegistryHandle {
        Arc::new(RemoteRegistry::fixed(node.clone(), vec![through.name().clone()]))
    };
    let follower = nodes.iter().find(|node| !leads(node)).ok_or("all lead")?;
    let leading = nodes.iter().find(|node| leads(node)).ok_or("nobody leads")?;
    let holders = || {
        let label = |node: &ActorNode| if leads(node) { "leader" } else { "follower" };
        let each = nodes.iter().zip(&members);
        each.map(|(node, member)| (label(node), node.clone(), member.handle())).collect()
    };
    for (words, through) in [("the leader", leading), ("a follower", follower)] {
        let what = format!("a node's pods to their owners, written through {words}");
        round(&what, (&worker, at(&worker, through)), holders(), others).await?;
    }
    for (words, node, member) in nodes
        .iter()
        .zip(&members)
        .map(|(node, member)| (if leads(node) { "the leader" } else { "a follower" }, node, member))
    {
        let what = format!("a controller's slices to a node's proxy, written at {words}");
        let proxy = vec![("proxy", worker.clone(), at(&worker, follower))];
        round(&what, (node, member.handle()), proxy, others).await?;
    }
    for member in members {
        member.stop().await;
    }
    Ok(())
}

/// What `writer` tells those who listen of what it writes through its door.
async fn round(
    what: &str,
    (writer, door): (&ActorNode, RegistryHandle),
    listeners: Vec<(&'static str, ActorNode, RegistryHandle)>,
    others: usize,
) -> Outcome<()> {
    println!("{what}, {others} other writers:");
    let mut ears = Vec::new();
    for (label, node, registry) in listeners {
        writer.addresses().set(node.name().clone(), node.local_addr());
        let mirror = Mirror::start(registry.clone(), "pods");
        let ear = Ear { mirror, registry, told: Arc::default() };
        ear.mirror.reached(1, LIMIT).await?;
        let (mut changes, shown) = (ear.mirror.changes(), Arc::<Mutex<HashMap<_, _>>>::default());
        let seen = shown.clone();
        let watching = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                if let Change::Put { now, .. } = change {
                    seen.lock().insert(now.entry.mod_revision, Instant::now());
                }
            }
        });
        let made = ear.clone();
        let name = format!("ear-{}", ROUND.fetch_add(1, Ordering::Relaxed));
        node.spawn::<EarRole, _>(name.as_str(), SpawnOptions::default(), move |_| made.clone())?;
        let path = ActorPath::new(node.name().clone(), name.as_str());
        ears.push((label, path, ear, shown, watching));
    }
    let busy: Vec<_> = (0..others)
        .map(|other| {
            let door = door.clone();
            tokio::spawn(async move {
                for number in 0_u64.. {
                    let key = Key::new("pods", "ns", format!("other-{other}"));
                    // What is not written is not the matter here.
                    let _ = door.transact(Transaction::new().put(key, pod(number))).await;
                }
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for number in 0..WRITES {
        let name = format!("p{}", number % 50);
        let key = Key::new("pods", "ns", name.as_str());
        let put = Transaction::new().put(key, pod(number as u64));
        let revision = door.transact(put).await?.revision;
        acknowledged.push((revision, Instant::now()));
        for (_, path, ..) in &ears {
            writer.actor::<EarRole>(path.clone()).tell(Hint(name.clone(), revision))?;
        }
    }
    for task in busy {
        task.abort();
    }
    let last = acknowledged.last().map_or(1, |(revision, _)| *revision);
    for (label, _, ear, shown, watching) in ears {
        ear.mirror.reached(last, LIMIT).await?;
        let deadline = Instant::now() + LIMIT;
        while (ear.told.lock().len() < WRITES || !shown.lock().contains_key(&last))
            && Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        watching.abort();
        let (told, shown) = (ear.told.lock(), shown.lock());
        let after = |at: Instant, acknowledged: Instant| {
            let later = at.saturating_duration_since(acknowledged).as_secs_f64();
            (later - acknowledged.saturating_duration_since(at).as_secs_f64()) * 1e3
        };
        let by_watch = acknowledged.iter().filter_map(|(at, acknowledged)| {
            shown.get(at).map(|shown| after(*shown, *acknowledged))
        });
        let by_hint = acknowledged.iter().filter_map(|(at, acknowledged)| {
            told.get(at).map(|told| after(told.at, *acknowledged))
        });
        let by_read = acknowledged.iter().filter_map(|(at, acknowledged)| {
            told.get(at).map(|told| after(told.read, *acknowledged))
        });
        let news = told.values().filter(|told| !told.mirror_has_it).count();
        let is_readable = |told: &&Arrival| told.was_first;
        let readable = told.values().filter(is_readable).count();
        println!(
            "  {label:8} watch {}, message {}, read {}; of {} messages {news} came before the watch, {readable} were read so",
            spread(by_watch.collect()),
            spread(by_hint.collect()),
            spread(by_read.collect()),
            told.len(),
        );
    }
    Ok(())
}

/// Median, the worst of a hundred and the worst, in milliseconds.
fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get((times.len().saturating_sub(1)) * part / 100).copied();
    let [middle, late, last] = [50, 99, 100].map(|part| at(part).unwrap_or(f64::NAN));
    format!("{middle:6.2}/{late:6.2}/{last:6.2} ms")
}

fn pod(number: u64) -> String {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"},
            "annotations": {"number": number.to_string()}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "registry.example/web:1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1",
            "conditions": conditions}})
    .to_string()
}
