//! What is kept of one other node, whether a connection stands or not.
//!
//! Asks that wait, watches in both directions, and the lanes live here, so that a connection that breaks and comes back
//! within the failure detector's limit costs nothing but time. The peer's driver task owns the connection.

use super::{
    frame::{Frame, lane_frame},
    lane::{LaneQueue, Rejected},
    link::Link,
    network::Network,
};
use crate::{
    codec::EncodeError,
    door::Failure,
    fault::{Direction, FaultTable},
    message::Lane,
    name::NodeName,
    reference::Undelivered,
    watch::Reason,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::AbortHandle,
};

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

type Answer = oneshot::Sender<Result<Bytes, Undelivered>>;

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
    watches: Mutex<HashMap<u64, (crate::name::ActorName, oneshot::Sender<Reason>)>>,
    /// Its watches on our actors.
    watchers: Mutex<HashMap<u64, AbortHandle>>,
    /// The last sequence number received on each lane.
    received: [AtomicU64; 2],
    heard: Mutex<Option<Instant>>,
    pub(crate) inbound_asks: Arc<Semaphore>,
    pub(crate) bulk_tells: Arc<Semaphore>,
    most_pending: usize,
}

impl Peer {
    pub(crate) fn new(
        name: NodeName,
        network: &Network,
    ) -> (Arc<Self>, mpsc::Receiver<super::handshake::Arrival>) {
        let (arrivals, inbox) = mpsc::channel(ARRIVALS);
        let limits = &network.limits;
        let lane =
            || LaneQueue::new(limits.lane_frames, limits.lane_bytes, network.started.elapsed());
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
            watches: Mutex::default(),
            watchers: Mutex::default(),
            received: [AtomicU64::new(0), AtomicU64::new(0)],
            heard: Mutex::new(None),
            inbound_asks: Arc::new(Semaphore::new(limits.inbound_asks)),
            bulk_tells: Arc::new(Semaphore::new(BULK_TELLS)),
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
        let mut bytes = lane_frame(frame)?;
        let fate = faults.fate(&self.name, self.is_healer(), Direction::Send, rand::random);
        self.lane(lane).push(&mut bytes, fate)?;
        self.want();
        Ok(())
    }

    /// Queues a frame when there is room.
    pub(crate) async fn send_when_room(
        &self,
        faults: &FaultTable,
        lane: Lane,
        frame: &Frame,
    ) -> Result<(), SendError> {
        let bytes = lane_frame(frame)?;
        let fate = faults.fate(&self.name, self.is_healer(), Direction::Send, rand::random);
        Ok(self.lane(lane).push_when_room(bytes, fate).await?)
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

    pub(crate) fn answer(&self, id: u64, outcome: Result<Bytes, Failure>) {
        // Nobody waits any more when the deadline has passed.
        if let Some(answer) = self.pending.lock().remove(&id) {
            let _ = answer.send(outcome.map_err(Undelivered::Failure));
        }
    }

    /// Nothing will come: neither frames that wait nor answers.
    pub(crate) fn give_up(&self, detail: &str) {
        self.control.clear();
        self.work.clear();
        for (_, answer) in self.pending.lock().drain() {
            let _ = answer.send(Err(Undelivered::Unreachable(detail.to_owned())));
        }
    }

    // --- our watches

    pub(crate) fn add_watch(
        &self,
        id: u64,
        actor: crate::name::ActorName,
        tell: oneshot::Sender<Reason>,
    ) {
        self.watches.lock().insert(id, (actor, tell));
    }

    pub(crate) fn take_watch(&self, id: u64) -> Option<oneshot::Sender<Reason>> {
        self.watches.lock().remove(&id).map(|(_, tell)| tell)
    }

    pub(crate) fn remove_watch(&self, id: u64) -> bool {
        self.watches.lock().remove(&id).is_some()
    }

    pub(crate) fn terminated(&self, id: u64, reason: Reason) {
        if let Some((_, tell)) = self.watches.lock().remove(&id) {
            let _ = tell.send(reason);
        }
    }

    pub(crate) fn all_lost(&self) {
        for (_, (_, tell)) in self.watches.lock().drain() {
            let _ = tell.send(Reason::NodeLost);
        }
    }

    /// Says all our watches again, for a new connection: the answer to one may have been lost with the old.
    pub(crate) fn renew_watches(&self, faults: &FaultTable) {
        let watches: Vec<_> =
            self.watches.lock().iter().map(|(id, (actor, _))| (*id, actor.clone())).collect();
        for (id, actor) in watches {
            if let Err(error) = self.send(faults, Lane::Control, &Frame::Watch { id, actor }) {
                // The control lane is full of watches: the rest is renewed with the next connection.
                tracing::warn!(peer = %self.name, %error, "a death watch was not renewed");
                return;
            }
        }
    }

    // --- its watches

    /// Keeps the task that `start` starts; it cannot call [`Self::watcher_done`] before it is kept.
    pub(crate) fn add_watcher(&self, id: u64, start: impl FnOnce() -> AbortHandle) {
        let mut watchers = self.watchers.lock();
        if let Some(older) = watchers.remove(&id) {
            older.abort();
        }
        watchers.insert(id, start());
    }

    /// The task of this watch is at its end.
    pub(crate) fn watcher_done(&self, id: u64) {
        self.watchers.lock().remove(&id);
    }

    pub(crate) fn remove_watcher(&self, id: u64) {
        if let Some(task) = self.watchers.lock().remove(&id) {
            task.abort();
        }
    }

    pub(crate) fn forget_watchers(&self) {
        for (_, task) in self.watchers.lock().drain() {
            task.abort();
        }
    }

    pub(crate) fn watchers(&self) -> usize {
        self.watchers.lock().len()
    }

    // --- what is heard

    pub(crate) fn hear(&self) {
        *self.heard.lock() = Some(Instant::now());
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
        !self.watches.lock().is_empty()
    }

    /// Whether frames wait that came when a connection was just ending.
    pub(crate) fn has_frames(&self) -> bool {
        !self.control.is_empty() || !self.work.is_empty()
    }

    /// Closes the lanes for good if nothing at all is under way.
    pub(crate) fn close_if_idle(&self) -> bool {
        if !self.pending.lock().is_empty() || self.has_watches() || self.is_wanted() {
            return false;
        }
        let idle = self.control.close_if_empty() && self.work.close_if_empty();
        if !idle {
            self.control.reopen();
        }
        idle
    }

    pub(crate) fn close(&self) {
        self.control.close();
        self.work.close();
        self.give_up("this node is stopping");
        self.all_lost();
        self.forget_watchers();
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
    receiver: oneshot::Receiver<Result<Bytes, Undelivered>>,
}

impl Expected {
    pub(crate) async fn answer(mut self) -> Result<Bytes, Undelivered> {
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
