//! What is said of a claim, on both of its sides.

use super::super::engine::effects::{Effects, Event};
use super::super::engine::view::View;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use serde_json::{Value, json};

/// Says that it has no volume yet.
pub(super) fn wait(view: &View<'_, PersistentVolumeClaim>, effects: &mut Effects, why: Event) {
    let status = view.object.status.clone().unwrap_or_default();
    effects.report(&PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..status });
    effects.say(why);
}

/// The claim, as its volume names it.
pub(super) fn reference(claim: &PersistentVolumeClaim) -> Value {
    let metadata = &claim.metadata;
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata.namespace,
        "name": metadata.name,
        "uid": metadata.uid,
    })
}
