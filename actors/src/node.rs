//! Stands for this machine: says what it has, decides what fits on it, and starts a Pod actor for
//! every pod that is bound to it.
//!
//! ```text
//!  Scheduler ──Reserve──> Node ──Grant──>            registry ──watch: my pods──> Node
//!  Scheduler <──SummaryChanged── Node                Node ──Desired──> Pod actors (children)
//!  Registry  <──Heartbeat, each second── Node        Pod actors ──Progress──> Node
//!  control members <──Report: what is used── Node
//! ```
//!
//! Guarantees: what is granted, and what admitted pods ask for, never exceeds what there is; what
//! an earlier process left running is taken over where its pod is still bound here, and ended
//! where it is not; a pod that was bound past this node and does not fit fails, and says why.

pub mod machine;
pub mod object;
pub mod reservations;

mod beats;
mod gpu_driver;
mod gpus;
mod heart;
mod hosted;
mod messages;
mod pods;
mod sampler;
mod sampling;
mod volumes;

pub use gpu_driver::GpuDriver;
pub use heart::{Heart, Pulse};
pub use sampler::SAMPLING;

use crate::{
    events::Recorder,
    follow::{Followed, follow},
    pod::{backoff::BackoffScale, kit::Kit, owners::Owners},
};
use actix::prelude::*;
use futures_util::StreamExt;
use hosted::Hosted;
use impresario_client::protocol::{
    resources::Resources,
    scheduler::{NodeSummary, SchedulerRole, SummaryChanged},
};
use impresario_host::{
    ContainerDriver, Found, address::AddressPool, container::DriverError, devices::GpuPool,
    opening::Openings,
};
use impresario_registry_api::{Key, RegistryHandle, Selection};
use impresario_runtime::{ActorNode, ActorPath, NodeName, clock};
use object::NodeFacts;
use parking_lot::Mutex;
use reservations::Reservations;
use sampler::Sampler;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// How often the registry hears that the node lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Changes of what is free within this long are told at once.
const TELL_AFTER: Duration = Duration::from_millis(5);
const AGAIN: Duration = Duration::from_secs(1);

/// What a Node actor is made of.
pub struct NodeParts {
    /// This process's actor node; the node has its name.
    pub node: ActorNode,
    /// What runs containers here.
    pub driver: Arc<dyn ContainerDriver>,
    /// Where the objects are.
    pub registry: RegistryHandle,
    /// The control members, by the membership of the registry.
    pub members: tokio::sync::watch::Receiver<Vec<NodeName>>,
    /// Who is told that the node lives.
    pub heart: Arc<dyn Heart>,
    /// The addresses of its pods.
    pub addresses: AddressPool,
    /// The GPUs of its pods.
    pub gpus: GpuPool,
    /// Who knows how they are.
    pub gpu_driver: Arc<dyn GpuDriver>,
    /// The folder with one folder per pod uid.
    pub pods_folder: PathBuf,
    /// What its object says of it.
    pub facts: NodeFacts,
    /// How long containers wait before they are started again.
    pub scale: BackoffScale,
    /// The address of the cluster's DNS.
    pub dns: Option<std::net::IpAddr>,
}

/// The actor. Registered as `node`; its restart takes the running pods over.
pub struct NodeActor {
    kit: Arc<Kit>,
    heart: Arc<dyn Heart>,
    gpu_driver: Arc<dyn GpuDriver>,
    facts: NodeFacts,
    key: Key,
    reservations: Reservations,
    hosted: BTreeMap<String, Hosted>,
    /// What an earlier process left, until it is known to whom it belongs.
    left: Option<HashMap<String, Vec<Found>>>,
    pods_known: bool,
    /// Who wants to know what is free: one per scheduler name.
    followers: BTreeMap<String, ActorPath>,
    is_unschedulable: bool,
    serial: u64,
    told: Option<Resources>,
    telling: bool,
    expiry: Option<SpawnHandle>,
    /// Volumes of which it removes the folder now.
    ending_volumes: BTreeSet<String>,
    sampler: Sampler,
}

/// The parts of a Node actor that outlive its restarts.
#[derive(Clone)]
pub struct NodeSeed {
    kit: Arc<Kit>,
    heart: Arc<dyn Heart>,
    gpu_driver: Arc<dyn GpuDriver>,
    facts: NodeFacts,
}

impl NodeSeed {
    /// Puts the parts together. Must be called within a tokio runtime.
    pub fn new(parts: NodeParts) -> Self {
        let events = Recorder::new(parts.registry.clone(), "kubelet", parts.node.name().as_str());
        let owners = Owners::start(parts.node.clone(), parts.members.clone());
        let kit = Kit {
            node: parts.node,
            owners,
            driver: parts.driver,
            registry: parts.registry,
            members: parts.members,
            events,
            addresses: Mutex::new(parts.addresses),
            gpus: Mutex::new(parts.gpus),
            pods_folder: parts.pods_folder,
            openings: Openings::default(),
            host: parts.facts.address,
            first_port: parts.facts.first_port,
            allocatable: parts.facts.allocatable.clone(),
            scale: parts.scale,
            dns: parts.dns,
        };
        Self {
            kit: Arc::new(kit),
            heart: parts.heart,
            gpu_driver: parts.gpu_driver,
            facts: parts.facts,
        }
    }

    /// One life of the actor.
    pub fn actor(&self) -> NodeActor {
        let name = self.kit.node_name().to_owned();
        NodeActor {
            kit: self.kit.clone(),
            heart: self.heart.clone(),
            gpu_driver: self.gpu_driver.clone(),
            facts: self.facts.clone(),
            key: Key::new("nodes", "", name),
            reservations: Reservations::new(self.facts.allocatable.clone()),
            hosted: BTreeMap::new(),
            left: None,
            pods_known: false,
            followers: BTreeMap::new(),
            is_unschedulable: false,
            serial: 0,
            told: None,
            telling: false,
            expiry: None,
            ending_volumes: BTreeSet::new(),
            sampler: Sampler::default(),
        }
    }
}

impl Actor for NodeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.register(ctx);
        self.find_left_behind(ctx);
        self.beat(ctx);
        self.watch_gpus(ctx);
        self.follow_volumes(ctx);
        self.sample(ctx);
    }
}

/// A batch of one of the watches.
enum Seen {
    Pods(Followed),
    Me(Followed),
    Volumes(Followed),
}

impl NodeActor {
    /// Writes the node's object, then follows it.
    fn register(&mut self, ctx: &mut Context<Self>) {
        let (registry, key) = (self.kit.registry.clone(), self.key.clone());
        let facts = self.facts.clone();
        let work =
            async move { object::register(&registry, &key, &facts, clock::timestamp()).await };
        ctx.spawn(work.into_actor(self).map(|registered, node, ctx| match registered {
            Ok(()) => {
                let me = Selection::all("nodes").named(&node.key.name);
                ctx.add_stream(follow(node.kit.registry.clone(), me).map(Seen::Me));
            }
            Err(error) => {
                tracing::warn!(node = %node.key.name, %error, "cannot register, trying again");
                ctx.run_later(AGAIN, Self::register);
            }
        }));
    }

    /// Lists what runs here already, then follows the pods that are bound here.
    fn find_left_behind(&mut self, ctx: &mut Context<Self>) {
        let driver = self.kit.driver.clone();
        let work =
            async move { Ok::<_, DriverError>((driver.pods().await?, driver.list().await?)) };
        ctx.spawn(work.into_actor(self).map(|found, node, ctx| match found {
            Ok((pods, found)) => {
                let nothing = |uid| (uid, Vec::new());
                let mut left: HashMap<String, Vec<Found>> = pods.into_iter().map(nothing).collect();
                for one in found {
                    left.entry(one.pod_uid.clone()).or_default().push(one);
                }
                node.left = Some(left);
                let mine = Selection::all("pods").with_field("/spec/nodeName", &node.key.name);
                ctx.add_stream(follow(node.kit.registry.clone(), mine).map(Seen::Pods));
            }
            Err(error) => {
                tracing::warn!(node = %node.key.name, %error, "containers cannot be listed, trying again");
                ctx.run_later(AGAIN, Self::find_left_behind);
            }
        }));
    }

    /// What the node has and has left.
    fn summary(&self) -> NodeSummary {
        NodeSummary {
            node: self.key.name.clone(),
            incarnation: self.kit.node.incarnation(),
            serial: self.serial,
            allocatable: self.reservations.allocatable().clone(),
            free: self.available(),
            pods: self.reservations.admitted() as u64,
            reserved: self.reservations.reserved() as u64,
            draining: self.is_unschedulable,
        }
    }

    /// What is there to be reserved: nothing before it is known what runs here, so that followers
    /// are told when that becomes known.
    fn available(&self) -> Resources {
        if self.pods_known { self.reservations.free() } else { Resources::default() }
    }

    /// What is free may have changed: followers are told soon, and the next expiry is awaited.
    fn changed(&mut self, ctx: &mut Context<Self>) {
        if let Some(expiry) = self.expiry.take() {
            ctx.cancel_future(expiry);
        }
        if let Some(when) = self.reservations.next_expiry() {
            let wait = when.saturating_duration_since(clock::now());
            self.expiry = Some(ctx.run_later(wait, |node, ctx| {
                node.expiry = None;
                for uid in node.reservations.expire(clock::now()) {
                    tracing::debug!(%uid, "a reservation was never used and has expired");
                }
                node.changed(ctx);
            }));
        }
        if !std::mem::replace(&mut self.telling, true) {
            ctx.run_later(TELL_AFTER, |node, _| {
                node.telling = false;
                node.tell_followers();
            });
        }
    }

    fn tell_followers(&mut self) {
        let free = self.available();
        if self.told.as_ref() == Some(&free) {
            return;
        }
        self.told = Some(free);
        self.serial += 1;
        let summary = self.summary();
        for path in self.followers.values() {
            let scheduler = self.kit.node.actor::<SchedulerRole>(path.clone());
            // Lost or not, the scheduler asks again before long.
            if let Err(error) = scheduler.tell(SummaryChanged { summary: summary.clone() }) {
                tracing::debug!(%path, %error, "a follower is not told");
            }
        }
    }
}

impl StreamHandler<Seen> for NodeActor {
    fn handle(&mut self, seen: Seen, ctx: &mut Self::Context) {
        match seen {
            Seen::Pods(pods) => self.pods_seen(pods, ctx),
            Seen::Me(me) => self.me_seen(me, ctx),
            Seen::Volumes(volumes) => self.volumes_seen(volumes, ctx),
        }
    }
}

#[cfg(test)]
mod tests;
