//! A change to the registry: what must hold, and what is written if it does.
//!
//! All of a transaction is applied at one revision or none of it is. A request id makes a retry safe:
//! the state machine remembers the last answers of each client and gives the first answer again.

use crate::{
    error::{ANY_REVISION, TransactError},
    key::{Key, Revision},
    shard::{Epoch, SHARDS, Shard},
};
use bytes::Bytes;
use impresario_runtime::random;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// The most bytes that one value may have.
pub const MAX_VALUE_BYTES: usize = 1_572_864;
/// The most bytes that the three parts of a key may have together: Kubernetes' longest names fit twice.
pub const MAX_KEY_BYTES: usize = 1024;
/// The most bytes that all keys and values of one transaction may have together.
pub const MAX_TRANSACTION_BYTES: usize = 3 * 1024 * 1024;
/// The most compares, and the most operations, of one transaction.
pub const MAX_ITEMS: usize = 1024;

/// What a step of a removal may add to an object: when it began, how it stands.
const MARK_BYTES: usize = 1024;
/// Bytes a second that a link between members has at least, as far as the time for a transaction goes.
const SLOW_LINK: f64 = 128.0 * 1024.0;

/// Where an object says that it is being deleted.
const DELETION: &str = "/metadata/deletionTimestamp";

/// Something that must hold for a transaction to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// The key was last written at exactly this revision.
    Revision {
        /// The key looked at.
        key: Key,
        /// The revision that its reader saw.
        revision: Revision,
    },
    /// Nothing has this key.
    Absent {
        /// The key looked at.
        key: Key,
    },
    /// Something has this key, at whatever revision.
    Exists {
        /// The key looked at.
        key: Key,
    },
}

impl Compare {
    /// The key that is looked at.
    pub fn key(&self) -> &Key {
        match self {
            Self::Revision { key, .. } | Self::Absent { key } | Self::Exists { key } => key,
        }
    }

    /// Whether it holds where the key was last written at `found`, 0 standing for nothing.
    pub fn holds(&self, found: Revision) -> bool {
        match self {
            // Revision 0 is never written: as an expectation it means "absent", as a reader of nothing saw it.
            Self::Revision { revision, .. } => *revision == found,
            Self::Absent { .. } => found == 0,
            Self::Exists { .. } => found != 0,
        }
    }

    /// The refusal where it does not hold.
    pub fn missed(&self, found: Revision) -> TransactError {
        let expected = match self {
            Self::Revision { revision, .. } => *revision,
            Self::Absent { .. } => 0,
            Self::Exists { .. } => ANY_REVISION,
        };
        TransactError::Conflict { key: self.key().clone(), expected, found }
    }
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Creates or replaces an object.
    Put {
        /// Where it lives.
        key: Key,
        /// The whole object as JSON.
        value: Bytes,
    },
    /// Removes an object; nothing happens where there is none (compare with [`Compare::Exists`] to know).
    Delete {
        /// Where it lives.
        key: Key,
    },
}

impl Operation {
    /// The key that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }
}

/// The right by which a control actor writes: it holds this shard in this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The shard of the object that the actor keeps.
    pub shard: Shard,
    /// The epoch in which the actor's member was given the shard.
    pub epoch: Epoch,
}

/// Names one request for ever, so that sending it again does not apply it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Drawn by the client when it starts, see [`RequestId::client_named_at`].
    pub client: u128,
    /// Rises with each request of that client.
    pub serial: u64,
}

impl RequestId {
    /// A new name for a client that knows how many requests the registry had heard by now (0 if it does not).
    ///
    /// The count is the upper half of the name and the rest is chance. The registry forgets clients that were
    /// silent for long; a name that is older than the last one forgotten might have been used before, and is
    /// answered with [`TransactError::Forgotten`], which says the count to draw a new name with.
    pub fn client_named_at(heard: u64) -> u128 {
        u128::from(heard) << 64 | u128::from(random::random::<u64>())
    }

    /// How many requests the registry had heard when the client took its name.
    pub fn named_at(&self) -> u64 {
        (self.client >> 64) as u64
    }
}

/// A change that is applied as a whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is written then; no key twice.
    pub operations: Vec<Operation>,
    /// The shard epoch that the writer holds, if it writes by right of one.
    pub fence: Option<Fence>,
    /// Set to make retries safe; clients of this crate set it where the caller did not.
    pub request: Option<RequestId>,
}

impl Transaction {
    /// A transaction that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an object where there is none.
    pub fn create(key: Key, value: impl Into<Bytes>) -> Self {
        Self::new().when(Compare::Absent { key: key.clone() }).put(key, value)
    }

    /// Replaces an object that is still at `revision`.
    pub fn update(key: Key, revision: Revision, value: impl Into<Bytes>) -> Self {
        Self::new().when(Compare::Revision { key: key.clone(), revision }).put(key, value)
    }

    /// Removes an object that is still at `revision`.
    pub fn remove(key: Key, revision: Revision) -> Self {
        Self::new().when(Compare::Revision { key: key.clone(), revision }).delete(key)
    }

    /// Adds a compare.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a put.
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.operations.push(Operation::Put { key, value: value.into() });
        self
    }

    /// Adds a delete.
    pub fn delete(mut self, key: Key) -> Self {
        self.operations.push(Operation::Delete { key });
        self
    }

    /// Writes by right of a shard epoch.
    pub fn fenced(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// The first key that the transaction speaks of; errors name it.
    pub fn subject(&self) -> Key {
        let written = self.operations.first().map(Operation::key);
        let subject = written.or_else(|| self.compares.first().map(Compare::key));
        subject.cloned().unwrap_or_else(|| Key::new("", "", ""))
    }

    /// The bytes of its keys and values: what it takes to hold, to send and to write down.
    pub fn bytes(&self) -> usize {
        let compares = self.compares.iter().map(|compare| compare.key().bytes());
        let operations =
            self.operations.iter().map(|write| write.key().bytes() + write.value_bytes());
        compares.chain(operations).sum()
    }

    /// Whether it is within the limits of [`Transaction::check`], as far as a log and a message care.
    pub fn is_bounded(&self) -> bool {
        let keys = self.compares.iter().map(Compare::key);
        self.operations.len().max(self.compares.len()) <= MAX_ITEMS
            && keys
                .chain(self.operations.iter().map(Operation::key))
                .all(|key| key.bytes() <= MAX_KEY_BYTES)
            && self.bytes() <= MAX_TRANSACTION_BYTES
    }

    /// How many bytes it writes where it only removes objects or takes the steps that removal needs, so that it is taken
    /// when the disk is full: an object that is being deleted says so of itself, and is written while its finalizers go,
    /// each time no larger than it was but for a few marks. None where it does more. `held` says how many bytes the value
    /// of a key has now.
    pub fn ending_bytes(&self, held: impl Fn(&Key) -> Option<usize>) -> Option<usize> {
        let bytes = self.operations.iter().map(|operation| match operation {
            Operation::Put { key, value } => {
                let fits = held(key).is_some_and(|held| value.len() <= held + MARK_BYTES);
                (fits && crate::field::string_at(value, DELETION).is_some()).then_some(value.len())
            }
            Operation::Delete { .. } => Some(0),
        });
        bytes.sum()
    }

    /// How much longer than a small one it may be on its way to a member, for its size on a link that is of use.
    pub fn transit(&self) -> Duration {
        Duration::from_secs_f64(self.bytes() as f64 / SLOW_LINK)
    }

    /// Refuses what no state of the registry could accept. Checked where a transaction enters and when it is applied.
    pub fn check(&self) -> Result<(), TransactError> {
        let items = self.operations.len().max(self.compares.len());
        if items > MAX_ITEMS {
            return Err(TransactError::TooMany { items, limit: MAX_ITEMS });
        }
        // Keys first: the errors below name one.
        let keys = self.compares.iter().map(Compare::key);
        for key in keys.chain(self.operations.iter().map(Operation::key)) {
            if key.bytes() > MAX_KEY_BYTES {
                return Err(TransactError::KeyTooLong { size: key.bytes(), limit: MAX_KEY_BYTES });
            }
        }
        if let Some(Fence { shard, .. }) = self.fence
            && shard.0 >= SHARDS
        {
            return Err(TransactError::NoSuchShard { shard });
        }
        let mut seen = BTreeSet::new();
        let mut total = self.compares.iter().map(|compare| compare.key().bytes()).sum::<usize>();
        for operation in &self.operations {
            let (key, size) = (operation.key(), operation.value_bytes());
            if size > MAX_VALUE_BYTES {
                return Err(TransactError::TooLarge {
                    key: key.clone(),
                    size,
                    limit: MAX_VALUE_BYTES,
                });
            }
            total += size + key.bytes();
            if total > MAX_TRANSACTION_BYTES {
                return Err(TransactError::TooLarge {
                    key: key.clone(),
                    size: total,
                    limit: MAX_TRANSACTION_BYTES,
                });
            }
            if !seen.insert(key) {
                return Err(TransactError::WrittenTwice { key: key.clone() });
            }
        }
        Ok(())
    }
}

/// What an applied transaction answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Every key that was written has this `mod_revision`; the current revision where nothing had to be written.
    pub revision: Revision,
}
