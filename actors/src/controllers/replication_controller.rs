//! Keeps as many pods alive as a `ReplicationController` object asks for: see [`replicas`].

use super::engine::controller::Controller;
use super::engine::effects::Effects;
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use super::replicas::{self, Asked, REPLICA_FAILURE, some};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;

/// Decides for replication controllers.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = ReplicationController;

    const FAILURE: Option<&'static str> = Some(REPLICA_FAILURE);

    fn looks_at() -> LooksAt<ReplicationController> {
        LooksAt::itself().owned_or_adopted::<Pod>(selector)
    }

    fn reconcile(view: &View<'_, ReplicationController>, now: Timestamp) -> Effects {
        let controller = view.object;
        let (Some(spec), Some(selector)) = (&controller.spec, selector(controller)) else {
            return Effects::default();
        };
        let asked = Asked {
            selector,
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            template: spec.template.as_ref(),
        };
        let (mut effects, counts) = replicas::keep(view, &asked, now);
        effects.report(&ReplicationControllerStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some(counts.fully_labeled),
            ready_replicas: some(counts.ready),
            available_replicas: some(counts.available),
            observed_generation: controller.metadata.generation,
            conditions: controller.status.as_ref().and_then(|status| status.conditions.clone()),
        });
        effects
    }
}

/// Which pods are its own. No labels select none.
fn selector(controller: &ReplicationController) -> Option<LabelSelector> {
    let match_labels = controller.spec.as_ref()?.selector.clone();
    Some(LabelSelector { match_labels, ..LabelSelector::default() })
}

#[cfg(test)]
mod tests;
