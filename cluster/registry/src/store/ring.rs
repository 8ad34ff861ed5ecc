//! The recent past: every change after the floor, without gaps, bounded by count and bytes.
//!
//! Watches read it, and lists at an old revision undo it. When a bound is passed, the oldest revision goes
//! and the floor rises; who needs what is below the floor is told `Gone`.

use super::record::Record;
use crate::{
    error::WatchError,
    key::{Key, Revision},
    query::{Selection, WatchBatch, WatchEvent},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

/// How many revisions a watcher looks through at once, so that it holds the lock shortly.
const SCAN: usize = 512;
/// How many bytes it takes out at once, one revision at least: a watcher that then stops reading keeps them in memory,
/// though the ring has long let go of them.
const SCAN_BYTES: usize = 256 * 1024;
/// What a change costs beside its key and values; its key stands in the index as well.
const OVERHEAD_BYTES: usize = 512;

/// The most bytes that the values before and after a transaction may have together: a watcher is told of both
/// in one piece.
pub(super) const MAX_CHANGE_BYTES: usize = 32 * 1024 * 1024;

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLimits {
    /// At most so many revisions.
    pub revisions: usize,
    /// At most so many bytes that nobody else keeps; the newest revision is kept however large.
    pub bytes: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self { revisions: 200_000, bytes: 64 * 1024 * 1024 }
    }
}

/// One object before and after a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The object.
    pub key: Key,
    /// What was there.
    pub before: Option<Record>,
    /// What is there now.
    pub after: Option<Record>,
}

impl Change {
    pub(crate) fn bytes(&self) -> usize {
        self.kept_bytes() + self.after.as_ref().map_or(0, |record| record.value.len())
    }

    /// About what is kept on its account alone: what is there now is the store's, or what a later change replaced.
    fn kept_bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |record| record.value.len());
        before + self.key.bytes() + OVERHEAD_BYTES
    }

    /// The change as a selection sees it: what ceases to match is deleted, what begins to match is put.
    pub fn seen_through(&self, select: &Selection, revision: Revision) -> Option<WatchEvent> {
        if !select.covers(&self.key) {
            return None;
        }
        let is_meant = |record: &Option<Record>| {
            record.as_ref().is_some_and(|record| select.accepts(&record.value))
        };
        self.event((is_meant(&self.before), is_meant(&self.after)), revision)
    }

    /// The change for whom the object was meant before it, after it, or both.
    pub(crate) fn event(
        &self,
        (before, after): (bool, bool),
        revision: Revision,
    ) -> Option<WatchEvent> {
        let entry = |record: &Option<Record>, is_meant: bool| {
            record.as_ref().filter(|_| is_meant).map(|record| record.entry(self.key.clone()))
        };
        match (entry(&self.before, before), entry(&self.after, after)) {
            (previous, Some(entry)) => Some(WatchEvent::Put { entry, previous }),
            (Some(previous), None) => Some(WatchEvent::Delete { previous, revision }),
            (None, None) => None,
        }
    }
}

/// The changes of one revision, shared by the history and whoever reads it.
pub type SharedChanges = Arc<(Revision, Vec<Change>)>;

/// One batch as a selection sees it; none if nothing of it matches.
fn seen_through(select: &Selection, batch: &SharedChanges) -> Option<WatchBatch> {
    let (revision, changes) = &**batch;
    let events: Vec<_> =
        changes.iter().filter_map(|change| change.seen_through(select, *revision)).collect();
    (!events.is_empty()).then_some(WatchBatch { revision: *revision, events })
}

/// What a watcher gets at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// What matches, revisions rising.
    pub batches: Vec<WatchBatch>,
    /// All revisions up to this one have been looked through.
    pub cursor: Revision,
}

impl Changes {
    /// The recent past after `cursor` as a selection sees it.
    pub fn of(recent: &[SharedChanges], select: &Selection, cursor: Revision) -> Self {
        let batches = recent.iter().filter_map(|batch| seen_through(select, batch)).collect();
        Self { batches, cursor: recent.last().map_or(cursor, |batch| batch.0) }
    }
}

/// The changes after [`Ring::floor`], in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    limits: RingLimits,
    floor: Revision,
    bytes: usize,
    batches: VecDeque<SharedChanges>,
    /// Where each key changed: the revisions, and which of the batch's changes was its first.
    touched: BTreeMap<Key, VecDeque<(Revision, usize)>>,
}

/// A key that changed in the recent past, and what was there at a revision, if it has changed since: nothing, or this.
#[allow(clippy::option_option)] // "Not changed" and "was not there" are two things.
pub(super) type Touched<'a> = (&'a Key, Option<Option<&'a Record>>);

impl Ring {
    pub(super) fn new(limits: RingLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A ring with this past; all revisions after `floor` are in `batches`.
    pub(super) fn restore(
        limits: RingLimits,
        floor: Revision,
        batches: Vec<SharedChanges>,
    ) -> Self {
        let mut ring = Self { limits, floor, ..Self::default() };
        for batch in batches {
            ring.push_shared(batch);
        }
        ring
    }

    pub(super) fn limits(&self) -> RingLimits {
        self.limits
    }

    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn push(&mut self, revision: Revision, changes: Vec<Change>) {
        self.push_shared(Arc::new((revision, changes)));
    }

    fn push_shared(&mut self, batch: SharedChanges) {
        self.bytes += kept(&batch);
        for (place, change) in batch.1.iter().enumerate() {
            match self.touched.get_mut(&change.key) {
                Some(places) if places.back().is_some_and(|last| last.0 == batch.0) => {}
                Some(places) => places.push_back((batch.0, place)),
                None => drop(self.touched.insert(change.key.clone(), [(batch.0, place)].into())),
            }
        }
        self.batches.push_back(batch);
        while self.batches.len() > 1
            && (self.batches.len() > self.limits.revisions || self.bytes > self.limits.bytes)
        {
            if let Some(oldest) = self.batches.pop_front() {
                self.bytes -= kept(&oldest);
                self.floor = oldest.0;
                self.forget(&oldest);
            }
        }
    }

    /// Takes the oldest batch out of the index.
    fn forget(&mut self, oldest: &SharedChanges) {
        for change in &oldest.1 {
            let Some(places) = self.touched.get_mut(&change.key) else { continue };
            if places.front().is_some_and(|first| first.0 == oldest.0) {
                places.pop_front();
            }
            if places.is_empty() {
                self.touched.remove(&change.key);
            }
        }
    }

    /// The keys in a range that changed in the recent past, in order. Who goes through the present beside them pays
    /// for those of its own range alone, however much of the past is kept.
    pub(super) fn touched(
        &self,
        range: (Bound<Key>, Bound<Key>),
        revision: Revision,
    ) -> impl Iterator<Item = Touched<'_>> {
        self.touched.range(range).map(move |(key, places)| {
            let since = places.partition_point(|(at, _)| *at <= revision);
            // The first change after the revision knows what was there at it.
            let first = places.get(since).and_then(|(at, place)| {
                let batch = self.batches.partition_point(|batch| batch.0 < *at);
                self.batches.get(batch)?.1.get(*place)
            });
            (key, first.map(|change| change.before.as_ref()))
        })
    }

    /// The batches after a revision, oldest first. The caller has checked the floor.
    pub(super) fn after(
        &self,
        cursor: Revision,
    ) -> impl DoubleEndedIterator<Item = &SharedChanges> {
        let start = self.batches.partition_point(|batch| batch.0 <= cursor);
        self.batches.range(start..)
    }

    pub(super) fn read(&self, cursor: Revision) -> Result<Vec<SharedChanges>, WatchError> {
        if cursor < self.floor {
            return Err(WatchError::Gone { oldest: self.floor });
        }
        Ok(self.after(cursor).take(SCAN).take_while(fits()).cloned().collect())
    }

    /// The batches of the first of these revisions, which rise: as many as a watcher takes out at once.
    pub(super) fn at(
        &self,
        revisions: impl Iterator<Item = Revision>,
    ) -> Result<Vec<SharedChanges>, WatchError> {
        let mut fits = fits();
        let mut found = Vec::new();
        for revision in revisions.take(SCAN) {
            let place = self.batches.binary_search_by_key(&revision, |batch| batch.0);
            let Some(batch) = place.ok().and_then(|place| self.batches.get(place)) else {
                return Err(WatchError::Gone { oldest: self.floor });
            };
            if !fits(&batch) {
                break;
            }
            found.push(batch.clone());
        }
        Ok(found)
    }

    /// The newest batches that fit into `bytes`, oldest first, and the floor below them.
    pub(super) fn tail(&self, bytes: usize) -> (Revision, Vec<SharedChanges>) {
        let mut left = bytes;
        let fits = |batch: &&SharedChanges| {
            let size = size(batch);
            let fits = size <= left;
            left = left.saturating_sub(size);
            fits
        };
        let kept = self.batches.iter().rev().take_while(fits).count();
        let first = self.batches.len() - kept;
        let floor = if first == 0 { self.floor } else { self.batches[first - 1].0 };
        (floor, self.batches.range(first..).cloned().collect())
    }
}

/// Of what a watcher takes out at once: the first batch, and others while their bytes are few.
fn fits() -> impl FnMut(&&SharedChanges) -> bool {
    let mut bytes = 0;
    move |batch| {
        let first = bytes == 0;
        bytes += size(batch);
        first || bytes <= SCAN_BYTES
    }
}

fn kept(batch: &SharedChanges) -> usize {
    batch.1.iter().map(Change::kept_bytes).sum()
}

fn size(batch: &SharedChanges) -> usize {
    batch.1.iter().map(Change::bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::option_option)]
    fn what_a_key_was_is_known_as_long_as_its_revision_is_kept_and_no_longer() {
        let mut ring = Ring::new(RingLimits { revisions: 3, ..RingLimits::default() });
        let record =
            |revision| Record { value: "{}".into(), create_revision: 1, mod_revision: revision };
        let change = |name: &str, before: Option<u64>| Change {
            key: Key::new("pods", "d", name),
            before: before.map(record),
            after: None,
        };
        ring.push(1, vec![change("a", None)]);
        ring.push(2, vec![change("b", Some(1)), change("a", Some(1)), change("a", Some(2))]);
        ring.push(3, vec![change("a", Some(2))]);
        let all = || (Bound::Unbounded, Bound::Unbounded);
        let was = |ring: &Ring, revision| -> Vec<(String, Option<Option<u64>>)> {
            let seen = ring.touched(all(), revision);
            let was = seen.map(|(key, was)| {
                (key.name.clone(), was.map(|was| was.map(|was| was.mod_revision)))
            });
            was.collect()
        };
        let named = |name: &str, was| (name.to_owned(), was);
        assert_eq!(was(&ring, 0), [named("a", Some(None)), named("b", Some(Some(1)))]);
        assert_eq!(was(&ring, 1), [named("a", Some(Some(1))), named("b", Some(Some(1)))]);
        assert_eq!(was(&ring, 2), [named("a", Some(Some(2))), named("b", None)]);
        assert_eq!(was(&ring, 3), [named("a", None), named("b", None)]);
        for revision in 4..=6 {
            ring.push(revision, vec![change("c", None)]);
        }
        assert_eq!(was(&ring, 3), [named("c", Some(None))]);
    }

    #[test]
    fn a_look_takes_out_few_bytes_and_one_revision_at_least() {
        let mut ring = Ring::new(RingLimits::default());
        for revision in 1..=20 {
            let value = vec![b'x'; if revision == 1 { 1 << 20 } else { 100 << 10 }];
            let after = Record { value: value.into(), create_revision: 1, mod_revision: revision };
            let key = Key::new("pods", "d", "a");
            ring.push(revision, vec![Change { key, before: None, after: Some(after) }]);
        }
        let mut cursor = 0;
        let mut looks = Vec::new();
        while cursor < 20 {
            let seen = ring.read(cursor).unwrap();
            cursor = seen.last().unwrap().0;
            looks.push(seen.len());
        }
        assert_eq!(looks[0], 1, "however large");
        assert!(looks[1..].iter().all(|look| (1..=2).contains(look)), "{looks:?}");
        let at = |revisions: &[u64]| {
            let found = ring.at(revisions.iter().copied())?;
            Ok(found.iter().map(|batch| batch.0).collect::<Vec<_>>())
        };
        assert_eq!(at(&[1, 3]), Ok(vec![1]), "however large");
        assert_eq!(at(&[3, 5, 9, 12]), Ok(vec![3, 5]));
        assert_eq!(at(&[20]), Ok(vec![20]));
        assert_eq!(at(&[21]), Err(WatchError::Gone { oldest: 0 }), "of another state");
    }
}
