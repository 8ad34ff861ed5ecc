//! The replicated state machine: a plain structure without clock, task or disk.
//!
//! Every member applies the same commands in the same order and so comes to the same state. It guarantees:
//! a transaction is applied whole or not at all; the revision rises by one with each that changes something;
//! a stale shard epoch changes nothing; a request id is applied once; a refused command changes nothing
//! but what is remembered of its request id.

mod clients;
mod list;
mod members;
mod ring;
mod state;

#[cfg(test)]
mod model_tests;

pub(crate) use clients::ANSWERS;
pub use members::{Admission, FOUNDER, Members};
pub use ring::{Change, Changes, RingLimits};
pub use state::{Image, Rest};

use crate::{
    error::{ANY_REVISION, TransactError, WatchError},
    key::{Entry, Key, Revision},
    query::{Selection, WatchBatch},
    shard::{Epoch, Shard, ShardMove, ShardTable},
    transaction::{Committed, Compare, Fence, Operation, Transaction},
};
use bytes::Bytes;
use clients::{Clients, Recall};
use ring::Ring;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// What is kept of an object beside its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The object as JSON.
    pub value: Bytes,
    /// The revision that created it.
    pub create_revision: Revision,
    /// The revision that last wrote it.
    pub mod_revision: Revision,
}

impl Record {
    /// The record with its key, as readers see it.
    pub fn entry(&self, key: Key) -> Entry {
        Entry {
            key,
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

/// The whole registry at one revision, and the recent past of it.
#[derive(Clone, Default)]
pub struct Store {
    revision: Revision,
    objects: BTreeMap<Key, Record>,
    shards: ShardTable,
    clients: Clients,
    members: Members,
    ring: Ring,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let objects = self.objects.len();
        f.debug_struct("Store")
            .field("revision", &self.revision)
            .field("objects", &objects)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// An empty registry, at revision 0, that keeps as much history as `limits` allow.
    pub fn new(limits: RingLimits) -> Self {
        Self { ring: Ring::new(limits), ..Self::default() }
    }

    /// The revision of the last transaction that changed something.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can be listed, and after which a watch can begin.
    pub fn oldest(&self) -> Revision {
        self.ring.floor()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Who holds which shard.
    pub fn shards(&self) -> &ShardTable {
        &self.shards
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.objects.get(key).map(|record| record.entry(key.clone()))
    }

    /// Applies a transaction, or refuses it and changes nothing.
    pub fn transact(&mut self, transaction: &Transaction) -> Result<Committed, TransactError> {
        let Some(request) = transaction.request else {
            return self.attempt(transaction);
        };
        match self.clients.recall(request) {
            Recall::Answered(outcome) => outcome,
            Recall::Forgotten => Err(TransactError::Unknown {
                key: transaction.subject(),
                waited: std::time::Duration::ZERO,
            }),
            Recall::New => {
                let outcome = self.attempt(transaction);
                self.clients.remember(request, outcome.clone());
                outcome
            }
        }
    }

    /// Gives shards to other owners; see [`ShardTable::apply`].
    pub fn move_shards(&mut self, moves: &[ShardMove]) -> bool {
        self.shards.apply(moves)
    }

    /// Gives a disk its member number; see [`Members::admit`].
    pub fn admit(&mut self, disk: u128) -> Admission {
        self.members.admit(disk)
    }

    /// What a disk was given, if it ever asked.
    pub fn member_of(&self, disk: u128) -> Option<Admission> {
        self.members.of(disk)
    }

    /// Retires a member number for ever.
    pub fn retire(&mut self, member: u64) {
        self.members.retire(member);
    }

    /// The matching changes after `cursor`, some hundred revisions at most.
    pub fn changes(&self, select: &Selection, cursor: Revision) -> Result<Changes, WatchError> {
        self.ring.read(select, cursor, self.revision)
    }

    fn attempt(&mut self, transaction: &Transaction) -> Result<Committed, TransactError> {
        transaction.check()?;
        transaction.fence.map_or(Ok(()), |fence| self.check_fence(fence))?;
        transaction.compares.iter().try_for_each(|compare| self.check_compare(compare))?;

        let next = self.revision + 1;
        let mut changes = Vec::with_capacity(transaction.operations.len());
        for operation in &transaction.operations {
            changes.extend(self.perform(operation, next));
        }
        if !changes.is_empty() {
            self.revision = next;
            self.ring.push(next, changes);
        }
        Ok(Committed { revision: self.revision })
    }

    fn check_fence(&self, fence: Fence) -> Result<(), TransactError> {
        let Fence { shard, epoch: held } = fence;
        let current = self.epoch(shard);
        if held == current { Ok(()) } else { Err(TransactError::Fenced { shard, held, current }) }
    }

    fn epoch(&self, shard: Shard) -> Epoch {
        self.shards.lease(shard).map_or_else(Epoch::default, |lease| lease.epoch)
    }

    fn check_compare(&self, compare: &Compare) -> Result<(), TransactError> {
        let found = self.objects.get(compare.key()).map_or(0, |record| record.mod_revision);
        let (holds, expected) = match compare {
            // Revision 0 is never written: as an expectation it means "absent", as a reader of nothing saw it.
            Compare::Revision { revision, .. } => (*revision == found, *revision),
            Compare::Absent { .. } => (found == 0, 0),
            Compare::Exists { .. } => (found != 0, ANY_REVISION),
        };
        if holds {
            Ok(())
        } else {
            Err(TransactError::Conflict { key: compare.key().clone(), expected, found })
        }
    }

    fn perform(&mut self, operation: &Operation, revision: Revision) -> Option<Change> {
        match operation {
            Operation::Put { key, value } => {
                let create_revision =
                    self.objects.get(key).map_or(revision, |old| old.create_revision);
                let record =
                    Record { value: value.clone(), create_revision, mod_revision: revision };
                let before = self.objects.insert(key.clone(), record.clone());
                Some(Change { key: key.clone(), before, after: Some(record) })
            }
            Operation::Delete { key } => {
                let before = self.objects.remove(key)?;
                Some(Change { key: key.clone(), before: Some(before), after: None })
            }
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
