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

use super::pods::Seen;
use super::progress::ProgressBook;
use super::spec::Spec;
use super::status::Earlier;
use crate::training::data_plan::DataPlan;
use crate::training::partition;
use impresario_client::protocol::training::{
    Applied, Bid, HeldShard, Holds, JoinRefused, JoinTraining, Member, ModelFacts, NextWork, Order,
    Place, Scale, ScaleError, ServerReport, ShardMap, ShardRange, Size, Unknown, Welcome, Work,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Shards per parameter server at the most servers: enough to divide evenly.
const SHARDS_PER_SERVER: usize = 4;
/// After a fail-over, how long members are waited for before they are taken for lost.
const REUNION: Duration = Duration::from_secs(8);
/// A trainer gets batches for about this long at a time.
const GRANT_SECONDS: f64 = 0.4;
/// The most batches at a time.
const LARGEST_GRANT: usize = 64;
/// A member that has not been heard of for so long is taken for lost.
const SILENCE: Duration = Duration::from_secs(20);
/// How often the parameters are evaluated while training goes on.
const EVALUATE_EVERY: Duration = Duration::from_secs(2);
/// An evaluation that has not come by then is given to another trainer.
const EVALUATION: Duration = Duration::from_secs(15);
/// Pods that may fail in a row without a step in between.
const FAILURES: u32 = 10;

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
    evaluating: Option<(String, Instant)>,
    evaluated_at: Option<Instant>,
    final_evaluation: bool,
    book: ProgressBook,
    failures: u32,
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
            evaluating: None,
            evaluated_at: None,
            final_evaluation: false,
            book: ProgressBook::default(),
            failures: 0,
            created: 0,
            scale_events: Vec::new(),
            remarks: Vec::new(),
        }
    }

    // --- what others read

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

    /// Who works at the moment.
    pub fn size(&self) -> Size {
        let count = |member| {
            self.joined.values().filter(|one| one.member == member && !one.leaving).count() as u32
        };
        Size { parameter_servers: count(Member::ParameterServer), trainers: count(Member::Trainer) }
    }

    /// Changes of size since this activation began.
    pub fn scale_events(&self) -> &[ScaleEvent] {
        &self.scale_events
    }

    /// What is to be told to people since the last call.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// Steps that are left, as far as it can be told.
    pub fn remaining_steps(&self) -> Option<f64> {
        let batches = self.plan.as_ref().map_or(1, DataPlan::batches);
        let rest = self.total_steps().map(|total| total.saturating_sub(self.steps()) as f64);
        let predicted = self.book.remaining_steps(&self.spec.stop, batches, self.steps());
        match (rest, predicted) {
            (Some(rest), Some(predicted)) => Some(rest.min(predicted)),
            (rest, predicted) => rest.or(predicted),
        }
    }

    /// The bid for a round; none from a job that has ended.
    pub fn bid(&self, namespace: &str, name: &str, created_unix_seconds: i64) -> Option<Bid> {
        if self.ended() {
            return None;
        }
        let bound = |member| {
            let bound = self.pods.values().filter(|pod| pod.member == member && pod.bound);
            bound.filter(|pod| pod.ended.is_none()).count() as u32
        };
        let current = Size {
            parameter_servers: bound(Member::ParameterServer),
            trainers: bound(Member::Trainer),
        };
        Some(Bid {
            job: self.job.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            created_unix_seconds,
            // Without any prediction the job is taken to have as much before it as behind it.
            remaining_steps: self
                .remaining_steps()
                .unwrap_or_else(|| self.steps().max(1_000) as f64),
            done_steps: self.steps(),
            speed: self.book.speed_model(),
            current,
            wanted: self.wanted,
            min: self.spec.min(),
            // It grows once it knows how fast it is.
            max: if self.book.is_measured() { self.spec.max() } else { self.wanted },
            parameter_server: self.spec.parameter_server.resources.clone(),
            trainer: self.spec.trainer.resources.clone(),
            rescale_seconds: self.book.rescale_seconds(),
        })
    }

    /// The shard map as it is.
    pub fn map(&self) -> ShardMap {
        let places: Option<Vec<Place>> =
            self.holders.iter().map(|holder| self.place_of(holder)).collect();
        match places {
            Some(places) if !places.is_empty() => {
                ShardMap { epoch: self.epoch, shards: self.ranges.clone(), places }
            }
            _ => ShardMap { epoch: self.epoch, ..ShardMap::default() },
        }
    }

    fn place_of(&self, holder: &Holder) -> Option<Place> {
        let pod = match holder {
            Holder::Nobody => return None,
            // The one that it leaves knows where it went.
            Holder::At(pod) | Holder::Moving { from: pod, .. } => pod,
        };
        self.joined.get(pod).map(|joined| joined.place.clone())
    }

    /// Whom to watch: the places of all members by pod.
    pub fn places(&self) -> impl Iterator<Item = (&String, &Place)> {
        self.joined.iter().map(|(uid, joined)| (uid, &joined.place))
    }

    fn remark(&mut self, warning: bool, reason: &'static str, message: String) {
        self.remarks.push(Remark { warning, reason, message });
    }

    // --- events

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
            "another control member took the job over".clone_into(&mut self.reason);
        }
        match earlier.ended {
            Some(true) => self.phase = Phase::Succeeded,
            Some(false) => self.phase = Phase::Failed,
            None => {}
        }
    }

    /// The map, for a member of this activation.
    pub fn map_for(&self, activation: u64) -> Result<ShardMap, Unknown> {
        if activation == self.activation { Ok(self.map()) } else { Err(Unknown) }
    }

    /// These are the job's pods.
    pub fn pods_are(&mut self, pods: Vec<Seen>, now: Instant) {
        self.pods_known = true;
        let before = std::mem::take(&mut self.pods);
        self.pods = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        let fresh = self.pods.keys().filter(|uid| !before.contains_key(*uid)).count() as u32;
        self.created = self.created.saturating_sub(fresh);
        let failed: Vec<String> = self
            .pods
            .values()
            .filter(|pod| {
                pod.ended == Some(false) && before.get(&pod.uid).is_none_or(|b| b.ended.is_none())
            })
            .map(|pod| pod.name.clone())
            .collect();
        for name in failed {
            if self.ended() {
                break;
            }
            self.failures += 1;
            self.remark(true, "MemberFailed", format!("pod {name} failed; it is replaced"));
            if self.failures >= FAILURES {
                self.phase = Phase::Failed;
                let message =
                    format!("{FAILURES} pods failed in a row without progress: see their logs");
                self.remark(true, "TrainingFailed", message);
            }
        }
        let gone: Vec<String> = self
            .joined
            .keys()
            .filter(|uid| self.pods.get(*uid).is_none_or(|pod| pod.ended.is_some()))
            .cloned()
            .collect();
        for uid in gone {
            self.lost(&uid, now);
        }
    }

    /// A pod has been asked for, or that failed. Until it is seen it counts.
    pub fn creation(&mut self, asked: bool) {
        self.created = if asked { self.created + 1 } else { self.created.saturating_sub(1) };
    }

    /// A member joins, or joins again after the job's actor has moved.
    pub fn join(&mut self, join: JoinTraining, now: Instant) -> Result<Welcome, JoinRefused> {
        if self.ended() {
            return Err(JoinRefused::Ended);
        }
        let refused = || JoinRefused::NotYours { pod_uid: join.pod_uid.clone() };
        if self.pods_known && !self.pods.get(&join.pod_uid).is_none_or(Seen::lives) {
            return Err(refused());
        }
        let member = join.holds.member();
        match &join.holds {
            Holds::Model(facts) => self.learn_facts(facts)?,
            Holds::Shards(held) => self.learn_held(&join.pod_uid, held),
        }
        let leaving = self.joined.get(&join.pod_uid).is_some_and(|one| one.leaving);
        let joined =
            Joined { member, place: join.place, heard: now, leaving, stopped: false, map_epoch: 0 };
        self.joined.insert(join.pod_uid, joined);
        self.settle_size(now);
        Ok(Welcome { activation: self.activation })
    }

    fn learn_facts(&mut self, facts: &ModelFacts) -> Result<(), JoinRefused> {
        match &self.facts {
            Some(known) if known == facts => Ok(()),
            Some(_) => Err(JoinRefused::OtherModel),
            None => {
                let lengths: Vec<u64> = facts.blocks.iter().map(|(_, length)| *length).collect();
                let count = SHARDS_PER_SERVER * self.spec.parameter_server.max as usize;
                if self.ranges.is_empty() {
                    self.set_ranges(partition::cut(&lengths, count));
                }
                self.facts = Some(facts.clone());
                let mut plan = DataPlan::new(facts.samples, facts.batch, self.spec.stop.epochs);
                let recalled = self.recalled.map(Applied::all_below);
                if let Some(done) = self.held_done.take().or(recalled) {
                    plan.resume(done);
                }
                self.plan = Some(plan);
                Ok(())
            }
        }
    }

    fn set_ranges(&mut self, ranges: Vec<ShardRange>) {
        self.holders = vec![Holder::Nobody; ranges.len()];
        self.held_since = vec![0; ranges.len()];
        self.versions = vec![0; ranges.len()];
        self.ranges = ranges;
    }

    /// What a server has kept tells this activation what was done before it.
    fn learn_held(&mut self, pod: &str, held: &[HeldShard]) {
        if held.is_empty() {
            return;
        }
        for shard in held {
            let index = shard.range.shard as usize;
            if index >= self.ranges.len() {
                let mut ranges = self.ranges.clone();
                ranges.resize(index + 1, ShardRange { shard: 0, start: 0, length: 0 });
                let (holders, since, versions) =
                    (self.holders.clone(), self.held_since.clone(), self.versions.clone());
                self.set_ranges(ranges);
                self.holders[..holders.len()].clone_from_slice(&holders);
                self.held_since[..since.len()].copy_from_slice(&since);
                self.versions[..versions.len()].copy_from_slice(&versions);
            }
            self.ranges[index] = shard.range;
            if shard.epoch >= self.held_since[index] {
                self.holders[index] = Holder::At(pod.to_owned());
                self.held_since[index] = shard.epoch;
                self.versions[index] = self.versions[index].max(shard.version);
            }
            self.epoch = self.epoch.max(shard.epoch);
            if self.plan.is_none() {
                let known = self.held_done.take();
                self.held_done = Some(match known {
                    Some(known) => known.both(&shard.applied),
                    None => shard.applied.clone(),
                });
            }
        }
    }

    /// A parameter server reports. False: it is needed no more.
    pub fn report(&mut self, report: &ServerReport, now: Instant) -> Result<bool, Unknown> {
        if report.activation != self.activation {
            return Err(Unknown);
        }
        let joined = self.joined.get_mut(&report.pod_uid).ok_or(Unknown)?;
        joined.heard = now;
        let leaving = joined.leaving;
        for (shard, version) in &report.versions {
            let index = *shard as usize;
            let Some(holder) = self.holders.get_mut(index) else { continue };
            // A move whose confirmation was lost with its sender.
            let arrived = match holder {
                Holder::Nobody => true,
                Holder::Moving { from, to, .. } => {
                    *to == report.pod_uid && !self.joined.contains_key(from)
                }
                Holder::At(_) => false,
            };
            if arrived && !self.moving {
                *holder = Holder::At(report.pod_uid.clone());
            }
            self.versions[index] = self.versions[index].max(*version);
        }
        let holds = self.holders.iter().any(|holder| match holder {
            Holder::Nobody => false,
            Holder::At(pod) => *pod == report.pod_uid,
            Holder::Moving { from, to, .. } => [from, to].contains(&&report.pod_uid),
        });
        if self.ended() || (leaving && !holds) {
            if let Some(joined) = self.joined.get_mut(&report.pod_uid) {
                joined.stopped = true;
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// A trainer reports and asks for work.
    pub fn work(&mut self, asked: &NextWork, now: Instant) -> Result<Work, Unknown> {
        if asked.activation != self.activation {
            return Err(Unknown);
        }
        let uid = &asked.pod_uid;
        let joined = self.joined.get_mut(uid).ok_or(Unknown)?;
        joined.heard = now;
        joined.map_epoch = asked.map_epoch;
        let leaving = joined.leaving;
        if let Some(plan) = &mut self.plan {
            for progress in &asked.done {
                if plan.finish(progress.step) {
                    self.failures = 0;
                    self.book.step(progress, now);
                }
            }
            for step in &asked.returned {
                plan.give_back(uid, *step);
            }
        }
        if let Some(evaluated) = asked.evaluated {
            if self.evaluating.as_ref().is_some_and(|(trainer, _)| trainer == uid) {
                self.evaluating = None;
            }
            self.evaluated_at = Some(now);
            self.book.evaluated(evaluated);
        }
        self.check_end(asked.evaluated.is_some());
        let map = self.map();
        let order = self.order_for(uid, leaving, &map, now);
        if order == Order::Stop
            && let Some(joined) = self.joined.get_mut(uid)
        {
            joined.stopped = true;
        }
        let newer = map.epoch > asked.map_epoch && !map.shards.is_empty();
        Ok(Work { map: newer.then_some(map), order })
    }

    fn check_end(&mut self, just_evaluated: bool) {
        let Some(plan) = &self.plan else { return };
        if self.ended() {
            return;
        }
        let stop = self.spec.stop;
        let converged = self.book.reached(&stop, plan.batches(), plan.epochs_done());
        if self.final_evaluation && just_evaluated {
            self.phase = Phase::Succeeded;
            let accuracy = self.book.evaluation().map_or(0.0, |evaluated| evaluated.accuracy);
            let message =
                format!("{} steps, accuracy {:.1} %", self.steps(), f64::from(accuracy) * 100.0);
            self.remark(false, "Completed", message);
        } else if plan.is_complete() || converged {
            self.final_evaluation = true;
        }
    }

    fn order_for(&mut self, uid: &str, leaving: bool, map: &ShardMap, now: Instant) -> Order {
        if leaving || self.ended() {
            return Order::Stop;
        }
        if map.shards.is_empty() {
            return Order::Wait { milliseconds: 20 };
        }
        let overdue = self.evaluating.as_ref().is_some_and(|(trainer, since)| {
            now.duration_since(*since) > EVALUATION || !self.joined.contains_key(trainer)
        });
        if overdue {
            self.evaluating = None;
        }
        let due = self.evaluated_at.is_none_or(|at| now.duration_since(at) > EVALUATE_EVERY);
        if self.evaluating.is_none() && (self.final_evaluation || (due && self.steps() > 0)) {
            self.evaluating = Some((uid.to_owned(), now));
            return Order::Evaluate;
        }
        if self.final_evaluation {
            return Order::Wait { milliseconds: 50 };
        }
        let limit =
            (GRANT_SECONDS / self.book.seconds_per_batch()).clamp(1.0, LARGEST_GRANT as f64);
        let trainers = self.size().trainers.max(1) as usize;
        let Some(plan) = &mut self.plan else { return Order::Wait { milliseconds: 50 } };
        // Towards the end the rest is shared out, so that nobody waits long for the last batch.
        let rest =
            plan.total().map_or(usize::MAX, |total| (total.saturating_sub(plan.done())) as usize);
        let batches = plan.take(uid, (limit as usize).min(rest.div_ceil(2 * trainers)).max(1));
        if batches.is_empty() {
            return Order::Wait { milliseconds: 20 };
        }
        if self.phase == Phase::Pending {
            self.phase = Phase::Running;
            self.remark(false, "Started", "the first trainer has begun".to_owned());
        }
        Order::Train(batches)
    }

    /// A member is gone, in order or not.
    pub fn lost(&mut self, uid: &str, now: Instant) {
        let Some(joined) = self.joined.remove(uid) else { return };
        let in_order = joined.stopped || self.ended();
        match joined.member {
            Member::Trainer => {
                let batches = self.plan.as_mut().map_or(0, |plan| plan.abandon(uid));
                if !in_order {
                    "a trainer was lost".clone_into(&mut self.reason);
                    let message =
                        format!("a trainer is gone; its {batches} unfinished batches go to others");
                    self.remark(true, "TrainerLost", message);
                }
            }
            Member::ParameterServer => {
                let mut shards = 0;
                for holder in &mut self.holders {
                    match holder {
                        Holder::At(pod) if pod == uid => {
                            *holder = Holder::Nobody;
                            shards += 1;
                        }
                        // Whether it arrived is seen in the receiver's next report.
                        Holder::Moving { from, .. } if from == uid => {
                            *holder = Holder::Nobody;
                            shards += 1;
                        }
                        _ => {}
                    }
                }
                if !in_order && shards > 0 {
                    "a parameter server was lost".clone_into(&mut self.reason);
                    let message = format!(
                        "a parameter server is gone with {shards} shards: they are replaced from a trainer's copy"
                    );
                    self.remark(true, "ParameterServerLost", message);
                }
            }
        }
        self.settle_size(now);
    }

    /// The auction has decided.
    pub fn scale(&mut self, scale: &Scale, now: Instant) -> Result<(), ScaleError> {
        if self.ended() {
            return Err(ScaleError::Ended);
        }
        if scale.round < self.round {
            return Err(ScaleError::Stale { current: self.round });
        }
        if self.spec.allowed(scale.size) != scale.size {
            return Err(ScaleError::OutOfRange);
        }
        self.round = scale.round;
        if self.wanted != scale.size {
            self.wanted = scale.size;
            self.reason.clone_from(&scale.reason);
            let Size { parameter_servers, trainers } = scale.size;
            let message = format!(
                "to {parameter_servers} parameter servers and {trainers} trainers: {}",
                scale.reason
            );
            self.remark(false, "Scaling", message);
        }
        self.settle_size(now);
        Ok(())
    }

    /// Notes a size that has been reached.
    fn settle_size(&mut self, now: Instant) {
        let size = self.size();
        self.book.size_is(size, now);
        let last = self.scale_events.last().map(|event| event.size).or(self.last_size);
        if size == self.wanted && last != Some(size) {
            let reason = self.reason.clone();
            self.scale_events.push(ScaleEvent { at: now, size, reason });
        }
    }

    // --- moves

    /// A move begins: none other until it has ended.
    pub fn move_starts(&mut self, action: &Action) {
        if let Action::Handover { to, shard, epoch, .. } = action
            && let Some(holder) = self.holders.get_mut(*shard as usize)
        {
            let from = match holder {
                Holder::At(pod) | Holder::Moving { from: pod, .. } => pod.clone(),
                Holder::Nobody => return,
            };
            *holder = Holder::Moving { from, to: to.clone(), epoch: *epoch };
        }
    }

    /// Whether a move is under way.
    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// Marks a batch of moves as begun or ended; `took` is how long it was.
    pub fn set_moving(&mut self, moving: bool, took: Option<Duration>) {
        self.moving = moving;
        if let Some(took) = took {
            self.book.rescaled(took);
        }
    }

    /// A move has been confirmed, with the versions that were provided.
    pub fn moved(&mut self, action: &Action, provided: &[(u32, u64)]) {
        match action {
            Action::Handover { to, shard, epoch, .. } => self.arrived(*shard, to, *epoch),
            Action::Keep { shard, epoch, .. } => {
                if let Some(Holder::Moving { from, .. }) =
                    self.holders.get(*shard as usize).cloned()
                {
                    self.arrived(*shard, &from, *epoch);
                }
            }
            Action::Provide { to, shards, epoch, .. } => {
                let mut lost = 0;
                for range in shards {
                    let index = range.shard as usize;
                    let version = provided.iter().find(|(shard, _)| *shard == range.shard);
                    let version = version.map_or(0, |(_, version)| *version);
                    if let Some(known) = self.versions.get_mut(index) {
                        lost = lost.max(known.saturating_sub(version));
                        *known = version;
                    }
                    self.arrived(range.shard, to, *epoch);
                }
                if self.steps() > 0 {
                    let message =
                        format!("{} shards were replaced; that cost {lost} steps", shards.len());
                    self.remark(true, "ParametersRestored", message);
                }
            }
            Action::CreatePod(_) | Action::DeletePod { .. } | Action::Leave(_) => {}
        }
    }

    fn arrived(&mut self, shard: u32, pod: &str, epoch: u64) {
        let index = shard as usize;
        if let (Some(holder), Some(since)) =
            (self.holders.get_mut(index), self.held_since.get_mut(index))
        {
            *holder = if self.joined.contains_key(pod) {
                Holder::At(pod.to_owned())
            } else {
                Holder::Nobody
            };
            *since = epoch;
            self.epoch = self.epoch.max(epoch);
        }
    }

    // --- reconcile

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

    fn reconcile_pods(&mut self, now: Instant) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        // What ended well was not needed any more; what failed is kept for its logs until the end.
        for pod in self.pods.values().filter(|pod| pod.ended == Some(true) && !pod.deleting) {
            if !self.ended() {
                actions.push(Action::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
            }
        }
        if self.ended() {
            return actions;
        }
        let mut pending = self.created;
        for member in [Member::ParameterServer, Member::Trainer] {
            let wanted = match member {
                Member::ParameterServer => self.wanted.parameter_servers,
                Member::Trainer => self.wanted.trainers,
            } as usize;
            let mut living: Vec<(bool, bool, String, String)> = self
                .pods
                .values()
                .filter(|pod| pod.member == member && pod.lives())
                .filter(|pod| !self.joined.get(&pod.uid).is_some_and(|one| one.leaving))
                .map(|pod| {
                    let joined = self.joined.contains_key(&pod.uid);
                    (joined, pod.bound, pod.name.clone(), pod.uid.clone())
                })
                .collect();
            living.sort();
            let surplus = living.len().saturating_sub(wanted);
            for (joined, _, name, uid) in living.drain(..surplus) {
                match self.joined.get_mut(&uid) {
                    Some(one) if joined => {
                        one.leaving = true;
                        if member == Member::Trainer {
                            actions.push(Action::Leave(one.place.clone()));
                        }
                    }
                    _ => actions.push(Action::DeletePod { name, uid }),
                }
            }
            let missing = wanted.saturating_sub(living.len());
            let expected = missing.min(pending as usize);
            pending -= expected as u32;
            actions.extend((expected..missing).map(|_| Action::CreatePod(member)));
        }
        self.settle_size(now);
        actions
    }

    fn reconcile_shards(&mut self, now: Instant) -> Vec<Action> {
        // Without a trainer's facts the whole map is not known.
        if self.facts.is_none() || self.ranges.is_empty() || self.ended() {
            return Vec::new();
        }
        let servers: Vec<&String> = self
            .joined
            .iter()
            .filter(|(_, one)| one.member == Member::ParameterServer && !one.leaving)
            .map(|(uid, _)| uid)
            .collect();
        if servers.is_empty() || !self.reunited(now) {
            return Vec::new();
        }
        // Shards that are on their way somewhere first.
        let mut actions = Vec::new();
        let mut epoch = self.epoch;
        for (shard, holder) in self.holders.iter().enumerate() {
            let Holder::Moving { from, to, epoch: started } = holder else { continue };
            let Some(source) = self.joined.get(from) else { continue };
            match self.joined.get(to) {
                Some(target) => actions.push(Action::Handover {
                    from: source.place.clone(),
                    to: to.clone(),
                    place: target.place.clone(),
                    shard: shard as u32,
                    epoch: *started,
                }),
                None => {
                    epoch = epoch.max(*started) + 1;
                    actions.push(Action::Keep {
                        from: source.place.clone(),
                        shard: shard as u32,
                        epoch,
                    });
                }
            }
        }
        if !actions.is_empty() {
            return actions;
        }
        let before: Vec<Option<usize>> = self
            .holders
            .iter()
            .map(|holder| match holder {
                Holder::At(pod) => servers.iter().position(|server| *server == pod),
                _ => None,
            })
            .collect();
        let planned = partition::assign(&self.ranges, &before, servers.len());
        epoch += 1;
        let trainer = self.joined.values().find(|one| one.member == Member::Trainer);
        for (number, uid) in servers.iter().enumerate() {
            let place = &self.joined[*uid].place;
            let mine = |shard: &usize| planned[*shard] == number;
            let shards: Vec<ShardRange> = (0..self.ranges.len())
                .filter(|shard| mine(shard) && self.holders[*shard] == Holder::Nobody)
                .map(|shard| self.ranges[shard])
                .collect();
            if let Some(trainer) = trainer.filter(|_| !shards.is_empty()) {
                let (from, to, place) = (trainer.place.clone(), (*uid).clone(), place.clone());
                actions.push(Action::Provide { from, to, place, shards, epoch });
            }
            for shard in (0..self.ranges.len()).filter(mine) {
                let Holder::At(pod) = &self.holders[shard] else { continue };
                if pod != *uid
                    && let Some(source) = self.joined.get(pod)
                {
                    actions.push(Action::Handover {
                        from: source.place.clone(),
                        to: (*uid).clone(),
                        place: place.clone(),
                        shard: shard as u32,
                        epoch,
                    });
                }
            }
        }
        actions
    }

    /// Whether every server that runs has joined, or has had the time to.
    fn reunited(&self, now: Instant) -> bool {
        let strangers: BTreeSet<&String> = self
            .pods
            .values()
            .filter(|pod| pod.member == Member::ParameterServer && pod.lives() && pod.bound)
            .map(|pod| &pod.uid)
            .filter(|uid| !self.joined.contains_key(*uid))
            .collect();
        let nobody = self.holders.contains(&Holder::Nobody);
        let resumed = self.steps() > 0 || self.recalled.is_some();
        !nobody || !resumed || strangers.is_empty() || now.duration_since(self.started) > REUNION
    }
}
