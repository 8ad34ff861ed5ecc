//! What is done when shards are nowhere: which copies of them there are, and what becomes of a job of whose
//! parameters nobody has any.

use super::membership::SILENCE;
use super::shards::REUNION;
use super::{Action, Holder, State};
use crate::training_job::pods::Seen;
use impresario_client::protocol::training::Member;
use std::time::Instant;

impl State {
    /// The trainer of this move has nothing to give. When nobody has, and no server has kept a part
    /// either, the job begins anew rather than go on with values that only look trained; where a part
    /// was kept, the rest begins with initial values and the job says what that cost.
    pub fn has_no_copy(&mut self, action: &Action, now: Instant) {
        if let Action::Restore { .. } = action {
            self.cannot_restore(action, now);
        }
        let Action::Provide { from, .. } = action else { return };
        for one in self.joined.values_mut().filter(|one| one.place == *from) {
            one.no_copy = true;
        }
        self.settle_copies(now);
    }

    /// What becomes of shards of which nobody has a copy, as soon as that is certain.
    pub(super) fn settle_copies(&mut self, now: Instant) {
        let trainers = || self.joined.values().filter(|one| one.member == Member::Trainer);
        let nobody_has = trainers().count() > 0 && trainers().all(|one| one.no_copy);
        let missing = self.holders.contains(&Holder::Nobody);
        if !self.savings.whole && self.holders.iter().all(|holder| *holder == Holder::Nobody) {
            // The parts that these were to replace the rest of are gone as well: it is decided anew.
            (self.initial_values, self.savings.restoring) = (false, None);
        }
        if !missing {
            self.savings.forget_found();
        }
        let decided = self.initial_values || self.savings.restoring.is_some();
        if self.steps() == 0 || decided || !missing || !nobody_has {
            return;
        }
        // One that is on its way back may have a copy.
        let returns = |pod: &Seen| match self.absent.get(&pod.uid) {
            Some(absent) => now.duration_since(absent.since) <= SILENCE,
            None => now.duration_since(self.started) <= REUNION,
        };
        let is_awaited = |pod: &Seen| {
            let is_there = self.joined.contains_key(&pod.uid);
            pod.member == Member::Trainer && pod.may_run() && !is_there && returns(pod)
        };
        if !self.over() && self.pods.values().any(is_awaited) {
            return;
        }
        if self.take_kept() || self.take_back(now) {
            return;
        }
        if self.holders.iter().all(|holder| *holder == Holder::Nobody) {
            self.begin_anew();
        } else {
            self.initial_values = true;
        }
    }

    fn begin_anew(&mut self) {
        let lost = self.steps();
        self.start_over();
        let message = format!(
            "all parameter servers and every trainer's copy are gone: {lost} steps are trained again"
        );
        self.remark(true, "TrainingBeginsAnew", message);
    }

    /// A server that handed shards on has them still, as they were then, and they are nowhere else by now:
    /// they are served there again. Whether there were any.
    fn take_kept(&mut self) -> bool {
        let (mut kept, mut lost) = (0, 0);
        for (pod, one) in &self.joined {
            for (shard, version) in &one.kept {
                let index = *shard as usize;
                let (Some(holder), Some(known)) =
                    (self.holders.get_mut(index), self.versions.get_mut(index))
                else {
                    continue;
                };
                if *holder != Holder::Nobody {
                    continue;
                }
                // Towards nobody: it is told to keep it.
                let (from, to) = (pod.clone(), String::new());
                *holder = Holder::Moving { from, to, epoch: self.epoch };
                lost = lost.max(known.saturating_sub(*version));
                *known = *version;
                kept += 1;
            }
        }
        if kept > 0 {
            let message = format!(
                "{kept} shards were replaced by what a server had kept of them; that cost {lost} steps"
            );
            self.remark(true, "ParametersRestored", message);
        }
        kept > 0
    }
}
