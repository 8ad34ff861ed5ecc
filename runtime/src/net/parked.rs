//! Tells that a full mailbox could not take: they wait here, in order, and their sender is held back meanwhile.
//!
//! ```text
//! mailbox full   the tell is parked, `Full` goes to the sender's node, whose further tells to that actor fail as
//!                `Overloaded`; what was on its way is parked behind the first
//! room again     they are delivered in order, then `Room` goes to the sender's node
//! no room left   in the peer's budget, or the actor ends: reported with `Lost`, counted, never silently gone
//! ```
//!
//! `Full` is said again with every heartbeat and believed for a while only, so that none of these frames needs to
//! arrive.

use super::{
    dispatch,
    frame::{Envelope, Frame},
    link::Link,
    network::Network,
    peer::Peer,
};
use crate::{
    budget::Hold,
    door::{Failure, message_of_tag},
    message::Lane,
    name::ActorName,
    refusals::Cause,
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// For how long a tell waits for room in a mailbox before it is reported lost.
const PARKED_AT_MOST: Duration = Duration::from_mins(1);
/// What a parked tell takes besides its body.
const ENTRY_BYTES: usize = 256;
/// Actors of a peer that are known to be full at a time.
const FULL_AT_MOST: usize = 4096;
/// Kinds of lost tells that are remembered until they are reported.
const LOST_KINDS: usize = 1024;
/// The name under which the rest is reported.
const OTHERS: &str = "(others)";

struct Waiting {
    envelope: Envelope,
    /// Who sent it, as the gate is to see it.
    link: Arc<Link>,
    since: Instant,
    _hold: Hold,
}

/// The tells of one peer that wait for mailboxes.
#[derive(Default)]
pub(crate) struct Parked {
    /// The number of actors, to look without the lock.
    actors: AtomicUsize,
    waiting: Mutex<HashMap<ActorName, VecDeque<Waiting>>>,
}

impl Parked {
    pub(crate) fn is_empty(&self) -> bool {
        self.actors.load(Ordering::Acquire) == 0
    }

    /// Whether tells to this actor wait: nothing may overtake them.
    pub(crate) fn holds(&self, actor: &ActorName) -> bool {
        self.actors.load(Ordering::Acquire) > 0 && self.waiting.lock().contains_key(actor)
    }

    /// Parks a tell; `true` for the first to its actor, which needs somebody to deliver it.
    fn add(&self, waiting: Waiting) -> bool {
        let mut all = self.waiting.lock();
        let queue = all.entry(waiting.envelope.to.clone()).or_insert_with(|| {
            self.actors.fetch_add(1, Ordering::AcqRel);
            VecDeque::new()
        });
        queue.push_back(waiting);
        queue.len() == 1
    }

    /// Tries the tells to an actor in order until one `stays`; `true` when none is left, and the actor is free again.
    fn try_all(&self, actor: &ActorName, mut stays: impl FnMut(&Waiting) -> bool) -> bool {
        let mut all = self.waiting.lock();
        let Some(queue) = all.get_mut(actor) else { return true };
        while let Some(first) = queue.front() {
            if stays(first) {
                return false;
            }
            queue.pop_front();
        }
        all.remove(actor);
        self.actors.fetch_sub(1, Ordering::AcqRel);
        true
    }
}

/// Delivers a tell from a lane, or parks it, or reports it lost.
pub(crate) fn tell(network: &Arc<Network>, peer: &Arc<Peer>, link: &Arc<Link>, envelope: Envelope) {
    if !peer.parked.holds(&envelope.to) {
        match dispatch::deliver(network, link, &envelope) {
            Ok(()) => return,
            Err(Failure::Overloaded) => {}
            Err(failure) => return lost(network, peer, link, &envelope, failure),
        }
    }
    let bytes = envelope.body.len() + envelope.to.as_str().len() + ENTRY_BYTES;
    let Some(hold) = link.terms.account.take(bytes) else {
        network.refusals.count(link.terms.role, Cause::Bytes, "runtime.Tell", &peer.name);
        return lost(network, peer, link, &envelope, Failure::Overloaded);
    };
    let actor = envelope.to.clone();
    let waiting = Waiting { envelope, link: link.clone(), since: Instant::now(), _hold: hold };
    if peer.parked.add(waiting) {
        network.tasks.spawn(deliver(network.clone(), peer.clone(), actor));
    }
}

/// Delivers what is parked for one actor as its mailbox gets room.
async fn deliver(network: Arc<Network>, peer: Arc<Peer>, actor: ActorName) {
    let say = |frame: &Frame| {
        // The next heartbeat's will do, or the sender's patience ends by itself.
        if let Err(error) = peer.send(&network.faults, Lane::Control, frame) {
            tracing::debug!(peer = %peer.name, %error, "not said that a mailbox is full");
        }
    };
    let mut again = interval(network.timing.heartbeat);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut tag = None;
        let free = peer.parked.try_all(&actor, |waiting| {
            match dispatch::deliver(&network, &waiting.link, &waiting.envelope) {
                Err(Failure::Overloaded) if waiting.since.elapsed() < PARKED_AT_MOST => {
                    tag = Some(waiting.envelope.tag);
                    return true;
                }
                Ok(()) => {}
                Err(failure) => {
                    lost(&network, &peer, &waiting.link, &waiting.envelope, failure);
                }
            }
            false
        });
        if free {
            break;
        }
        let cell = network.cells.get(&actor);
        let room = cell.as_ref().zip(tag).and_then(|(cell, tag)| cell.doors.get(tag));
        match room {
            Some(door) => tokio::select! {
                () = door.room() => {}
                _ = again.tick() => say(&Frame::Full { actor: actor.clone() }),
            },
            // It ended in between: the next look says so to all.
            None => tokio::task::yield_now().await,
        }
    }
    say(&Frame::Room { actor });
}

/// A tell on a stream of its own waits for room by itself: it has no order to keep, and its sender waits.
pub(crate) async fn tell_when_room(
    network: &Network,
    link: &Link,
    envelope: &Envelope,
    limit: Duration,
) -> Result<(), Failure> {
    let waiting = async {
        loop {
            match dispatch::deliver(network, link, envelope) {
                Err(Failure::Overloaded) => {}
                done => return done,
            }
            let cell = network.cells.get(&envelope.to).ok_or(Failure::NoSuchActor)?;
            let door = cell.doors.get(envelope.tag).ok_or(Failure::UnknownMessage)?;
            door.room().await;
        }
    };
    timeout(limit, waiting).await.unwrap_or(Err(Failure::Overloaded))
}

/// Counts a tell that was not delivered and remembers it for the report to its sender.
fn lost(network: &Network, peer: &Peer, link: &Link, envelope: &Envelope, failure: Failure) {
    let message = message_of_tag(envelope.tag).unwrap_or("(unknown)");
    // What the gate refused is counted there.
    if !matches!(failure, Failure::Refused { .. }) {
        network.refusals.count(link.terms.role, Cause::Undelivered, message, &peer.name);
    }
    peer.lost.add(&envelope.to, envelope.tag, failure);
}

/// Tells that were not delivered, by actor and message, until the next heartbeat reports them to their sender.
#[derive(Default)]
pub(crate) struct Undelivered(Mutex<HashMap<(ActorName, u64), (u64, Failure)>>);

impl Undelivered {
    fn add(&self, to: &ActorName, tag: u64, failure: Failure) {
        let mut kinds = self.0.lock();
        let key = (to.clone(), tag);
        let key = if kinds.len() < LOST_KINDS || kinds.contains_key(&key) {
            key
        } else {
            (OTHERS.into(), 0)
        };
        let (count, last) = kinds.entry(key).or_insert((0, failure.clone()));
        *count += 1;
        *last = failure;
    }

    /// Reports what is remembered; what `say` has no room for stays.
    pub(crate) fn report(&self, mut say: impl FnMut(&Frame) -> bool) {
        let mut kinds = self.0.lock();
        kinds.retain(|(to, tag), (count, failure)| {
            let message =
                message_of_tag(*tag).map_or_else(|| format!("{tag:#018x}"), str::to_owned);
            let (to, count, failure) = (to.clone(), *count, failure.clone());
            !say(&Frame::Lost { to, message, count, failure })
        });
    }
}

/// The actors of a peer whose mailboxes are full, as it said.
#[derive(Default)]
pub(crate) struct FullActors {
    any: AtomicUsize,
    until: Mutex<HashMap<ActorName, Instant>>,
}

impl FullActors {
    /// The peer says that an actor's mailbox is full; that is believed for so long.
    pub(crate) fn full(&self, actor: ActorName, now: Instant, believed: Duration) {
        let mut until = self.until.lock();
        if until.len() >= FULL_AT_MOST {
            until.retain(|_, until| *until > now);
        }
        if until.len() < FULL_AT_MOST || until.contains_key(&actor) {
            until.insert(actor, now + believed);
        }
        self.any.store(until.len(), Ordering::Release);
    }

    pub(crate) fn room(&self, actor: &ActorName) {
        let mut until = self.until.lock();
        until.remove(actor);
        self.any.store(until.len(), Ordering::Release);
    }

    pub(crate) fn is_full(&self, actor: &ActorName, now: impl FnOnce() -> Instant) -> bool {
        if self.any.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut all = self.until.lock();
        let Some(until) = all.get(actor) else { return false };
        if *until > now() {
            return true;
        }
        all.remove(actor);
        self.any.store(all.len(), Ordering::Release);
        false
    }

    pub(crate) fn forget(&self) {
        self.until.lock().clear();
        self.any.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_actor_is_believed_for_a_while_or_until_it_has_room() {
        let (full, now, second) = (FullActors::default(), Instant::now(), Duration::from_secs(1));
        full.full("a".into(), now, second);
        full.full("b".into(), now, second);
        assert!(full.is_full(&"a".into(), || now));
        assert!(!full.is_full(&"c".into(), || now));
        full.room(&"a".into());
        assert!(!full.is_full(&"a".into(), || now));
        assert!(!full.is_full(&"b".into(), || now + second));
        assert_eq!(full.any.load(Ordering::Acquire), 0);
        for number in 0..2 * FULL_AT_MOST {
            full.full(number.to_string().into(), now, second);
        }
        assert_eq!(full.any.load(Ordering::Acquire), FULL_AT_MOST);
    }

    #[test]
    fn lost_tells_are_reported_once_with_their_number_and_kept_while_there_is_no_room() {
        let lost = Undelivered::default();
        for _ in 0..3 {
            lost.add(&"a".into(), 7, Failure::Stopped);
        }
        lost.report(|_| false);
        let mut said = Vec::new();
        let mut say = |frame: &Frame| {
            said.push(frame.clone());
            true
        };
        lost.report(&mut say);
        lost.report(&mut say);
        let message = "0x0000000000000007".to_owned();
        let expected = Frame::Lost { to: "a".into(), message, count: 3, failure: Failure::Stopped };
        assert_eq!(said, [expected]);
        for number in 0..2 * LOST_KINDS as u64 {
            lost.add(&"b".into(), number, Failure::Stopped);
        }
        assert_eq!(lost.0.lock().len(), LOST_KINDS + 1);
    }
}
