//! What is kept of one other node, whether a connection stands or not.
//!
//! Asks that wait, watches in both directions, and the lanes live here, so that a connection that breaks and comes back
//! within the failure detector's limit costs nothing but time. The peer's driver task owns the connection.

use super::{
    event::PeerUsage,
    frame::{Frame, lane_frame},
    lane::{Dropped, LaneQueue, Rejected},
    link::Link,
    parked::{self, FullActors, Parked},
    terms::{Pools, Terms},
    watches::{Watchers, Watches},
};
use crate::{
    budget::Account,
    codec::EncodeError,
    config::Limits,
    door::{Failure, Undelivered},
    fault::{Direction, Fate, FaultTable},
    message::Lane,
    name::NodeName,
    pki::PeerIdentity,
    stream::Piece,
};
use impresario_ambient::{clock, random};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

/// Connections that wait for the driver's decision.
const ARRIVALS: usize = 4;
/// Bulk tells that are on their way to one peer.
const BULK_TELLS: usize = 64;

/// Whether the peer can be reached now.
#[derive(Clone)]
pub(crate) enum LinkState {
    Down,
    Up(Arc<Link>),
    /// The last attempt failed; the number tells attempts apart.
    Failed(u64, String),
}

type Answer = oneshot::Sender<Result<Piece, Undelivered>>;

pub(crate) struct Peer {
    pub(crate) name: NodeName,
    /// A client or admin: spared by faults for everyone, dials but is not dialled.
    pub(crate) healer: AtomicBool,
    control: LaneQueue,
    work: LaneQueue,
    pub(crate) link: watch::Sender<LinkState>,
    pub(crate) arrivals: mpsc::Sender<super::handshake::Arrival>,
    pub(crate) demand: Notify,
    wanted: AtomicBool,
    pending: Mutex<HashMap<u64, Answer>>,
    /// Our watches on its actors.
    pub(crate) watches: Watches,
    /// Its watches on our actors.
    pub(crate) watchers: Watchers,
    /// Its tells that wait for mailboxes of ours.
    pub(crate) parked: Parked,
    /// Its tells that were not delivered.
    pub(crate) lost: parked::Undelivered,
    /// Its actors that take no tells of ours now.
    pub(crate) full: FullActors,
    /// Tells that went onto its lanes, and how many of them it reported as lost.
    told: AtomicU64,
    reported_lost: AtomicU64,
    /// What it may have of us, once it has been met.
    terms: Mutex<Option<Arc<Terms>>>,
    /// Where it came from when it dialled: where it is dialled if no other address is known.
    from: Mutex<Option<SocketAddr>>,
    /// The last sequence number received on each lane.
    received: [AtomicU64; 2],
    heard: Mutex<Option<Instant>>,
    pub(crate) bulk_tells: Arc<Semaphore>,
    /// Whether it turned our last dial away: it hears another process of our name.
    turned_away: AtomicBool,
    most_pending: usize,
}

impl Peer {
    /// One that has not been met; `age` is for how long this node has been running.
    pub(crate) fn new(
        name: NodeName,
        limits: &Limits,
        age: Duration,
    ) -> (Arc<Self>, mpsc::Receiver<super::handshake::Arrival>) {
        let (arrivals, inbox) = mpsc::channel(ARRIVALS);
        let lane = || LaneQueue::new(limits.lane_frames, limits.lane_bytes, age);
        let peer = Self {
            name,
            healer: AtomicBool::new(false),
            control: lane(),
            work: lane(),
            link: watch::Sender::new(LinkState::Down),
            arrivals,
            demand: Notify::new(),
            wanted: AtomicBool::new(false),
            pending: Mutex::default(),
            watches: Watches::default(),
            watchers: Watchers::default(),
            parked: Parked::default(),
            lost: parked::Undelivered::default(),
            full: FullActors::default(),
            told: AtomicU64::new(0),
            reported_lost: AtomicU64::new(0),
            terms: Mutex::default(),
            from: Mutex::default(),
            received: [AtomicU64::new(0), AtomicU64::new(0)],
            heard: Mutex::new(None),
            bulk_tells: Arc::new(Semaphore::new(BULK_TELLS)),
            turned_away: AtomicBool::new(false),
            most_pending: limits.outbound_asks,
        };
        (Arc::new(peer), inbox)
    }

    /// The queue of a lane; bulk has none.
    pub(crate) fn lane(&self, lane: Lane) -> &LaneQueue {
        match lane {
            Lane::Control => &self.control,
            Lane::Work | Lane::Bulk => &self.work,
        }
    }

    /// Queues a frame, through the fault hook.
    pub(crate) fn send(
        &self,
        faults: &FaultTable,
        lane: Lane,
        frame: &Frame,
    ) -> Result<(), SendError> {
        self.send_as(faults, lane, frame, None)
    }

    /// Queues a frame; `tell` is the name of its message if it is a tell.
    pub(crate) fn send_as(
        &self,
        faults: &FaultTable,
        lane: Lane,
        frame: &Frame,
        tell: Option<&'static str>,
    ) -> Result<(), SendError> {
        let mut bytes = lane_frame(frame)?;
        let fate = self.fate(faults);
        self.lane(lane).push(&mut bytes, fate, tell)?;
        if tell.is_some() {
            self.told.fetch_add(1, Ordering::Relaxed);
        }
        self.want();
        Ok(())
    }

    /// Whether it was ever told anything on a lane.
    pub(crate) fn has_told(&self) -> bool {
        self.told.load(Ordering::Relaxed) > 0
    }

    /// How many of so many tells that the peer reports as lost there can be: no more than it was told.
    pub(crate) fn believed_lost(&self, count: u64) -> u64 {
        let told = self.told.load(Ordering::Relaxed);
        let before = self.reported_lost.load(Ordering::Relaxed);
        let believed = count.min(told.saturating_sub(before));
        self.reported_lost.fetch_add(believed, Ordering::Relaxed);
        believed
    }

    /// Queues a frame when there is room.
    pub(crate) async fn send_when_room(
        &self,
        faults: &FaultTable,
        lane: Lane,
        frame: &Frame,
    ) -> Result<(), SendError> {
        let bytes = lane_frame(frame)?;
        let fate = self.fate(faults);
        Ok(self.lane(lane).push_when_room(bytes, fate).await?)
    }

    /// What the fault rules do to a frame of ours; one that is dropped takes its connection with it.
    fn fate(&self, faults: &FaultTable) -> Fate {
        let fate = faults.fate(&self.name, self.is_healer(), Direction::Send, random::random);
        if fate.dropped
            && let LinkState::Up(link) = &*self.link.borrow()
        {
            link.break_off();
        }
        fate
    }

    /// What such a peer may have of us. It keeps what it has used over its connections.
    pub(crate) fn terms(&self, pools: &Pools, identity: &PeerIdentity) -> Arc<Terms> {
        let mut terms = self.terms.lock();
        match &*terms {
            Some(terms) if terms.role == identity.role.word() => terms.clone(),
            _ => terms.insert(pools.terms(identity)).clone(),
        }
    }

    /// How much may wait for the peer on each lane from now on.
    pub(crate) fn set_lane_bounds(&self, bytes: usize, account: &Arc<Account>) {
        self.control.set_bounds(bytes, account);
        self.work.set_bounds(bytes, account);
    }

    pub(crate) fn came_from(&self, address: SocketAddr) {
        *self.from.lock() = Some(address);
    }

    pub(crate) fn from(&self) -> Option<SocketAddr> {
        *self.from.lock()
    }

    /// What it takes up of us.
    pub(crate) fn usage(&self) -> PeerUsage {
        let terms = self.terms.lock().clone();
        let account = terms.as_ref().map_or(0, |terms| terms.account.held());
        PeerUsage {
            node: self.name.clone(),
            role: terms.as_ref().map(|terms| terms.role),
            held_bytes: account + self.control.free_bytes() + self.work.free_bytes(),
            asks: terms.as_ref().map_or(0, |terms| terms.open_asks()),
            watches: self.watchers.len(),
        }
    }

    /// Its role in a word, once it has been met.
    pub(crate) fn role(&self) -> Option<&'static str> {
        self.terms.lock().as_ref().map(|terms| terms.role)
    }

    pub(crate) fn is_healer(&self) -> bool {
        self.healer.load(Ordering::Relaxed)
    }

    /// Asks the driver for a connection.
    pub(crate) fn want(&self) {
        if !matches!(*self.link.borrow(), LinkState::Up(_)) {
            self.wanted.store(true, Ordering::Release);
            self.demand.notify_one();
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    pub(crate) fn satisfied(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// Waits for a connection, or for the failure of the attempt to make one.
    pub(crate) async fn linked(&self) -> Result<Arc<Link>, String> {
        let mut link = self.link.subscribe();
        let before = match &*link.borrow_and_update() {
            LinkState::Up(link) => return Ok(link.clone()),
            LinkState::Failed(attempt, _) => *attempt,
            LinkState::Down => 0,
        };
        self.want();
        loop {
            if link.changed().await.is_err() {
                return Err("this node is stopping".to_owned());
            }
            match &*link.borrow_and_update() {
                LinkState::Up(link) => return Ok(link.clone()),
                LinkState::Failed(attempt, detail) if *attempt != before => {
                    return Err(detail.clone());
                }
                _ => {}
            }
        }
    }

    /// What became of the last dial.
    pub(crate) fn dialled(&self, turned_away: bool) {
        self.turned_away.store(turned_away, Ordering::Release);
    }

    pub(crate) fn is_turned_away(&self) -> bool {
        self.turned_away.load(Ordering::Acquire)
    }

    // --- asks that wait

    /// Registers an ask; `None` when too many wait already.
    pub(crate) fn expect(self: &Arc<Self>, id: u64) -> Option<Expected> {
        let (answer, receiver) = oneshot::channel();
        let mut pending = self.pending.lock();
        if pending.len() >= self.most_pending {
            return None;
        }
        pending.insert(id, answer);
        Some(Expected { peer: self.clone(), id, receiver })
    }

    /// Whether an answer is still waited for.
    pub(crate) fn expects(&self, id: u64) -> bool {
        self.pending.lock().contains_key(&id)
    }

    pub(crate) fn answer(&self, id: u64, outcome: Result<Piece, Failure>) {
        // Nobody waits any more when the deadline has passed.
        if let Some(answer) = self.pending.lock().remove(&id) {
            let _ = answer.send(outcome.map_err(Undelivered::Failure));
        }
    }

    /// Nothing will come: neither frames that wait nor answers. Gives the tells that were to go.
    pub(crate) fn give_up(&self, detail: &str) -> Vec<Dropped> {
        let mut dropped = self.control.clear();
        dropped.extend(self.work.clear());
        for (_, answer) in self.pending.lock().drain() {
            let _ = answer.send(Err(Undelivered::Unreachable(detail.to_owned())));
        }
        dropped
    }

    // --- what is heard

    pub(crate) fn hear(&self) {
        *self.heard.lock() = Some(clock::now());
    }

    pub(crate) fn heard(&self) -> Option<Instant> {
        *self.heard.lock()
    }

    /// Whether a frame is new: neither a double nor overtaken.
    pub(crate) fn is_new(&self, lane: Lane, sequence: u64) -> bool {
        let last = &self.received[usize::from(lane != Lane::Control)];
        last.fetch_max(sequence, Ordering::AcqRel) < sequence
    }

    pub(crate) fn forget_sequences(&self) {
        for last in &self.received {
            last.store(0, Ordering::Release);
        }
    }

    pub(crate) fn has_watches(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Whether frames wait that came when a connection was just ending.
    pub(crate) fn has_frames(&self) -> bool {
        !self.control.is_empty() || !self.work.is_empty()
    }

    /// Closes the lanes for good if nothing at all is under way.
    pub(crate) fn close_if_idle(&self) -> bool {
        let waits = !self.pending.lock().is_empty() || !self.parked.is_empty();
        if waits || self.has_watches() || self.is_wanted() {
            return false;
        }
        let idle = self.control.close_if_empty() && self.work.close_if_empty();
        if !idle {
            self.control.reopen();
        }
        idle
    }

    pub(crate) fn close(&self) {
        // Nobody is left to hear of tells that did not go.
        drop((self.control.close(), self.work.close()));
        drop(self.give_up("this node is stopping"));
        self.watches.all_lost();
        self.watchers.forget();
        self.link.send_replace(LinkState::Failed(u64::MAX, "this node is stopping".to_owned()));
    }
}

/// Why a frame was not queued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the lane is full")]
    Full,
    #[error("the peer was let go")]
    Closed,
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

impl From<Rejected> for SendError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Full => Self::Full,
            Rejected::Closed => Self::Closed,
        }
    }
}

/// An ask that waits. Dropping it forgets the answer.
pub(crate) struct Expected {
    peer: Arc<Peer>,
    id: u64,
    receiver: oneshot::Receiver<Result<Piece, Undelivered>>,
}

impl Expected {
    pub(crate) async fn answer(mut self) -> Result<Piece, Undelivered> {
        match (&mut self.receiver).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Undelivered::Unreachable("the connection was given up".to_owned())),
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.peer.pending.lock().remove(&self.id);
    }
}
