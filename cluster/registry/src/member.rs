//! A control member: the raft group's share on this machine, and the actors through which others reach it.
//!
//! [`Member::start`] claims the directory, refuses what is damaged or not its own, starts raft and registers the
//! actors `registry` and `registry/raft` on its node. The first member founds the group; the others are given a
//! number by the log, catch up as learners and are promoted. Everything that a member starts, it stops.

mod actor;
mod enrol;
mod guard;
mod handle;
mod intake;
mod keeper;
pub mod leases;
mod timing;

use crate::{
    RegistryHandle,
    clock::{BootTime, Sleep},
    disk::{
        DiskError,
        identity::Claimed,
        volume::{Machine as Files, Room, Volume},
    },
    error::ReadError,
    key::Revision,
    protocol::{
        Heartbeat, Heartbeats, LeadAlive, MemberStatus, MembershipError, NotLeader, REGISTRY_ACTOR,
        RegistryRole,
    },
    raft::{
        MemberId, MemberNode, Raft,
        actor::RaftActor,
        log::{Log, LogTender},
        machine::{Machine, Work},
        messages::{RAFT_ACTOR, RaftRole, Seat},
        network::Network,
        snapshot,
    },
    replica::Replica,
    serials::Serials,
    shard::ShardTable,
    store::{RingLimits, Store},
};
use actix::Arbiter;
use guard::Guard;
use impresario_runtime::{ActorNode, ActorPath, ActorRef, NodeName, SpawnError, SpawnOptions};
use leases::Leases;
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
pub use timing::RaftTiming;
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
};

/// How the group comes about for a directory that belongs to no member yet. A directory that does goes on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// This member founds the group, unless one of these nodes says that there is one.
    Found {
        /// Nodes that may know of a group.
        peers: Vec<NodeName>,
    },
    /// This member asks one of these nodes to be let in.
    Join {
        /// Control members.
        members: Vec<NodeName>,
    },
}

/// What a member is started with.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    /// Its own directory.
    pub directory: PathBuf,
    /// The actor node that it lives on; the node's addresses must lead to the nodes of `beginning`.
    pub node: ActorNode,
    /// Where other members reach that node.
    pub address: SocketAddr,
    /// What to do with an empty directory.
    pub beginning: Beginning,
    /// How much of the past is kept for watches.
    pub history: RingLimits,
    /// Raft's clock.
    pub timing: RaftTiming,
    /// The disk that the directory is on; tests give a small one.
    pub volume: Arc<dyn Volume>,
    /// The harness of a cluster that is tested: its control certificate reads and writes as a member's does.
    pub harness: Option<String>,
}

impl MemberConfig {
    /// A member with the usual history and timing.
    pub fn new(
        directory: impl Into<PathBuf>,
        node: ActorNode,
        address: SocketAddr,
        beginning: Beginning,
    ) -> Self {
        let (history, timing) = (RingLimits::default(), RaftTiming::default());
        let volume = Arc::new(Files);
        let directory = directory.into();
        Self { directory, node, address, beginning, history, timing, volume, harness: None }
    }
}

/// Why a member does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The group does not let this directory in.
    #[error("the group does not admit this member: {0}")]
    Refused(MembershipError),
    /// Nobody of those who were to be asked answered.
    #[error(
        "none of {asked:?} could admit this member within {waited:?} ({reason}): are they running?"
    )]
    NobodyAnswers {
        /// Who was asked.
        asked: Vec<NodeName>,
        /// For how long.
        waited: Duration,
        /// What was answered last.
        reason: String,
    },
    /// There is a group already, and this empty directory was to found another one.
    #[error(
        "{node} belongs to a registry with a leader, so this empty directory does not found another one: if the \
         directory of a member was lost, remove that member and start this one to join"
    )]
    GroupExists {
        /// Who said so.
        node: NodeName,
    },
    /// openraft did not start.
    #[error("raft did not start: {0}; the log of this member says more")]
    Raft(String),
    /// The actors could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// What all parts of a member share.
#[derive(Debug)]
struct Shared {
    node: ActorNode,
    id: MemberId,
    me: MemberNode,
    raft: Raft,
    replica: Replica,
    leases: Mutex<Option<Leases>>,
    log: LogTender,
    room: Room,
    intake: intake::Intake,
    sleep: Sleep,
    /// Lists that are being put together.
    lists: Semaphore,
    timing: RaftTiming,
    client: Serials,
    stop: watch::Sender<bool>,
    /// Why the group has no place for this member, once that is certain.
    refused: watch::Sender<Option<MembershipError>>,
}

/// A running control member.
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    guard: Arc<Guard>,
    tasks: Vec<JoinHandle<()>>,
    log_end: oneshot::Receiver<()>,
    work: Work,
    /// The thread that raft has for itself: whatever else this process does, heartbeats are sent and answered.
    thread: Arbiter,
    /// Locks the directory until the log has let go of it.
    claim: Claimed,
}

impl Member {
    /// Starts a member. Returns when it takes part; it may take longer until it has a vote.
    pub async fn start(config: MemberConfig) -> Result<Self, StartError> {
        let MemberConfig { directory, node, address, beginning, history, timing, volume, harness } =
            config;
        let mut claim = Claimed::claim(&directory, node.cluster(), node.name().as_str())?;
        let (log_path, snapshots) = (directory.join("log"), directory.join("snapshots"));
        let room = Room::new(volume.clone(), &directory);
        // What is damaged is refused before anyone is asked for anything.
        let (log, log_end) = Log::open(&log_path, room.clone())?;
        let machine = Machine::open(&snapshots, room.clone(), history)?;
        let (generation, disk) = (claim.begin_life()?, claim.identity().disk);
        let me = MemberNode {
            name: node.name().to_string(),
            address: address.to_string(),
            disk,
            generation,
        };
        let id = match claim.identity().member {
            Some(member) => {
                let group = log.last_membership().unwrap_or_else(|| machine.membership());
                let others = enrol::others(&node, &beginning, &group);
                let may = enrol::may_return(&node, member, &me, &others).await;
                if let Err(StartError::Refused(copied @ MembershipError::Copied { .. })) = &may {
                    claim.refuse(copied.to_string())?;
                }
                may?;
                member
            }
            None => enrol::number(&node, &mut claim, &beginning).await?,
        };

        let (tender, replica, work) = (log.tender(), machine.replica(), machine.work());
        let raft_config = raft_config(node.cluster(), timing)?;
        let seat = Seat { member: id, disk, generation };
        let network = Network::new(node.clone(), seat);
        let thread = Arbiter::new();
        let made = on_thread(&thread, Raft::new(id, raft_config, network, log, machine)).await;
        let raft = made.ok_or_else(|| StartError::Raft("its thread has ended".to_owned()))?;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
        let founds = id == crate::store::FOUNDER && matches!(beginning, Beginning::Found { .. });
        if founds {
            enrol::found(&raft, id, &me).await?;
        }

        let shared = Arc::new(Shared {
            node: node.clone(),
            id,
            me,
            raft: raft.clone(),
            replica,
            leases: Mutex::new(None),
            log: tender,
            room,
            intake: intake::Intake::default(),
            sleep: Sleep::default(),
            lists: Semaphore::new(LISTS),
            timing,
            client: Serials::default(),
            stop: watch::Sender::new(false),
            refused: watch::Sender::new(None),
        });
        let guard = Arc::new(Guard { raft: raft.clone(), harness });
        let options = SpawnOptions {
            mailbox: MAILBOX,
            guard: Some(guard.clone()),
            ..SpawnOptions::default()
        };
        let raft_actor = RaftActor::new(raft, seat, snapshots, volume);
        let beside = SpawnOptions { arbiter: Some(thread.handle()), ..options.clone() };
        node.spawn::<RaftRole, _>(RAFT_ACTOR, beside, move |_| raft_actor.clone())?;
        let served = shared.clone();
        node.spawn::<RegistryRole, _>(REGISTRY_ACTOR, options, move |_| {
            actor::RegistryActor::new(served.clone())
        })?;

        let tasks = vec![
            tokio::spawn(keeper::keep(shared.clone())),
            tokio::spawn(enrol::stay_enrolled(shared.clone(), beginning)),
        ];
        Ok(Self { shared, guard, tasks, log_end, work, thread, claim })
    }

    /// The registry through this member: writes and fresh reads go to the leader, everything else stays here.
    pub fn handle(&self) -> RegistryHandle {
        Arc::new(handle::LocalRegistry(self.shared.clone()))
    }

    /// The shard table, as it changes.
    pub fn shards(&self) -> watch::Receiver<ShardTable> {
        self.shared.replica.shards()
    }

    /// How this member stands.
    pub fn status(&self) -> MemberStatus {
        self.shared.status()
    }

    /// Which life of its directory a member is in, as the group knows it; none if there is no such member.
    pub fn generation_of(&self, node: &str) -> Option<u64> {
        let metrics = self.shared.raft.metrics().borrow_watched().clone();
        let mut members = metrics.membership_config.membership().nodes();
        members.find(|(_, known)| known.name == node).map(|(_, known)| known.generation)
    }

    /// Tells whether a node is one of the group's members, as far as this member knows; one that has no vote yet is.
    pub fn membership(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let guard = self.guard.clone();
        move |name| guard.is_member(name)
    }

    /// Its number in the group.
    pub fn id(&self) -> MemberId {
        self.shared.id
    }

    /// The directory that it has claimed.
    pub fn directory(&self) -> &Path {
        self.claim.directory()
    }

    /// The heartbeats of all nodes, if this member leads.
    pub fn heartbeats(&self) -> Option<Heartbeats> {
        self.shared.heartbeats()
    }

    /// Takes a heartbeat to the leader, be it this member or another.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<(), NotLeader> {
        self.shared.heartbeat(beat).await
    }

    /// Lets a member with this number in: it catches up as a learner and becomes a voter.
    /// Members that are started to join do this themselves.
    pub async fn add_member(
        &self,
        member: MemberId,
        node: MemberNode,
    ) -> Result<(), MembershipError> {
        self.shared.enrol(crate::protocol::Enrol { member, node }).await
    }

    /// Takes the member on a node out of the group for good. Its directory is refused from then on.
    pub async fn remove_member(&self, node: &str) -> Result<(), MembershipError> {
        self.shared.remove(node).await
    }

    /// Writes a snapshot of what has been acknowledged to a file of its own, durably.
    pub async fn snapshot_save(&self, path: PathBuf) -> Result<Revision, SaveError> {
        self.shared.read_barrier().await.map_err(SaveError::Read)?;
        let raft = self.shared.raft.clone();
        let state = raft
            .with_state_machine(|machine: &mut Machine| Box::pin(async move { machine.capture() }))
            .await;
        let (meta, image) = state.map_err(|error| SaveError::Stopped(error.to_string()))?;
        let revision = image.revision();
        let save = move || {
            let aside = path.with_extension("tmp");
            snapshot::save(&Files, &aside, &meta, &image)?;
            snapshot::put_in_place(&aside, &path)
        };
        tokio::task::spawn_blocking(save)
            .await
            .map_err(|error| SaveError::Stopped(error.to_string()))??;
        Ok(revision)
    }

    /// Resolves when this member has failed for good, with the reason: a broken disk, above all, or a directory
    /// that the group knows to be a copy.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut metrics = self.shared.raft.metrics();
        let mut refused = self.shared.refused.subscribe();
        let broken = async move {
            loop {
                let state = metrics.borrow_watched().running_state.clone();
                if let Err(fatal) = state {
                    return fatal.to_string();
                }
                if metrics.changed().await.is_err() {
                    return "raft stopped".to_owned();
                }
            }
        };
        async move {
            let refused = async {
                match refused.wait_for(Option::is_some).await.map(|refused| refused.clone()) {
                    Ok(Some(refused)) => refused.to_string(),
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                reason = broken => reason,
                reason = refused => reason,
            }
        }
    }

    /// Stops everything that the member started. The directory is free when this returns.
    pub async fn stop(self) {
        self.shared.stop.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // Aborted, or ended before; a panic has been reported by its own hook.
            let _ = task.await;
        }
        for actor in [RAFT_ACTOR, REGISTRY_ACTOR] {
            let end =
                self.shared.node.watch(ActorPath::new(self.shared.node.name().clone(), actor));
            self.shared.node.stop_actor(&actor.into());
            if tokio::time::timeout(STOP_LIMIT, end.terminated()).await.is_err() {
                tracing::warn!(actor, "the actor did not stop in time");
            }
        }
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        if tokio::time::timeout(STOP_LIMIT, self.log_end).await.is_err() {
            tracing::warn!("the registry's log is still being written");
        }
        // Nothing of this life writes into the directory of the next.
        if tokio::time::timeout(STOP_LIMIT, self.work.finish()).await.is_err() {
            tracing::warn!("a snapshot is still being written");
        }
        let thread = self.thread;
        thread.stop();
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(STOP_LIMIT, joined).await.is_err() {
            tracing::warn!("raft's thread still runs");
        }
        let (mut claim, refused) = (self.claim, self.shared.refused.borrow().clone());
        if let Some(copied @ MembershipError::Copied { .. }) = refused
            && let Err(error) = claim.refuse(copied.to_string())
        {
            tracing::error!(%error, "the directory does not say that it was refused");
        }
    }
}

/// Runs a future, and what it spawns, on a thread; none if the thread has ended.
async fn on_thread<T: Send + 'static>(
    thread: &Arbiter,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    thread.spawn(async move {
        // The asker may have gone.
        let _ = tell.send(work.await);
    });
    told.await.ok()
}

/// Lists that a member puts together at a time; more of them wait.
const LISTS: usize = 4;
/// Messages that may wait for a member's actors.
const MAILBOX: usize = 4096;
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Why a snapshot was not saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// It would not have held all that was acknowledged.
    #[error("what is newest could not be read: {0}")]
    Read(ReadError),
    /// The file could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The member has stopped.
    #[error("the member has stopped: {0}")]
    Stopped(String),
}

fn raft_config(cluster: &str, timing: RaftTiming) -> Result<Arc<Config>, StartError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_least),
        election_timeout_max: millis(timing.election_most),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_every),
        max_in_snapshot_log_to_keep: timing.keep_behind,
        install_snapshot_timeout: 60_000,
        enable_pre_vote: Some(true),
        // A leader sends entries before its own disk has them. If it were to lead on in the same term
        // after a crash, it could give another entry the log id of one that a follower has: two
        // members would differ for good and nobody would see it. So it is elected anew, in a new term.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| StartError::Raft(error.to_string()))
}

impl Shared {
    fn status(&self) -> MemberStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let name = |id: MemberId| {
            membership.get_node(&id).map_or_else(|| id.to_string(), |node| node.name.clone())
        };
        MemberStatus {
            id: self.id,
            node: self.me.name.clone(),
            leader: metrics.current_leader.map(name),
            term: metrics.current_term,
            revision: self.replica.read(Store::revision),
            applied: metrics.last_applied.map_or(0, |log_id| log_id.index),
            voters: membership.voter_ids().map(name).collect(),
            learners: membership.learner_ids().map(name).collect(),
            failure: metrics.running_state.err().map(|fatal| fatal.to_string()),
        }
    }

    /// The node of the leader, as far as this member knows.
    fn leader(&self) -> Option<NodeName> {
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some(NodeName::from(node.name.as_str()))
    }

    fn not_leader(&self) -> NotLeader {
        NotLeader { leader: self.leader().map(|leader| leader.to_string()) }
    }

    /// Whether what openraft counts in waking time can be trusted: the machine has not slept within a lease.
    fn was_awake(&self) -> bool {
        !self.sleep.was_within(self.timing.election_most.max(leases::LEASE))
    }

    fn disk(&self) -> intake::Disk<'_> {
        let state_bytes = self.replica.read(Store::bytes);
        intake::Disk { room: &self.room, state_bytes, member: &self.me.name }
    }

    /// Whether this member's disk takes writes.
    fn has_room(&self) -> bool {
        let disk = self.disk();
        disk.room.takes(disk.state_bytes)
    }

    fn alive_now(&self) -> LeadAlive {
        LeadAlive {
            node: self.me.name.clone(),
            generation: self.me.generation,
            room: self.has_room(),
        }
    }

    fn registry_at(&self, node: NodeName) -> ActorRef<RegistryRole> {
        self.node.actor(ActorPath::new(node, REGISTRY_ACTOR))
    }

    fn voter_names(&self) -> BTreeSet<String> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        membership
            .voter_ids()
            .filter_map(|id| Some(membership.get_node(&id)?.name.clone()))
            .collect()
    }

    /// Runs on the leases of the current term, if this member leads.
    fn lead<T>(&self, with: impl FnOnce(&mut Leases) -> T) -> Result<T, NotLeader> {
        let term = self.raft.as_leader().map_err(|_| self.not_leader())?.leader_id().term;
        let mut leases = self.leases.lock();
        let current = leases.take().filter(|leases| leases.term() == term);
        let answer =
            with(leases.insert(current.unwrap_or_else(|| Leases::new(term, BootTime::now()))));
        Ok(answer)
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<(), NotLeader> {
        if self.raft.is_leader() {
            return self.lead(|leases| leases.node_beat(beat, BootTime::now()));
        }
        let leader = self.leader().filter(|leader| leader != self.node.name());
        let leader = leader.ok_or_else(|| self.not_leader())?;
        match self.registry_at(leader).ask(beat, keeper::BEAT_LIMIT).await {
            Ok(answer) => answer,
            Err(_) => Err(NotLeader { leader: None }),
        }
    }
}
