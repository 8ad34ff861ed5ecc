//! What an activation knows of its job's checkpoints. Plain data: what follows from it is decided in `checkpoints`.

use crate::training_job::spec::CheckpointRule;
use impresario_client::protocol::training::{
    Checkpoint, CommitCheckpoint, Committed, LookForCheckpoint, Looked, Place, SaveShards,
    SavedShard, ShardRange,
};
use impresario_runtime::Backoff;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pauses after orders about checkpoints that failed in a row.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(1) };

/// What a checkpoint may have beyond its first missing step.
const STEPS_BEYOND: u64 = 1 << 20;
/// So much is told of what a server says.
const LONGEST_WORD: usize = 512;
/// So often in a row a server may not answer before people are told.
const MOST_UNREACHED: u32 = 4;

/// An order about checkpoints, for a parameter server.
#[derive(Debug, Clone, PartialEq)]
pub enum Errand {
    /// To look what there is.
    Look(Place, LookForCheckpoint),
    /// To write shards.
    Save(Place, SaveShards),
    /// To make a checkpoint of what was written.
    Commit(Place, Box<CommitCheckpoint>),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// What there is.
    Looked(Looked),
    /// These have been written.
    Saved(Vec<SavedShard>),
    /// It is complete.
    Committed(Committed),
    /// Nothing, for this reason.
    Failed(String),
    /// Whatever it was, nobody has answered, or asked for more time.
    Unreached(String),
}

/// How far the search for a checkpoint to go on from is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Search {
    /// None is needed.
    #[default]
    Idle,
    /// Among the job's own.
    Own,
    /// Where the object says that it is to begin from.
    Other,
    /// This one, or none.
    Done(Option<Checkpoint>),
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) number: u64,
    pub(super) temporary: String,
    pub(super) since: Instant,
    /// Begun when nothing was left to train.
    pub(super) last: bool,
    pub(super) saved: BTreeMap<u32, SavedShard>,
}

/// The whole of it.
#[derive(Debug, Default)]
pub(super) struct Savings {
    /// Orders have been given and not been answered.
    pub(super) under_way: bool,
    /// The largest number that the folder has; not known until somebody has looked.
    pub(super) last: Option<u64>,
    pub(super) search: Search,
    /// Whether it is settled with which parameters the job begins.
    pub(super) begun: bool,
    /// The newest that is known of.
    pub(super) newest: Option<Checkpoint>,
    /// The one that shards are taken from which nobody has.
    pub(super) restoring: Option<Checkpoint>,
    /// All shards are to come from one checkpoint, and some have not yet: what members have from before is of other
    /// parameters, and does not count until all are there.
    pub(super) whole: bool,
    /// Whether the object says so.
    pub(super) whole_told: bool,
    pub(super) saving: Option<Saving>,
    /// When the newest was completed, and at which step.
    pub(super) saved_at: Option<Instant>,
    pub(super) saved_steps: u64,
    /// How old the newest was when this activation began, where an earlier one had written it.
    pub(super) saved_ago: Duration,
    failures: u32,
    again: Option<Instant>,
    /// What is in the way, while something is.
    pub(super) problem: Option<String>,
    /// Parameter servers' pods that have a node and do not start, and since when.
    pub(super) unstarted: BTreeMap<String, Instant>,
    /// What is told of one of them, while one does not start for long.
    pub(super) not_started: Option<String>,
    /// Since when the parameters are to be saved for the last time.
    pub(super) finishing: Option<Instant>,
    /// The one that was written when nothing was left to train.
    pub(super) model: Option<Checkpoint>,
}

impl Savings {
    /// Whether nothing may be tried at the moment.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.under_way || self.again.is_some_and(|at| now < at)
    }

    /// Whether another checkpoint is due.
    pub(super) fn is_due(
        &self,
        rule: &CheckpointRule,
        steps: u64,
        began: Instant,
        now: Instant,
    ) -> bool {
        let more = steps.saturating_sub(self.saved_steps);
        let waited = self.saved_at.map_or_else(
            || now.duration_since(began).saturating_add(self.saved_ago),
            |at| now.duration_since(at),
        );
        let by_steps = rule.interval_steps.is_some_and(|interval| more >= interval);
        let by_time = rule.interval.is_some_and(|interval| waited >= interval);
        self.finishing.is_some() || more > 0 && (by_steps || by_time)
    }

    /// So often in a row it did not go well.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// It went well: what was in the way is no more.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.again, self.problem) = (0, None, None);
    }

    /// It did not: the next try is later. Whether people are told, which is once for each thing in the way.
    pub(super) fn failed(&mut self, why: &str, jitter: f64, now: Instant) -> bool {
        self.again = Some(now + PAUSES.wait(self.failures, jitter));
        self.failures = self.failures.saturating_add(1);
        let is_new = self.problem.as_deref() != Some(why);
        self.problem = Some(why.to_owned());
        is_new
    }

    /// Nobody has answered, which the next try may mend. Whether it has been so for long.
    pub(super) fn delayed(&mut self, jitter: f64, now: Instant) -> bool {
        if self.failures >= MOST_UNREACHED {
            return true;
        }
        self.again = Some(now + PAUSES.wait(self.failures, jitter));
        self.failures = self.failures.saturating_add(1);
        false
    }

    /// All shards are to come from one checkpoint from now on.
    pub(super) fn takes_whole(&mut self) {
        self.whole = true;
    }

    /// What was found for a loss that has mended itself is not kept: by the next one there are newer ones.
    pub(super) fn forget_found(&mut self) {
        if self.begun && matches!(self.search, Search::Done(_)) {
            self.search = Search::Idle;
        }
    }

    /// Another checkpoint is the newest.
    pub(super) fn is_newest(&mut self, checkpoint: &Checkpoint, now: Instant) {
        (self.saved_at, self.saved_steps) = (Some(now), checkpoint.step);
        self.newest = Some(checkpoint.clone());
    }
}

impl Saving {
    /// The shards that have not been written.
    pub(super) fn left(&self, ranges: &[ShardRange]) -> Vec<ShardRange> {
        ranges.iter().filter(|range| !self.saved.contains_key(&range.shard)).copied().collect()
    }
}

/// What a server says, as far as it is told.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_WORD).collect()
}

pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether this can be a checkpoint in this folder.
pub(super) fn is_whole(checkpoint: &Checkpoint, folder: &str) -> bool {
    let beyond = checkpoint.done.end().saturating_sub(checkpoint.done.first_missing());
    checkpoint.path.starts_with(folder.trim_end_matches('/'))
        && checkpoint.step == checkpoint.done.count()
        && beyond <= STEPS_BEYOND
        && is_hash(&checkpoint.sha256)
}
