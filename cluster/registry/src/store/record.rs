//! What is kept of an object.

use crate::key::{Entry, Key, Revision};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a record takes beside key and value.
const RECORD_BYTES: usize = 64;

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
    /// About what it takes with its key, on a disk or in memory.
    pub(super) fn bytes(&self, key: &Key) -> u64 {
        (key.bytes() + self.value.len() + RECORD_BYTES) as u64
    }

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
