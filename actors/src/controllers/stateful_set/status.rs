//! What is said of a stateful set: how many pods are how far, and of which template.

use super::super::pod_view::PodView as _;
use super::super::replicas::{available_at, some};
use super::members::{Member, Shape};
use super::plan::Revisions;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::jiff::Timestamp;

/// The status, and when it is another by time alone.
pub(super) fn of(
    (set, spec): (&StatefulSet, &StatefulSetSpec),
    shape: &Shape,
    members: &[Member<'_>],
    revisions: &Revisions<'_>,
    now: Timestamp,
) -> (StatefulSetStatus, Option<Timestamp>) {
    let (update, current) = (revisions.update_name(), revisions.current_name());
    let (mut replicas, mut ready, mut available) = (0, 0, 0);
    let (mut updated, mut were) = (0, 0);
    let mut next: Option<Timestamp> = None;
    for member in members {
        replicas += 1;
        if member.pod.ready() && !member.pod.finished() {
            ready += 1;
            let ripe = available_at(member.pod, shape.patience).filter(|at| *at > now);
            available += i32::from(ripe.is_none());
            next = next.into_iter().chain(ripe).min();
        }
        if !member.pod.terminating() {
            updated += i32::from(member.revision() == Some(update));
            were += i32::from(member.revision() == Some(current));
        }
    }
    let wanted = i32::try_from(shape.count()).unwrap_or(i32::MAX);
    let rolls = spec.update_strategy.as_ref().and_then(|it| it.type_.as_deref());
    let is_over = rolls != Some("OnDelete") && [updated, ready, replicas] == [wanted; 3];
    let status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: some(ready),
        available_replicas: Some(available),
        current_replicas: some(if is_over { updated } else { were }),
        updated_replicas: some(updated),
        current_revision: Some(if is_over { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: revisions.collisions.or(Some(0)),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    (status, next)
}
