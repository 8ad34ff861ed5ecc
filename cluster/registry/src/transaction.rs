//! A change to the registry: what must hold, and what is written if it does.
//!
//! All of a transaction is applied at one revision or none of it is. A request id makes a retry safe:
//! the state machine remembers the last answers of each client and gives the first answer again.

use crate::{
    error::TransactError,
    key::{Key, Revision},
    shard::{Epoch, Shard},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most bytes that one value may have.
pub const MAX_VALUE_BYTES: usize = 1_572_864;
/// The most bytes that all values of one transaction may have together.
pub const MAX_TRANSACTION_BYTES: usize = 3 * 1024 * 1024;
/// The most compares, and the most operations, of one transaction.
pub const MAX_ITEMS: usize = 1024;

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
    /// Drawn at random by the client when it starts.
    pub client: u128,
    /// Rises with each request of that client.
    pub serial: u64,
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

    /// Refuses what no state of the registry could accept. Checked where a transaction enters and when it is applied.
    pub fn check(&self) -> Result<(), TransactError> {
        let items = self.operations.len().max(self.compares.len());
        if items > MAX_ITEMS {
            return Err(TransactError::TooMany { items, limit: MAX_ITEMS });
        }
        let mut seen = BTreeSet::new();
        let mut total = 0;
        for operation in &self.operations {
            let (key, size) = (operation.key(), operation.value_bytes());
            if size > MAX_VALUE_BYTES {
                return Err(TransactError::TooLarge {
                    key: key.clone(),
                    size,
                    limit: MAX_VALUE_BYTES,
                });
            }
            total += size;
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
