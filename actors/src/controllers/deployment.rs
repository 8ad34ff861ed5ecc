//! Moves the pods of a `Deployment` from one template to the next, by the replica sets that it owns: one for
//! each template, the older ones kept so that there is a way back.
//!
//! ```text
//! sets       a replica set as its deployment sees it       sizes    how large each is to be
//! revisions  which set is which revision, what it carries  status   what is said of it all
//! marks      the labels and annotations of a set
//! ```
//!
//! Each look takes the steps that are possible now; what comes of them wakes it for the next. A set is made
//! with no pods and then scaled, like any other. (API reference, Deployment v1.)

mod marks;
mod revisions;
mod sets;
mod sizes;
mod status;

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Effects, Event};
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::family::take_over;
use super::replicas::REPLICA_FAILURE;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::jiff::Timestamp;
use revisions::Kept;
use serde_json::json;
use sets::Sets;
use sizes::Limits;

/// Decides for deployments.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = Deployment;

    const FAILURE: Option<&'static str> = Some(REPLICA_FAILURE);

    fn looks_at() -> LooksAt<Deployment> {
        LooksAt::itself()
            .owned_or_adopted::<ReplicaSet>(|of: &Deployment| Some(of.spec.selector.clone()))
    }

    fn reconcile(view: &View<'_, Deployment>, now: Timestamp) -> Effects {
        let deployment = view.object;
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        let paused = deployment.spec.paused == Some(true);
        let mut effects = Effects::default();
        let owned = take_over(view, &deployment.spec.selector, &mut effects);
        let sets = Sets::of(&deployment.spec.template, owned);
        let limits = Limits::of(&deployment.spec);
        let mut collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
        let mut kept = None;
        if !deleting {
            kept = sets.newest().map(|new| revisions::keep(deployment, new, &sets));
            if kept.is_none() && !paused {
                collisions = revisions::make(view, &sets, &limits, collisions, &mut effects);
            }
            resize(&sets, &limits, (paused, kept.as_ref()), &mut effects);
        }
        if let Some(kept) = &kept {
            effects.annotate(marks::REVISION, kept.revision.to_string());
        }
        let said = status::of(deployment, (&sets, &limits), (kept.as_ref(), collisions), now);
        if !deleting && (said.complete || paused) {
            for set in revisions::surplus(&deployment.spec, &sets) {
                effects.delete(set);
            }
        }
        if let Some((reason, message)) = sets.failure().filter(|_| effects.shortfall.is_none()) {
            effects.fall_short(reason, message);
        }
        if let Some(at) = said.look_again {
            effects.look_again(at);
        }
        effects.report(&said.status);
        effects
    }
}

/// Gives each set the size that it is to have now, and the newest what else it is to carry.
fn resize(
    sets: &Sets<'_>,
    limits: &Limits,
    (paused, kept): (bool, Option<&Kept>),
    effects: &mut Effects,
) {
    let numbers = sets.numbers();
    let asked_anew = sizes::asked_anew(limits, &numbers);
    let wanted = if paused || asked_anew {
        sizes::scaled(limits, &numbers)
    } else if limits.rolling {
        Some(sizes::rolled(limits, &numbers))
    } else {
        Some(sizes::recreated(limits, &numbers))
    };
    let asked_anew = asked_anew && wanted.is_some();
    let wanted = wanted.unwrap_or_else(|| numbers.iter().map(|set| set.wanted).collect());
    for ((set, number), size) in sets.all().zip(numbers).zip(wanted) {
        let was = number.wanted;
        let kept = kept.filter(|_| number.is_new);
        let mut patch = json!({});
        if size != was || (asked_anew && was > 0) {
            revisions::note(&mut patch["metadata"]["annotations"], limits);
        }
        if size != was {
            patch["spec"]["replicas"] = size.into();
        }
        if let Some(patience) = kept.and_then(|kept| kept.patience) {
            patch["spec"]["minReadySeconds"] = patience.into();
        }
        let told = (size != was).then(|| {
            let way = if size > was { "up" } else { "down" };
            let name = sets::name(set);
            let message = format!("Scaled {way} replica set {name} from {was} to {size}");
            Event::normal("ScalingReplicaSet", message)
        });
        // Apart, so that a note that is refused keeps no pods from coming.
        if let Some(kept) = kept.filter(|kept| !kept.annotations.is_empty()) {
            effects.mark(set, &kept.annotations);
        }
        if patch != json!({}) {
            effects.change(set, patch, told);
        }
    }
}
