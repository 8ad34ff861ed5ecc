//! Finds a node for every pod that names this scheduler: plans, asks the nodes, binds.
//!
//! ```text
//!  watch: pods, nodes ──> Queue, Picture ──plan──> per node: Reserve ──> Bind (one transaction)
//!                             ▲                        │ refused: the picture is corrected,
//!                             └────────────────────────┘ the pod looks again after a backoff
//! ```
//!
//! Guarantees: a pod is bound at most once (compare-and-set on its revision, under this
//! activation's fence); a node never gets more than it granted; a pod that fits nowhere says why
//! in its condition and in an event, and is looked at again when something changed that may help.
//! It holds no truth: a new activation reads pods and nodes and goes on.

pub mod crowd;
pub mod demands;
pub mod filters;
pub mod fit;
pub mod leavers;
pub mod parties;
pub mod picture;
pub mod plan;
pub mod policy;
pub mod preempt;
pub mod queue;
pub mod scene;
pub mod scores;

mod around;
mod binding;
mod changes;
mod doubts;
mod explain;
mod hall;
mod hopes;
mod messages;
mod placing;
mod preempting;
mod rooms;
mod training;
mod turn;
mod volume_choice;
pub mod volume_needs;
mod volumes;

use crate::{
    auction::AuctionPolicy,
    change,
    events::Recorder,
    follow::{Followed, follow},
};
use actix::prelude::*;
use changes::{Changes, Silence};
use hall::Hall;
use impresario_client::protocol::scheduler::DEFAULT_SCHEDULER;
use impresario_registry_api::{Entry, Fence, Key, RegistryHandle, Selection, WatchEvent};
use impresario_runtime::{ActorNode, NodeName, clock};
use k8s_openapi::api::core::v1;
use parties::Pending;
use picture::{Left, Picture};
use policy::Policy;
use queue::Queue;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// How a scheduler is set up.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// Its name, as in `spec.schedulerName`.
    pub name: String,
    /// How it chooses among nodes that fit.
    pub policy: policy::Which,
    /// How it divides the cluster among training jobs, unless an operator says otherwise in the ConfigMap
    /// `kube-system/training-scheduler`.
    pub training: AuctionPolicy,
    /// What lots are drawn from.
    pub seed: u64,
    /// How long a node keeps room for a pod that is being bound.
    pub reservation_ttl: Duration,
    /// How long a node has to answer.
    pub ask_deadline: Duration,
    /// After this long the nodes are asked again to keep telling what they have.
    pub follow_again: Duration,
    /// After this long a pod is told that it fits only on nodes that do not answer.
    pub silence_told: Duration,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            name: DEFAULT_SCHEDULER.to_owned(),
            policy: policy::Which::default(),
            training: AuctionPolicy::default(),
            seed: 0,
            reservation_ttl: Duration::from_secs(10),
            ask_deadline: Duration::from_secs(3),
            follow_again: Duration::from_secs(15),
            silence_told: Duration::from_secs(5),
        }
    }
}

/// The most pods that are placed on one node at a time: keeps a transaction within its limits.
const BATCH: usize = 64;

/// While a pod fits nowhere, nodes are asked this often that say they have less than the registry
/// shows: what they told last may have been lost, or overtaken by an older refusal.
const DOUBT: Duration = Duration::from_secs(1);

/// Names the control members, as the registry's membership has them: never as objects say.
pub type Members = Arc<dyn Fn() -> Vec<NodeName> + Send + Sync>;

/// The actor. One activation writes under one fence and stops when that is no longer valid.
pub struct Scheduler {
    settings: SchedulerSettings,
    policy: Box<dyn Policy>,
    /// By what training jobs share the cluster: the settings say, or an operator.
    auction: AuctionPolicy,
    node: ActorNode,
    registry: RegistryHandle,
    fence: Option<Fence>,
    members: Members,
    events: Recorder,
    queue: Queue,
    picture: Picture,
    /// Nodes that are being asked, and since when; the next batch waits.
    asking: BTreeMap<String, Instant>,
    /// Pods of whose placement nobody knows the end, and until when the watch may tell it.
    in_doubt: VecDeque<(Instant, String)>,
    /// Nodes that did not answer.
    silent: BTreeMap<String, Silence>,
    doubts: doubts::Doubts,
    leavers: leavers::Leavers,
    nodes_known: bool,
    pods_known: bool,
    namespaces_known: bool,
    budgets_known: bool,
    pass_ordered: bool,
    /// What the next pass begins with.
    changes: Changes,
    timer: Option<SpawnHandle>,
    turn: usize,
    hall: Hall,
    /// Claims, volumes and classes of storage.
    volumes: volumes::Volumes,
    /// Pods for whose claims it is being written what was chosen.
    choosing: HashSet<String>,
    /// How often it has looked for places.
    passes: u64,
    bound: u64,
    refused: u64,
}

impl Scheduler {
    /// A scheduler that writes under `fence`. Actors of training jobs live on the `members`.
    pub fn new(
        settings: SchedulerSettings,
        node: ActorNode,
        registry: RegistryHandle,
        fence: Option<Fence>,
        members: Members,
    ) -> Self {
        let policy = policy::policy(settings.policy, settings.seed);
        let auction = settings.training;
        let events = Recorder::new(registry.clone(), &settings.name, node.name().as_str());
        Self {
            settings,
            policy,
            auction,
            node,
            registry,
            fence,
            members,
            events,
            queue: Queue::default(),
            picture: Picture::default(),
            asking: BTreeMap::new(),
            in_doubt: VecDeque::new(),
            silent: BTreeMap::new(),
            doubts: doubts::Doubts::default(),
            leavers: leavers::Leavers::new(),
            nodes_known: false,
            pods_known: false,
            namespaces_known: false,
            budgets_known: false,
            pass_ordered: false,
            changes: Changes::default(),
            timer: None,
            turn: 0,
            hall: Hall::default(),
            volumes: volumes::Volumes::default(),
            choosing: HashSet::new(),
            passes: 0,
            bound: 0,
            refused: 0,
        }
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        use futures_util::StreamExt;
        for (resource, wrap) in [
            ("pods", Seen::Pods as fn(Followed) -> Seen),
            ("nodes", Seen::Nodes),
            ("namespaces", Seen::Namespaces),
            (picture::BUDGETS, Seen::Budgets),
            (hall::JOBS, Seen::TrainingJobs),
        ] {
            ctx.add_stream(follow(self.registry.clone(), Selection::all(resource)).map(wrap));
        }
        for (resource, kind) in volumes::KINDS {
            let seen = follow(self.registry.clone(), Selection::all(resource));
            ctx.add_stream(seen.map(move |seen| Seen::Storage(kind, seen)));
        }
        let asked = hall::asked_policy();
        ctx.add_stream(follow(self.registry.clone(), asked).map(Seen::TrainingPolicy));
        ctx.run_interval(hall::ROUND, Scheduler::order_round);
        ctx.run_interval(self.settings.follow_again, |scheduler, ctx| {
            for name in scheduler.picture.node_names() {
                scheduler.follow_node(name, ctx);
            }
        });
        ctx.run_interval(DOUBT, |scheduler, ctx| {
            let doubtful = scheduler.picture.doubtful();
            scheduler.doubts.are(&doubtful);
            if scheduler.queue.waits_in_vain() {
                for name in doubtful {
                    scheduler.follow_node(name, ctx);
                }
            }
        });
    }
}

/// A batch of one of the watches.
enum Seen {
    Pods(Followed),
    Nodes(Followed),
    Namespaces(Followed),
    Budgets(Followed),
    TrainingJobs(Followed),
    TrainingPolicy(Followed),
    Storage(volumes::Kind, Followed),
}

impl StreamHandler<Seen> for Scheduler {
    fn handle(&mut self, seen: Seen, ctx: &mut Self::Context) {
        match seen {
            Seen::TrainingJobs(followed) => {
                if self.hall.seen(followed, clock::timestamp()) {
                    self.order_round(ctx);
                }
                return;
            }
            Seen::TrainingPolicy(followed) => return self.policy_asked(followed, ctx),
            Seen::Namespaces(followed) => self.namespaces_seen(followed),
            Seen::Budgets(followed) => self.budgets_seen(followed),
            Seen::Storage(kind, followed) => self.storage_seen(kind, followed),
            Seen::Pods(Followed::All(entries)) => {
                let present: HashSet<_> = entries.iter().filter_map(uid_of).collect();
                for entry in &entries {
                    self.pod_seen(entry, ctx);
                }
                let known = self.queue.uids().into_iter().chain(self.picture.bound());
                for uid in known.filter(|uid| !present.contains(uid)).collect::<Vec<_>>() {
                    self.pod_gone(&uid, ctx);
                }
                self.hall.pods_are(&present);
                self.pods_known = true;
            }
            Seen::Pods(Followed::Changes(events)) => {
                for event in events {
                    match event {
                        WatchEvent::Put { entry, .. } => self.pod_seen(&entry, ctx),
                        WatchEvent::Delete { previous, .. } => {
                            if let Some(uid) = uid_of(&previous) {
                                self.pod_gone(&uid, ctx);
                            }
                        }
                    }
                }
            }
            Seen::Nodes(Followed::All(entries)) => {
                let present: BTreeSet<_> =
                    entries.iter().map(|entry| entry.key.name.clone()).collect();
                for entry in &entries {
                    self.node_seen(entry, ctx);
                }
                for name in self.picture.node_names() {
                    if !present.contains(&name) {
                        self.node_gone(&name);
                    }
                }
                self.nodes_known = true;
                self.order_round(ctx);
            }
            Seen::Nodes(Followed::Changes(events)) => {
                for event in events {
                    match event {
                        WatchEvent::Put { entry, .. } => self.node_seen(&entry, ctx),
                        WatchEvent::Delete { previous, .. } => {
                            self.node_gone(&previous.key.name);
                            self.order_round(ctx);
                        }
                    }
                }
            }
        }
        self.order_pass(ctx);
    }
}

fn uid_of(entry: &Entry) -> Option<String> {
    let object: v1::Pod = change::decode(entry).ok()?;
    object.metadata.uid
}

impl Scheduler {
    fn pod_seen(&mut self, entry: &Entry, ctx: &mut Context<Self>) {
        let pod: v1::Pod = match change::decode(entry) {
            Ok(pod) => pod,
            Err(error) => return tracing::warn!(%error, "pod skipped"),
        };
        let (Some(spec), Some(uid)) = (&pod.spec, &pod.metadata.uid) else { return };
        self.hall.pod_seen(&pod);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
            self.queue.remove(uid);
            let Some(bound) = Pending::bound(&pod) else { return };
            // Whoever could not have the room that was kept for it may have what is left of it.
            self.changes.hopeful |= self.picture.nominations.get(uid).is_some();
            if self.picture.resident(uid).is_none_or(|known| **known != bound) {
                self.changes.stir(&bound);
            }
            let leaves_by = pod.metadata.deletion_timestamp.as_ref();
            let leaves_by = leaves_by.map(|time| time.0.as_millisecond());
            if self.volumes.pod_bound(uid, &pod, is_over) {
                self.look_at_claims();
            }
            let left = self.picture.pod_bound(bound, node, is_over, leaves_by);
            return self.room_left(left, ctx);
        }
        let name = spec.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER);
        let is_gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let is_ours = name == self.settings.name && pod.metadata.deletion_timestamp.is_none();
        if !is_ours || is_gated || is_over {
            self.waits_no_more(uid);
        } else if let Some(pending) = Pending::of(&pod) {
            let pending = Pending { volumes: self.volumes.needs(&pod).map(Arc::new), ..pending };
            self.nominated_before(&pod, &pending);
            let (key, value) = (entry.key.clone(), entry.value.clone());
            self.queue.seen(pending, key, value, entry.mod_revision, clock::now());
        }
    }

    /// A pod needs no node any more, nor the room that was kept for it.
    fn waits_no_more(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.changes.hopeful |= self.picture.nominations.remove(uid).is_some();
    }

    fn pod_gone(&mut self, uid: &str, ctx: &mut Context<Self>) {
        self.waits_no_more(uid);
        self.leavers.gone(uid);
        self.hall.pod_gone(uid);
        if self.volumes.pod_gone(uid) {
            self.look_at_claims();
        }
        let left = self.picture.pod_gone(uid);
        self.room_left(left, ctx);
    }

    /// A pod may have left room: others may fit there, or a job that waits.
    fn room_left(&mut self, left: Option<Left>, ctx: &mut Context<Self>) {
        let is_left = left.is_some();
        if let Some(left) = left {
            self.changes.room_on(left.node);
            self.changes.stir(&left.pod);
        }
        if self.hall.wants_round(is_left) {
            self.order_round(ctx);
        }
    }

    /// Whoever was to come there looks elsewhere, and to others it may be another thing now how pods are spread.
    fn node_gone(&mut self, name: &str) {
        self.heard(name);
        self.picture.node_gone(name);
        self.changes.hopeful = true;
    }

    fn node_seen(&mut self, entry: &Entry, ctx: &mut Context<Self>) {
        let node: v1::Node = match change::decode(entry) {
            Ok(node) => node,
            Err(error) => return tracing::warn!(%error, "node skipped"),
        };
        let is_new = !self.picture.knows(&entry.key.name);
        if self.picture.node_seen(&node) {
            self.order_round(ctx);
            self.heard(&entry.key.name);
            self.changes.room_on(entry.key.name.clone());
            // A node that is new, or came back, does not know that it is followed.
            self.follow_node(entry.key.name.clone(), ctx);
        } else if is_new {
            self.follow_node(entry.key.name.clone(), ctx);
        }
    }

    /// Orders one pass over the queue; many orders become one.
    fn order_pass(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.pass_ordered, true) {
            ctx.notify(Pass);
        }
    }

    fn key_of(&self, uid: &str) -> Option<Key> {
        self.queue.get(uid).map(|waiting| waiting.key.clone())
    }
}

/// Look at the queue now.
#[derive(Message)]
#[rtype(result = "()")]
struct Pass;

#[cfg(test)]
mod tests;
