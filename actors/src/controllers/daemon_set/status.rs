//! What is said of a daemon set: on how many nodes it is how far.

use super::super::engine::view::View;
use super::super::pod_view::PodView as _;
use super::super::replicas::{available_at, some};
use super::places::{Places, is_available, is_of};
use super::revisions::Revision;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// How often counts are written while pods come and go: each of thousands changes some times on its way, and each
/// status that is written makes the set look again.
const PAUSE: SignedDuration = SignedDuration::from_millis(500);

/// Until when this status waits, if it tells nothing but other counts and the last one was written a moment ago.
pub(super) fn waits(
    view: &View<'_, DaemonSet>,
    status: &DaemonSetStatus,
    now: Timestamp,
) -> Option<Timestamp> {
    let was = view.object.status.as_ref()?;
    let says = |it: &DaemonSetStatus| (it.observed_generation, it.collision_count);
    let until = view.reported()?.checked_add(PAUSE).ok()?;
    // One that is further away was counted by a clock that has been set back since.
    let waits = until > now && until.duration_since(now) <= PAUSE;
    (says(was) == says(status) && was != status && waits).then_some(until)
}

/// The status, and when it is another by time alone. Of several pods on a node the oldest counts.
pub(super) fn of(
    set: &DaemonSet,
    places: &Places<'_>,
    revision: &Revision,
    now: Timestamp,
) -> (DaemonSetStatus, Option<Timestamp>) {
    let patience = set.spec.min_ready_seconds.unwrap_or(0);
    let mut status = DaemonSetStatus::default();
    let (mut updated, mut available, mut next) = (0, 0, None);
    for place in places.all() {
        let pod = place.pods.first();
        if !place.is_wanted() {
            status.number_misscheduled += i32::from(pod.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = pod else { continue };
        status.current_number_scheduled += 1;
        let is_new = revision.hash.as_deref().is_some_and(|hash| is_of(pod, hash));
        updated += i32::from(is_new);
        status.number_ready += i32::from(pod.ready());
        available += i32::from(is_available(pod, patience, now));
        let ripe = place.pods.iter().filter(|pod| pod.ready());
        let ripe = ripe.filter_map(|pod| available_at(pod, patience)).filter(|at| *at > now);
        next = next.into_iter().chain(ripe).min();
    }
    status.updated_number_scheduled = some(updated);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status.observed_generation = set.metadata.generation;
    status.collision_count = revision.collisions;
    status.conditions = set.status.as_ref().and_then(|status| status.conditions.clone());
    (status, next)
}
