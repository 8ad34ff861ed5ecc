//! Keeps one pod of a template on each node that a `DaemonSet` is meant for.
//!
//! ```text
//! places     which nodes it is meant for, and what runs on each
//! pods       a pod for one node
//! revisions  what the template was, so that there is a way back
//! rollout    which old pods make way for new ones now
//! status     what is said of it all        marks  the labels of pods and revisions
//! ```
//!
//! A pod is made for one node by its affinity, and the scheduler brings it there: so it takes its place among
//! the others by what it asks for. A node that is cordoned refuses every reservation, also one for a pod that
//! tolerates that: a daemon's pod that is made for it meanwhile waits until it is not any more. (API reference, DaemonSet v1; Kubernetes documentation, "DaemonSet".)

mod marks;
mod places;
mod pods;
mod revisions;
mod rollout;
mod status;

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Draft, Effects, Event};
use super::engine::kind_name::KindName;
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::failed::failed;
use super::family::take_over;
use super::pod_view::PodView as _;
use super::replicas::BURST;
use impresario_api::kinds::daemonsets::OWN_LABELS;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use places::{Facet, Places};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Decides for daemon sets.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = DaemonSet;

    const STATUS_FIRST: bool = false;
    const SILENT_OF: &'static [KindName] = &[KindName::of::<ControllerRevision>()];

    fn looks_at() -> LooksAt<DaemonSet> {
        let selector = |set: &DaemonSet| Some(set.spec.selector.clone());
        // Revisions first: no pod is made of one that is not written down.
        LooksAt::itself()
            .owned_or_adopted::<ControllerRevision>(selector)
            .owned_or_adopted::<Pod>(selector)
            .mattering::<Node, Facet>(Facet::of, places::matters)
    }

    fn reconcile(view: &View<'_, DaemonSet>, now: Timestamp) -> Effects {
        let (mut effects, set) = (Effects::default(), view.object);
        let pods: Vec<&Pod> = take_over(view, &set.spec.selector, &mut effects);
        let kept: Vec<&ControllerRevision> = take_over(view, &set.spec.selector, &mut effects);
        if set.metadata.deletion_timestamp.is_some() {
            return effects;
        }
        if !selects_its_own(set) {
            // It would let go of each pod and revision, and make the next.
            effects.say(Event::warning("SelectorNeverMatches", SELECTS_NONE));
            return effects;
        }
        let revision = revisions::keep(view, &kept, &pods, &mut effects);
        let places = Places::of(set, view.of::<Node>(), &pods);
        if let Some(hash) = &revision.hash {
            settle(view, &places, hash, now, &mut effects);
        }
        let (status, look_again) = status::of(set, &places, &revision, now);
        if let Some(at) = look_again {
            effects.look_again(at);
        }
        match status::waits(view, &status, now) {
            Some(until) => effects.look_again(until),
            None => effects.report(&status),
        }
        effects
    }
}

const SELECTS_NONE: &str = "the selector says of the labels controller-revision-hash and pod-template-generation what \
    no pod of this daemon set can have for long: make the daemon set anew without that";

/// Whether its selector selects what it makes, whatever its template comes to be: it says nothing of the labels that it
/// gives values of its own.
fn selects_its_own(set: &DaemonSet) -> bool {
    let selector = &set.spec.selector;
    let mut keys = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, _)| key)
        .chain(selector.match_expressions.iter().flatten().map(|requirement| &requirement.key));
    keys.all(|key| !OWN_LABELS.contains(&key.as_str()))
}

/// Brings pods to the nodes that should have one, and takes away those that should not be where they are.
fn settle(
    view: &View<'_, DaemonSet>,
    places: &Places<'_>,
    hash: &str,
    now: Timestamp,
    effects: &mut Effects,
) {
    let set = view.object;
    let patience = set.spec.min_ready_seconds.unwrap_or(0);
    let mut missing: BTreeMap<&str, Missing<'_>> = BTreeMap::new();
    let mut unwanted: BTreeMap<&str, &Pod> = BTreeMap::new();
    let surges = rollout::surges(set);
    for place in places.all() {
        if place.is_wanted() && place.pods.is_empty() {
            missing.insert(place.node, Missing::default());
        }
        for pod in place.unwanted(surges, hash, patience, now) {
            unwanted.insert(pod.uid(), pod);
        }
        let mut due = Vec::new();
        for pod in place.finished() {
            let failed = failed(pod, marks::FAILURES, now);
            match failed.kept_until {
                Some(until) => effects.look_again(until),
                None => due.push((pod, failed.in_a_row)),
            }
        }
        if let Some((pod, _)) = due.first()
            && place.is_replaced(surges, hash)
        {
            // What failed of another template says nothing of this one.
            let of_this = due.iter().filter(|(pod, _)| places::is_of(pod, hash));
            let failures = of_this.map(|(_, before)| *before).max().unwrap_or(0);
            missing.insert(place.node, Missing { failures, instead_of: Some(*pod) });
        }
        if !place.is_awaited() {
            unwanted.extend(due.into_iter().map(|(pod, _)| (pod.uid(), pod)));
        }
    }
    for pod in places.lost() {
        unwanted.insert(pod.uid(), pod);
    }
    let moves = rollout::moves(set, places, hash, now);
    for pod in moves.old {
        unwanted.insert(pod.uid(), pod);
    }
    missing.extend(moves.new.into_iter().map(|node| (node, Missing::default())));
    // Those go when others are in their places, and when it is their turn.
    for pod in missing.values().filter_map(|missing| missing.instead_of) {
        unwanted.remove(pod.uid());
    }
    if !missing.is_empty() {
        let common = Arc::new(pods::common(view, hash));
        for (node, Missing { failures, instead_of }) in missing.into_iter().take(BURST) {
            let (common, node) = (common.clone(), node.to_owned());
            let draft = Draft::new(move || pods::pod_for(&common, &node, failures));
            match instead_of {
                Some(pod) => effects.replace(pod, &draft, killed(pod)),
                None => effects.create_from::<Pod>(&draft),
            }
        }
    }
    for pod in unwanted.into_values().take(BURST) {
        if pod.finished() {
            effects.events.extend(killed(pod));
        }
        effects.delete(pod);
    }
}

/// A node that is to have a pod and has none.
#[derive(Debug, Default, Clone, Copy)]
struct Missing<'a> {
    /// How many have failed there before, one soon after the other.
    failures: u32,
    /// One that ended, which goes when there is another.
    instead_of: Option<&'a Pod>,
}

/// What is said of a pod that ended and goes; nothing of one that ended well.
fn killed(pod: &Pod) -> Option<Event> {
    let message = format!(
        "Found failed daemon pod {}/{} on node {}, will try to kill it",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.name(),
        pods::node_of(pod).unwrap_or_default()
    );
    (!pod.succeeded()).then(|| Event::warning("FailedDaemonPod", message))
}
