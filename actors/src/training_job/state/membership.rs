//! Who belongs to the job: its pods, and the members that have joined from them.

use super::{Absent, Action, Holder, Joined, Phase, Remark, State, Stranger, Task};
use crate::training_job::earlier::Earlier;
use crate::training_job::pods::Seen;
use impresario_client::protocol::training::{
    Doing, Holds, JoinRefused, JoinTraining, Member, Place, Size, Welcome,
};
use impresario_runtime::Backoff;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pods that may fail in a row without a step in between.
const FAILURES: u32 = 10;
/// Pauses before pods that failed in a row are replaced; the first one is replaced at once.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(1) };

/// A member that has not been heard of for so long hangs, if others are heard of: it is replaced.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// When nobody is heard of, it is rather this side that is cut off: they are waited for so long.
const CUT_OFF: Duration = Duration::from_mins(10);
/// A pod that runs and has not joined by then is taken to hang, and is replaced by one that is given twice the
/// time: a parameter server has nothing to do first.
const SERVER_JOINS: Duration = Duration::from_mins(2);
/// A trainer's program reads its data and makes its model first.
const TRAINER_JOINS: Duration = Duration::from_mins(30);
/// Nobody is given longer: a week.
pub(super) const LATEST: Duration = Duration::from_hours(168);
/// A look that comes so late found this process paused: silence meanwhile was its own.
const PAUSE: Duration = Duration::from_secs(3);

impl State {
    /// Who works at the moment.
    pub fn size(&self) -> Size {
        let count = |member| {
            self.joined.values().filter(|one| one.member == member && !one.leaving).count() as u32
        };
        Size { parameter_servers: count(Member::ParameterServer), trainers: count(Member::Trainer) }
    }

    /// Whom to watch: the places of all members by pod.
    pub fn places(&self) -> impl Iterator<Item = (&String, &Place)> {
        self.joined.iter().map(|(uid, joined)| (uid, &joined.place))
    }

    /// These are the job's pods.
    pub fn pods_are(&mut self, pods: Vec<Seen>, now: Instant) {
        let first_sight = !std::mem::replace(&mut self.pods_known, true);
        let before = std::mem::take(&mut self.pods);
        self.pods = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        if first_sight && self.wanted == Size::default() && !self.over() {
            self.adopt(now);
        }
        self.pods.keys().for_each(|uid| self.expected.seen(uid));
        let failed: Vec<(String, f64)> = self
            .pods
            .values()
            // What had failed before this activation looked has been told, and has been replaced.
            // Nor is it the job's fault when somebody else asked a pod to go.
            .filter(|pod| !first_sight && !pod.deleting && pod.ended == Some(false))
            .filter(|pod| before.get(&pod.uid).is_none_or(|before| before.ended.is_none()))
            .map(|pod| (pod.name.clone(), pause_share(&pod.uid)))
            .collect();
        self.absent.retain(|uid, _| self.pods.get(uid).is_some_and(Seen::lives));
        self.release_deleted();
        let strange =
            |pod: &&Seen| pod.lives() && pod.running && !self.joined.contains_key(&pod.uid);
        let strange = self.pods.values().filter(strange);
        let known = |pod: &Seen| {
            let limit = self.joins_within(pod.member);
            let new = || Stranger { since: now, limit, begun: !first_sight };
            self.strangers.get(&pod.uid).copied().unwrap_or_else(new)
        };
        self.strangers = strange.map(|pod| (pod.uid.clone(), known(pod))).collect();
        for (name, jitter) in failed {
            if self.over() {
                break;
            }
            self.failures += 1;
            if let Some(again) = self.failures.checked_sub(2) {
                self.replace_after = Some(now + PAUSES.wait(again, jitter));
            }
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

    /// A member whose pod somebody deletes leaves: it hands on what it has while it is given the time.
    fn release_deleted(&mut self) {
        if self.over() {
            return;
        }
        for (uid, pod) in self.pods.iter().filter(|(_, pod)| pod.deleting) {
            let Some(one) = self.joined.get_mut(uid).filter(|one| !one.leaving) else { continue };
            one.leaving = true;
            let hands_on = match pod.member {
                Member::ParameterServer => "its shards",
                Member::Trainer => "its unfinished batches",
            };
            let message = format!("pod {} is being deleted: it hands on {hands_on}", pod.name);
            self.remarks.push(Remark { warning: false, reason: "MemberLeaving", message });
        }
    }

    /// Whether pods may be made at the moment.
    pub(super) fn may_create(&self, now: Instant) -> bool {
        self.replace_after.is_none_or(|at| now >= at)
    }

    /// Pods that run already were granted to an earlier activation, which did not come to write it down.
    fn adopt(&mut self, now: Instant) {
        let count = |member| {
            let running = |pod: &&Seen| pod.member == member && pod.lives() && pod.bound;
            self.pods.values().filter(running).count() as u32
        };
        let size = Size {
            parameter_servers: count(Member::ParameterServer),
            trainers: count(Member::Trainer),
        };
        if size.parameter_servers > 0 && size.trainers > 0 {
            self.wanted = self.spec.allowed(size);
            self.granted = Some(now);
        }
    }

    /// A pod is asked for. Until it is seen, or cannot be, it counts.
    pub fn creation_begins(&mut self, member: Member) {
        self.expected.ask(member);
    }

    /// The pod has this uid now, or none was made.
    pub fn creation_ends(&mut self, member: Member, made: Option<String>, now: Instant) {
        let unseen = made.filter(|uid| !self.pods.contains_key(uid));
        self.expected.answered(member, unseen, now);
    }

    /// A member joins, or joins again after the job's actor has moved.
    pub fn join(&mut self, join: JoinTraining, now: Instant) -> Result<Welcome, JoinRefused> {
        if self.over() {
            return Err(JoinRefused::Ended);
        }
        self.check_join(&join)?;
        let member = join.holds.member();
        match &join.holds {
            Holds::Model(facts) => self.learn_facts(facts)?,
            Holds::Shards(held) => self.learn_held(&join.pod_uid, held),
        }
        // Who is asked to go takes nothing more, and hands on what it has.
        let leaving = self.joined.get(&join.pod_uid).is_some_and(|one| one.leaving)
            || self.pods.get(&join.pod_uid).is_some_and(|pod| pod.deleting);
        let joined = Joined {
            member,
            place: join.place,
            heard: now,
            leaving,
            stopped: false,
            map_epoch: 0,
            no_copy: false,
            doing: Doing::Waiting,
            stalled: None,
            warm: false,
            pulled: None,
            holds: match &join.holds {
                Holds::Shards(held) => {
                    let served = held.iter().filter(|shard| shard.leaving.is_none());
                    served.map(|shard| shard.range.shard).collect()
                }
                Holds::Model(_) => BTreeSet::new(),
            },
            kept: BTreeMap::new(),
            lacks: BTreeMap::new(),
            given: None,
            steps: BTreeSet::new(),
            batches: 0,
            failures: 0,
        };
        let was_absent = self.absent.remove(&join.pod_uid).is_some();
        let stranger = self.strangers.remove(&join.pod_uid);
        if let Some(stranger) = stranger.filter(|stranger| !was_absent && stranger.begun) {
            self.has_taken(member, now.duration_since(stranger.since));
        }
        self.joined.insert(join.pod_uid, joined);
        self.settle_size(now);
        Ok(Welcome { activation: self.activation, lease: self.lease })
    }

    /// A member is gone, in order or not.
    pub fn lost(&mut self, uid: &str, now: Instant) {
        self.unchecked.remove(uid);
        let whole = self.size() == self.wanted;
        let Some(joined) = self.joined.remove(uid) else { return };
        if self.pods.get(uid).is_none_or(Seen::lives) {
            self.absent.insert(uid.to_owned(), Absent { since: now });
        }
        let in_order = joined.stopped || joined.leaving || self.over();
        match joined.member {
            Member::Trainer => {
                self.leaves_barrier(uid);
                let batches = self.plan.as_mut().map_or(0, |plan| plan.abandon(uid));
                if !in_order {
                    self.note_loss(whole, "a trainer", now);
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
                if !in_order {
                    self.note_loss(whole, "a parameter server", now);
                }
                if !in_order && shards > 0 {
                    let message = format!(
                        "a parameter server is gone with {shards} shards: they are replaced from a trainer's copy"
                    );
                    self.remark(true, "ParameterServerLost", message);
                }
            }
        }
        self.settle_size(now);
    }

    /// Members that hang, or are gone while their pods run on: without its pod none can do harm, and
    /// another takes its place.
    pub(super) fn replace_silent(&mut self, now: Instant) -> Vec<Action> {
        let gap = now.duration_since(self.looked);
        self.looked = now;
        if gap > PAUSE {
            self.joined.values_mut().for_each(|one| one.heard += gap);
            self.absent.values_mut().for_each(|one| one.since += gap);
            self.strangers.values_mut().for_each(|one| one.since += gap);
        }
        let is_heard = |one: &Joined| now.duration_since(one.heard) <= SILENCE;
        let patience = if self.joined.values().any(is_heard) { SILENCE } else { CUT_OFF };
        let late = |since: Instant| now.duration_since(since) > patience;
        let hang = self.joined.iter().filter(|(_, one)| one.stalled.is_some() || late(one.heard));
        let gone = self.absent.iter().filter(|(_, one)| late(one.since));
        let silent: Vec<String> =
            hang.map(|(uid, _)| uid).chain(gone.map(|(uid, _)| uid)).cloned().collect();
        let mut actions = Vec::new();
        for uid in silent {
            if let Some(pod) = self.pods.get(&uid).filter(|pod| !pod.deleting).cloned() {
                if !self.over() {
                    let at = self.joined.get(&uid);
                    let stalled = at.and_then(|one| Some((Task::of(one.doing)?, one.stalled?)));
                    let what = match stalled {
                        Some((task, given)) => {
                            let next = self.give_longer(task, given).as_secs() / 60;
                            format!(
                                "gets no further; it is replaced, and the next may be at one thing for {next} minutes"
                            )
                        }
                        None => "is not heard of; it is replaced".to_owned(),
                    };
                    self.remark(true, "MemberSilent", format!("pod {} {what}", pod.name));
                }
                actions.push(Action::DeletePod { name: pod.name, uid: uid.clone() });
            }
            self.lost(&uid, now);
            // Told once; it is gone from the pods when it is deleted.
            self.absent.insert(uid, Absent { since: now });
        }
        actions.extend(self.replace_strangers(patience, now));
        actions
    }

    /// How long a pod of this role that begins now may take until it joins.
    fn joins_within(&self, member: Member) -> Duration {
        self.patience.get(&member).copied().unwrap_or(match member {
            Member::ParameterServer => SERVER_JOINS,
            Member::Trainer => TRAINER_JOINS,
        })
    }

    /// How long the next pod of this role may take until it joins, where it is more than at first.
    pub fn longer_join(&self, member: Member) -> Option<Duration> {
        self.patience.get(&member).copied()
    }

    /// What an earlier activation found to be too short is not tried again.
    pub(super) fn recall_patience(&mut self, earlier: &Earlier) {
        for (member, limit) in &earlier.join_within {
            let limit = (*limit).min(LATEST);
            if limit > self.joins_within(*member) {
                self.patience.insert(*member, limit);
            }
        }
    }

    /// One of this role has joined after so long: the next is given twice that, if it is more than at first.
    fn has_taken(&mut self, member: Member, took: Duration) {
        self.patience.remove(&member);
        let first = self.joins_within(member);
        if took > first {
            self.patience.insert(member, (took * 2).min(LATEST));
        }
    }

    /// Pods that run and do not join: their program hangs, or is none that works for a job. Or it needs longer
    /// than it was given, and the next has twice the time.
    fn replace_strangers(&mut self, patience: Duration, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for (uid, stranger) in &mut self.strangers {
            let known = self.pods.get(uid).filter(|_| !self.absent.contains_key(uid));
            let Some(pod) = known else { continue };
            let waited = now.duration_since(stranger.since);
            let is_late = waited > stranger.limit.max(patience);
            if !is_late || self.deleting || self.end_written.is_some() {
                continue;
            }
            stranger.since = now;
            // Those that began together were given the same.
            let longer = (stranger.limit * 2).min(LATEST);
            let next = self.patience.entry(pod.member).or_insert(longer);
            *next = longer.max(*next);
            let message = format!(
                "pod {} has run for {} minutes and has not joined the job; it is replaced, and the next has {} minutes: see its logs",
                pod.name,
                waited.as_secs() / 60,
                next.as_secs() / 60
            );
            self.remarks.push(Remark { warning: true, reason: "MemberSilent", message });
            actions.push(Action::DeletePod { name: pod.name.clone(), uid: uid.clone() });
        }
        actions
    }
}

/// A number within 0..1 that differs from pod to pod, so that jobs that fail together do not come
/// back together.
pub(super) fn pause_share(uid: &str) -> f64 {
    let hash = uid.bytes().fold(7_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte));
    f64::from(hash) / 256.0
}
