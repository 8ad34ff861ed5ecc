//! Counts for a `PodDisruptionBudget` how many of its pods may be made to miss now.
//!
//! Whoever evicts a pod takes one off the count, by compare-and-set of the status (`objects::evict`), and writes down which
//! pod goes. It counts as missing from then on, also where this controller still sees it well; after two minutes in which it did
//! not go it counts again. (API reference, PodDisruptionBudget v1; Kubernetes documentation, "Disruptions".)

mod expected;

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Effects, Event};
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::pod_view::PodView as _;
use expected::{Expected, Scaled};
use impresario_api::kinds::poddisruptionbudgets::{
    DISRUPTION_ALLOWED, INSUFFICIENT, SUFFICIENT, SYNC_FAILED,
};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Condition, LabelSelector, LabelSelectorRequirement, Time,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// So long a pod that was evicted is taken to go.
const GOES_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// A label that no pod has.
const NOBODYS: &str = "impresario.dev/no-pod-has-this";

/// Decides for disruption budgets.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = PodDisruptionBudget;

    fn looks_at() -> LooksAt<PodDisruptionBudget> {
        LooksAt::itself()
            .selected::<Pod>(selector)
            .in_its_namespace::<ReplicationController, _>(Scaled::says)
            .in_its_namespace::<ReplicaSet, _>(Scaled::says)
            .in_its_namespace::<Deployment, _>(Scaled::says)
            .in_its_namespace::<StatefulSet, _>(Scaled::says)
            // Who had the shard before may have seen a pod go, and have taken it off those that are on their way.
            .as_new_as_the_registry()
    }

    fn reconcile(view: &View<'_, PodDisruptionBudget>, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        // One that is being deleted, and held by a finalizer, protects its pods until it is gone.
        let budget = view.object;
        let pods: Vec<&Pod> = view.of::<Pod>().iter().map(Arc::as_ref).collect();
        let was = budget.status.clone().unwrap_or_default();
        let (disrupted, again) = disrupted(&was, &pods, now);
        if let Some(again) = again {
            effects.look_again(again);
        }
        let healthy = pods
            .iter()
            .filter(|pod| !pod.terminating() && pod.ready() && !disrupted.contains_key(pod.name()));
        let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
        let mut status = was.clone();
        status.disrupted_pods = Some(disrupted).filter(|pods| !pods.is_empty());
        match Expected::of(view, &pods) {
            Ok(Expected { pods: expected, healthy: desired, unmanaged }) => {
                // A budget of no pods allows nothing: when the first come they may not be counted yet.
                let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
                status.expected_pods = Some(expected);
                status.desired_healthy = Some(desired);
                status.current_healthy = Some(healthy);
                status.disruptions_allowed = Some(allowed);
                status.observed_generation = budget.metadata.generation;
                let reason = if allowed > 0 { SUFFICIENT } else { INSUFFICIENT };
                set_condition(&mut status, reason, "", now);
                if pods.is_empty()
                    && (was.expected_pods > Some(0) || was.observed_generation.is_none())
                {
                    effects.say(Event::normal("NoPods", "No matching pods found"));
                }
                if unmanaged > 0 && was != status {
                    effects.say(Event::warning("UnmanagedPods", UNMANAGED));
                }
            }
            Err(why) => {
                status.disruptions_allowed = Some(0);
                let message = why.to_string();
                set_condition(&mut status, SYNC_FAILED, &message, now);
                let message = format!("Failed to calculate the number of expected pods: {message}");
                if was != status {
                    effects.say(Event::warning("CalculateExpectedPodCountFailed", message));
                }
            }
        }
        effects.report(&status);
        effects
    }
}

const UNMANAGED: &str = "pods selected by this budget have no controller, so that how many there should be cannot \
    be told: give spec.minAvailable as a number";

/// Which pods a budget is about: an empty selector means all of its namespace.
fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    let selector = budget.spec.as_ref()?.selector.clone()?;
    let is_empty = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    if !is_empty {
        return Some(selector);
    }
    let lacks = LabelSelectorRequirement {
        key: NOBODYS.into(),
        operator: "DoesNotExist".into(),
        values: None,
    };
    Some(LabelSelector { match_labels: None, match_expressions: Some(vec![lacks]) })
}

/// The pods that were evicted and have not begun to go, and when the next is given up. The clocks of who wrote them down and of who
/// made the pods are not compared: another pod that came under the name meanwhile is taken for it until then.
fn disrupted(
    was: &PodDisruptionBudgetStatus,
    pods: &[&Pod],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Timestamp>) {
    let (mut kept, mut again) = (BTreeMap::new(), None);
    let noted = was.disrupted_pods.as_ref();
    for pod in pods.iter().filter(|pod| !pod.terminating()) {
        let Some(since) = noted.and_then(|noted| noted.get(pod.name())) else { continue };
        let until = since.0.checked_add(GOES_WITHIN).unwrap_or(now);
        if until <= now {
            continue;
        }
        again = Some(again.map_or(until, |again: Timestamp| again.min(until)));
        kept.insert(pod.name().to_owned(), since.clone());
    }
    (kept, again)
}

/// Says whether one more may be missing, and why.
fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let holds = if reason == SUFFICIENT { "True" } else { "False" };
    let mut conditions = status.conditions.take().unwrap_or_default();
    let at = conditions.iter().position(|condition| condition.type_ == DISRUPTION_ALLOWED);
    let was = at.map(|at| conditions.remove(at));
    let since = was.filter(|was| was.status == holds).map(|was| was.last_transition_time);
    // In whole seconds, as it is stored.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    conditions.push(Condition {
        type_: DISRUPTION_ALLOWED.into(),
        status: holds.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: status.observed_generation,
        last_transition_time: since.unwrap_or(Time(now)),
    });
    status.conditions = Some(conditions);
}
