//! What a job takes back of what it has saved: when it begins, and when nobody has a copy of its parameters any more.

use super::savings::{Search, is_whole, shortened};
use super::{Action, Holder, State};
use crate::training::data_plan::DataPlan;
use crate::training_job::progress::ProgressBook;
use impresario_client::protocol::training::{
    Checkpoint, LookForCheckpoint, Looked, Place, ShardRange,
};
use std::time::Instant;

/// So many checkpoints that a server has passed over are told of.
const MOST_REFUSED: usize = 8;

impl State {
    /// Whether it is still open with which parameters the job begins.
    pub(super) fn is_beginning(&self) -> bool {
        self.spec.checkpoint.is_some() && !self.savings.begun && self.may_begin()
    }

    /// Whether nobody has any parameters, since nothing has been trained.
    pub(super) fn may_begin(&self) -> bool {
        let untouched = self.plan.as_ref().is_some_and(DataPlan::is_untouched);
        let nowhere = self.holders.iter().all(|holder| *holder == Holder::Nobody);
        untouched && nowhere && self.steps() == 0
    }

    /// The job's own folder cannot be read. Where nothing was ever saved nothing is missed: the job begins without,
    /// and people know that nothing is saved. Otherwise it waits.
    pub(super) fn cannot_look(&mut self) {
        if self.savings.newest.is_some() {
            return;
        }
        let rule = self.spec.checkpoint.as_ref();
        let resumes = rule.is_some_and(|rule| rule.resume_from.is_some());
        if self.savings.begun {
            self.savings.search = Search::Done(None);
        } else if resumes {
            self.savings.search = Search::Other;
        } else {
            self.savings.begun = true;
            self.savings.search = Search::Idle;
        }
    }

    pub(super) fn has_looked(&mut self, order: &LookForCheckpoint, looked: Looked, now: Instant) {
        for (path, why) in looked.refused.iter().filter(|_| order.verify).take(MOST_REFUSED) {
            let message = format!("{} was passed over: {}", shortened(path), shortened(why));
            self.remark(true, "CheckpointRefused", message);
        }
        let own = order.uid.is_some();
        if own {
            self.savings.last = Some(looked.last);
        }
        let newest = looked.newest.filter(|one| is_whole(one, &order.folder));
        if !order.verify {
            // One whose completion was not heard of.
            if let Some(newest) = newest.filter(|one| one.step > self.savings.saved_steps) {
                self.savings.is_newest(&newest, now);
            }
            return;
        }
        let resume_from = self.spec.checkpoint.as_ref().and_then(|rule| rule.resume_from.as_ref());
        match (newest, resume_from) {
            (Some(newest), _) => self.savings.search = Search::Done(Some(newest)),
            // Also for one that has begun: rather those than initial values.
            (None, Some(_)) if own => self.savings.search = Search::Other,
            (None, Some(folder)) if !own => {
                // Who names one does not want to begin without.
                let why = format!(
                    "spec.checkpoint.resumeFrom: {folder} has no checkpoint that can be used: \
                     put one there, or take the field out"
                );
                self.saving_failed(&why, now);
                return;
            }
            (None, None) if own && self.is_missed(&order.folder, &looked.refused) => {
                let why = format!(
                    "spec.checkpoint.path: {} has no checkpoint of this job, and had one: see to it that the file \
                     system is mounted there, or take spec.checkpoint out to have the job begin anew",
                    order.folder
                );
                self.saving_failed(&why, now);
                return;
            }
            (None, _) => {
                (self.savings.search, self.savings.newest) = (Search::Done(None), None);
            }
        }
        self.savings.succeeded();
        self.begin_from_found(now);
    }

    /// Whether the newest checkpoint that is known of should be in this folder, and is not there at all: it is rather
    /// the folder that is another one.
    fn is_missed(&self, folder: &str, refused: &[(String, String)]) -> bool {
        let Some(newest) = &self.savings.newest else { return false };
        let is_refused = refused.iter().any(|(path, _)| *path == newest.path);
        newest.path.starts_with(&format!("{}/", folder.trim_end_matches('/'))) && !is_refused
    }

    /// Where the search was for the beginning, the job begins with what was found.
    pub(super) fn begin_from_found(&mut self, now: Instant) {
        if self.savings.begun || !matches!(self.savings.search, Search::Done(_)) {
            return;
        }
        let may_begin = self.may_begin();
        self.savings.begun = true;
        let Search::Done(Some(found)) = std::mem::take(&mut self.savings.search) else { return };
        let Some(plan) = self.plan.as_mut().filter(|_| may_begin && found.step > 0) else { return };
        plan.resume(found.done.clone());
        let message = format!("from {}, with step {}", found.path, found.step);
        self.remark(false, "Resumed", message);
        self.savings.is_newest(&found, now);
        self.savings.restoring = Some(found);
        self.savings.takes_whole();
    }

    /// Nobody has a copy of what is missing. Whether a checkpoint has, or may have: it is looked for, and what is
    /// there is taken from it.
    pub(super) fn take_back(&mut self, now: Instant) -> bool {
        if self.spec.checkpoint.is_none() {
            return false;
        }
        match std::mem::take(&mut self.savings.search) {
            Search::Done(None) => false,
            Search::Done(Some(found)) if found.step == 0 => false,
            Search::Done(Some(found)) => {
                self.go_back_to(found, now);
                true
            }
            Search::Idle => {
                self.savings.search = Search::Own;
                true
            }
            under_way => {
                self.savings.search = under_way;
                true
            }
        }
    }

    fn go_back_to(&mut self, found: Checkpoint, now: Instant) {
        self.savings.saving = None;
        if self.holders.iter().all(|holder| *holder == Holder::Nobody) {
            let lost = self.steps().saturating_sub(found.step);
            self.start_over();
            if let Some(plan) = &mut self.plan {
                plan.resume(found.done.clone());
            }
            self.savings.begun = true;
            self.savings.takes_whole();
            let message = format!(
                "all parameter servers and every trainer's copy are gone: the job goes on from {}, \
                 with step {}; that cost {lost} steps",
                found.path, found.step
            );
            self.remark(true, "ParametersRestored", message);
        }
        self.savings.is_newest(&found, now);
        self.savings.restoring = Some(found);
    }

    /// The plan and all that was learned about the job are those of the beginning again.
    pub(super) fn start_over(&mut self) {
        let Some(facts) = &self.facts else { return };
        // What members have from before is not of this plan: they join again.
        self.activation = self.activation.wrapping_add(1).max(1);
        self.plan = Some(DataPlan::new(facts.samples, facts.batch, self.spec.stop.epochs));
        (self.only_own, self.barrier) = (true, None);
        self.recalled = None;
        (self.recalled_loss, self.recalled_accuracy) = (None, None);
        self.claims.clear();
        self.final_evaluation = false;
        self.evaluating = None;
        self.given_again.clear();
        self.book = ProgressBook::default();
        self.versions.fill(0);
        (self.savings.saving, self.savings.finishing) = (None, None);
        (self.savings.begun, self.savings.saved_steps) = (false, 0);
    }

    /// The order by which a server takes shards back.
    pub(super) fn restoring(
        &self,
        to: &str,
        place: &Place,
        shards: &[ShardRange],
        epoch: u64,
    ) -> Option<Action> {
        let (to, place, shards) = (to.to_owned(), place.clone(), shards.to_vec());
        let checkpoint = self.savings.restoring.as_ref()?;
        let optimizer = self.facts.as_ref()?.optimizer;
        let (path, sha256) = (checkpoint.path.clone(), checkpoint.sha256.clone());
        Some(Action::Restore { to, place, shards, epoch, path, sha256, optimizer })
    }

    /// Shards have been taken back.
    pub(super) fn restored(
        &mut self,
        to: &str,
        shards: &[ShardRange],
        epoch: u64,
        arrived: &[(u32, u64)],
    ) {
        let mut lost = 0;
        for (shard, version) in arrived {
            if !shards.iter().any(|range| range.shard == *shard) {
                continue;
            }
            if let Some(known) = self.versions.get_mut(*shard as usize) {
                lost = lost.max(known.saturating_sub(*version));
                *known = *version;
            }
            self.arrived(*shard, to, epoch);
        }
        if lost > 0 {
            let message = format!(
                "{} shards were taken from a checkpoint; that cost {lost} steps",
                arrived.len()
            );
            self.remark(true, "ParametersRestored", message);
        }
        self.savings.succeeded();
        if !self.holders.contains(&Holder::Nobody) {
            (self.savings.restoring, self.savings.whole) = (None, false);
        }
    }

    /// A move has failed. Where it was to take shards back people hear why nothing goes on.
    pub fn restore_failed(&mut self, action: &Action, why: &str, now: Instant) {
        if matches!(action, Action::Restore { .. }) {
            self.saving_failed(why, now);
        }
    }

    /// Whether all shards are to come from one checkpoint, and some have not yet.
    pub fn is_restored(&self) -> bool {
        self.savings.whole
    }

    /// The object says this of whether all shards are being taken from one checkpoint. Before it says so none is taken:
    /// another activation would go on with what it finds, which may be a part of it.
    pub fn restoring_is_told(&mut self, told: bool) {
        self.savings.whole_told = told;
    }

    /// Whether shards may not be taken from the checkpoint yet, since the object does not say that they are.
    pub(super) fn is_restoring_untold(&self) -> bool {
        self.savings.whole && !self.savings.whole_told
    }

    /// Whether this order is about the checkpoint that shards are taken from now.
    pub(super) fn is_restored_by(&self, action: &Action) -> bool {
        let Action::Restore { path, sha256, .. } = action else { return false };
        let now = self.savings.restoring.as_ref();
        now.is_some_and(|one| one.path == *path && one.sha256 == *sha256)
    }

    /// What was to be taken back cannot be used after all: another is looked for. Where all was to come from it, what
    /// has come already goes with no other, and all is taken from that.
    pub(super) fn cannot_restore(&mut self, action: &Action, now: Instant) {
        if !self.is_restored_by(action) {
            return;
        }
        let Some(spoiled) = self.savings.restoring.take().filter(|_| self.savings.whole) else {
            return;
        };
        // A server takes what is ordered later than what it has.
        self.epoch += 1;
        self.holders.fill(Holder::Nobody);
        self.held_since.fill(self.epoch);
        self.start_over();
        let why = format!("{} cannot be used any more: another is looked for", spoiled.path);
        self.saving_failed(&why, now);
    }
}
