//! What a member says, compared with what the job knows. Nothing that a guest sends sizes, loops or
//! redirects anything here before it has passed: a refusal names the field, and changes nothing.

use super::epochs::first_epoch;
use super::{Joined, State};
use crate::training::data_plan::DataPlan;
use crate::training::gathering::MOST_PARTS;
use crate::training::optimizer;
use impresario_client::protocol::training::{
    CurrentMap, Doing, Evaluated, Held, HeldShard, Holds, JoinRefused, JoinTraining, Member,
    ModelFacts, NextWork, Progress, ReportError, ServerReport, TrainerReport, guest_node,
    parameter_server_actor, trainer_actor,
};
use std::collections::BTreeSet;

/// The most shards that a model is cut into.
pub(super) const MOST_SHARDS: usize = 65_536;
/// The most parameters of a model.
const MOST_PARAMETERS: u64 = 1 << 36;
/// The most blocks of a model.
const MOST_BLOCKS: usize = 65_536;
/// The longest name of a block, in bytes.
const LONGEST_NAME: usize = 253;
/// The most samples in an epoch.
const MOST_SAMPLES: u64 = 1 << 40;
/// So far beyond what this activation knows a report may be: what an earlier one gave out meanwhile.
const REPORT_AHEAD: u64 = 1 << 16;
/// And so far what a server has kept, which may be older than what the object says.
const HELD_AHEAD: u64 = 1 << 20;
/// Batches in one report: a trainer never has so many at a time.
const MOST_BATCHES: usize = 4_096;
/// Nothing that a trainer does takes longer, in seconds: a week.
const LONGEST_SECONDS: f32 = 604_800.0;
/// A field that cannot be.
#[derive(Debug)]
pub(super) struct Wrong {
    field: String,
    reason: String,
}

impl From<Wrong> for ReportError {
    fn from(Wrong { field, reason }: Wrong) -> Self {
        Self::Invalid { field, reason }
    }
}

impl From<Wrong> for JoinRefused {
    fn from(Wrong { field, reason }: Wrong) -> Self {
        Self::Invalid { field, reason }
    }
}

fn ensure(holds: bool, field: &str, reason: impl FnOnce() -> String) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong { field: field.to_owned(), reason: reason() }) }
}

fn is_amount(value: f32) -> bool {
    value.is_finite() && value >= 0.0
}

impl State {
    /// One more than the last step that a report can be about.
    fn horizon(&self, ahead: u64) -> u64 {
        let known = self.plan.as_ref().map_or(self.recalled.unwrap_or(0), DataPlan::next_step);
        known.saturating_add(ahead)
    }

    /// And one more than the last that a server can have.
    fn held_horizon(&self) -> u64 {
        // While nothing counts that servers have, it may be of any time.
        self.horizon(if self.savings.whole { u64::MAX } else { HELD_AHEAD })
    }

    /// Whether this is a pod of ours that speaks for itself, from where it is.
    pub(super) fn check_join(&self, join: &JoinTraining) -> Result<(), JoinRefused> {
        // A pod that is not seen yet will be, if it is ours.
        let pod = self.pods.get(&join.pod_uid).ok_or(JoinRefused::NotYet)?;
        // One that is being deleted comes back to hand on what it has.
        if pod.ended.is_some() {
            return Err(JoinRefused::NotYours { pod_uid: join.pod_uid.clone() });
        }
        let (member, uid, place) = (join.holds.member(), &join.pod_uid, &join.place);
        ensure(member == pod.member, "holds", || format!("the pod is a {}", pod.member.as_str()))?;
        let actor = match member {
            Member::ParameterServer => parameter_server_actor(uid),
            Member::Trainer => trainer_actor(uid),
        };
        let is_own = place.path.node == guest_node(uid) && place.path.actor.as_str() == actor;
        ensure(is_own, "place.path", || format!("{} is not the pod's actor", place.path))?;
        let address = pod.address.ok_or(JoinRefused::NotYet)?;
        ensure(
            place.address.ip() == address && place.address.port() != 0,
            "place.address",
            || format!("{} is not at the pod's address {address}", place.address),
        )?;
        match &join.holds {
            Holds::Model(facts) => check_facts(facts)?,
            Holds::Shards(held) => self.check_held(held)?,
        }
        Ok(())
    }

    /// Whether a server can have these shards.
    pub(super) fn check_held(&self, held: &[HeldShard]) -> Result<(), Wrong> {
        let horizon = self.held_horizon();
        let mut seen = BTreeSet::new();
        for (number, one) in held.iter().enumerate() {
            let field = |part: &str| format!("holds[{number}].{part}");
            let range = one.range;
            let fits = match self.ranges.get(range.shard as usize) {
                Some(known) => *known == range,
                // Compared as soon as a trainer has said what the model is.
                None => self.facts.is_none() && (range.shard as usize) < MOST_SHARDS,
            };
            ensure(fits && seen.insert(range.shard), &field("range"), || {
                format!("the job has no such shard {}", range.shard)
            })?;
            ensure(one.epoch < first_epoch(self.lease + 1), &field("epoch"), || {
                format!("{} is later than all of this job", one.epoch)
            })?;
            let (end, count) = (one.applied.end(), one.applied.count());
            ensure(end <= horizon, &field("applied"), || {
                format!("step {end} is far beyond all that were given out")
            })?;
            ensure(one.version <= count, &field("version"), || {
                format!("{} gradients of {count} steps", one.version)
            })?;
        }
        Ok(())
    }

    fn member_of(
        &self,
        activation: u64,
        pod_uid: &str,
        member: Option<Member>,
    ) -> Result<&Joined, ReportError> {
        if activation != self.activation {
            return Err(ReportError::Unknown);
        }
        let joined = self.joined.get(pod_uid).ok_or(ReportError::Unknown)?;
        ensure(member.is_none_or(|member| member == joined.member), "pod_uid", || {
            format!("the pod is a {}", joined.member.as_str())
        })?;
        Ok(joined)
    }

    /// Whether a trainer can have done this.
    pub(super) fn check_work(&self, asked: &NextWork) -> Result<(), ReportError> {
        self.member_of(asked.activation, &asked.pod_uid, Some(Member::Trainer))?;
        let horizon = self.horizon(REPORT_AHEAD);
        let few = asked.done.len() <= MOST_BATCHES && asked.returned.len() <= MOST_BATCHES;
        ensure(few, "done", || format!("more than {MOST_BATCHES} batches at a time"))?;
        for progress in &asked.done {
            self.check_progress(progress, horizon)?;
        }
        for step in &asked.returned {
            ensure(*step < horizon, "returned", || format!("step {step} was not given out"))?;
        }
        if let Some(evaluated) = &asked.evaluated {
            check_evaluated(evaluated, horizon)?;
        }
        ensure(asked.map_epoch <= self.epoch, "map_epoch", || {
            format!("{} is later than {}", asked.map_epoch, self.epoch)
        })?;
        Ok(())
    }

    /// Whether a trainer can have this in hand.
    pub(super) fn check_in_hand(&self, held: Option<&Held>) -> Result<(), ReportError> {
        let Some(held) = held else { return Ok(()) };
        let (step, most) = (held.step, MOST_PARTS as usize);
        ensure(step < self.horizon(REPORT_AHEAD), "held.step", || {
            format!("step {step} was not given out")
        })?;
        ensure(held.parts.len() <= most, "held.parts", || {
            format!("a step has at most {most} parts")
        })?;
        Ok(())
    }

    fn check_progress(&self, progress: &Progress, horizon: u64) -> Result<(), Wrong> {
        let step = progress.step;
        ensure(step < horizon, "done.step", || format!("step {step} was not given out"))?;
        if let Some(plan) = &self.plan {
            let length = plan.batch(step).length;
            // Of a step that trainers compute together each has a part.
            let fits = if self.is_synchronous() {
                (1..=length).contains(&progress.samples)
            } else {
                progress.samples == length
            };
            ensure(fits, "done.samples", || format!("step {step} has {length} samples"))?;
        }
        let is_number = |value: Option<f32>| value.is_none_or(f32::is_finite);
        ensure(is_number(progress.loss), "done.loss", || "it is not a number".to_owned())?;
        for (field, seconds) in
            [("done.seconds", progress.seconds), ("done.compute_seconds", progress.compute_seconds)]
        {
            ensure(is_amount(seconds) && seconds <= LONGEST_SECONDS, field, || {
                format!("{seconds} is no duration")
            })?;
        }
        ensure(progress.gradient_square.is_none_or(is_amount), "done.gradient_square", || {
            "it is no square".to_owned()
        })
    }

    /// Whether a trainer can be at this.
    pub(super) fn check_trainer(&self, report: &TrainerReport) -> Result<(), ReportError> {
        self.member_of(report.activation, &report.pod_uid, Some(Member::Trainer))?;
        if let Doing::Training(step) = report.doing {
            ensure(step < self.horizon(REPORT_AHEAD), "doing", || {
                format!("step {step} was not given out")
            })?;
        }
        let seconds = report.milliseconds / 1_000;
        let longest = LONGEST_SECONDS as u64;
        ensure(seconds <= longest, "milliseconds", || format!("{seconds} s are too long"))?;
        Ok(())
    }

    /// Whether a server can have these versions.
    pub(super) fn check_server(&self, report: &ServerReport) -> Result<(), ReportError> {
        self.member_of(report.activation, &report.pod_uid, Some(Member::ParameterServer))?;
        let horizon = self.held_horizon();
        let shards = if self.facts.is_none() { MOST_SHARDS } else { self.ranges.len() };
        let mut seen = BTreeSet::new();
        for (shard, version) in &report.versions {
            ensure((*shard as usize) < shards && seen.insert(*shard), "versions", || {
                format!("the job has no such shard {shard}")
            })?;
            ensure(*version <= horizon, "versions", || {
                format!("{version} gradients are more than were ever given out")
            })?;
        }
        let few = report.leaving.len() <= report.versions.len();
        ensure(few && report.leaving.is_subset(&seen), "leaving", || {
            "it names shards that are not in `versions`".to_owned()
        })?;
        Ok(())
    }

    /// Whether one of the members asks.
    pub(super) fn check_map(&self, asked: &CurrentMap) -> Result<(), ReportError> {
        self.member_of(asked.activation, &asked.pod_uid, None).map(|_| ())
    }
}

fn check_evaluated(evaluated: &Evaluated, horizon: u64) -> Result<(), Wrong> {
    ensure(evaluated.version <= horizon, "evaluated.version", || {
        format!("{} gradients are more than were ever given out", evaluated.version)
    })?;
    ensure(evaluated.loss.is_none_or(f32::is_finite), "evaluated.loss", || {
        "it is not a number".to_owned()
    })?;
    ensure((0.0..=1.0).contains(&evaluated.accuracy), "evaluated.accuracy", || {
        format!("{} is not between 0 and 1", evaluated.accuracy)
    })
}

fn check_facts(facts: &ModelFacts) -> Result<(), Wrong> {
    let blocks = &facts.blocks;
    ensure(!blocks.is_empty() && blocks.len() <= MOST_BLOCKS, "holds.blocks", || {
        format!("a model has 1 to {MOST_BLOCKS} blocks")
    })?;
    let named = blocks.iter().all(|(name, _)| name.len() <= LONGEST_NAME);
    ensure(named, "holds.blocks.name", || format!("longer than {LONGEST_NAME} bytes"))?;
    let total = blocks.iter().try_fold(0_u64, |sum, (_, length)| sum.checked_add(*length));
    let fits = total.is_some_and(|total| (1..=MOST_PARAMETERS).contains(&total));
    ensure(fits, "holds.blocks.length", || {
        format!("a model has 1 to {MOST_PARAMETERS} parameters")
    })?;
    ensure((1..=MOST_SAMPLES).contains(&facts.samples), "holds.samples", || {
        format!("an epoch has 1 to {MOST_SAMPLES} samples")
    })?;
    ensure((1..=MOST_SAMPLES).contains(&facts.batch), "holds.batch", || {
        format!("a batch has 1 to {MOST_SAMPLES} samples")
    })?;
    ensure(optimizer::is_rule(&facts.optimizer), "holds.optimizer", || {
        "rate and decay are finite and not negative, the others from 0 to less than 1".to_owned()
    })
}
