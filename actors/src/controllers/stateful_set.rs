//! Keeps pods of a `StatefulSet`: each with a name, a place in an order, and claims of its own.
//!
//! ```text
//! members    which pods are its own, and the place of each
//! plan       which pods come and go now            claims  the claims of its pods, and whose they are
//! pods       a pod for a place                     status  what is said of it all
//! failures   how long a pod that ended is kept, and how many did before
//! ```
//!
//! A pod has its name alone: another of it comes when it is gone for good, which its node says. In order, a pod comes when
//! all before it are available, and goes when all after it are gone. A pod of a template that was given up before it worked is
//! replaced, also where the order would wait for it for ever. (API reference, StatefulSet v1; Kubernetes documentation,
//! "StatefulSets", of which "Forced rollback" says what would have to be done by hand.)

mod claims;
mod failures;
mod members;
mod plan;
mod pods;
mod status;

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Draft, Effects, Event};
use super::engine::kind_name::KindName;
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::family::{take_over, take_over_those};
use super::pod_view::PodView as _;
use super::replicas::{REPLICA_FAILURE, wait_for_next};
use super::revisions::{self, Found};
use claims::Claims;
use failures::Failures;
use impresario_api::kinds::daemonsets::REVISION_HASH;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use members::Shape;
use plan::{Action, Of, Revisions};
use pods::Common;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest beginning of a revision's name, which its pods carry in a label of 63 characters.
const LONGEST: usize = 63 - 11;
/// How long it waits for a name that somebody else's pod has: nobody tells it when that goes.
const TAKEN: SignedDuration = SignedDuration::from_secs(10);

/// Decides for stateful sets.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = StatefulSet;

    const FAILURE: Option<&'static str> = Some(REPLICA_FAILURE);
    const SILENT_OF: &'static [KindName] = &[KindName::of::<ControllerRevision>()];

    fn looks_at() -> LooksAt<StatefulSet> {
        let selector = |set: &StatefulSet| Some(set.spec.selector.clone());
        // Revisions before pods, which are made of them, and claims before pods that use them.
        LooksAt::itself()
            .owned_or_adopted::<ControllerRevision>(selector)
            .kept::<PersistentVolumeClaim>(selector)
            .owned_or_adopted::<Pod>(selector)
    }

    fn reconcile(view: &View<'_, StatefulSet>, now: Timestamp) -> Effects {
        let served = KindName::of::<PersistentVolumeClaim>().served().is_ok();
        reconcile(view, served, now)
    }
}

/// What must be done, where claims are served or not.
fn reconcile(view: &View<'_, StatefulSet>, are_claims_served: bool, now: Timestamp) -> Effects {
    let (mut effects, set) = (Effects::default(), view.object);
    let spec = &set.spec;
    let shape = Shape::of(set.metadata.name.as_deref().unwrap_or_default(), spec);
    let is_member = |pod: &Pod| shape.ordinal_of(pod.name()).is_some();
    let pods: Vec<&Pod> = take_over_those(view, &spec.selector, is_member, &mut effects);
    let kept: Vec<&ControllerRevision> = take_over(view, &spec.selector, &mut effects);
    if set.metadata.deletion_timestamp.is_some() {
        return effects;
    }
    let members = shape.members(&pods);
    let Some(revisions) = keep_revisions(view, spec, &kept, &pods, &mut effects) else {
        return effects; // it is looked at again when the template is written down
    };
    let (status, look_again) = status::of((set, spec), &shape, &members, &revisions, now);
    if let Some(at) = look_again {
        effects.look_again(at);
    }
    effects.report(&status);
    let claims = Claims::of(view, spec, are_claims_served);
    let no_claims = claims.keep(&shape, &members, &mut effects);
    if let Some(why) = no_claims {
        effects.say(Event::warning("FailedCreate", why));
        effects.fall_short("ClaimsNotServed", why);
    }
    for member in &members {
        pods::identify(member, &mut effects);
    }
    let failures = Failures::of(set, &shape, &members, now);
    failures.note(&mut effects);
    let mut coming = Vec::new();
    for action in plan::plan(spec, &shape, &members, (&revisions, &failures), now) {
        match action {
            Action::Delete(pod) if claims.are_ready_for_the_end_of(&shape, pod) => {
                effects.delete(pod);
            }
            Action::Delete(_) => {}
            Action::Keep(until) => wait_for_next(until, now, &mut effects),
            Action::Create(..) if no_claims.is_some() => {}
            Action::Create(ordinal, of) => coming.push((shape.name_of(ordinal), ordinal, of)),
        }
    }
    let mut made = [None, None];
    for (name, ordinal, of) in coming {
        if view.is_taken(&name) {
            let why = format!("the name {name} is that of a pod that is not of this set");
            effects.say(Event::warning("FailedCreate", why.as_str()));
            effects.fall_short("NameTaken", why);
            effects.look_again(now.checked_add(TAKEN).unwrap_or(now));
        } else if claims.are_ready_for(&name) {
            claims.make(&name, &mut effects);
            let (at, revision) = match of {
                Of::Current => (0, revisions.current),
                Of::Update => (1, revisions.update),
            };
            let common = made[at].get_or_insert_with(|| Arc::new(Common::of(view, spec, revision)));
            let (common, before) = (common.clone(), failures.before(ordinal, revisions.name(of)));
            let draft = Draft::new(move || common.pod(&name, ordinal, before));
            effects.create_from::<Pod>(&draft);
        }
    }
    effects
}

/// The revision that pods come to be of, and the one that they are of as long as they do not; none as long as the template is not
/// written down.
fn keep_revisions<'a>(
    view: &View<'_, StatefulSet>,
    spec: &StatefulSetSpec,
    kept: &[&'a ControllerRevision],
    pods: &[&Pod],
    effects: &mut Effects,
) -> Option<Revisions<'a>> {
    let set = view.object;
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let name = name.get(..LONGEST).unwrap_or(name).trim_end_matches(['-', '.']);
    let status = set.status.as_ref();
    let collisions = status.and_then(|status| status.collision_count);
    let Found { new, old, collisions } = revisions::keep(view, name, collisions, kept, effects);
    let update = new?;
    let current = status.and_then(|status| status.current_revision.as_deref());
    let current = old.iter().find(|it| it.metadata.name.as_deref() == current);
    let current = current.copied().unwrap_or(update);
    let of_pods = pods.iter().filter_map(|pod| pod.labels().get(REVISION_HASH));
    let live: BTreeSet<&str> =
        of_pods.map(String::as_str).chain(current.metadata.name.as_deref()).collect();
    let is_live = |it: &ControllerRevision| {
        it.metadata.name.as_deref().is_some_and(|name| live.contains(name))
    };
    revisions::surplus(&old, spec.revision_history_limit, is_live, effects);
    Some(Revisions { update, current, collisions })
}
