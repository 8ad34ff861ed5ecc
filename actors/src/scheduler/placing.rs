//! One pass: plan, then ask each chosen node. Each node is asked on its own, so that a silent one
//! holds nobody else up.

use super::{
    BATCH, Pass, Scheduler,
    binding::{self, Placed},
    changes::Silence,
    fit::Why,
    hopes::Hope,
    picture::OVERDUE,
    plan::{Away, Moment, plan},
    queue::Queue,
    turn::turn,
};
use actix::prelude::*;
use impresario_client::protocol::{
    node::{Follow, Grant, NODE, NodeRole, PodReservation, Release, Reserve},
    scheduler::{NodeSummary, actor_name},
};
use impresario_registry_api::Key;
use impresario_runtime::{ActorPath, ActorRef, clock};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a node that did not answer is left alone; doubled each time in a row, up to
/// [`LONGEST_SILENCE`].
const SILENCE: Duration = Duration::from_secs(2);
const LONGEST_SILENCE: Duration = Duration::from_secs(32);
/// A node that has not answered for so long is passed by until it does.
const SLOW: Duration = Duration::from_millis(300);
/// How long a pod at most waits for a node that is busy: it is woken by the answer.
const BEHIND: Duration = Duration::from_secs(2);
/// How long a placement whose answer was lost is left alone: the watch tells what came of it.
const UNKNOWN: Duration = Duration::from_secs(2);
/// The most pods that one pass looks at; the rest has its turn when other messages had theirs.
const PASS: usize = 2_000;

impl Handler<Pass> for Scheduler {
    type Result = ();

    fn handle(&mut self, _: Pass, ctx: &mut Self::Context) {
        self.pass_ordered = false;
        // Without the whole picture a node could be given what it has not.
        if !self.is_all_known() {
            return;
        }
        self.passes += 1;
        self.lapse();
        let now = clock::now();
        let changes = std::mem::take(&mut self.changes);
        if changes.heard {
            self.queue.heard(now);
        } else if changes.answered {
            self.queue.answered(now);
        }
        if changes.is_hope() {
            let hope = Hope::of(&changes, &self.picture);
            self.queue.hope(now, |pod, why| hope.is_for(pod, why));
        }
        let (silent, asking) = (&self.silent, &self.asking);
        let away = |node: &str| {
            if silent.get(node).is_some_and(|silence| silence.until > now) {
                return Some(Away::Silent);
            }
            asking.get(node).is_some_and(|since| *since + SLOW <= now).then_some(Away::Busy)
        };
        // Nobody has told in time what became of its placement: the room that was taken off for it is its own again.
        while let Some((_, uid)) = self.in_doubt.pop_front_if(|(until, _)| *until <= now) {
            self.picture.unassume(&uid);
            self.volumes.let_go(&uid);
        }
        let time = clock::timestamp().as_millisecond();
        self.leavers.at(time);
        let (ready, is_cut) = turn(&self.queue, now, PASS);
        let is_overdue = |leaves_by: i64| leaves_by.saturating_add(OVERDUE) < time;
        let moment = Moment {
            picture: &self.picture,
            start: self.turn,
            away: &away,
            is_overdue: &is_overdue,
            is_believed: &|node| self.doubts.is_believed(node),
            leavers: &self.leavers,
        };
        let plan = plan(ready, &moment, &mut *self.policy);
        let is_cut = is_cut || plan.is_cut;
        let placements = self.claims_first(plan.placements, now, ctx);
        let batches = batches(placements, &self.asking, &mut self.queue);
        for uid in &plan.behind {
            self.queue.behind(uid, now + BEHIND);
        }
        let silences = self.silent.values().map(|silence| silence.until);
        let asked_again = silences.filter(|until| *until > now).min().unwrap_or(now + BEHIND);
        for (uid, why) in plan.held {
            if self.queue.held(&uid, &why, asked_again, self.settings.silence_told, now) {
                self.tell(&uid, &why, ctx);
            }
        }
        for (node, uids) in batches {
            self.turn = self.turn.wrapping_add(uids.len());
            self.ask(node, uids, ctx);
        }
        // Before it is told why they fit nowhere: who is nominated stays so then.
        for preemption in plan.preemptions {
            self.preempt(preemption, ctx);
        }
        for (uid, why) in plan.unschedulable {
            if self.queue.stuck_with(&uid, &why, now) {
                self.tell(&uid, &why, ctx);
            }
        }
        if is_cut {
            self.order_pass(ctx);
        }
        let wake = self.queue.next_ready(now);
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = wake.map(|when| {
            ctx.run_later(when.saturating_duration_since(now), |scheduler, ctx| {
                scheduler.timer = None;
                scheduler.order_pass(ctx);
            })
        });
    }
}

/// What of a plan is asked for now, by node.
fn batches(
    placements: BTreeMap<String, Vec<String>>,
    asking: &BTreeMap<String, Instant>,
    queue: &mut Queue,
) -> Vec<(String, Vec<String>)> {
    let mut batches = Vec::new();
    for (node, mut uids) in placements {
        if let Some(since) = asking.get(&node) {
            // Its answer is due any moment; if it is slow, others are asked. The next pass has other pods to look at.
            for uid in &uids {
                queue.behind(uid, *since + SLOW);
            }
            continue;
        }
        uids.truncate(BATCH);
        batches.push((node, uids));
    }
    batches
}

impl Scheduler {
    /// Asks a node for room, and binds the pods that get it.
    fn ask(&mut self, node: String, uids: Vec<String>, ctx: &mut Context<Self>) {
        let mut pods = Vec::with_capacity(uids.len());
        let mut bindings = Vec::with_capacity(uids.len());
        let mut asked_for = Vec::with_capacity(uids.len());
        for uid in &uids {
            if !self.takes_claims(uid) {
                continue;
            }
            self.queue.placing(uid);
            let Some(waiting) = self.queue.get(uid) else { continue };
            pods.push(PodReservation { uid: uid.clone(), resources: waiting.pod.requests.clone() });
            asked_for.push((uid.clone(), waiting.key.clone()));
            bindings.push(binding::Binding {
                uid: uid.clone(),
                key: waiting.key.clone(),
                revision: waiting.revision,
                value: waiting.value.clone(),
            });
            let pod = waiting.pod.clone();
            self.picture.assume(&pod, &node);
        }
        if pods.is_empty() {
            return;
        }
        self.asking.insert(node.clone(), clock::now());
        let actor = self.node_actor(&node);
        let (deadline, ttl) = (self.settings.ask_deadline, self.settings.reservation_ttl);
        let (registry, fence) = (self.registry.clone(), self.fence);
        let name = node.clone();
        let work = async move {
            let asked = clock::now();
            let grants = match actor.ask(Reserve { pods, ttl }, deadline).await {
                Ok(grants) => grants,
                Err(error) => {
                    tracing::info!(node = %name, %error, "node cannot be asked for room");
                    return Outcome { silent: true, ..Outcome::default() };
                }
            };
            let mut outcome = Outcome::default();
            let mut leases = Vec::new();
            for grant in grants {
                match grant {
                    Grant::Reserved { uid, lease } => leases.push((uid, lease)),
                    Grant::Refused { uid, free, reason } => {
                        tracing::debug!(node = %name, %uid, %reason, "refused");
                        outcome.refused.push(uid);
                        outcome.free = Some(free);
                    }
                }
            }
            bindings.retain(|binding| leases.iter().any(|(uid, _)| *uid == binding.uid));
            // A grant that is about to end binds nothing: the node may give the room away.
            let left = ttl.saturating_sub(asked.elapsed());
            outcome.placed = binding::bind(&registry, &name, bindings, fence, left / 2).await;
            let lost = |uid: &String| {
                !matches!(outcome.placed.get(uid), Some(Placed::Bound | Placed::Unknown))
            };
            let unused: Vec<_> =
                leases.into_iter().filter(|(uid, _)| lost(uid)).map(|(_, lease)| lease).collect();
            if !unused.is_empty()
                && let Err(error) = actor.tell(Release { leases: unused })
            {
                tracing::debug!(node = %name, %error, "reservations are left to expire");
            }
            outcome
        };
        ctx.spawn(work.into_actor(self).map(move |outcome, scheduler, ctx| {
            scheduler.settle(&node, &asked_for, outcome, ctx);
        }));
    }

    fn settle(
        &mut self,
        node: &str,
        asked_for: &[(String, Key)],
        outcome: Outcome,
        ctx: &mut Context<Self>,
    ) {
        let now = clock::now();
        self.asking.remove(node);
        if outcome.silent {
            self.fell_silent(node, now);
        } else {
            self.heard(node);
        }
        self.changes.answered = true;
        for (uid, key) in asked_for {
            match outcome.placed.get(uid) {
                Some(Placed::Bound) => {
                    self.bound += 1;
                    // The watch may have told it already.
                    self.queue.remove(uid);
                    let message =
                        format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
                    self.events.normal(key, uid, "Scheduled", &message);
                }
                // The watch will tell whether it was bound; it is not tried anew before, nearly always.
                Some(Placed::Unknown) => {
                    self.queue.unknown(uid, now + UNKNOWN);
                    self.in_doubt.push_back((now + UNKNOWN, uid.clone()));
                }
                Some(Placed::Fenced) => {
                    tracing::info!(scheduler = %self.settings.name, "another activation has taken over");
                    ctx.stop();
                    return;
                }
                Some(Placed::Lost) | None => {
                    self.picture.unassume(uid);
                    self.volumes.let_go(uid);
                    self.queue.failed(uid, now);
                }
            }
        }
        self.refused += outcome.refused.len() as u64;
        if let Some(free) = outcome.free {
            self.picture.corrected(node, free);
        }
        self.order_pass(ctx);
    }

    /// A node has not answered, and is left alone for a while.
    pub(super) fn fell_silent(&mut self, node: &str, now: Instant) {
        let times = self.silent.get(node).map_or(0, |silence| silence.times);
        let wait = SILENCE.saturating_mul(1 << times.min(8)).min(LONGEST_SILENCE);
        let silence = Silence { until: now + wait, times: times.saturating_add(1) };
        self.silent.insert(node.to_owned(), silence);
    }

    /// Whether a node is left alone for now, since it did not answer.
    pub(super) fn is_silent(&self, node: &str, now: Instant) -> bool {
        self.silent.get(node).is_some_and(|silence| silence.until > now)
    }

    /// A node was heard, or is gone. Whoever waits for one that was silent looks for a node again.
    pub(super) fn heard(&mut self, node: &str) {
        self.changes.heard |= self.silent.remove(node).is_some();
    }

    /// Says of a pod why it has no node, in its condition and in an event.
    fn tell(&self, uid: &str, why: &Arc<Why>, ctx: &mut Context<Self>) {
        let Some(key) = self.key_of(uid) else { return };
        let message = why.to_string();
        self.events.warning(&key, uid, "FailedScheduling", &message);
        let is_nominated = self.picture.nominations.get(uid).is_some();
        let (registry, fence, uid) = (self.registry.clone(), self.fence, uid.to_owned());
        let write = async move {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message
            });
            crate::change::change(&registry, &key, Some(&uid), fence, |pod| {
                let is_bound = pod
                    .pointer("/spec/nodeName")
                    .and_then(|name| name.as_str())
                    .is_some_and(|n| !n.is_empty());
                if !is_bound {
                    if !is_nominated {
                        binding::not_nominated(pod);
                    }
                    binding::set_condition(pod, condition.clone(), clock::timestamp());
                }
            })
            .await
        };
        ctx.spawn(write.into_actor(self).map(|written, _, ctx| match written {
            Err(error) if error.is_fenced() => ctx.stop(),
            Err(error) => tracing::debug!(%error, "an unschedulable pod could not be marked"),
            Ok(_) => {}
        }));
    }

    /// Asks a node what it has, and to tell whenever that changes.
    pub(super) fn follow_node(&self, name: String, ctx: &mut Context<Self>) {
        let subscriber = ActorPath::new(self.node.name().clone(), actor_name(&self.settings.name));
        let answer = self.node_actor(&name).ask(Follow { subscriber }, self.settings.ask_deadline);
        ctx.spawn(answer.into_actor(self).map(move |answer, scheduler, ctx| match answer {
            // Nobody is heard about another.
            Ok(summary) if summary.node != name => {
                tracing::warn!(node = %name, of = %summary.node, "node tells what another has");
            }
            Ok(summary) => scheduler.summary(summary, ctx),
            Err(error) => tracing::debug!(node = %name, %error, "node does not tell what it has"),
        }));
    }

    /// A node says what it has.
    pub(super) fn summary(&mut self, summary: NodeSummary, ctx: &mut Context<Self>) {
        self.heard(&summary.node);
        let node = summary.node.clone();
        if self.picture.told(summary) {
            self.changes.room_on(node);
        }
        if !self.changes.is_nothing() {
            self.order_pass(ctx);
        }
    }

    fn node_actor(&self, name: &str) -> ActorRef<NodeRole> {
        self.node.actor(ActorPath::new(name, NODE))
    }
}

/// What came of asking one node.
#[derive(Default)]
struct Outcome {
    silent: bool,
    placed: BTreeMap<String, Placed>,
    refused: Vec<String>,
    free: Option<impresario_client::protocol::resources::Resources>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::parties::Pending;

    #[test]
    fn who_is_meant_for_a_node_that_is_being_asked_makes_room_in_the_next_pass_for_others() {
        let now = clock::now();
        let mut queue = Queue::default();
        for number in 0..3 * PASS {
            let pod = Pending { uid: format!("uid-{number:05}"), ..Pending::default() };
            let key = Key::new("pods", "ns", &pod.uid);
            queue.seen(pod, key, bytes::Bytes::new(), 1, now);
        }
        let asking = BTreeMap::from([("n1".to_owned(), now)]);
        // All of them are meant for this node; each pass takes the first that are ready.
        for pass in 0..3 {
            let uids: Vec<_> = queue.ready(now).take(PASS).map(|w| w.pod.uid.clone()).collect();
            assert_eq!(uids[0], format!("uid-{:05}", pass * PASS), "others than before");
            let asked = batches([("n1".to_owned(), uids)].into(), &asking, &mut queue);
            assert!(asked.is_empty(), "it is asked once at a time");
        }
        assert_eq!(queue.ready(now).count(), 0, "nothing is left for a fourth pass");
        assert_eq!(queue.next_ready(now), Some(now + SLOW));
        queue.answered(now);
        assert_eq!(queue.ready(now).count(), 3 * PASS);
    }
}
