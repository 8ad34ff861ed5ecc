//! Who watches, and who is concerned by a change: found by index, so that nobody else is woken by it.
//!
//! Whoever changes the store looks the new changes up here, in the order of their revisions, and tells each watcher that
//! is concerned at which revisions it has to look. Nothing else is kept for a watcher: it reads the ring
//! itself, at its own pace. What was looked up in the values of a change is kept while it is new, so that they are
//! read once, and not by each watcher.

mod index;
mod slot;

use crate::{
    condition::{Condition, Interest},
    key::Revision,
    store::{Change, SharedChanges, Store},
};
use index::{Index, Kind, Wants};
use parking_lot::{Mutex, RwLock};
use slot::Slot;
pub(crate) use slot::Told;
use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// Of a watcher with more conditions than this nobody else says whether a change concerns it.
const MOST_JUDGED: usize = 4;

/// The changes whose values are kept as they were looked up, in bytes of these values; the newest one always is. Most of
/// these bytes the ring of recent changes has as well. Thousands of watches that are taken up again after a while look at
/// the same changes.
const SEEN_BYTES: usize = 32 * 1024 * 1024;

/// Everybody who watches a replica.
#[derive(Debug)]
pub(crate) struct Watchers {
    index: Mutex<Index>,
    /// Of all revisions up to this one, who is concerned has been told.
    through: AtomicU64,
    seen: Mutex<Recent>,
}

/// A watcher's place in the index; dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Subscription {
    watchers: Arc<Watchers>,
    slot: Arc<Slot>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.watchers.index.lock().remove(self.id, &self.slot.interest.select.resource);
    }
}

impl Subscription {
    /// What it watches.
    pub(crate) fn interest(&self) -> &Interest {
        &self.slot.interest
    }

    /// Up to this revision it has been told what it has to look at. To be asked before [`Subscription::take`]: where
    /// that has nothing, nothing up to here is left to look at.
    pub(crate) fn through(&self) -> Revision {
        self.watchers.through.load(Ordering::Acquire)
    }

    /// What it has to look at, since it was asked last.
    pub(crate) fn take(&self) -> Option<Told> {
        self.slot.take()
    }

    /// Resolves when there is something to take.
    pub(crate) async fn news(&self) {
        self.slot.news.notified().await;
    }

    /// What was looked up in the values of a revision. Kept for all where it is new, and only for who asks where it
    /// is old: nothing is looked up in it then before somebody needs it.
    pub(crate) fn seen(&self, batch: &SharedChanges) -> Arc<Seen> {
        let kept = self.watchers.seen.lock().find(batch.0);
        kept.unwrap_or_else(|| {
            let wants = Arc::new(Wants::of(&self.slot.interest));
            Arc::new(Seen::new(batch, |_| Some(wants.clone())))
        })
    }
}

impl Watchers {
    /// Of a store at this revision.
    pub(crate) fn new(revision: Revision) -> Self {
        Self { index: Mutex::default(), through: AtomicU64::new(revision), seen: Mutex::default() }
    }

    /// Takes a watcher in, which has to look at what is there after this revision.
    pub(crate) fn subscribe(self: &Arc<Self>, interest: Interest, after: Revision) -> Subscription {
        let told = Mutex::new(Told::from(after + 1));
        let slot = Arc::new(Slot { interest, after, told, news: Notify::new() });
        let id = self.index.lock().insert(&slot);
        Subscription { watchers: self.clone(), slot, id }
    }

    /// Tells everybody who is concerned by what is new in the store.
    pub(crate) fn dispatch(&self, store: &RwLock<Store>) {
        // Whoever comes second has nothing left to do, and what it wrote is told when it goes on.
        let index = self.index.lock();
        loop {
            let through = self.through.load(Ordering::Relaxed);
            let (revision, recent) = {
                let store = store.read();
                (store.revision(), store.recent(through))
            };
            match recent {
                Ok(recent) if recent.is_empty() => {
                    self.through.store(revision, Ordering::Release);
                    return;
                }
                Ok(recent) => {
                    for batch in &recent {
                        self.tell(&index, batch);
                        self.through.store(batch.0, Ordering::Release);
                    }
                }
                // Another state was put in place of this one, and nobody can tell what lies between them.
                Err(_) => {
                    index.all().for_each(|slot| slot.tell_from(through + 1));
                    self.through.store(revision, Ordering::Release);
                    return;
                }
            }
        }
    }

    fn tell(&self, index: &Index, batch: &SharedChanges) {
        let seen = Seen::new(batch, |resource| index.kind(resource).and_then(Kind::wants));
        let seen = Arc::new(seen);
        if seen.is_wanted() {
            self.seen.lock().keep(seen.clone()); // before anybody is woken who looks for it
        }
        for (place, change) in batch.1.iter().enumerate() {
            let Some(kind) = index.kind(&change.key.resource) else { continue };
            let looked = seen.change(place);
            kind.concerned(&change.key, looked.sides(), |slot| {
                let interest = &slot.interest;
                let is_concerned = || {
                    if looked.tells(change, interest) {
                        looked.concerns(change, interest)
                    } else {
                        interest.covers(&change.key)
                    }
                };
                if slot.after < batch.0 && is_concerned() {
                    slot.tell(batch.0);
                }
            });
        }
    }
}

/// What was looked up in the values of one revision's changes, each when it is first asked for.
#[derive(Debug)]
pub(crate) struct Seen {
    batch: SharedChanges,
    wants: Vec<Option<Arc<Wants>>>,
    changes: Vec<OnceLock<Sides>>,
}

/// What was looked up in the values before and after a change.
#[derive(Debug, Default)]
pub(crate) struct Sides {
    before: Looked,
    after: Looked,
}

type Looked = crate::field::Looked;

impl Seen {
    fn new(batch: &SharedChanges, wants: impl Fn(&str) -> Option<Arc<Wants>>) -> Self {
        let wants = batch.1.iter().map(|change| wants(&change.key.resource)).collect();
        let changes = batch.1.iter().map(|_| OnceLock::new()).collect();
        Self { batch: batch.clone(), wants, changes }
    }

    fn is_wanted(&self) -> bool {
        self.wants.iter().any(Option::is_some)
    }

    /// Of the change at this place of the revision.
    pub(crate) fn change(&self, place: usize) -> &Sides {
        static NOTHING: OnceLock<Sides> = OnceLock::new();
        let (Some(change), Some(Some(wants)), Some(sides)) =
            (self.batch.1.get(place), self.wants.get(place), self.changes.get(place))
        else {
            return NOTHING.get_or_init(Sides::default);
        };
        sides.get_or_init(|| {
            let look = |record: &Option<crate::store::Record>| {
                record.as_ref().map(|record| wants.look(&record.value)).unwrap_or_default()
            };
            Sides { before: look(&change.before), after: look(&change.after) }
        })
    }

    fn bytes(&self) -> usize {
        self.batch.1.iter().map(Change::bytes).sum()
    }
}

impl Sides {
    fn sides(&self) -> [&Looked; 2] {
        [&self.before, &self.after]
    }

    /// Whether the object was meant before the change, and whether it is after it.
    pub(crate) fn meant(&self, change: &Change, interest: &Interest) -> (bool, bool) {
        let is_meant = |record: &Option<crate::store::Record>, looked: &Looked| {
            record.as_ref().is_some_and(|record| interest.accepts(&record.value, looked))
        };
        if !interest.covers(&change.key) {
            return (false, false);
        }
        (is_meant(&change.before, &self.before), is_meant(&change.after, &self.after))
    }

    /// Whether it costs next to nothing to say whom the change concerns. Else the watcher looks, in its own time: who
    /// writes waits for none of it.
    fn tells(&self, change: &Change, interest: &Interest) -> bool {
        let knows = |record: &Option<crate::store::Record>, looked: &Looked| {
            record.is_none()
                || interest.conditions.iter().all(|condition| match condition {
                    Condition::Field { pointer, .. } => looked.field(pointer).is_some(),
                    Condition::Label { .. } => looked.labels().is_some(),
                })
        };
        interest.conditions.len() <= MOST_JUDGED
            && knows(&change.before, &self.before)
            && knows(&change.after, &self.after)
    }

    fn concerns(&self, change: &Change, interest: &Interest) -> bool {
        let (before, after) = self.meant(change, interest);
        before || after
    }
}

/// What was looked up of late, oldest first.
#[derive(Debug, Default)]
struct Recent {
    seen: VecDeque<Arc<Seen>>,
    bytes: usize,
}

impl Recent {
    fn keep(&mut self, seen: Arc<Seen>) {
        self.bytes += seen.bytes();
        self.seen.push_back(seen);
        while self.bytes > SEEN_BYTES && self.seen.len() > 1 {
            if let Some(oldest) = self.seen.pop_front() {
                self.bytes -= oldest.bytes();
            }
        }
    }

    fn find(&self, revision: Revision) -> Option<Arc<Seen>> {
        let place = self.seen.partition_point(|seen| seen.batch.0 < revision);
        self.seen.get(place).filter(|seen| seen.batch.0 == revision).cloned()
    }
}

#[cfg(test)]
mod tests;
