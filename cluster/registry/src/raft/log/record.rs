//! What the journal holds.

use crate::raft::{Entry, LogId, Vote};
use serde::{Deserialize, Serialize};

/// One step of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Record {
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Entry),
    /// Entries after this one are gone.
    Truncate(Option<LogId>),
    /// Entries up to this one are gone.
    Purge(LogId),
}
