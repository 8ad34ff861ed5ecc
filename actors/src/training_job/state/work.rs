//! What trainers do next: batches, evaluations, and the end of the job.

use super::membership::LATEST;
use super::{Evaluation, Holder, Phase, State, Task};
use crate::training::data_plan::DataPlan;
use impresario_client::protocol::training::{
    Batch, Doing, Held, NextWork, Order, Progress, ReportError, ServerOrder, ServerReport,
    ShardMap, TrainerReport, Work,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A trainer gets batches for about this long at a time.
const GRANT_SECONDS: f64 = 0.4;
/// The most batches at a time.
const LARGEST_GRANT: usize = 64;
/// How often the parameters are evaluated while training goes on.
const EVALUATE_EVERY: Duration = Duration::from_secs(2);
/// An evaluation that has not come by then is given to another trainer.
const EVALUATION: Duration = Duration::from_secs(15);
/// One that a trainer says it is at is, once it is known how long one takes, given so many times that.
const LONG_EVALUATIONS: u32 = 5;
/// But not before.
const LONG_EVALUATION: Duration = Duration::from_mins(1);
/// Batches that have not come by then are given to another trainer as well: a step counts once, whoever does it.
pub(super) const OVERDUE: Duration = Duration::from_secs(10);
/// But not before so many times what they usually take.
pub(super) const OVERDUE_BATCHES: u32 = 8;
/// A trainer that is at one thing for longer is taken to hang, however alive it is. Its pod is replaced by one that is
/// given twice the time: nobody can know how long an evaluation or the first batch takes.
const STALLED: Duration = Duration::from_mins(15);
/// But not before so many times what a batch usually takes.
const STALLED_BATCHES: u32 = 20;

impl State {
    /// A parameter server reports. False: it is needed no more.
    pub fn report(
        &mut self,
        report: &ServerReport,
        now: Instant,
    ) -> Result<ServerOrder, ReportError> {
        self.check_server(report)?;
        let settled = self.plan.as_ref().map_or(0, DataPlan::settled);
        let joined = self.joined.get_mut(&report.pod_uid).ok_or(ReportError::Unknown)?;
        joined.heard = now;
        let leaving = joined.leaving;
        let served = report.versions.iter().map(|(shard, _)| *shard);
        joined.holds = served.filter(|shard| !report.leaving.contains(shard)).collect();
        let serves = joined.holds.clone();
        let kept = report.versions.iter().filter(|(shard, _)| report.leaving.contains(shard));
        joined.kept = kept.copied().collect();
        for (shard, version) in &report.versions {
            let index = *shard as usize;
            let Some(holder) = self.holders.get_mut(index) else { continue };
            // A move whose confirmation was lost with its sender.
            let arrived = match holder {
                Holder::Nobody => serves.contains(shard) && !self.savings.whole,
                Holder::Moving { from, to, .. } => {
                    serves.contains(shard)
                        && *to == report.pod_uid
                        && !self.joined.contains_key(from)
                }
                Holder::At(_) => false,
            };
            if arrived && !self.moving {
                *holder = Holder::At(report.pod_uid.clone());
            }
            // What another has been given since is old here.
            if matches!(holder, Holder::Moving { .. })
                || *holder == Holder::At(report.pod_uid.clone())
            {
                self.versions[index] = self.versions[index].max(*version);
            }
        }
        let elsewhere = self.elsewhere(&report.pod_uid, &report.versions);
        self.find_lacking(&report.pod_uid, now);
        let holds = self.needs(report, &serves);
        if self.dismisses() || (leaving && !holds) {
            if let Some(joined) = self.joined.get_mut(&report.pod_uid) {
                joined.stopped = true;
            }
            return Ok(ServerOrder { wanted: false, settled, elsewhere });
        }
        Ok(ServerOrder { wanted: true, settled, elsewhere })
    }

    /// Whether this server, which serves these shards, has any that the job has nowhere else.
    fn needs(&self, report: &ServerReport, serves: &BTreeSet<u32>) -> bool {
        if self.facts.is_none() {
            // Until a trainer has said what the model is, nobody's shards are looked at: whatever a server
            // has may be all that there is.
            return self.unchecked.contains_key(&report.pod_uid) || !report.versions.is_empty();
        }
        let mut holders = self.holders.iter().enumerate();
        holders.any(|(shard, holder)| match holder {
            Holder::Nobody => serves.contains(&(shard as u32)),
            Holder::At(pod) => *pod == report.pod_uid,
            Holder::Moving { from, to, .. } => [from, to].contains(&&report.pod_uid),
        })
    }

    /// A trainer says that it lives. Whether it is wanted.
    pub fn alive(&mut self, report: &TrainerReport, now: Instant) -> Result<bool, ReportError> {
        self.check_trainer(report)?;
        let given = Task::of(report.doing).map(|task| self.may_be_at(task));
        let dismissed = self.dismisses();
        let joined = self.joined.get_mut(&report.pod_uid).ok_or(ReportError::Unknown)?;
        joined.heard = now;
        joined.doing = report.doing;
        if matches!(report.doing, Doing::Training(_)) {
            let since = now.checked_sub(Duration::from_millis(report.milliseconds));
            joined.pulled = joined.pulled.max(since);
        }
        joined.stalled = given.filter(|given| Duration::from_millis(report.milliseconds) > *given);
        joined.stopped |= dismissed;
        Ok(!dismissed)
    }

    /// A trainer that has no parts in hand reports and asks for work.
    #[cfg(test)]
    pub fn work(&mut self, asked: &NextWork, now: Instant) -> Result<Work, ReportError> {
        self.work_beside(asked, None, now)
    }

    /// A trainer reports and asks for work besides what it has in hand.
    pub fn work_beside(
        &mut self,
        asked: &NextWork,
        held: Option<&Held>,
        now: Instant,
    ) -> Result<Work, ReportError> {
        self.check_work(asked)?;
        self.check_in_hand(held)?;
        let uid = &asked.pod_uid;
        let joined = self.joined.get_mut(uid).ok_or(ReportError::Unknown)?;
        joined.heard = now;
        joined.doing = Doing::Waiting;
        joined.stalled = None;
        joined.map_epoch = asked.map_epoch;
        joined.batches = joined.batches.saturating_add(asked.done.len() as u64);
        joined.given = None;
        let given = std::mem::take(&mut joined.steps);
        // Who computes gradients has pulled what it computes them from.
        joined.no_copy &= asked.done.is_empty();
        if let Some(last) = asked.done.last() {
            // A batch begins with it.
            let since = now.checked_sub(Duration::from_secs_f32(last.seconds));
            joined.pulled = joined.pulled.max(since);
        }
        let leaving = joined.leaving;
        let first = asked.done.first().filter(|_| !joined.warm);
        joined.warm |= first.is_some();
        let first = first.map(|batch| Duration::from_secs_f32(batch.seconds));
        if let Some(took) = first {
            self.has_been_at(Task::Batch, took);
        }
        let is_own = |step: u64| given.contains(&step) || self.holds_parts_of(uid, step);
        let counts = |progress: &&Progress| !self.only_own || is_own(progress.step);
        let done: Vec<Progress> = asked.done.iter().filter(counts).copied().collect();
        let together = self.is_synchronous();
        if let Some(plan) = &mut self.plan {
            for progress in &done {
                self.given_again.remove(&progress.step);
                if plan.finish(progress.step) {
                    self.failures = 0;
                    self.replace_after = None;
                    self.book.step(progress, now);
                } else if together {
                    self.book.joins(progress);
                }
            }
            // Who asks has nothing in hand: what else it was given never reached it.
            plan.abandon(uid);
        }
        self.asks_at_barrier(asked, &done, held, now);
        let asked_for = self.evaluating.take_if(|one| one.trainer == *uid);
        let mut reached = false;
        if let Some(asked_for) = asked_for {
            // One that did not succeed is tried again later, by whoever asks then.
            self.evaluated_at = Some(now);
            // A report that comes twice tells of what was evaluated before.
            let is_of_it = asked.evaluation == Some(asked_for.number);
            if let Some(evaluated) = asked.evaluated.filter(|_| is_of_it) {
                let took = now.duration_since(asked_for.since);
                self.evaluation_took = Some(took);
                self.evaluations_late = 0;
                self.has_been_at(Task::Evaluation, took);
                self.book.evaluated(evaluated);
                reached = asked_for.last;
            }
        }
        self.check_end(reached, now);
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

    /// `reached`: the parameters have been evaluated after the last step.
    pub(super) fn check_end(&mut self, reached: bool, now: Instant) {
        let Some(plan) = &self.plan else { return };
        if self.ended() {
            return;
        }
        let stop = self.spec.stop;
        let converged = self.book.reached(&stop, plan.batches(), plan.epochs_done());
        if self.final_evaluation && reached {
            self.finish(now);
        } else if plan.is_complete() || converged {
            self.final_evaluation = true;
        }
    }

    pub(super) fn order_for(
        &mut self,
        uid: &str,
        leaving: bool,
        map: &ShardMap,
        now: Instant,
    ) -> Order {
        if self.dismisses() || leaving && !self.holds_parts(uid) {
            return Order::Stop;
        }
        if leaving {
            // Not amid a step: what it has pushed may have to be pushed again.
            return Order::Wait { milliseconds: 20 };
        }
        if self.ended() || self.is_finishing() {
            // Those who could end the job again wait until its object says that it has ended.
            return Order::Wait { milliseconds: 50 };
        }
        if map.shards.is_empty() {
            return Order::Wait { milliseconds: 20 };
        }
        if self.phase == Phase::Pending && self.steps() == 0 && !self.has_minimum() {
            return Order::Wait { milliseconds: 50 };
        }
        self.give_up_evaluation(now);
        let due = self.evaluated_at.is_none_or(|at| now.duration_since(at) > EVALUATE_EVERY);
        // What is evaluated for the last time, and saved, is what all shards have: a gradient that came meanwhile would
        // be in some of them.
        let may = if self.final_evaluation { self.is_at_rest() } else { due && self.steps() > 0 };
        if self.evaluating.is_none() && may && !self.holds_parts(uid) {
            let last = self.final_evaluation;
            self.evaluations += 1;
            let number = self.evaluations;
            self.evaluating =
                Some(Evaluation { number, trainer: uid.to_owned(), since: now, last });
            return Order::Evaluate { number };
        }
        if self.is_synchronous() {
            return self.order_at_barrier(uid, now);
        }
        let again = self.overdue_batches(uid, now);
        if !again.is_empty() {
            if let Some(joined) = self.joined.get_mut(uid) {
                joined.steps = again.iter().map(|batch| batch.step).collect();
            }
            return Order::Train(again);
        }
        if self.final_evaluation {
            return Order::Wait { milliseconds: 50 };
        }
        let limit =
            (GRANT_SECONDS / self.book.seconds_per_batch()).clamp(1.0, LARGEST_GRANT as f64);
        let trainers = self.size().trainers.max(1) as usize;
        let limit = match self.may_take(uid, limit as usize) {
            Ok(limit) => limit,
            Err(wait) => return wait,
        };
        let Some(plan) = &mut self.plan else { return Order::Wait { milliseconds: 50 } };
        // Towards the end the rest is shared out, so that nobody waits long for the last batch.
        let rest =
            plan.total().map_or(usize::MAX, |total| (total.saturating_sub(plan.done())) as usize);
        let batches = plan.take(uid, limit.min(rest.div_ceil(2 * trainers)).max(1));
        if batches.is_empty() {
            return Order::Wait { milliseconds: 20 };
        }
        if let Some(joined) = self.joined.get_mut(uid) {
            joined.given = Some(now);
            joined.steps = batches.iter().map(|batch| batch.step).collect();
        }
        if self.phase == Phase::Pending {
            self.begins_running();
        }
        Order::Train(batches)
    }

    pub(super) fn begins_running(&mut self) {
        self.phase = Phase::Running;
        self.remark(false, "Started", "the first trainer has begun".to_owned());
    }

    /// Whether no trainer has a batch in hand.
    fn is_at_rest(&self) -> bool {
        self.plan.as_ref().is_none_or(DataPlan::is_at_rest)
    }

    /// Waits no more for the evaluation that was ordered, where it is overdue. The next is waited for twice as long as
    /// long as none has come: else one that takes longer than the first limit would be ordered for ever.
    fn give_up_evaluation(&mut self, now: Instant) {
        let Some(one) = &self.evaluating else { return };
        let Some(trainer) = self.joined.get(&one.trainer) else {
            self.evaluating = None;
            return;
        };
        let took = self.evaluation_took;
        let limit = if trainer.doing == Doing::Evaluating {
            // How long the first one takes nobody can know.
            took.map_or(STALLED, |took| LONG_EVALUATION.max(took * LONG_EVALUATIONS))
        } else {
            took.map_or(EVALUATION, |took| EVALUATION.max(took * 3))
        };
        let limit = limit.saturating_mul(1 << self.evaluations_late.min(20)).min(limit.max(LATEST));
        if now.duration_since(one.since) > limit {
            self.evaluating = None;
            self.evaluations_late = self.evaluations_late.saturating_add(1);
        }
    }

    /// How long a trainer may be at one thing.
    fn may_be_at(&self, task: Task) -> Duration {
        let usual = Duration::from_secs_f64(self.book.seconds_per_batch().min(1e6));
        let usual = match task {
            Task::Batch => usual * STALLED_BATCHES,
            Task::Evaluation => {
                let took = self.evaluation_took.unwrap_or_default();
                took.saturating_mul(LONG_EVALUATIONS).max(usual * STALLED_BATCHES)
            }
        };
        self.stalls.get(&task).copied().unwrap_or(STALLED).max(usual)
    }

    /// A trainer has been at this for so long: the next is given twice that, if it is more than at first.
    fn has_been_at(&mut self, task: Task, took: Duration) {
        let next = took.saturating_mul(2).min(LATEST);
        if next > STALLED {
            self.stalls.insert(task, next);
        } else {
            self.stalls.remove(&task);
        }
    }

    /// One has been at this for longer than it was `given`: the next is given twice the time. How much that is.
    pub(super) fn give_longer(&mut self, task: Task, given: Duration) -> Duration {
        // Those that began together were given the same.
        let longer = given.saturating_mul(2).min(LATEST);
        let next = self.stalls.entry(task).or_insert(longer);
        *next = longer.max(*next);
        *next
    }

    /// Batches that others were given long ago, for this trainer to do as well: one that hangs, however
    /// alive it is, holds up nothing.
    fn overdue_batches(&mut self, uid: &str, now: Instant) -> Vec<Batch> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let usual = Duration::from_secs_f64(self.book.seconds_per_batch().min(1e6));
        let overdue = |since: Instant, batches: usize| {
            let limit = OVERDUE.max(usual * OVERDUE_BATCHES * batches as u32);
            now.duration_since(since) > limit
        };
        let mut again = Vec::new();
        for (other, one) in self.joined.iter().filter(|(other, _)| *other != uid) {
            let Some(since) = one.given.filter(|since| overdue(*since, 1)) else { continue };
            let theirs = plan.in_work(other);
            if !overdue(since, theirs.len()) {
                continue;
            }
            let due = |batch: &Batch| match self.given_again.get(&batch.step) {
                Some(since) => overdue(*since, theirs.len()),
                None => true,
            };
            again.extend(theirs.iter().copied().filter(due));
            if !again.is_empty() {
                break;
            }
        }
        for batch in &again {
            self.given_again.insert(batch.step, now);
        }
        again
    }
}
