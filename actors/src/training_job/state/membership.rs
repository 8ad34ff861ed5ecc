//! Who belongs to the job: its pods, and the members that have joined from them.

use super::{Holder, Joined, Phase, State};
use crate::training_job::pods::Seen;
use impresario_client::protocol::training::{
    Holds, JoinRefused, JoinTraining, Member, Place, Size, Welcome,
};
use impresario_runtime::Backoff;
use std::time::{Duration, Instant};

/// Pods that may fail in a row without a step in between.
const FAILURES: u32 = 10;
/// Pauses before pods that failed in a row are replaced; the first one is replaced at once.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(1) };

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
        let fresh = self.pods.keys().filter(|uid| !before.contains_key(*uid)).count() as u32;
        self.created = self.created.saturating_sub(fresh);
        let failed: Vec<(String, f64)> = self
            .pods
            .values()
            // What had failed before this activation looked has been told, and has been replaced.
            // Nor is it the job's fault when somebody else asked a pod to go.
            .filter(|pod| !first_sight && !pod.deleting && pod.ended == Some(false))
            .filter(|pod| before.get(&pod.uid).is_none_or(|before| before.ended.is_none()))
            .map(|pod| (pod.name.clone(), pause_share(&pod.uid)))
            .collect();
        for (name, jitter) in failed {
            if self.ended() {
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

    /// Whether pods may be made at the moment.
    pub(super) fn may_create(&self, now: Instant) -> bool {
        self.replace_after.is_none_or(|at| now >= at)
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
        let joined = Joined {
            member,
            place: join.place,
            heard: now,
            leaving,
            stopped: false,
            map_epoch: 0,
            no_copy: false,
        };
        self.joined.insert(join.pod_uid, joined);
        self.settle_size(now);
        Ok(Welcome { activation: self.activation })
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
}

/// A number within 0..1 that differs from pod to pod, so that jobs that fail together do not come
/// back together.
fn pause_share(uid: &str) -> f64 {
    let hash = uid.bytes().fold(7_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte));
    f64::from(hash) / 256.0
}
