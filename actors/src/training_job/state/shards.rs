//! Where the shards of the parameters are, and their moves between members.

use super::check::MOST_SHARDS;
use super::{Action, Holder, Joined, State};
use crate::training::data_plan::DataPlan;
use crate::training::partition;
use impresario_client::protocol::training::{
    Applied, CurrentMap, Elsewhere, HeldShard, JoinRefused, Member, ModelFacts, OptimizerKind,
    Place, ReportError, ShardMap, ShardRange, guest_node,
};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Shards of a small model: enough to divide evenly. The cut depends on the model alone, so that every
/// activation of the job makes the same.
const SHARDS: u64 = 32;
/// The most parameters of one shard: its state, four values for each, is one message when it moves.
const LARGEST_SHARD: u64 = 1 << 20;
/// After a fail-over, how long members are waited for before they are taken for lost.
pub(super) const REUNION: Duration = Duration::from_secs(10);
/// How long the shards of a server are left to it that is not heard of any more while its pod runs.
const RETURN: Duration = Duration::from_secs(5);
/// So many shards of a report are answered with where they are; the others are with the next.
const MOST_ELSEWHERE: usize = 1_024;
/// A server that says nothing of a shard for so long does not have it: what it says may have been on its way
/// when the shard came.
const LACKING: Duration = Duration::from_secs(3);
/// Moves that are under way at a time: a shard takes no gradient while it moves, and those that wait for their
/// turn go on.
const MOVES: usize = 4;
/// So many values are provided by one order, of one trainer at a time: with what the optimizer remembers these
/// are 16 MiB, and the order ends within its time on a slow link too.
const PROVIDED_VALUES: u64 = 1 << 20;
/// After a move that failed, servers have the time to say what has arrived after all.
const MOVE_AGAIN: Duration = Duration::from_secs(1);
/// After so many orders in a row that failed another trainer is asked.
const MOST_FAILURES: u32 = 2;

impl State {
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

    pub(super) fn place_of(&self, holder: &Holder) -> Option<Place> {
        let pod = match holder {
            Holder::Nobody => return None,
            // The one that it leaves knows where it went.
            Holder::At(pod) | Holder::Moving { from: pod, .. } => pod,
        };
        self.joined.get(pod).map(|joined| joined.place.clone())
    }

    /// The map, for a member of this activation.
    pub fn map_for(&self, asked: &CurrentMap) -> Result<ShardMap, ReportError> {
        self.check_map(asked)?;
        Ok(self.map())
    }

    pub(super) fn learn_facts(&mut self, facts: &ModelFacts) -> Result<(), JoinRefused> {
        match &self.facts {
            Some(known) if known == facts => Ok(()),
            Some(_) => Err(JoinRefused::OtherModel),
            None => {
                let lengths: Vec<u64> = facts.blocks.iter().map(|(_, length)| *length).collect();
                let total: u64 = lengths.iter().sum();
                let count = total.div_ceil(LARGEST_SHARD).max(SHARDS) as usize;
                self.set_ranges(partition::cut(&lengths, count.min(MOST_SHARDS)));
                self.facts = Some(facts.clone());
                let mut plan = DataPlan::new(facts.samples, facts.batch, self.spec.stop.epochs);
                if let Some(steps) = self.recalled {
                    plan.resume(Applied::all_below(steps));
                }
                self.plan = Some(plan);
                for (pod, held) in std::mem::take(&mut self.unchecked) {
                    match self.check_held(&held) {
                        Ok(()) => self.learn_held(&pod, &held),
                        Err(wrong) => {
                            // It joins again, and is told what is the matter.
                            self.joined.remove(&pod);
                            self.remark(
                                true,
                                "MemberRefused",
                                JoinRefused::from(wrong).to_string(),
                            );
                        }
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn set_ranges(&mut self, ranges: Vec<ShardRange>) {
        self.holders = vec![Holder::Nobody; ranges.len()];
        self.held_since = vec![0; ranges.len()];
        self.versions = vec![0; ranges.len()];
        self.ranges = ranges;
    }

    /// What a server has kept tells this activation what was done before it.
    pub(super) fn learn_held(&mut self, pod: &str, held: &[HeldShard]) {
        if held.is_empty() {
            return;
        }
        if self.facts.is_none() {
            self.unchecked.insert(pod.to_owned(), held.to_vec());
            return;
        }
        if self.savings.whole {
            // Only that what is ordered from now on is later.
            let latest = held.iter().map(|shard| shard.epoch).max();
            self.epoch = self.epoch.max(latest.unwrap_or_default());
            return;
        }
        for shard in held {
            let index = shard.range.shard as usize;
            let (Some(holder), Some(since), Some(version)) = (
                self.holders.get_mut(index),
                self.held_since.get_mut(index),
                self.versions.get_mut(index),
            ) else {
                continue;
            };
            // In one epoch it may be on its way at one server and arrived at another: that one has it.
            let is_newest = match shard.leaving {
                None => shard.epoch >= *since,
                Some(_) => shard.epoch > *since || *holder == Holder::Nobody,
            };
            if is_newest {
                *holder = match &shard.leaving {
                    None => Holder::At(pod.to_owned()),
                    Some(to) => {
                        let is_there = |uid: &&String| guest_node(uid) == to.path.node;
                        let to = self.pods.keys().find(is_there).cloned().unwrap_or_default();
                        Holder::Moving { from: pod.to_owned(), to, epoch: shard.epoch }
                    }
                };
                *since = shard.epoch;
                *version = shard.version.max(*version);
                self.claims.insert(shard.range.shard, shard.applied.clone());
            }
            self.epoch = self.epoch.max(shard.epoch);
        }
        // What every shard has is done; what one of them lacks is trained again, by whoever comes first.
        if let Some(plan) = self.plan.as_mut().filter(|plan| plan.is_untouched()) {
            let done = self.claims.values().cloned().reduce(|done, claim| done.both(&claim));
            if let Some(done) = done {
                plan.resume(done);
            }
        }
    }

    /// What a server should have and has said nothing of for a while is not there: it never arrived, or went on
    /// by an order of an earlier activation.
    pub(super) fn find_lacking(&mut self, pod: &str, now: Instant) {
        let Some(joined) = self.joined.get_mut(pod) else { return };
        let at = |holder: &Holder| matches!(holder, Holder::At(at) if at == pod);
        let should = self.holders.iter().enumerate().filter(|(_, holder)| at(holder));
        let should = should.map(|(shard, _)| shard as u32);
        let missing: BTreeSet<u32> = should.filter(|shard| !joined.holds.contains(shard)).collect();
        joined.lacks.retain(|shard, _| missing.contains(shard));
        for shard in missing {
            joined.lacks.entry(shard).or_insert(now);
        }
        let late = joined.lacks.iter().filter(|(_, since)| now.duration_since(**since) > LACKING);
        let late: Vec<u32> = late.map(|(shard, _)| *shard).collect();
        if !self.moving {
            for shard in late {
                self.not_at(shard, pod);
            }
        }
    }

    /// Of what a server says that it has, the shards that another has been given since.
    pub(super) fn elsewhere(&self, pod: &str, versions: &[(u32, u64)]) -> Vec<Elsewhere> {
        let other = |shard: u32| {
            let index = shard as usize;
            let Some(Holder::At(at)) = self.holders.get(index).filter(|_| !self.moving) else {
                return None;
            };
            let to = self.joined.get(at).filter(|_| at != pod)?.place.clone();
            Some(Elsewhere { shard, epoch: *self.held_since.get(index)?, to })
        };
        versions.iter().filter_map(|(shard, _)| other(*shard)).take(MOST_ELSEWHERE).collect()
    }

    /// A shard is not where it was thought to be: it is where somebody says that it is, or nowhere.
    fn not_at(&mut self, shard: u32, pod: &str) {
        let has = |(uid, one): &(&String, &Joined)| *uid != pod && one.holds.contains(&shard);
        let found = self
            .joined
            .iter()
            .filter(|_| !self.savings.whole)
            .find(has)
            .map(|(uid, _)| uid.clone());
        tracing::warn!(job = self.job, shard, pod, ?found, "a shard is not where it should be");
        if let Some(holder) = self.holders.get_mut(shard as usize) {
            *holder = found.map_or(Holder::Nobody, Holder::At);
        }
    }

    /// The server of this move does not have the shard any more.
    pub fn was_not_there(&mut self, action: &Action) {
        let (Action::Handover { shard, .. } | Action::Keep { shard, .. }) = action else { return };
        let from = match self.holders.get(*shard as usize) {
            Some(Holder::At(from) | Holder::Moving { from, .. }) => from.clone(),
            Some(Holder::Nobody) | None => return,
        };
        self.not_at(*shard, &from);
    }

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

    /// Some moves begin.
    pub fn moves_begin(&mut self, now: Instant) {
        self.moving = true;
        self.moves_since.get_or_insert(now);
    }

    /// These have ended; others may follow.
    pub fn moves_end(&mut self) {
        self.moving = false;
    }

    /// A move has failed, for a reason that the next try may mend.
    pub fn move_failed(&mut self, action: &Action, now: Instant) {
        self.moves_after = Some(now + MOVE_AGAIN);
        let Action::Provide { from, .. } = action else { return };
        for one in self.joined.values_mut().filter(|one| one.place == *from) {
            one.failures += 1;
        }
    }

    /// The moves that are due. What the last change of size cost is known when there are none any more.
    pub(super) fn next_moves(&mut self, now: Instant) -> Vec<Action> {
        if self.moves_after.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.moves_after = None;
        let moves = self.reconcile_shards(now);
        if moves.is_empty()
            && let Some(since) = self.moves_since.take()
        {
            self.book.rescaled(now.duration_since(since));
        }
        moves
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
            Action::Provide { from, to, shards, epoch, .. } => {
                for one in self.joined.values_mut().filter(|one| one.place == *from) {
                    one.failures = 0;
                }
                let mut lost = 0;
                // What has not arrived is provided again.
                let arrived = |range: &ShardRange| {
                    let of = provided.iter().find(|(shard, _)| *shard == range.shard);
                    of.map(|(_, version)| (range.shard, *version))
                };
                let arrived: Vec<(u32, u64)> = shards.iter().filter_map(arrived).collect();
                for (shard, version) in &arrived {
                    let (shard, version) = (*shard, *version);
                    let index = shard as usize;
                    if let Some(known) = self.versions.get_mut(index) {
                        lost = lost.max(known.saturating_sub(version));
                        *known = version;
                    }
                    self.arrived(shard, to, *epoch);
                }
                if !self.holders.contains(&Holder::Nobody) {
                    (self.initial_values, self.savings.whole) = (false, false);
                }
                if self.steps() > 0 && !arrived.is_empty() {
                    let optimizer = self.facts.as_ref().map(|facts| facts.optimizer);
                    let memory = match optimizer {
                        Some(OptimizerKind::Momentum { momentum: 0.0, .. }) | None => "",
                        Some(_) => ", and what the optimizer remembered of them begins anew",
                    };
                    let message = format!(
                        "{} shards were replaced; that cost {lost} steps{memory}",
                        arrived.len()
                    );
                    self.remark(true, "ParametersRestored", message);
                }
            }
            Action::Restore { to, shards, epoch, .. } => {
                if self.is_restored_by(action) {
                    self.restored(to, shards, *epoch, provided);
                }
            }
            Action::CreatePod(_) | Action::DeletePod { .. } | Action::Leave(_) => {}
        }
    }

    pub(super) fn arrived(&mut self, shard: u32, pod: &str, epoch: u64) {
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

    fn reconcile_shards(&mut self, now: Instant) -> Vec<Action> {
        // Without a trainer's facts the whole map is not known.
        if self.facts.is_none() || self.ranges.is_empty() || self.over() {
            return Vec::new();
        }
        let servers: Vec<&String> = self
            .joined
            .iter()
            .filter(|(_, one)| one.member == Member::ParameterServer && !one.leaving)
            .map(|(uid, _)| uid)
            .collect();
        if servers.is_empty() || !self.reunited(now) || self.is_restoring_untold() {
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
        let begins = self.steps() == 0 || self.initial_values;
        // The freshest copy: what was learned after the others were pulled is not lost.
        let trainer = self
            .joined
            .values()
            .filter(|one| one.member == Member::Trainer && (begins || !one.no_copy))
            // Unless it cannot reach the servers.
            .max_by_key(|one| (Reverse(one.failures / MOST_FAILURES), one.pulled));
        // Until it is known whether there is a checkpoint nobody provides anything.
        let mut provides = self.is_beginning();
        for (number, uid) in servers.iter().enumerate() {
            let place = &self.joined[*uid].place;
            let mine = |shard: &usize| planned[*shard] == number;
            let mut values = 0;
            let shards: Vec<ShardRange> = (0..self.ranges.len())
                .filter(|shard| mine(shard) && self.holders[*shard] == Holder::Nobody)
                .map(|shard| self.ranges[shard])
                .take_while(|range| {
                    let begun = values < PROVIDED_VALUES;
                    values += range.length;
                    begun
                })
                .collect();
            if let Some(restore) = self.restoring(uid, place, &shards, epoch) {
                actions.extend(Some(restore).filter(|_| !shards.is_empty()));
            } else if let Some(trainer) = trainer.filter(|_| !shards.is_empty() && !provides) {
                provides = true;
                let (from, to, place) = (trainer.place.clone(), (*uid).clone(), place.clone());
                actions.push(Action::Provide { from, to, place, shards, epoch, begins });
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
        actions.truncate(MOVES);
        actions
    }

    /// Whether this activation knows as much of the job as the object tells: what an earlier one
    /// wrote must not be taken back for as long as members are still on their way to this one.
    pub fn has_caught_up(&self, now: Instant) -> bool {
        self.ended()
            || self.recalled.is_none_or(|steps| self.plan.is_some() && self.steps() >= steps)
            || now.duration_since(self.started) > REUNION
    }

    /// Whether every server that runs has joined, or has had the time to.
    pub(super) fn reunited(&self, now: Instant) -> bool {
        let strangers: BTreeSet<&String> = self
            .pods
            .values()
            .filter(|pod| pod.member == Member::ParameterServer && pod.may_run())
            .map(|pod| &pod.uid)
            .filter(|uid| !self.joined.contains_key(*uid))
            .collect();
        let nobody = self.holders.iter().any(|holder| match holder {
            Holder::Nobody => true,
            Holder::At(_) => false,
            Holder::Moving { to, .. } => !self.joined.contains_key(to),
        });
        let resumed = self.steps() > 0 || self.recalled.is_some();
        // A connection that was lost says nothing of the server: it comes back with what it has.
        let is_back = |uid: &&String| match self.absent.get(*uid) {
            Some(absent) => now.duration_since(absent.since) > RETURN,
            None => now.duration_since(self.started) > REUNION,
        };
        !nobody || !resumed || strangers.iter().all(is_back)
    }
}
