//! The sending half of a lane: a bounded queue of frames for one peer.
//!
//! It outlives connections: what waits when one is lost goes over the next. What a writer has taken is sent at most once.
//! Full in frames or in bytes, or without room on the peer's account, it refuses. A delay fault gives an entry a due time; order stays.

use super::frame::{
    ENVELOPE_BYTES, Frame, LANE_FRAME_LIMIT_BYTES, LANE_HEAD_BYTES, open_lane_frame, seal,
};
use crate::{
    budget::{Account, Hold},
    fault::Fate,
    name::ActorName,
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How much a writer takes at a time: enough that packets are full, little enough that memory stays small.
const COALESCE_BYTES: usize = 32 << 10;
/// What waits on a lane without being on its peer's account: room for the largest frame.
const FREE_BYTES: usize = LANE_HEAD_BYTES + LANE_FRAME_LIMIT_BYTES + ENVELOPE_BYTES;
/// For how long a frame that is to be overtaken waits for another.
const OVERTAKE_WAIT: Duration = Duration::from_millis(20);
/// More frames than this many bits can count are not sent in a millisecond.
const FRAMES_PER_MILLI_BITS: u32 = 20;

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    Full,
    /// The peer was let go meanwhile: get it anew.
    Closed,
}

struct Entry {
    bytes: Vec<u8>,
    /// The name of the message, if it is a tell: one that is dropped is reported.
    tell: Option<&'static str>,
    /// Beyond what each lane has for itself, what waits is on its peer's account.
    hold: Option<Hold>,
    due: Option<Instant>,
    overtakable: bool,
}

/// Tells of one message to one actor that were dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) to: ActorName,
    pub(crate) message: &'static str,
    pub(crate) count: u64,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// How many of them are on no account.
    free_bytes: usize,
    account: Option<Arc<Account>>,
    sequence: u64,
    closed: bool,
}

impl Queue {
    /// Behind all others, or before a last one that is to be overtaken.
    fn add(&mut self, entry: Entry) {
        self.bytes += entry.bytes.len();
        if entry.hold.is_none() {
            self.free_bytes += entry.bytes.len();
        }
        let place = match self.entries.back_mut() {
            Some(last) => {
                let overtaken = std::mem::take(&mut last.overtakable);
                self.entries.len() - usize::from(overtaken)
            }
            None => 0,
        };
        self.entries.insert(place, entry);
    }

    fn take_first(&mut self) -> Option<Entry> {
        let first = self.entries.pop_front()?;
        self.bytes -= first.bytes.len();
        if first.hold.is_none() {
            self.free_bytes -= first.bytes.len();
        }
        Some(first)
    }
}

pub(crate) struct LaneQueue {
    queue: Mutex<Queue>,
    most_frames: usize,
    most_bytes: AtomicUsize,
    filled: Notify,
    room: Notify,
}

impl LaneQueue {
    /// A queue of a node that has run for `uptime`.
    ///
    /// Its numbers begin at the time, so that those of a peer that was forgotten and made anew go on above the old ones:
    /// the receiver may remember those.
    pub(crate) fn new(most_frames: usize, most_bytes: usize, uptime: Duration) -> Self {
        let millis = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX >> FRAMES_PER_MILLI_BITS);
        let queue = Queue { sequence: millis << FRAMES_PER_MILLI_BITS, ..Queue::default() };
        Self {
            queue: Mutex::new(queue),
            most_frames,
            most_bytes: AtomicUsize::new(most_bytes),
            filled: Notify::new(),
            room: Notify::new(),
        }
    }

    /// From now on so many bytes wait at most, all but a few of them on this account.
    pub(crate) fn set_bounds(&self, bytes: usize, account: &Arc<Account>) {
        self.most_bytes.store(bytes, Ordering::Relaxed);
        self.queue.lock().account = Some(account.clone());
    }

    /// Bytes that wait and are on no account.
    pub(crate) fn free_bytes(&self) -> usize {
        self.queue.lock().free_bytes
    }

    /// Adds a frame (made by `lane_frame`) behind those that wait; takes the bytes if it does.
    pub(crate) fn push(
        &self,
        bytes: &mut Vec<u8>,
        fate: Fate,
        tell: Option<&'static str>,
    ) -> Result<(), Rejected> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Rejected::Closed);
        }
        let most_bytes = self.most_bytes.load(Ordering::Relaxed);
        if queue.entries.len() >= self.most_frames || queue.bytes + bytes.len() > most_bytes {
            return Err(Rejected::Full);
        }
        let hold = match &queue.account {
            Some(account) if queue.free_bytes + bytes.len() > FREE_BYTES => {
                Some(account.take(bytes.len()).ok_or(Rejected::Full)?)
            }
            _ => None,
        };
        queue.sequence += 1;
        if fate.dropped {
            return Ok(());
        }
        let mut bytes = std::mem::take(bytes);
        seal(&mut bytes, queue.sequence);
        let wait = if fate.overtaken { fate.delay.max(OVERTAKE_WAIT) } else { fate.delay };
        let due = (!wait.is_zero()).then(|| Instant::now() + wait);
        if fate.doubled {
            let bytes = bytes.clone();
            let overtakable = fate.overtaken;
            queue.add(Entry { bytes, tell: None, hold: None, due, overtakable });
        }
        queue.add(Entry { bytes, tell, hold, due, overtakable: fate.overtaken });
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Adds a frame, waiting for room.
    pub(crate) async fn push_when_room(
        &self,
        mut bytes: Vec<u8>,
        fate: Fate,
    ) -> Result<(), Rejected> {
        loop {
            let room = self.room.notified();
            match self.push(&mut bytes, fate, None) {
                Err(Rejected::Full) => room.await,
                done => return done,
            }
        }
    }

    /// Waits for frames that are due and moves as many as fit into `buffer`, which is empty.
    pub(crate) async fn take(&self, buffer: &mut Vec<u8>) {
        loop {
            let filled = self.filled.notified();
            let due = self.take_due(buffer, Instant::now());
            if !buffer.is_empty() {
                self.room.notify_waiters();
                return;
            }
            match due {
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = filled => {}
                },
                None => filled.await,
            }
        }
    }

    /// Moves what is due; gives the time at which the first of the rest will be.
    fn take_due(&self, buffer: &mut Vec<u8>, now: Instant) -> Option<Instant> {
        let mut queue = self.queue.lock();
        while let Some(first) = queue.entries.front() {
            if let Some(due) = first.due.filter(|due| *due > now) {
                return Some(due);
            }
            if !buffer.is_empty() && buffer.len() + first.bytes.len() > COALESCE_BYTES {
                return Some(now);
            }
            buffer.extend_from_slice(&first.bytes);
            queue.take_first();
        }
        None
    }

    /// Forgets all that waits: nobody will read it. Gives the tells among it.
    pub(crate) fn clear(&self) -> Vec<Dropped> {
        let mut queue = self.queue.lock();
        let entries = std::mem::take(&mut queue.entries);
        (queue.bytes, queue.free_bytes) = (0, 0);
        drop(queue);
        self.room.notify_waiters();
        let mut dropped: HashMap<(ActorName, &'static str), u64> = HashMap::new();
        for entry in &entries {
            if let Some(message) = entry.tell
                && let Ok((_, Frame::Tell(envelope))) = open_lane_frame(&entry.bytes[4..])
            {
                *dropped.entry((envelope.to, message)).or_default() += 1;
            }
        }
        let each = dropped.into_iter();
        each.map(|((to, message), count)| Dropped { to, message, count }).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().entries.is_empty()
    }

    /// Closes the queue if nothing waits in it.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.closed |= queue.entries.is_empty();
        queue.closed
    }

    pub(crate) fn close(&self) -> Vec<Dropped> {
        self.queue.lock().closed = true;
        self.clear()
    }

    pub(crate) fn reopen(&self) {
        self.queue.lock().closed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::frame::{Envelope, Frame, lane_frame, open_lane_frame},
        *,
    };

    fn frame(id: u64) -> Vec<u8> {
        lane_frame(&Frame::Unwatch { id }).unwrap()
    }

    async fn ids(queue: &LaneQueue) -> Vec<(u64, u64)> {
        let mut buffer = Vec::new();
        queue.take(&mut buffer).await;
        let mut rest = &buffer[..];
        let mut ids = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
            let (sequence, frame) = open_lane_frame(&rest[4..4 + length]).unwrap();
            let Frame::Unwatch { id } = frame else { panic!("{frame:?}") };
            ids.push((sequence, id));
            rest = &rest[4 + length..];
        }
        ids
    }

    #[tokio::test]
    async fn frames_leave_together_and_in_order() {
        let queue = LaneQueue::new(8, 1 << 20, Duration::ZERO);
        for id in [5, 6, 7] {
            queue.push(&mut frame(id), Fate::default(), None).unwrap();
        }
        assert_eq!(ids(&queue).await, [(1, 5), (2, 6), (3, 7)]);
    }

    #[tokio::test]
    async fn a_full_lane_refuses_and_has_room_again_when_it_is_read() {
        let queue = LaneQueue::new(2, 1 << 20, Duration::ZERO);
        queue.push(&mut frame(1), Fate::default(), None).unwrap();
        queue.push(&mut frame(2), Fate::default(), None).unwrap();
        assert_eq!(queue.push(&mut frame(3), Fate::default(), None), Err(Rejected::Full));
        assert_eq!(ids(&queue).await.len(), 2);
        queue.push(&mut frame(3), Fate::default(), None).unwrap();
        assert_eq!(
            LaneQueue::new(2, 20, Duration::ZERO).push(&mut frame(1), Fate::default(), None),
            Ok(())
        );
        assert_eq!(
            LaneQueue::new(2, 10, Duration::ZERO).push(&mut frame(1), Fate::default(), None),
            Err(Rejected::Full)
        );
    }

    #[tokio::test]
    async fn faults_drop_double_and_overtake_but_numbers_tell_the_receiver() {
        let queue = LaneQueue::new(8, 1 << 20, Duration::ZERO);
        queue.push(&mut frame(1), Fate { overtaken: true, ..Fate::default() }, None).unwrap();
        queue.push(&mut frame(2), Fate { doubled: true, ..Fate::default() }, None).unwrap();
        queue.push(&mut frame(3), Fate { dropped: true, ..Fate::default() }, None).unwrap();
        queue.push(&mut frame(4), Fate::default(), None).unwrap();
        let mut seen = ids(&queue).await;
        while seen.len() < 4 {
            seen.extend(ids(&queue).await);
        }
        assert_eq!(seen, [(2, 2), (1, 1), (2, 2), (4, 4)]);
    }

    #[tokio::test]
    async fn the_numbers_of_a_later_queue_are_above_those_of_an_earlier_one() {
        let earlier = LaneQueue::new(8, 1 << 20, Duration::from_secs(1));
        let later = LaneQueue::new(8, 1 << 20, Duration::from_secs(2));
        for queue in [&earlier, &later] {
            queue.push(&mut frame(1), Fate::default(), None).unwrap();
        }
        assert!(ids(&earlier).await[0].0 < ids(&later).await[0].0);
    }

    #[tokio::test]
    async fn a_delay_keeps_the_order() {
        let queue = LaneQueue::new(8, 1 << 20, Duration::ZERO);
        queue
            .push(&mut frame(1), Fate { delay: Duration::from_millis(30), ..Fate::default() }, None)
            .unwrap();
        queue.push(&mut frame(2), Fate::default(), None).unwrap();
        assert_eq!(ids(&queue).await, [(1, 1), (2, 2)]);
    }

    #[tokio::test]
    async fn what_waits_beyond_a_little_is_on_the_peers_account_and_tells_that_are_dropped_are_named()
     {
        let account = Account::new(&crate::budget::Pool::new(4 << 20, 0), 1 << 20);
        let queue = LaneQueue::new(8192, 8 << 20, Duration::ZERO);
        queue.set_bounds(8 << 20, &account);
        let tell = |to: &str| {
            let envelope =
                Envelope { to: to.into(), tag: 7, trace: None, body: vec![0; 32 << 10].into() };
            lane_frame(&Frame::Tell(envelope)).unwrap()
        };
        let mut taken = 0;
        while queue.push(&mut tell("a"), Fate::default(), Some("test.A")).is_ok() {
            taken += 1;
        }
        assert!((37..=41).contains(&taken), "{taken} of 32 KiB in 1 MiB and a little");
        assert!(account.held() > 900 << 10 && queue.free_bytes() <= FREE_BYTES);
        let dropped = queue.clear();
        assert_eq!(dropped, [Dropped { to: "a".into(), message: "test.A", count: taken }]);
        assert_eq!((account.held(), queue.free_bytes()), (0, 0));
    }
}
