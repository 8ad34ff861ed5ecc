//! So many pods of a template, no more and no fewer: what replication controllers and replica sets share.
//!
//! Orphans that the selector selects are adopted, owned pods that it no longer selects are released, then the
//! difference is created or deleted. Once that is done, there is no more to say. (API reference,
//! ReplicationController v1 and ReplicaSet v1.)

mod failures;

use super::engine::effects::{Draft, Effects};
use super::engine::view::View;
use super::labels::{self, selects};
use super::mirror::Mirrored;
use super::owned::pod_from;
use super::pod_view::{PodView, loss};
use failures::failures;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// The most pods that one look creates, adopts or deletes: a larger controller fills up and empties in steps, so
/// that a mistake in a template or a number is seen, or taken back, before it is repeated a thousand times.
pub const BURST: usize = 500;

/// The annotation by which a pod goes before or after its equals: an integer, the lowest goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The type of the condition that says why an object has not the pods that it asks for (API reference,
/// ReplicationControllerStatus v1).
pub const REPLICA_FAILURE: &str = "ReplicaFailure";
/// Why it has fewer for now: those that it had failed as soon as they were there.
const PODS_FAIL: &str = "PodsFail";
/// A wait is told that goes on for so long.
const TOLD: SignedDuration = SignedDuration::from_secs(10);

/// What an object asks for.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// How many.
    pub replicas: Option<i32>,
    /// For how many seconds a pod must be ready before it counts as available.
    pub min_ready_seconds: Option<i32>,
    /// What they are like.
    pub template: Option<&'a PodTemplateSpec>,
}

/// What there is, before anything is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods that live.
    pub replicas: i32,
    /// Those of them that carry all labels of the template.
    pub fully_labeled: i32,
    /// Those that are ready.
    pub ready: i32,
    /// Those that have been for long enough.
    pub available: i32,
    /// Pods that are being deleted and have not ended.
    pub terminating: i32,
}

/// What must happen so that exactly as many pods live as are asked for, and what there is. Nothing happens where
/// the object is being deleted: what it owns is the garbage collector's then. Surplus goes unbound first, then
/// unready, then by `pod-deletion-cost`, then from the fullest node, then the youngest.
#[must_use]
pub fn keep<K: Mirrored>(
    view: &View<'_, K>,
    asked: &Asked<'_>,
    now: Timestamp,
) -> (Effects, Counts) {
    let metadata = view.object.metadata();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let deleting = metadata.deletion_timestamp.is_some();
    let wanted = usize::try_from(asked.replicas.unwrap_or(1)).unwrap_or(0);

    let mut effects = Effects::default();
    let mut alive: Vec<&Pod> = Vec::new();
    let mut failed: Vec<&Pod> = Vec::new();
    let (mut adopted, mut terminating) = (0, 0);
    for pod in view.of::<Pod>() {
        let ours = pod.controller().is_some_and(|owner| owner.uid == uid);
        let selected = selects(&asked.selector, pod.labels());
        let counts = !pod.terminating() && !pod.finished();
        if ours && selected && pod.terminating() && !pod.finished() {
            terminating += 1;
        } else if ours && !selected {
            // Who is let go of while its owner goes would outlive it.
            if !pod.terminating() && !deleting {
                effects.release(pod.as_ref());
            }
        } else if ours && counts {
            alive.push(pod);
        } else if ours && !pod.terminating() {
            failed.push(pod);
        } else if selected && counts && pod.controller().is_none() && !deleting {
            adopted += 1;
            if adopted <= BURST {
                effects.adopt(pod.as_ref());
            }
            alive.push(pod);
        }
    }
    let (mut counts, next) = counts(asked, &alive, now);
    counts.terminating = terminating;
    if let Some(next) = next {
        effects.look_again(next);
    }
    if deleting {
        return (effects, counts);
    }

    let missing = wanted.saturating_sub(alive.len()).min(BURST);
    let surplus = alive.len().saturating_sub(wanted).min(BURST);
    let failures = failures(failed, wanted, now);
    match failures.wait_until.filter(|until| *until > now) {
        Some(until) if missing > 0 => wait_for_next(until, now, &mut effects),
        None if missing > 0 => {
            let name = metadata.name.as_deref().unwrap_or_default();
            let pod = pod_from(&view.stored["spec"]["template"], &view.owner(), name);
            let draft = Draft::new(move || pod.clone());
            for _ in 0..missing {
                effects.create_from::<Pod>(&draft);
            }
        }
        _ => {}
    }
    if adopted > BURST {
        // Which are too many is told among those that are all its own.
        effects.look_again(now);
    } else if surplus > 0 {
        sort_by_loss(&mut alive);
        for pod in &alive[..surplus] {
            effects.delete(*pod);
        }
    }
    for pod in failures.surplus.iter().take(BURST) {
        effects.delete(*pod);
    }
    (effects, counts)
}

/// Pods fail as soon as they are there, and the next come then: a long wait is told.
pub fn wait_for_next(until: Timestamp, now: Timestamp, effects: &mut Effects) {
    effects.look_again(until);
    if until.duration_since(now) >= TOLD {
        let message = "pods fail as soon as they are there: each time it takes longer, up to five \
            minutes, until they are replaced; look at those that failed";
        effects.fall_short(PODS_FAIL, message);
    }
}

/// Those with which the least is lost first.
fn sort_by_loss(alive: &mut [&Pod]) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for node in alive.iter().filter_map(|pod| node(pod)) {
        *on_node.entry(node).or_default() += 1;
    }
    alive.sort_by_cached_key(|pod| {
        let beside = node(pod).and_then(|node| on_node.get(node)).copied().unwrap_or(0);
        loss(pod, (deletion_cost(pod), Reverse(beside)))
    });
}

/// How many pods of those that live are how far, and when the next becomes available by time alone.
fn counts(asked: &Asked<'_>, alive: &[&Pod], now: Timestamp) -> (Counts, Option<Timestamp>) {
    let none = BTreeMap::new();
    let template = asked.template.and_then(|template| template.metadata.as_ref());
    let wanted = template.map_or(&none, labels::of);
    let mut counts = Counts { replicas: count(alive.len()), ..Counts::default() };
    let mut next: Option<Timestamp> = None;
    for pod in alive {
        let carries = |(key, value)| pod.labels().get(key) == Some(value);
        counts.fully_labeled += i32::from(wanted.iter().all(carries));
        if !pod.ready() {
            continue;
        }
        counts.ready += 1;
        match available_at(pod, asked.min_ready_seconds.unwrap_or(0)).filter(|at| *at > now) {
            Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
            None => counts.available += 1,
        }
    }
    (counts, next)
}

/// When a ready pod has been ready for long enough, if it must be for some time. One of which nobody wrote
/// down since when it is has been.
#[must_use]
pub fn available_at(pod: &Pod, patience: i32) -> Option<Timestamp> {
    let since = pod.ready_since().filter(|_| patience > 0)?;
    // A time so far off that it is none is not waited for.
    Some(since.checked_add(SignedDuration::from_secs(patience.into())).unwrap_or(Timestamp::MAX))
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// A number of a status that is not written where it is 0.
#[must_use]
pub fn some(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// What its user says the loss of a pod would cost, beside its equals; 0 where nobody says.
fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}
