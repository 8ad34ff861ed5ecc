//! When the parameters are saved. What is taken back: `restoring`.
//!
//! A checkpoint is written beside the training: each shard as it is between two gradients, by the server that has it,
//! a few at a time; when all are there one of the servers gives the folder its name. Its steps are those that every
//! shard has; what a shard has beyond them is named in the manifest, and not applied again.

use super::membership::pause_share;
use super::savings::{Errand, Outcome, Saving, Search, is_hash, is_whole, shortened};
use super::{Phase, State};
use crate::training::checkpoint::temporary_name;
use crate::training_job::spec::CheckpointRule;
use impresario_client::protocol::training::{
    Checkpoint, CommitCheckpoint, Committed, LookForCheckpoint, Member, Place, SaveShards,
    SavedShard,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many values are written by one order: with what belongs to them these are 16 MiB.
const SAVED_VALUES: u64 = 1 << 20;
/// A checkpoint that is not complete by then is given up.
const SAVING: Duration = Duration::from_hours(1);
/// A job whose parameters cannot be saved at its end for so long has failed.
const LAST_SAVING: Duration = Duration::from_hours(1);

/// Whether this order looks for what the job can go on from among its own.
fn is_own_look(errand: &Errand) -> bool {
    matches!(errand, Errand::Look(_, order) if order.uid.is_some() && order.verify)
}

impl State {
    /// The newest checkpoint that is known of.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.savings.newest.as_ref()
    }

    /// The one that was written at the end.
    pub fn model(&self) -> Option<&Checkpoint> {
        self.savings.model.as_ref()
    }

    /// Why no checkpoint is written at the moment, if something is in the way.
    pub fn checkpoint_problem(&self) -> Option<&str> {
        self.savings.problem.as_deref().or(self.savings.not_started.as_deref())
    }

    /// Whether all steps are done and the parameters are still to be saved.
    pub(super) fn is_finishing(&self) -> bool {
        self.savings.finishing.is_some()
    }

    /// Nothing is left to train: what has been learned is saved, and then the job has ended.
    pub(super) fn finish(&mut self, now: Instant) {
        if self.spec.checkpoint.is_none() {
            self.succeed();
        } else {
            self.savings.finishing.get_or_insert(now);
        }
    }

    fn succeed(&mut self) {
        self.phase = Phase::Succeeded;
        self.savings.finishing = None;
        let accuracy = self.book.evaluation().map_or(0.0, |evaluated| evaluated.accuracy);
        let model = self.savings.model.as_ref();
        let place = model.map(|model| format!("; the model is in {}", model.path));
        let message = format!(
            "{} steps, accuracy {:.1} %{}",
            self.steps(),
            f64::from(accuracy) * 100.0,
            place.unwrap_or_default()
        );
        self.remark(false, "Completed", message);
    }

    /// The orders that are due. None while others are not answered.
    pub fn errands(&mut self, now: Instant) -> Vec<Errand> {
        let Some(rule) = self.spec.checkpoint.clone() else {
            if self.is_finishing() && !self.over() {
                // It was taken out of the object: nothing is waited for any more.
                self.succeed();
            }
            self.savings.saving = None;
            return Vec::new();
        };
        if self.over() || self.facts.is_none() || self.savings.is_held(now) {
            return Vec::new();
        }
        let late = |since: Instant, limit| now.duration_since(since) > limit;
        if self.savings.finishing.is_some_and(|since| late(since, LAST_SAVING)) {
            self.give_up();
            return Vec::new();
        }
        let Some(server) = self.server_to_ask() else { return Vec::new() };
        if !self.savings.begun {
            if !self.may_begin() {
                (self.savings.begun, self.savings.search) = (true, Search::Idle);
            } else if self.savings.search == Search::Idle {
                self.savings.search = Search::Own;
            }
        }
        let errands = match &self.savings.search {
            Search::Own => self.look(server, &rule.path, true, true),
            Search::Other => match &rule.resume_from {
                Some(folder) => self.look(server, folder, false, true),
                None => {
                    // It was taken out of the object: none is waited for any more.
                    self.savings.search = Search::Done(None);
                    self.savings.succeeded();
                    self.begin_from_found(now);
                    Vec::new()
                }
            },
            Search::Idle | Search::Done(_) => self.save(&rule, &server, now),
        };
        self.savings.under_way = !errands.is_empty();
        errands
    }

    /// The server that reads, and that completes a checkpoint: another one after each time that it did not go well,
    /// since the folder of one machine may hang and that of another not. Rather none that is leaving.
    fn server_to_ask(&self) -> Option<Place> {
        let servers = || self.joined.values().filter(|one| one.member == Member::ParameterServer);
        let stays = servers().filter(|one| !one.leaving).count();
        let mut among: Vec<_> = servers().filter(|one| stays == 0 || !one.leaving).collect();
        let turn = self.savings.failures() as usize % among.len().max(1);
        (turn < among.len()).then(|| among.swap_remove(turn).place.clone())
    }

    fn give_up(&mut self) {
        self.phase = Phase::Failed;
        self.savings.finishing = None;
        let why = self.savings.problem.clone().unwrap_or_default();
        self.remark(
            true,
            "TrainingFailed",
            format!("all steps are done and the model could not be saved: {why}"),
        );
    }

    pub(super) fn look(&self, at: Place, folder: &str, own: bool, verify: bool) -> Vec<Errand> {
        let Some(model) = self.facts.clone() else { return Vec::new() };
        let look = LookForCheckpoint {
            lease: self.lease,
            folder: folder.to_owned(),
            uid: own.then(|| self.job.clone()),
            activation: self.activation,
            verify,
            model,
            ranges: self.ranges.clone(),
        };
        vec![Errand::Look(at, look)]
    }

    /// What is next for the checkpoint that is due or is being written.
    fn save(&mut self, rule: &CheckpointRule, server: &Place, now: Instant) -> Vec<Errand> {
        if self.savings.saving.as_ref().is_some_and(|one| now.duration_since(one.since) > SAVING) {
            self.savings.saving = None;
            self.saving_failed("some shards were nowhere for an hour", now);
            return Vec::new();
        }
        if self.savings.saving.is_none() {
            if !self.savings.is_due(rule, self.steps(), self.started, now) {
                return Vec::new();
            }
            let Some(last) = self.savings.last else {
                return self.look(server.clone(), &rule.path, true, false);
            };
            let number = last + 1;
            self.savings.saving = Some(Saving {
                number,
                temporary: temporary_name(&self.job, self.activation, number),
                since: now,
                last: self.is_finishing(),
                saved: BTreeMap::new(),
            });
        }
        let Some(saving) = &self.savings.saving else { return Vec::new() };
        let left = saving.left(&self.ranges);
        if left.is_empty() {
            return self.commit(rule, server);
        }
        let folder = format!("{}/{}", rule.path.trim_end_matches('/'), saving.temporary);
        let mut orders: Vec<(Place, u64, Vec<u32>)> = Vec::new();
        for range in left {
            let Some(place) = self.place_of(&self.holders[range.shard as usize]) else { continue };
            match orders.iter_mut().find(|(other, ..)| *other == place) {
                Some((_, values, shards)) if *values + range.length <= SAVED_VALUES => {
                    shards.push(range.shard);
                    *values += range.length;
                }
                Some(_) => {}
                None => orders.push((place, range.length, vec![range.shard])),
            }
        }
        let lease = self.lease;
        let order = |(place, _, shards)| {
            Errand::Save(place, SaveShards { lease, folder: folder.clone(), shards })
        };
        orders.into_iter().map(order).collect()
    }

    fn commit(&self, rule: &CheckpointRule, server: &Place) -> Vec<Errand> {
        let (Some(saving), Some(facts)) = (&self.savings.saving, &self.facts) else {
            return Vec::new();
        };
        let commit = CommitCheckpoint {
            lease: self.lease,
            folder: rule.path.clone(),
            temporary: saving.temporary.clone(),
            number: saving.number,
            keep: rule.keep,
            // Its actor knows what people call it.
            job: String::new(),
            uid: self.job.clone(),
            model: facts.clone(),
            saved: saving.saved.values().cloned().collect(),
        };
        vec![Errand::Commit(server.clone(), Box::new(commit))]
    }

    /// All orders that were given have been answered.
    pub fn errands_end(&mut self, answers: Vec<(Errand, Outcome)>, now: Instant) {
        self.savings.under_way = false;
        for (errand, outcome) in answers {
            match (errand, outcome) {
                (Errand::Look(_, order), Outcome::Looked(looked)) => {
                    self.has_looked(&order, looked, now);
                }
                (Errand::Save(_, order), Outcome::Saved(saved)) => {
                    if !self.has_saved(&order, saved) {
                        let why = "a parameter server has written none of the shards that it was asked for";
                        self.unreached(why, now);
                    }
                }
                (Errand::Commit(_, order), Outcome::Committed(committed)) => {
                    self.has_committed(&order, committed, now);
                }
                (Errand::Commit(..), Outcome::Unreached(_)) => {
                    // It may be there or not.
                    (self.savings.saving, self.savings.last) = (None, None);
                    self.savings.delayed(pause_share(&self.job), now);
                }
                (errand, Outcome::Unreached(why)) => {
                    // A folder that hangs is one that cannot be read.
                    if self.unreached(&why, now) && is_own_look(&errand) {
                        self.cannot_look();
                    }
                }
                (errand, Outcome::Failed(why)) => {
                    if let Errand::Commit(..) = errand {
                        // Whatever it was: the next is begun anew, with what the folder has by then.
                        (self.savings.saving, self.savings.last) = (None, None);
                    }
                    self.saving_failed(&why, now);
                    if is_own_look(&errand) {
                        self.cannot_look();
                    }
                }
                (_, _) => self.saving_failed("a parameter server gave another answer", now),
            }
        }
    }

    pub(super) fn saving_failed(&mut self, why: &str, now: Instant) {
        let why = shortened(why);
        if self.savings.failed(&why, pause_share(&self.job), now) {
            self.remark(true, "CheckpointFailed", format!("{why}: it is tried again"));
        }
    }

    /// Nobody has done it. People are told where it has been so for long. Whether it has.
    fn unreached(&mut self, why: &str, now: Instant) -> bool {
        let for_long = self.savings.delayed(pause_share(&self.job), now);
        if for_long {
            self.saving_failed(why, now);
        }
        for_long
    }

    /// Whether any of what was ordered has been written: who is asked again at once must have brought something.
    fn has_saved(&mut self, order: &SaveShards, saved: Vec<SavedShard>) -> bool {
        let Some(saving) = &mut self.savings.saving else { return true };
        let before = saving.saved.len();
        for one in saved {
            let shard = one.range.shard;
            let is_ours = self.ranges.get(shard as usize) == Some(&one.range);
            let is_whole = is_hash(&one.sha256) && one.version <= one.applied.count();
            if is_ours && is_whole && order.shards.contains(&shard) {
                saving.saved.insert(shard, one);
            }
        }
        saving.saved.len() > before
    }

    fn has_committed(&mut self, order: &CommitCheckpoint, committed: Committed, now: Instant) {
        let Some(saving) = self.savings.saving.take_if(|one| one.number == order.number) else {
            // It was begun before the job was taken back, and is there now.
            self.savings.last = None;
            return;
        };
        if !is_whole(&committed.checkpoint, &order.folder) {
            self.savings.last = None;
            self.saving_failed("a parameter server gave another answer", now);
            return;
        }
        self.savings.succeeded();
        self.savings.last = Some(saving.number);
        self.savings.forget_found();
        self.savings.is_newest(&committed.checkpoint, now);
        if let Some(why) = committed.left_over {
            let message = format!("older checkpoints could not be removed: {}", shortened(&why));
            self.remark(true, "CheckpointsLeft", message);
        }
        if saving.last && self.is_finishing() {
            self.savings.model = Some(committed.checkpoint);
            self.succeed();
        }
    }
}
