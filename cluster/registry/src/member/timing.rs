//! Raft's clock.

use std::time::Duration;

/// How fast a lost leader is noticed, and how often the log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftTiming {
    /// How often the leader says that it lives.
    pub heartbeat: Duration,
    /// After this silence, at the earliest, a member stands for election.
    pub election_least: Duration,
    /// After this silence, at the latest.
    pub election_most: Duration,
    /// A snapshot is taken after so many entries.
    pub snapshot_every: u64,
    /// So many entries are kept behind a snapshot, for members that lag a little.
    pub keep_behind: u64,
    /// A snapshot is taken as well when the log has so many bytes.
    pub snapshot_bytes: usize,
}

impl RaftTiming {
    /// How long it takes at most until those who are in touch have replaced a leader that is gone: openraft waits out its
    /// lease (`election_most`) first, then as long again at most.
    pub(super) fn election(&self) -> Duration {
        self.election_most * 2 + self.heartbeat
    }
}

impl Default for RaftTiming {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            // openraft waits out the leader's lease (`election_most`) first, then one of these: a dead
            // leader is replaced after 1.8 to 2.4 s, well within the 5 s that a write may take.
            election_least: Duration::from_millis(600),
            election_most: Duration::from_millis(1200),
            snapshot_every: 5000,
            keep_behind: 500,
            snapshot_bytes: 16 * 1024 * 1024,
        }
    }
}
