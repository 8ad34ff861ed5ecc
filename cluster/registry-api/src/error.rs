//! Why an operation on the registry failed, sorted by what its caller does next.
//!
//! One enum per operation. "It may have been applied" is a variant of its own; after any other error nothing was.

use crate::{
    key::{Key, Revision},
    shard::{Epoch, Shard},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// In [`TransactError::Conflict`], stands for "any revision": the key had to exist.
pub const ANY_REVISION: Revision = Revision::MAX;

/// Why a transaction is not known to be applied.
///
/// After [`Unknown`](Self::Unknown) it may have been; after any other error nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TransactError {
    /// A compare did not hold. Revision 0 stands for "absent", [`ANY_REVISION`] for "present".
    #[error("{}: read it again and redo the change", conflict(key, *expected, *found))]
    Conflict {
        /// The key that was compared.
        key: Key,
        /// The revision that the writer wanted.
        expected: Revision,
        /// The revision that is there.
        found: Revision,
    },

    /// The writer's shard has been given to another since.
    #[error("shard {shard} is at epoch {current}, not {held}: stop this activation")]
    Fenced {
        /// The shard.
        shard: Shard,
        /// The epoch that the writer held.
        held: Epoch,
        /// The epoch that is valid.
        current: Epoch,
    },

    /// More bytes than a value or a transaction may have.
    #[error("{size} bytes are over the limit of {limit} for {key}: keep bulk data in a volume")]
    TooLarge {
        /// The key with which the limit was passed.
        key: Key,
        /// The bytes counted.
        size: usize,
        /// The limit.
        limit: usize,
    },

    /// More compares or operations than a transaction may have.
    #[error("{items} operations are over the limit of {limit}: split the transaction")]
    TooMany {
        /// The number of items.
        items: usize,
        /// The limit.
        limit: usize,
    },

    /// A transaction writes one key twice, which has no order.
    #[error("{key} is written twice in one transaction: merge the two operations")]
    WrittenTwice {
        /// The key.
        key: Key,
    },

    /// Nobody could take the transaction; nothing of it was applied.
    #[error(
        "the registry is unavailable ({reason}): retry after a pause; see `imp status` for its members"
    )]
    Unavailable {
        /// What stood in the way.
        reason: String,
    },

    /// It was handed over, and no answer came.
    #[error("no answer within {waited:?}: {key} may be written, read it before retrying")]
    Unknown {
        /// The first key that the transaction would write.
        key: Key,
        /// How long the answer was waited for.
        waited: Duration,
    },

    /// The caller's role does not include it; nothing of it was applied.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do, in the words of the member.
        reason: String,
    },

    /// A key is longer than any may be.
    #[error("a key of {size} bytes is over the limit of {limit}: give it a shorter name")]
    KeyTooLong {
        /// The bytes of the key.
        size: usize,
        /// The limit.
        limit: usize,
    },

    /// The fence names a shard that does not exist.
    #[error("there is no shard {shard}: shards are numbered from 0 to 63")]
    NoSuchShard {
        /// The number.
        shard: Shard,
    },

    /// Too long ago, or by too new a registry's memory, to know whether this request was applied before. This
    /// attempt applied nothing. Clients of this crate take a new name and send what was never sent before again.
    #[error(
        "the registry no longer knows whether this request was applied: read the object before sending it again"
    )]
    Forgotten {
        /// How many requests have been heard by now, for [`RequestId::client_named_at`](crate::RequestId::client_named_at).
        heard: u64,
    },

    /// The disks of the registry have no room for it; nothing of it was applied.
    #[error(
        "the disk of {member} has no room for writes: free some space; deletions and reads go on, and so do writes \
         once there is room"
    )]
    NoSpace {
        /// The member, or the members, without room.
        member: String,
    },
}

fn conflict(key: &Key, expected: Revision, found: Revision) -> String {
    match (expected, found) {
        (ANY_REVISION, _) => format!("{key} does not exist"),
        (0, found) => format!("{key} exists already (revision {found})"),
        (expected, 0) => format!("{key} is gone, not at revision {expected}"),
        (expected, found) => format!("{key} is at revision {found}, not {expected}"),
    }
}

/// What the caller does about an error. Callers match on this, not on the error's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Read the object again and decide anew.
    ReadAgain,
    /// Ask again after a pause that grows.
    Retry,
    /// Give up the right by which it was done.
    Stop,
    /// The request itself is at fault.
    GiveUp,
}

impl TransactError {
    /// No wildcard arm: a new variant does not compile until someone has decided.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Conflict { .. } | Self::Unknown { .. } | Self::Forgotten { .. } => {
                Remedy::ReadAgain
            }
            Self::Unavailable { .. } | Self::NoSpace { .. } => Remedy::Retry,
            Self::Fenced { .. } => Remedy::Stop,
            Self::TooLarge { .. }
            | Self::KeyTooLong { .. }
            | Self::NoSuchShard { .. }
            | Self::TooMany { .. }
            | Self::WrittenTwice { .. }
            | Self::Refused { .. } => Remedy::GiveUp,
        }
    }
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReadError {
    /// The revision asked for is no longer kept.
    #[error(
        "revision {requested} is older than {oldest}, the oldest kept: list again without a revision"
    )]
    Gone {
        /// The revision asked for.
        requested: Revision,
        /// The oldest that can be listed.
        oldest: Revision,
    },

    /// The revision asked for has not happened, or not here yet.
    #[error(
        "revision {requested} is ahead of {current}, the newest here: wait, or read without a revision"
    )]
    Future {
        /// The revision asked for.
        requested: Revision,
        /// The newest here.
        current: Revision,
    },

    /// Nobody could answer with the freshness asked for.
    #[error("the registry is unavailable ({reason}): retry after a pause, or read locally")]
    Unavailable {
        /// What stood in the way.
        reason: String,
    },

    /// The caller's role does not include it.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do, in the words of the member.
        reason: String,
    },
}

impl ReadError {
    /// What the caller does about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Gone { .. } => Remedy::ReadAgain,
            Self::Future { .. } | Self::Unavailable { .. } => Remedy::Retry,
            Self::Refused { .. } => Remedy::GiveUp,
        }
    }
}

/// Why a watch does not begin or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WatchError {
    /// Changes that the watcher has not seen are no longer kept: it fell behind, or began too far back.
    #[error("changes up to revision {oldest} are no longer kept: list again and watch from there")]
    Gone {
        /// The oldest revision after which a watch can begin.
        oldest: Revision,
    },

    /// The registry stops, or could not be reached for long.
    #[error("the watch is closed: watch again after the last revision seen")]
    Closed,

    /// The caller's role does not include it.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do, in the words of the member.
        reason: String,
    },

    /// What was followed is no resource of the API any more.
    #[error("{resource} is not served any more: its kind was removed")]
    Removed {
        /// The resource, as the registry calls it.
        resource: String,
    },
}

impl WatchError {
    /// What the caller does about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Gone { .. } => Remedy::ReadAgain,
            Self::Closed => Remedy::Retry,
            Self::Refused { .. } | Self::Removed { .. } => Remedy::GiveUp,
        }
    }
}
