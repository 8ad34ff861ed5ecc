//! The replicated state machine: a plain structure without clock, task or disk.
//!
//! Every member applies the same commands in the same order and so comes to the same state. It guarantees:
//! a transaction is applied whole or not at all; the revision rises by one with each that changes something;
//! a stale shard epoch changes nothing; a request id is applied once; a refused command changes nothing
//! but what is remembered of its request id.

mod clients;
mod list;
mod members;
mod record;
mod ring;
mod state;

#[cfg(test)]
mod model_tests;

pub(crate) use list::Paging;
pub use members::{Admission, FOUNDER, Members};
pub use record::Record;
pub use ring::{Change, Changes, RingLimits, SharedChanges};
pub use state::{Image, Rest};

use crate::{
    error::{TransactError, WatchError},
    key::{Entry, Key, Revision},
    query::Selection,
    shard::{Epoch, ShardMove, ShardTable},
    transaction::{Committed, Compare, Fence, Operation, Transaction},
};
use clients::{Clients, Outcome, Recall};
use imbl::OrdMap;
use ring::{MAX_CHANGE_BYTES, Ring};

/// The whole registry at one revision, and the recent past of it.
#[derive(Clone, Default)]
pub struct Store {
    revision: Revision,
    /// Of all objects.
    bytes: u64,
    /// A snapshot shares it with the writes that come meanwhile: what they change is copied, and no more.
    objects: OrdMap<Key, Record>,
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

    /// About how many bytes all objects take.
    pub fn bytes(&self) -> u64 {
        self.bytes
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

    /// How many bytes the value of an object has, if there is one.
    pub fn value_bytes(&self, key: &Key) -> Option<usize> {
        self.objects.get(key).map(|record| record.value.len())
    }

    /// Applies a transaction, or refuses it and changes nothing.
    pub fn transact(&mut self, transaction: &Transaction) -> Result<Committed, TransactError> {
        // What no state could accept is refused the same way again: nothing has to be remembered of it.
        transaction.check()?;
        let Some(request) = transaction.request else {
            return self.attempt(transaction).answer(transaction);
        };
        match self.clients.recall(request) {
            Recall::Answered(outcome) => outcome.answer(transaction),
            Recall::Forgotten { heard } => Err(TransactError::Forgotten { heard }),
            Recall::New => {
                let outcome = self.attempt(transaction);
                self.clients.remember(request, outcome);
                outcome.answer(transaction)
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

    /// Whether a member number has been retired.
    pub fn is_retired(&self, member: u64) -> bool {
        self.members.is_retired(member)
    }

    /// Retires a member number for ever.
    pub fn retire(&mut self, member: u64) {
        self.members.retire(member);
    }

    /// The matching changes after `cursor`, some hundred revisions at most.
    pub fn changes(&self, select: &Selection, cursor: Revision) -> Result<Changes, WatchError> {
        Ok(Changes::of(&self.recent(cursor)?, select, cursor))
    }

    /// What changed after `cursor`, some hundred revisions at most: shared, so that it can be looked through without
    /// holding the store.
    pub fn recent(&self, cursor: Revision) -> Result<Vec<SharedChanges>, WatchError> {
        self.ring.read(cursor)
    }

    /// What changed at the first of these revisions, which rise, shared as well.
    pub(crate) fn changed_at(
        &self,
        revisions: impl Iterator<Item = Revision>,
    ) -> Result<Vec<SharedChanges>, WatchError> {
        self.ring.at(revisions)
    }

    fn attempt(&mut self, transaction: &Transaction) -> Outcome {
        let refused = transaction.fence.and_then(|fence| self.check_fence(fence));
        let refused = refused.or_else(|| self.check_compares(&transaction.compares));
        if let Some(refused) = refused.or_else(|| self.check_size(&transaction.operations)) {
            return refused;
        }
        let next = self.revision + 1;
        let mut changes = Vec::with_capacity(transaction.operations.len());
        for operation in &transaction.operations {
            changes.extend(self.perform(operation, next));
        }
        if !changes.is_empty() {
            self.revision = next;
            self.ring.push(next, changes);
        }
        Outcome::Committed(Committed { revision: self.revision })
    }

    /// A fence holds while its epoch is the shard's and somebody holds the shard: nobody was given epoch 0.
    fn check_fence(&self, fence: Fence) -> Option<Outcome> {
        let lease = self.shards.lease(fence.shard);
        let current = lease.map_or_else(Epoch::default, |lease| lease.epoch);
        let held = lease.is_some_and(|lease| lease.owner.is_some()) && fence.epoch == current;
        if held || impresario_runtime::mutant!(FenceUnchecked) {
            return None;
        }
        Some(Outcome::Fenced { current })
    }

    fn check_compares(&self, compares: &[Compare]) -> Option<Outcome> {
        (0_u32..).zip(compares).find_map(|(number, compare)| {
            let found = self.objects.get(compare.key()).map_or(0, |record| record.mod_revision);
            (!compare.holds(found)).then_some(Outcome::Conflict { compare: number, found })
        })
    }

    /// Small transactions can replace or remove large objects, and watchers get both.
    fn check_size(&self, operations: &[Operation]) -> Option<Outcome> {
        let size = operations.iter().map(|operation| {
            let before = self.objects.get(operation.key()).map_or(0, |record| record.value.len());
            let after = match operation {
                Operation::Put { value, .. } => value.len(),
                Operation::Delete { .. } => 0,
            };
            before + after
        });
        let size = size.sum::<usize>();
        (size > MAX_CHANGE_BYTES).then_some(Outcome::TooLarge { size: size as u64 })
    }

    fn perform(&mut self, operation: &Operation, revision: Revision) -> Option<Change> {
        match operation {
            Operation::Put { key, value } => {
                let create_revision =
                    self.objects.get(key).map_or(revision, |old| old.create_revision);
                let mut value = value.clone();
                if impresario_runtime::mutant!(ReplicasDiverge)
                    && revision % 16 == u64::from(std::process::id()) % 16
                {
                    value = [&value[..], b" "].concat().into(); // the same JSON in other bytes
                }
                let record = Record { value, create_revision, mod_revision: revision };
                let before = self.objects.insert(key.clone(), record.clone());
                self.bytes += record.bytes(key);
                self.bytes -= before.as_ref().map_or(0, |before| before.bytes(key));
                Some(Change { key: key.clone(), before, after: Some(record) })
            }
            Operation::Delete { key } => {
                let before = self.objects.remove(key)?;
                self.bytes -= before.bytes(key);
                Some(Change { key: key.clone(), before: Some(before), after: None })
            }
        }
    }
}
