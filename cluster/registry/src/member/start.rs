//! How a member comes about, and how all of it ends: after a start that failed half way as after a stop.

use super::{
    Beginning, MemberConfig, RaftTiming, StartError, actor,
    door::{Door, DoorActor, DoorGuard},
    enrol,
    guard::{self, Guard},
    intake, keeper,
    place::{Place, refuted},
    returns::{self, Judges, NoPlace},
    shared::Shared,
    vouch::Vouched,
};
use crate::{
    clock::Sleep,
    disk::{identity::Claimed, volume::Room},
    protocol::{DOOR_ACTOR, DoorRole, MembershipError, REGISTRY_ACTOR, RegistryRole, Return},
    raft::{
        MemberId, MemberNode, Raft,
        actor::RaftActor,
        heard::Heard,
        log::Log,
        machine::{Machine, Work},
        messages::{RAFT_ACTOR, RaftRole, Seat},
        network::{Network, Refuted},
    },
    serials::Serials,
};
use actix::Arbiter;
use impresario_runtime::{ActorNode, ActorPath, SpawnOptions, tasks};
use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};

/// Lists that a member puts together at a time; more of them wait.
const LISTS: usize = 4;
/// Messages that may wait for a member's actors.
const MAILBOX: usize = 4096;
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What runs of a member, as far as its start has come.
#[derive(Debug)]
pub(super) struct Running {
    node: ActorNode,
    actors: Vec<&'static str>,
    tasks: Vec<JoinHandle<()>>,
    raft: Option<Raft>,
    /// The thread that raft has for itself: whatever else this process does, heartbeats are sent and answered.
    thread: Option<Arbiter>,
    log_end: Option<oneshot::Receiver<()>>,
    work: Option<Work>,
    /// Locks the directory until the log has let go of it.
    place: Option<Arc<Place>>,
}

impl Running {
    pub(super) fn new(node: ActorNode) -> Self {
        let (actors, tasks) = (Vec::new(), Vec::new());
        let (raft, thread, log_end, work, place) = (None, None, None, None, None);
        Self { node, actors, tasks, raft, thread, log_end, work, place }
    }

    /// Raft's thread.
    #[cfg(test)]
    pub(super) fn thread(&self) -> Option<&Arbiter> {
        self.thread.as_ref()
    }

    /// Stops all of it. The directory is free when this returns.
    pub(super) async fn end(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // Aborted, or ended before; a panic has been reported by its own hook.
            let _ = task.await;
        }
        for actor in self.actors {
            let end = self.node.watch(ActorPath::new(self.node.name().clone(), actor));
            self.node.stop_actor(&actor.into());
            if tokio::time::timeout(STOP_LIMIT, end.terminated()).await.is_err() {
                tracing::warn!(actor, "the actor did not stop in time");
            }
        }
        if let Some(raft) = self.raft
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        if let Some(log_end) = self.log_end
            && tokio::time::timeout(STOP_LIMIT, log_end).await.is_err()
        {
            tracing::warn!("the registry's log is still being written");
        }
        // Nothing of this life writes into the directory of the next.
        if let Some(work) = self.work
            && tokio::time::timeout(STOP_LIMIT, work.finish()).await.is_err()
        {
            tracing::warn!("a snapshot is still being written");
        }
        if let Some(thread) = self.thread {
            thread.stop();
            let joined = tasks::spawn_blocking(move || thread.join());
            if tokio::time::timeout(STOP_LIMIT, joined).await.is_err() {
                tracing::warn!("raft's thread still runs");
            }
        }
        if let Some(place) = self.place {
            place.release();
        }
    }
}

/// Starts a member. What runs is in `running`, whatever comes of it.
pub(super) async fn begin(
    config: MemberConfig,
    running: &mut Running,
) -> Result<(Arc<Shared>, Arc<Guard>), StartError> {
    let MemberConfig { directory, node, address, beginning, history, timing, volume, harness } =
        config;
    let mut claim = Claimed::claim(&directory, node.cluster(), node.name().as_str())?;
    let (log_path, snapshots) = (directory.join("log"), directory.join("snapshots"));
    let room = Room::new(volume, &directory);
    // What is damaged is refused before anyone is asked for anything.
    let (log, log_end) = Log::open(&log_path, room.clone())?;
    running.log_end = Some(log_end);
    let machine = Machine::open(&snapshots, room.clone(), history)?;
    running.work = Some(machine.work());
    let (generation, disk) = (claim.begin_life()?, claim.identity().disk);
    let me = MemberNode {
        name: node.name().to_string(),
        address: address.to_string(),
        disk,
        generation,
    };
    let lives = claim.identity().lives.clone();
    let (heard, group) =
        (Arc::<Heard>::default(), log.last_membership().unwrap_or_else(|| machine.membership()));
    let door = Arc::new(Door::new(heard.clone(), group.clone()));
    let (served, guard) = (door.clone(), Arc::new(DoorGuard));
    let options = SpawnOptions { mailbox: MAILBOX, guard: Some(guard), ..SpawnOptions::default() };
    node.spawn::<DoorRole, _>(DOOR_ACTOR, options, move |_| DoorActor(served.clone()))?;
    running.actors.push(DOOR_ACTOR);
    let id = match claim.identity().member {
        Some(member) => {
            let judges = Judges::of(&node, &beginning, &group);
            if judges.is_alone() {
                let last = log.tender().found().max(machine.applied()).unwrap_or_default();
                returns::left_behind(&node, beginning.told(), last).await?;
            }
            let asks = Return { member, node: me.clone(), lives: lives.clone() };
            match returns::may_return(&node, &asks, &judges, timing.election()).await {
                Ok(()) => member,
                Err(NoPlace { why, for_good }) => {
                    if for_good {
                        claim.refuse(why.to_string())?;
                    } else if matches!(why, MembershipError::Copied { .. }) {
                        claim.doubt(&why.to_string())?;
                    }
                    return Err(StartError::Refused(why));
                }
            }
        }
        None => enrol::number(&node, &mut claim, &beginning).await?,
    };
    let place = Arc::new(Place::new(claim));
    running.place = Some(place.clone());

    let (tender, replica) = (log.tender(), machine.replica());
    let raft_config = raft_config(node.cluster(), timing)?;
    let seat = Seat { member: id, disk, generation };
    let network = Network::new(node.clone(), seat, on_refutation(&place, &me, id));
    let thread = running.thread.insert(Arbiter::new());
    let made = on_thread(thread, Raft::new(id, raft_config, network, log, machine)).await;
    let raft = made.ok_or_else(|| StartError::Raft("its thread has ended".to_owned()))?;
    let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
    running.raft = Some(raft.clone());
    let beside = thread.handle();
    let founds = id == crate::store::FOUNDER && matches!(beginning, Beginning::Found { .. });
    if founds {
        enrol::found(&raft, id, &me).await?;
    }

    let shared = Arc::new(Shared {
        node: node.clone(),
        id,
        me,
        raft: raft.clone(),
        replica: replica.clone(),
        leases: Mutex::new(None),
        log: tender,
        room: room.clone(),
        intake: intake::Intake::default(),
        sleep: Sleep::default(),
        lists: Semaphore::new(LISTS),
        caught_up: AtomicBool::new(false),
        timing,
        client: Serials::default(),
        stop: watch::Sender::new(false),
        lives,
        place,
        unheard: Mutex::new(None),
    });
    let (asks, asked) = mpsc::channel(guard::ASKED);
    let guard = Arc::new(Guard {
        raft: raft.clone(),
        replica,
        harness,
        silence: timing.election_most,
        heard: Mutex::default(),
        invited: beginning.told().to_vec(),
        vouched: Vouched::default(),
        asks,
    });
    running.tasks.push(tasks::spawn(guard::ask_about(guard.clone(), node.clone(), asked)));
    let options =
        SpawnOptions { mailbox: MAILBOX, guard: Some(guard.clone()), ..SpawnOptions::default() };
    let raft_actor = RaftActor::new(raft, (seat, &shared.lives), heard, snapshots, room);
    let beside = SpawnOptions { arbiter: Some(beside), ..options.clone() };
    node.spawn::<RaftRole, _>(RAFT_ACTOR, beside, move |_| raft_actor.clone())?;
    running.actors.push(RAFT_ACTOR);
    let served = shared.clone();
    node.spawn::<RegistryRole, _>(REGISTRY_ACTOR, options, move |_| {
        actor::RegistryActor::new(served.clone())
    })?;
    running.actors.push(REGISTRY_ACTOR);
    door.open(shared.clone());
    running.tasks.push(tasks::spawn(keeper::keep(shared.clone())));
    running.tasks.push(tasks::spawn(enrol::stay_enrolled(shared.clone(), beginning)));
    Ok((shared, guard))
}

/// What becomes of this member when another one knows another life of its directory.
fn on_refutation(place: &Arc<Place>, me: &MemberNode, id: MemberId) -> Refuted {
    let (place, me) = (Arc::downgrade(place), me.clone());
    Arc::new(move |known: Seat| {
        let refuted = refuted(&me, id);
        let is_mine = known.disk == me.disk && me.generation.is_refuted_by(known.generation);
        if let (true, Some(place)) = (is_mine, place.upgrade()) {
            place.refuse(&NoPlace { why: refuted.clone(), for_good: false });
        }
    })
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
