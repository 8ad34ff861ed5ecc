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
//! One move of shards is under way at a time. Everything may be repeated.

mod membership;
mod shards;
mod sizing;
mod work;

use super::pods::Seen;
use super::progress::ProgressBook;
use super::spec::Spec;
use super::status::Earlier;
use crate::training::data_plan::DataPlan;
use impresario_client::protocol::training::{Applied, Member, ModelFacts, Place, ShardRange, Size};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A member that has not been heard of for so long is taken for lost.
const SILENCE: Duration = Duration::from_secs(20);

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
    started: Instant,
    phase: Phase,
    wanted: Size,
    round: u64,
    reason: String,
    pods: BTreeMap<String, Seen>,
    pods_known: bool,
    joined: BTreeMap<String, Joined>,
    facts: Option<ModelFacts>,
    plan: Option<DataPlan>,
    recalled: Option<u64>,
    /// The size of the latest scale event of earlier activations.
    last_size: Option<Size>,
    held_done: Option<Applied>,
    ranges: Vec<ShardRange>,
    holders: Vec<Holder>,
    held_since: Vec<u64>,
    versions: Vec<u64>,
    epoch: u64,
    moving: bool,
    /// Nobody has a copy of what is missing: initial values do.
    initial_values: bool,
    evaluating: Option<(String, Instant)>,
    evaluated_at: Option<Instant>,
    final_evaluation: bool,
    book: ProgressBook,
    failures: u32,
    /// When the next pod may be made, after failures in a row.
    replace_after: Option<Instant>,
    created: u32,
    scale_events: Vec<ScaleEvent>,
    remarks: Vec<Remark>,
}

impl State {
    /// The state of a new activation. `size` is what an earlier one had, if there was one.
    pub fn new(job: &str, spec: Spec, activation: u64, size: Option<Size>, now: Instant) -> Self {
        let wanted = spec.allowed(size.unwrap_or_else(|| spec.min()));
        Self {
            job: job.to_owned(),
            spec,
            activation,
            started: now,
            phase: Phase::Pending,
            wanted,
            round: 0,
            reason: "the job starts with its minimum".to_owned(),
            pods: BTreeMap::new(),
            pods_known: false,
            joined: BTreeMap::new(),
            facts: None,
            plan: None,
            recalled: None,
            last_size: None,
            held_done: None,
            ranges: Vec::new(),
            holders: Vec::new(),
            held_since: Vec::new(),
            versions: Vec::new(),
            epoch: 0,
            moving: false,
            initial_values: false,
            evaluating: None,
            evaluated_at: None,
            final_evaluation: false,
            book: ProgressBook::default(),
            failures: 0,
            replace_after: None,
            created: 0,
            scale_events: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// What is asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How far the job is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it has come to an end.
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// What it wants to be.
    pub fn wanted(&self) -> Size {
        self.wanted
    }

    /// The round of the latest order of the auction.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Progress and predictions.
    pub fn book(&self) -> &ProgressBook {
        &self.book
    }

    /// Steps that are done.
    pub fn steps(&self) -> u64 {
        self.plan.as_ref().map_or(0, DataPlan::done)
    }

    /// Steps in all, if the rule says so.
    pub fn total_steps(&self) -> Option<u64> {
        self.plan.as_ref().and_then(DataPlan::total)
    }

    /// Changes of size since this activation began.
    pub fn scale_events(&self) -> &[ScaleEvent] {
        &self.scale_events
    }

    /// What is to be told to people since the last call.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    fn remark(&mut self, warning: bool, reason: &'static str, message: String) {
        self.remarks.push(Remark { warning, reason, message });
    }

    /// The object asks for something else now.
    pub fn respecified(&mut self, spec: Spec) {
        self.wanted = spec.allowed(self.wanted);
        if let Some(plan) = self.plan.as_mut().filter(|_| spec.stop.epochs != self.spec.stop.epochs)
        {
            plan.limit(spec.stop.epochs);
        }
        self.spec = spec;
    }

    /// Goes on where an earlier activation was, as far as the object tells. What parameter servers
    /// bring with them is newer.
    pub fn resume(&mut self, earlier: &Earlier) {
        self.round = earlier.round;
        self.last_size = earlier.last_event;
        if earlier.steps > 0 {
            self.recalled = Some(earlier.steps);
            self.phase = Phase::Running;
            "another control member took the job over".clone_into(&mut self.reason);
        }
        match earlier.ended {
            Some(true) => self.phase = Phase::Succeeded,
            Some(false) => self.phase = Phase::Failed,
            None => {}
        }
    }

    /// What must happen next.
    pub fn reconcile(&mut self, now: Instant) -> Vec<Action> {
        if !self.pods_known {
            return Vec::new();
        }
        let silent: Vec<String> = self
            .joined
            .iter()
            .filter(|(_, one)| now.duration_since(one.heard) > SILENCE)
            .map(|(uid, _)| uid.clone())
            .collect();
        let mut actions = Vec::new();
        for uid in silent {
            // It may only be cut off: without its pod it can do no more harm.
            if let Some(pod) = self.pods.get(&uid).filter(|pod| !pod.deleting) {
                actions.push(Action::DeletePod { name: pod.name.clone(), uid: uid.clone() });
            }
            self.lost(&uid, now);
        }
        actions.extend(self.reconcile_pods(now));
        if !self.moving {
            actions.extend(self.reconcile_shards(now));
        }
        actions
    }
}

#[cfg(test)]
mod tests;
