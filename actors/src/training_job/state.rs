//! What a job's actor knows, and what must happen next. No IO; time comes in.
//!
//! Two pictures are held together: the pods that exist, and the members that have joined from
//! them. [`State::reconcile`] compares both with the wanted size and with the shard map:
//!
//! ```text
//!   too few pods ─────────────────────────> CreatePod
//!   too many ── trainer ── Leave ── it hands work back and ends ──> DeletePod
//!           └── server ─── its shards are handed over ── it ends ──> DeletePod
//!   a shard that nobody holds ────────────> Provide (a trainer's copy, or the initial values)
//!   a shard at another server than planned > Handover
//! ```
//! A few moves of shards are under way at a time. Everything may be repeated.

mod barrier;
mod check;
mod checkpoints;
mod copies;
mod epochs;
mod expected;
mod membership;
mod restoring;
mod savings;
mod shards;
mod sizing;
mod staleness;
mod together;
mod told;
mod unstarted;
mod work;

use super::earlier::Earlier;
use super::pods::Seen;
use super::progress::ProgressBook;
use super::spec::Spec;
use crate::training::data_plan::DataPlan;
use barrier::Barrier;
use epochs::first_epoch;
use expected::Expected;
use impresario_client::protocol::training::{
    Applied, Doing, HeldShard, Member, ModelFacts, OptimizerKind, Place, ShardRange, Size,
};
use savings::Savings;
pub use savings::{Errand, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The first reason that a job has for its size.
const FIRST_REASON: &str = "the job starts with its minimum";
/// What a job waits for before the auction has said what is missing.
const FIRST_WAIT: &str = "the auction has not been held yet";

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody trains yet.
    Pending,
    /// It trains.
    Running,
    /// It has reached its end.
    Succeeded,
    /// It cannot go on.
    Failed,
}

impl Phase {
    /// As in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make a pod.
    CreatePod(Member),
    /// Remove a pod.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Tell a trainer to leave.
    Leave(Place),
    /// Have a trainer give shards to a server.
    Provide {
        /// The trainer.
        from: Place,
        /// The server's pod.
        to: String,
        /// Where it is.
        place: Place,
        /// Which shards.
        shards: Vec<ShardRange>,
        /// The epoch of the move.
        epoch: u64,
        /// Whether the model's initial values may stand in for a copy.
        begins: bool,
    },
    /// Have a server hand a shard to another.
    Handover {
        /// The server that has it.
        from: Place,
        /// The pod of the one that gets it.
        to: String,
        /// Where it is.
        place: Place,
        /// Which shard.
        shard: u32,
        /// The epoch of the move.
        epoch: u64,
    },
    /// Have a server take shards from a checkpoint.
    Restore {
        /// The server's pod.
        to: String,
        /// Where it is.
        place: Place,
        /// Which shards.
        shards: Vec<ShardRange>,
        /// The epoch of the move.
        epoch: u64,
        /// The checkpoint.
        path: String,
        /// The hash of its manifest.
        sha256: String,
        /// How gradients are applied.
        optimizer: OptimizerKind,
    },
    /// Tell a server that the receiver of its shard is gone.
    Keep {
        /// The server.
        from: Place,
        /// Which shard.
        shard: u32,
        /// The epoch.
        epoch: u64,
    },
}

/// Something for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Whether someone should look.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// A change of size that has been completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleEvent {
    /// When.
    pub at: Instant,
    /// The size.
    pub size: Size,
    /// Why.
    pub reason: String,
}

/// A member whose actor is gone while its pod still runs.
#[derive(Debug, Clone, Copy)]
struct Absent {
    since: Instant,
}

/// A pod that runs and has not joined this activation.
#[derive(Debug, Clone, Copy)]
struct Stranger {
    since: Instant,
    /// How long it is waited for.
    limit: Duration,
    /// Whether it was seen to begin: one that an earlier activation left may have run for long, or have joined that.
    begun: bool,
}

/// What a trainer can be at for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Batch,
    Evaluation,
}

impl Task {
    fn of(doing: Doing) -> Option<Self> {
        match doing {
            Doing::Waiting => None,
            Doing::Training(_) => Some(Self::Batch),
            Doing::Evaluating => Some(Self::Evaluation),
        }
    }
}

#[derive(Debug)]
struct Joined {
    member: Member,
    place: Place,
    heard: Instant,
    leaving: bool,
    /// Told to leave, or told that there is no more work.
    stopped: bool,
    map_epoch: u64,
    /// It said that it has never had the parameters.
    no_copy: bool,
    /// What a trainer said last that it is at.
    doing: Doing,
    /// It has been at it for longer than this, which is what it is given.
    stalled: Option<Duration>,
    /// It has finished a batch here: the first one may take longer than others.
    warm: bool,
    /// When a trainer pulled the parameters last, as far as it has told: how fresh its copy is.
    pulled: Option<Instant>,
    /// The shards that a server serves, as it said last.
    holds: BTreeSet<u32>,
    /// And those that it has still and does not serve: they are, or were, on their way to another. With the
    /// gradients in them.
    kept: BTreeMap<u32, u64>,
    /// The shards that it should have and says nothing of, and since when.
    lacks: BTreeMap<u32, Instant>,
    /// When a trainer was given the batches that it has not reported yet.
    given: Option<Instant>,
    /// And which steps they are of.
    steps: BTreeSet<u64>,
    /// How many batches it has done, from where the slowest was when it came.
    batches: u64,
    /// Orders to provide shards that failed in a row.
    failures: u32,
}

/// An evaluation that a trainer was asked for.
#[derive(Debug)]
struct Evaluation {
    /// The number of the order.
    number: u64,
    trainer: String,
    since: Instant,
    /// Asked for when nothing was left to train: what it finds is what the job has reached.
    last: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    Nobody,
    At(String),
    /// On its way from one pod to another.
    Moving {
        from: String,
        to: String,
        epoch: u64,
    },
}

/// The state of one activation.
#[derive(Debug)]
pub struct State {
    job: String,
    spec: Spec,
    activation: u64,
    /// Epoch of the lease by which this activation runs.
    lease: u64,
    /// The highest epoch of the scheduler's lease that has ordered anything.
    scheduler: u64,
    started: Instant,
    phase: Phase,
    /// What the auction has granted: nothing, or the minimum at least.
    wanted: Size,
    granted: Option<Instant>,
    /// What is missing, while nothing is granted, and when that was said.
    waiting: String,
    waiting_told: Option<Instant>,
    round: u64,
    /// The latest round that came to something else than the one before.
    noted_round: u64,
    reason: String,
    pods: BTreeMap<String, Seen>,
    pods_known: bool,
    joined: BTreeMap<String, Joined>,
    /// Members that were there and are not any more, by pod.
    absent: BTreeMap<String, Absent>,
    /// Pods that run and have not joined this activation.
    strangers: BTreeMap<String, Stranger>,
    /// How long the next pod of a role is waited for, where its first limit has been too short.
    patience: BTreeMap<Member, Duration>,
    /// How long the next trainer may be at one thing, where what one was given has been too short.
    stalls: BTreeMap<Task, Duration>,
    /// When time was looked at last: what nobody looked at says nothing about members.
    looked: Instant,
    /// The object is being deleted: nothing new is begun.
    deleting: bool,
    /// Since when the object says that the job has ended.
    end_written: Option<Instant>,
    facts: Option<ModelFacts>,
    plan: Option<DataPlan>,
    /// The plan was begun anew, or taken from a checkpoint: what trainers have done of the one before does not count.
    only_own: bool,
    /// The step that trainers compute together.
    barrier: Option<Barrier>,
    recalled: Option<u64>,
    recalled_samples: u64,
    recalled_loss: Option<f64>,
    recalled_accuracy: Option<f64>,
    /// The size of the latest scale event of earlier activations.
    last_size: Option<Size>,
    /// Steps that each shard had applied when its server joined this activation.
    claims: BTreeMap<u32, Applied>,
    /// What servers have brought before a trainer said what the model is, by pod.
    unchecked: BTreeMap<String, Vec<HeldShard>>,
    ranges: Vec<ShardRange>,
    holders: Vec<Holder>,
    held_since: Vec<u64>,
    versions: Vec<u64>,
    epoch: u64,
    moving: bool,
    /// When shards may move again, after a move that failed.
    moves_after: Option<Instant>,
    /// Since when shards move, in however many steps.
    moves_since: Option<Instant>,
    /// Nobody has a copy of what is missing: initial values do.
    initial_values: bool,
    evaluating: Option<Evaluation>,
    /// Evaluations that were ordered.
    evaluations: u64,
    /// Steps that were given to a second trainer, and when.
    given_again: BTreeMap<u64, Instant>,
    evaluation_took: Option<Duration>,
    /// Evaluations in a row that were given to another trainer since they took too long.
    evaluations_late: u32,
    evaluated_at: Option<Instant>,
    final_evaluation: bool,
    book: ProgressBook,
    failures: u32,
    /// When the next pod may be made, after failures in a row.
    replace_after: Option<Instant>,
    expected: Expected,
    scale_events: Vec<ScaleEvent>,
    savings: Savings,
    remarks: Vec<Remark>,
}

impl State {
    /// The state of a new activation. `size` is what an earlier one had, if there was one.
    pub fn new(
        job: &str,
        spec: Spec,
        activation: u64,
        lease: u64,
        size: Option<Size>,
        now: Instant,
    ) -> Self {
        let wanted = size.map_or(Size::default(), |size| spec.allowed(size));
        Self {
            job: job.to_owned(),
            spec,
            activation,
            lease,
            scheduler: 0,
            started: now,
            phase: Phase::Pending,
            wanted,
            granted: size.map(|_| now),
            waiting: FIRST_WAIT.to_owned(),
            waiting_told: None,
            round: 0,
            noted_round: 0,
            reason: FIRST_REASON.to_owned(),
            pods: BTreeMap::new(),
            pods_known: false,
            joined: BTreeMap::new(),
            absent: BTreeMap::new(),
            strangers: BTreeMap::new(),
            patience: BTreeMap::new(),
            stalls: BTreeMap::new(),
            looked: now,
            deleting: false,
            end_written: None,
            facts: None,
            plan: None,
            only_own: false,
            barrier: None,
            recalled: None,
            recalled_samples: 0,
            recalled_loss: None,
            recalled_accuracy: None,
            last_size: None,
            claims: BTreeMap::new(),
            unchecked: BTreeMap::new(),
            ranges: Vec::new(),
            holders: Vec::new(),
            held_since: Vec::new(),
            versions: Vec::new(),
            epoch: first_epoch(lease),
            moving: false,
            moves_after: None,
            moves_since: None,
            initial_values: false,
            evaluating: None,
            evaluations: 0,
            given_again: BTreeMap::new(),
            evaluation_took: None,
            evaluations_late: 0,
            evaluated_at: None,
            final_evaluation: false,
            book: ProgressBook::default(),
            failures: 0,
            replace_after: None,
            expected: Expected::default(),
            scale_events: Vec::new(),
            savings: Savings::default(),
            remarks: Vec::new(),
        }
    }

    fn remark(&mut self, warning: bool, reason: &'static str, message: String) {
        self.remarks.push(Remark { warning, reason, message });
    }

    /// The object asks for something else now.
    pub fn respecified(&mut self, spec: Spec) {
        // More than was granted is the auction's to give.
        let (max, wanted) = (spec.max(), self.wanted);
        let allowed = Size {
            parameter_servers: wanted.parameter_servers.min(max.parameter_servers),
            trainers: wanted.trainers.min(max.trainers),
        };
        if allowed != wanted {
            self.order(allowed, "the job's minimum or maximum was changed");
        }
        if let Some(plan) = self.plan.as_mut().filter(|_| spec.stop.epochs != self.spec.stop.epochs)
        {
            plan.limit(spec.stop.epochs);
        }
        self.spec = spec;
    }

    /// Goes on where an earlier activation was, as far as the object tells. What parameter servers
    /// bring with them is newer.
    pub fn resume(&mut self, earlier: &Earlier) {
        (self.round, self.noted_round) = (earlier.round, earlier.round);
        self.last_size = earlier.last_event;
        self.recall_patience(earlier);
        self.savings.saved_steps = earlier.checkpoint.as_ref().map_or(0, |one| one.step);
        self.savings.newest.clone_from(&earlier.checkpoint);
        // What was taken from a checkpoint in part is taken again: how far it was says nothing.
        (self.savings.whole, self.savings.whole_told) = (earlier.restoring, earlier.restoring);
        self.only_own = earlier.restoring;
        self.savings.saved_ago = earlier.checkpoint_age;
        if earlier.steps > 0 && !earlier.restoring {
            self.recalled = Some(earlier.steps);
            self.recalled_samples = earlier.samples;
            self.recalled_loss = earlier.loss;
            self.recalled_accuracy = earlier.accuracy;
        }
        if earlier.steps > 0 || earlier.restoring {
            self.phase = Phase::Running;
            "another control member took the job over".clone_into(&mut self.reason);
        }
        match earlier.ended {
            Some(true) => self.phase = Phase::Succeeded,
            Some(false) => self.phase = Phase::Failed,
            None => {}
        }
        self.end_is_written(self.started);
    }

    /// What must happen next.
    pub fn reconcile(&mut self, now: Instant) -> Vec<Action> {
        if !self.pods_known {
            return Vec::new();
        }
        self.tell_unstarted(now);
        let mut actions = self.replace_silent(now);
        self.settle_copies(now);
        actions.extend(self.reconcile_pods(now));
        if !self.moving {
            actions.extend(self.next_moves(now));
        }
        actions
    }
}

#[cfg(test)]
mod tests;
