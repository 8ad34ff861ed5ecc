//! How many members the job has: its bids, the auction's orders, and the pods that follow from them.

use super::shards::REUNION;
use super::{Action, FIRST_REASON, Holder, ScaleEvent, State};
use crate::training::data_plan::DataPlan;
use crate::training_job::pods::Seen;
use impresario_client::protocol::training::{Bid, Member, Scale, ScaleError, Size, StaleLease};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A job that waits for the same says so anew, with other amounts, no sooner.
const TOLD_AGAIN: Duration = Duration::from_mins(1);
/// How long members of a job that has ended have to stop by themselves.
const GOODBYE: Duration = Duration::from_secs(30);

impl State {
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

    /// Relative standard deviation of that: none where the data plan ends before anything that is predicted.
    fn remaining_uncertainty(&self) -> f64 {
        let batches = self.plan.as_ref().map_or(1, DataPlan::batches);
        let rest = self.total_steps().map(|total| total.saturating_sub(self.steps()) as f64);
        let (stop, done) = (&self.spec.stop, self.steps());
        let predicted = self.book.remaining_steps(stop, batches, done);
        match (rest, predicted) {
            (Some(rest), predicted) if predicted.is_none_or(|predicted| rest <= predicted) => 0.0,
            _ => self.book.remaining_uncertainty(stop, batches, done),
        }
    }

    /// The bid for a round; none from a job that has ended.
    pub fn bid(
        &self,
        namespace: &str,
        name: &str,
        created_unix_seconds: i64,
        now: Instant,
    ) -> Option<Bid> {
        if self.over() {
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
        let min = self.spec.min();
        let complete =
            current.parameter_servers >= min.parameter_servers && current.trainers >= min.trainers;
        let granted = self.granted.filter(|_| !complete);
        let (rescale_seconds, rescale_uncertainty) = self.book.rescale_seconds();
        Some(Bid {
            job: self.job.clone(),
            lease: self.lease,
            incomplete_seconds: granted.map_or(0, |at| now.duration_since(at).as_secs()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            created_unix_seconds,
            // Without any prediction the job is taken to have as much before it as behind it.
            remaining_steps: self
                .remaining_steps()
                .unwrap_or_else(|| self.steps().max(1_000) as f64),
            remaining_uncertainty: self.remaining_uncertainty(),
            done_steps: self.steps(),
            speed: self.book.speed_model(),
            speed_uncertainty: self.book.speed_uncertainty(),
            measured_trainers: self.book.measured_trainers(),
            current,
            wanted: self.wanted,
            min,
            // It grows once it knows how fast it is.
            max: if self.book.is_measured() {
                self.spec.max()
            } else {
                self.spec.allowed(self.wanted)
            },
            parameter_server: self.spec.parameter_server.resources.clone(),
            trainer: self.spec.trainer.resources.clone(),
            rescale_seconds,
            rescale_uncertainty,
        })
    }

    /// The auction has decided.
    pub fn scale(&mut self, scale: &Scale, now: Instant) -> Result<(), ScaleError> {
        if self.over() {
            return Err(ScaleError::Ended);
        }
        for (given, current) in [(scale.lease, self.lease), (scale.scheduler, self.scheduler)] {
            if given < current {
                return Err(StaleLease { given, current }.into());
            }
        }
        if scale.lease > self.lease {
            // Somebody else runs the job: this activation has heard it first from the auction.
            return Err(ScaleError::InDoubt);
        }
        if scale.scheduler == self.scheduler && scale.round < self.round {
            return Err(ScaleError::Stale { current: self.round });
        }
        let nothing = scale.size == Size::default();
        // What has been trained is in the members: a job that has begun keeps them.
        if nothing && self.has_begun() || !nothing && self.spec.allowed(scale.size) != scale.size {
            return Err(ScaleError::OutOfRange);
        }
        (self.scheduler, self.round) = (scale.scheduler, scale.round);
        if nothing {
            self.wait_for(&scale.reason, now);
        } else if self.wanted != scale.size {
            self.noted_round = self.round;
            self.granted.get_or_insert(now);
            let first = self.noted_size().is_none() && scale.size == self.spec.min();
            self.order(scale.size, if first { FIRST_REASON } else { &scale.reason });
        }
        self.settle_size(now);
        Ok(())
    }

    /// Whether anything has been trained, or is being.
    fn has_begun(&self) -> bool {
        self.steps() > 0 || self.plan.as_ref().is_some_and(|plan| !plan.is_untouched())
    }

    /// The minimum cannot be had: nothing is held meanwhile, so that another job may have it.
    fn wait_for(&mut self, missing: &str, now: Instant) {
        // The numbers change with every pod that comes or goes.
        let numbers = self.waiting != missing
            && self.waiting_told.is_none_or(|at| now.duration_since(at) >= TOLD_AGAIN);
        if self.wanted != Size::default() || !is_like(&self.waiting, missing) || numbers {
            self.remark(true, "Waiting", format!("the job waits for its minimum: {missing}"));
            missing.clone_into(&mut self.waiting);
            self.waiting_told = Some(now);
            self.noted_round = self.round;
        }
        self.wanted = Size::default();
        self.granted = None;
    }

    /// Another size is wanted from now on, for this reason.
    pub(super) fn order(&mut self, size: Size, reason: &str) {
        self.wanted = size;
        reason.clone_into(&mut self.reason);
        self.remark(false, "Scaling", format!("to {}: {reason}", in_words(size)));
    }

    /// The size that was noted last.
    fn noted_size(&self) -> Option<Size> {
        self.scale_events.last().map(|event| event.size).or(self.last_size)
    }

    /// Notes a size that has been reached.
    pub(super) fn settle_size(&mut self, now: Instant) {
        let size = self.size();
        self.book.size_is(size, now);
        if size == self.wanted && size != Size::default() && self.noted_size() != Some(size) {
            let reason = self.reason.clone();
            self.remark(false, "Scaled", format!("{} now: {reason}", in_words(size)));
            self.scale_events.push(ScaleEvent { at: now, size, reason });
        }
    }

    /// Notes that a member was lost. What comes in its place has a reason of its own, unless the job is on its
    /// way to another size anyhow.
    pub(super) fn note_loss(&mut self, whole: bool, what: &str, now: Instant) {
        let size = self.size();
        self.book.size_is(size, now);
        if whole {
            self.scale_events.push(ScaleEvent {
                at: now,
                size,
                reason: format!("{what} was lost"),
            });
            self.reason = format!("{what} that was lost is replaced");
        }
    }

    pub(super) fn reconcile_pods(&mut self, now: Instant) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        if self.over() {
            actions.extend(self.stragglers(now).map(delete));
            return actions;
        }
        // What ended well was not needed any more; what failed is kept for its logs until the end.
        let done = self.pods.values().filter(|pod| pod.ended == Some(true) && !pod.deleting);
        actions.extend(done.map(delete));
        for member in [Member::ParameterServer, Member::Trainer] {
            let wanted = match member {
                Member::ParameterServer => self.wanted.parameter_servers,
                Member::Trainer => self.wanted.trainers,
            } as usize;
            let held = self.shards_of_each();
            let mut living: Vec<(bool, bool, usize, String, String)> = self
                .pods
                .values()
                .filter(|pod| pod.member == member && pod.lives())
                .filter(|pod| !self.joined.get(&pod.uid).is_some_and(|one| one.leaving))
                .map(|pod| {
                    let joined = self.joined.contains_key(&pod.uid);
                    let shards = held.get(pod.uid.as_str()).copied().unwrap_or(0);
                    (joined, pod.bound, shards, pod.name.clone(), pod.uid.clone())
                })
                .collect();
            // Who has the least goes first.
            living.sort();
            let surplus = living.len().saturating_sub(wanted);
            for (joined, _, _, name, uid) in living.drain(..surplus) {
                let returns = self.may_come_back(&uid, now);
                // Nor can what it has be handed on before a trainer has said what the model is.
                let stays = self.unchecked.contains_key(&uid);
                match self.joined.get_mut(&uid) {
                    Some(_) if joined && stays => {}
                    Some(one) if joined => {
                        one.leaving = true;
                        if member == Member::Trainer {
                            actions.push(Action::Leave(one.place.clone()));
                        }
                    }
                    _ if returns => {}
                    _ => actions.push(Action::DeletePod { name, uid }),
                }
            }
            let missing = wanted.saturating_sub(living.len());
            let expected = missing.min(self.expected.count(member, now));
            if self.may_create(now) {
                actions.extend((expected..missing).map(|_| Action::CreatePod(member)));
            }
        }
        self.settle_size(now);
        actions
    }

    /// How many shards each server has; until they can be looked at, how many it says that it has.
    fn shards_of_each(&self) -> BTreeMap<&str, usize> {
        let mut held: BTreeMap<&str, usize> =
            self.unchecked.iter().map(|(pod, shards)| (pod.as_str(), shards.len())).collect();
        for holder in &self.holders {
            if let Holder::At(pod) = holder {
                *held.entry(pod).or_default() += 1;
            }
        }
        held
    }

    /// Whether this member of an earlier activation is on its way to this one: it may have what was learned, and
    /// hands it on as soon as it has joined.
    fn may_come_back(&self, uid: &str, now: Instant) -> bool {
        let may_run = self.pods.get(uid).is_some_and(Seen::may_run);
        self.recalled.is_some() && may_run && now.duration_since(self.started) <= REUNION
    }

    /// Pods of a job that has ended and holds nothing any more: those that never ran, and those that
    /// do not stop. Those that ended are kept for their logs.
    fn stragglers(&self, now: Instant) -> impl Iterator<Item = &Seen> {
        let late = self.end_written.is_some_and(|at| now.duration_since(at) > GOODBYE);
        let written = self.end_written.is_some();
        self.pods.values().filter(move |pod| pod.lives() && written && (late || !pod.bound))
    }
}

fn delete(pod: &Seen) -> Action {
    Action::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() }
}

/// Whether the same is missing, however much of it.
fn is_like(missing: &str, other: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(missing) == words(other)
}

/// A size as people say it.
fn in_words(size: Size) -> String {
    let many =
        |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{} and {}",
        many(size.parameter_servers, "parameter server"),
        many(size.trainers, "trainer")
    )
}
