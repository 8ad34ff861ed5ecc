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

mod deliver;

pub(crate) use deliver::{tell, tell_when_room};

use super::{
    frame::{Envelope, Frame},
    link::Link,
};
use crate::{
    budget::Hold,
    door::{Failure, message_of_tag},
    name::ActorName,
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

/// What a parked tell takes besides its body.
const ENTRY_BYTES: usize = 256;
/// Actors of a peer that are known to be full at a time.
const FULL_AT_MOST: usize = 4096;
/// Kinds of lost tells that are remembered until they are reported.
const LOST_KINDS: usize = 1024;
/// Those of them that are remembered without being on an account.
const FREE_KINDS: usize = 16;
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
        let mut first = false;
        let queue = all.entry(waiting.envelope.to.clone()).or_insert_with(|| {
            self.actors.fetch_add(1, Ordering::AcqRel);
            first = true;
            VecDeque::new()
        });
        queue.push_back(waiting);
        first
    }

    /// Tries the tells to an actor in order until one `stays`; `true` when none is left, and the actor is free again.
    fn try_all(&self, actor: &ActorName, mut stays: impl FnMut(&Waiting) -> bool) -> bool {
        loop {
            let mut all = self.waiting.lock();
            let Some(queue) = all.get_mut(actor) else { return true };
            let Some(first) = queue.pop_front() else {
                all.remove(actor);
                self.actors.fetch_sub(1, Ordering::AcqRel);
                return true;
            };
            // It is decoded again, and the readers of the peer's lanes do not wait for that.
            drop(all);
            if stays(&first) {
                if let Some(queue) = self.waiting.lock().get_mut(actor) {
                    queue.push_front(first);
                }
                return false;
            }
        }
    }
}

/// Tells that were not delivered, by actor and message, until the next heartbeat reports them to their sender.
#[derive(Default)]
pub(crate) struct Undelivered(Mutex<HashMap<(ActorName, u64), Lost>>);

struct Lost {
    count: u64,
    last: Failure,
    /// What its name takes; the rest together takes nothing.
    _hold: Option<Hold>,
}

impl Undelivered {
    /// Remembers a tell, if `take` can hold its name on the account of who sent it; else it is one of the others.
    fn add(
        &self,
        to: &ActorName,
        tag: u64,
        failure: Failure,
        take: impl FnOnce(usize) -> Option<Hold>,
    ) {
        let mut kinds = self.0.lock();
        let key = (to.clone(), tag);
        let (key, hold) = if kinds.contains_key(&key) {
            (key, None)
        } else {
            let room = kinds.len() < LOST_KINDS;
            match room.then(|| take(to.as_str().len() + ENTRY_BYTES)).flatten() {
                Some(hold) => (key, Some(hold)),
                // Who has used up its budget is to hear of whom, too.
                None if kinds.len() < FREE_KINDS => (key, None),
                None => ((OTHERS.into(), 0), None),
            }
        };
        let lost =
            kinds.entry(key).or_insert(Lost { count: 0, last: failure.clone(), _hold: hold });
        lost.count += 1;
        lost.last = failure;
    }

    /// Reports what is remembered; what `say` has no room for stays.
    pub(crate) fn report(&self, mut say: impl FnMut(&Frame) -> bool) {
        let mut kinds = self.0.lock();
        kinds.retain(|(to, tag), lost| {
            let message =
                message_of_tag(*tag).map_or_else(|| format!("{tag:#018x}"), str::to_owned);
            let (to, count, failure) = (to.clone(), lost.count, lost.last.clone());
            !say(&Frame::Lost { to, message, count, failure })
        });
    }
}

/// The actors of a peer whose mailboxes are full, as it said.
#[derive(Default)]
pub(crate) struct FullActors {
    any: AtomicUsize,
    until: Mutex<HashMap<ActorName, (Instant, Hold)>>,
}

impl FullActors {
    /// The peer says that an actor's mailbox is full; that is believed for so long.
    /// It is not remembered if `take` cannot hold its name on the peer's account: then the tells to it wait there.
    pub(crate) fn full(
        &self,
        actor: ActorName,
        now: Instant,
        believed: Duration,
        take: impl FnOnce(usize) -> Option<Hold>,
    ) {
        let mut until = self.until.lock();
        if let Some((until, _)) = until.get_mut(&actor) {
            *until = now + believed;
            return;
        }
        if until.len() < FULL_AT_MOST
            && let Some(hold) = take(actor.as_str().len() + ENTRY_BYTES)
        {
            until.insert(actor, (now + believed, hold));
        }
        self.any.store(until.len(), Ordering::Release);
    }

    /// Forgets those that are not believed any more.
    pub(crate) fn prune(&self, now: Instant) {
        if self.any.load(Ordering::Acquire) > 0 {
            let mut until = self.until.lock();
            until.retain(|_, (until, _)| *until > now);
            self.any.store(until.len(), Ordering::Release);
        }
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
        let Some((until, _)) = all.get(actor) else { return false };
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
    use crate::budget::{Account, Pool};
    use impresario_ambient::clock;

    #[test]
    fn a_full_actor_is_believed_for_a_while_or_until_it_has_room() {
        let (full, now, second) = (FullActors::default(), clock::now(), Duration::from_secs(1));
        let account = Account::new(&Pool::new(4 << 20, 0), 1 << 20);
        let full_until = |name: &str| {
            full.full(name.into(), now, second, |bytes| account.take(bytes));
        };
        full_until("a");
        full_until("b");
        assert!(full.is_full(&"a".into(), || now));
        assert!(!full.is_full(&"c".into(), || now));
        full.room(&"a".into());
        assert!(!full.is_full(&"a".into(), || now));
        assert!(!full.is_full(&"b".into(), || now + second));
        assert_eq!(full.any.load(Ordering::Acquire), 0);
        let long = "x".repeat(500);
        for number in 0..2 * FULL_AT_MOST {
            full_until(&format!("{number}{long}"));
        }
        let known = full.any.load(Ordering::Acquire);
        assert!(known > 1000 && known < FULL_AT_MOST, "{known}: the account bounds them");
        full.prune(now + second);
        assert_eq!((full.any.load(Ordering::Acquire), account.held()), (0, 0));
    }

    #[test]
    fn lost_tells_are_reported_once_with_their_number_and_kept_while_there_is_no_room() {
        let lost = Undelivered::default();
        let account = Account::new(&Pool::new(4 << 20, 0), 1 << 20);
        for _ in 0..3 {
            lost.add(&"a".into(), 7, Failure::Stopped, |bytes| account.take(bytes));
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
            lost.add(&"b".into(), number, Failure::Stopped, |bytes| account.take(bytes));
        }
        assert_eq!(lost.0.lock().len(), LOST_KINDS + 1);
        lost.report(|_| true);
        assert_eq!(account.held(), 0);
        for number in 0..=FREE_KINDS as u64 {
            lost.add(&"c".into(), number, Failure::Stopped, |_| None);
        }
        assert!(lost.0.lock().contains_key(&(OTHERS.into(), 0)), "little is kept without room");
    }
}
