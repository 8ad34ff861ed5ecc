//! Steps that trainers compute together.
//!
//! The batch of a step is cut into parts, as many whoever is there. A trainer that asks gets its share of those that
//! nobody has, and holds them until every shard has applied the step: so who has come or gone is seen at the next
//! step, and the parameters are those of the batches alone. A part whose trainer is gone is given to the next that
//! asks. Beside those who have their share so many as the job has backups compute what others have not finished.

use super::barrier::{Barrier, Given};
use super::work::{OVERDUE, OVERDUE_BATCHES};
use super::{Phase, State};
use crate::training_job::spec::Mode;
use impresario_client::protocol::training::{Held, Member, NextWork, Order, Progress};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Who holds steps in the plan: no pod is called so.
const TOGETHER: &str = "";
/// How long a trainer waits that has nothing to do before the next step.
const WAIT: Order = Order::Wait { milliseconds: 20 };

impl State {
    /// Whether trainers compute each step together.
    pub(super) fn is_synchronous(&self) -> bool {
        matches!(self.spec.mode, Mode::Synchronous { .. })
    }

    /// Whether this trainer has parts in hand of the step that is being computed.
    pub(super) fn holds_parts(&self, uid: &str) -> bool {
        self.barrier.as_ref().is_some_and(|barrier| barrier.given.contains_key(uid))
    }

    /// Whether this trainer was given parts of this step, which is being computed.
    pub(super) fn holds_parts_of(&self, uid: &str, step: u64) -> bool {
        self.barrier.as_ref().is_some_and(|one| one.batch.step == step) && self.holds_parts(uid)
    }

    /// A trainer asks. `done` is what counts of what it has done: the plan knows of that, and of nothing else.
    pub(super) fn asks_at_barrier(
        &mut self,
        asked: &NextWork,
        done: &[Progress],
        held: Option<&Held>,
        now: Instant,
    ) {
        let is_done = |step: u64| done.iter().any(|progress| progress.step == step);
        if self.barrier.as_ref().is_some_and(|barrier| is_done(barrier.batch.step)) {
            // Who has done it was told so by every shard.
            self.barrier = None;
        }
        let Some(barrier) = &mut self.barrier else { return };
        let step = barrier.batch.step;
        // What it does not name never reached it: an answer can be lost or come too late.
        match held.filter(|held| held.step == step && !asked.returned.contains(&step)) {
            Some(held) => barrier.holds(&asked.pod_uid, held, now),
            None => barrier.release(&asked.pod_uid),
        }
    }

    /// A trainer is gone.
    pub(super) fn leaves_barrier(&mut self, uid: &str) {
        if let Some(barrier) = &mut self.barrier {
            barrier.release(uid);
        }
    }

    /// What a trainer computes next, of a job whose trainers compute each step together.
    pub(super) fn order_at_barrier(&mut self, uid: &str, now: Instant) -> Order {
        let Mode::Synchronous { backup, parts } = self.spec.mode else { return WAIT };
        if self.barrier.is_none() {
            if self.final_evaluation {
                return Order::Wait { milliseconds: 50 };
            }
            let Some(plan) = &mut self.plan else { return WAIT };
            let Some(batch) = plan.take(TOGETHER, 1).pop() else { return WAIT };
            self.book.is_synchronous(self.facts.as_ref().map_or(1, |facts| facts.batch));
            self.barrier = Some(Barrier::new(batch, parts));
            if self.phase == Phase::Pending {
                self.begins_running();
            }
        }
        let evaluating = self.evaluating.as_ref().map(|one| one.trainer.as_str());
        let computes = self.joined.iter().filter(|(other, one)| {
            let is_there = one.member == Member::Trainer && !one.leaving;
            is_there && evaluating != Some(other.as_str())
        });
        let primary = (computes.count() as u32).saturating_sub(backup).max(1);
        let usual = Duration::from_secs_f64(self.book.seconds_per_batch().min(1e6));
        let overdue = OVERDUE.max(usual.saturating_mul(OVERDUE_BATCHES));
        let Some(barrier) = &mut self.barrier else { return WAIT };
        if !barrier.todo.is_empty() {
            let share = barrier.of.div_ceil(primary) as usize;
            let share: BTreeSet<u32> = barrier.todo.iter().take(share).copied().collect();
            barrier.todo.retain(|part| !share.contains(part));
            return barrier.give(uid, share, now);
        }
        let is_free = barrier.backups.len() < backup as usize && !barrier.given.contains_key(uid);
        let may = |given: &Given, is_backup: bool| {
            is_free && !is_backup || now.duration_since(given.since) > overdue
        };
        let Some(other) = barrier.unfinished(uid, may) else { return WAIT };
        let Some(given) = barrier.given.get_mut(&other) else { return WAIT };
        let theirs = given.parts.clone();
        if !is_free {
            // The next one takes them after as long again.
            given.since = now;
        }
        barrier.backups.insert(uid.to_owned(), other);
        barrier.give(uid, theirs, now)
    }
}
