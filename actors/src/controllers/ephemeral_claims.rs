//! Makes the claims of pods that have `ephemeral` volumes: each is the pod's own, and goes with it.
//!
//! One singleton for all, woken by pods that have such volumes: an actor for every pod would be one for very many that have
//! none. A claim that has the name and is not the pod's is left as it is: the scheduler says so of the pod.
//! (Kubernetes documentation, "Ephemeral Volumes", "Generic ephemeral volumes".)

use super::control::{Look, LookError, Next};
use super::engine::sources::Source;
use super::mirror::Mirror;
use super::pod_view::PodView as _;
use super::view::View;
use crate::storage::{is_of_pod, own_claim};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::catalog::find;
use impresario_api::status::{Reason, Status};
use impresario_objects::events::Severity;
use impresario_objects::{Objects, WriteOptions};
use impresario_registry_api::Fence;
use impresario_runtime::clock;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use std::sync::Arc;

/// The singleton that makes them.
pub const EPHEMERAL_CLAIMS: &str = "ephemeral-claims";
/// After so long one is tried again that could not be made.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// After so long it is looked again whether the claim of the pod that had the name before is gone.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// Looks for pods whose claims are missing.
pub struct EphemeralClaimsLook {
    view: View,
    claims: Mirror<PersistentVolumeClaim>,
    objects: Objects,
}

/// What wakes it.
#[must_use]
pub fn sources(view: &View) -> Vec<Source> {
    let concerns = |before: Option<&Pod>, now: Option<&Pod>| {
        before.is_none() && now.is_some_and(|pod| ephemeral(pod).next().is_some())
    };
    vec![Source::of_one(EPHEMERAL_CLAIMS, &view.pods, concerns)]
}

impl EphemeralClaimsLook {
    /// A look at all pods, by right of a shard.
    #[must_use]
    pub fn new(view: View, fence: Fence) -> Self {
        let (claims, objects) = (view.mirrors.of(), view.objects.fenced(fence));
        Self { view, claims, objects }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self) -> Result<Next, LookError> {
        let row = find("", "v1", "persistentvolumeclaims")
            .ok_or_else(|| Status::internal("no claims are served"))?;
        let mut next = Next::WhenTold;
        for seen in self.view.pods.picked(is_waiting) {
            let pod = &*seen.object;
            let namespace = &seen.entry.key.namespace;
            for claim in claims(pod) {
                let name = claim["metadata"]["name"].as_str().unwrap_or_default();
                if let Some(found) = self.claims.get(namespace, name) {
                    if is_of_another(&found.object, pod.uid()) {
                        next = Next::At(clock::timestamp() + SOON);
                    }
                    continue;
                }
                let options = WriteOptions::default();
                match self.objects.create(&row, namespace, claim.clone(), &options).await {
                    Ok(_) => {}
                    // Made already, or another's: it is looked whose it is when it is seen here.
                    Err(error) if error.reason == Reason::AlreadyExists => {
                        next = Next::At(clock::timestamp() + SOON);
                    }
                    Err(error) if error.is_fenced() => return Err(error.into()),
                    Err(error) => {
                        let about = json!({
                            "apiVersion": "v1",
                            "kind": "Pod",
                            "metadata": {"namespace": namespace, "name": pod.name(), "uid": pod.uid()},
                        });
                        let why = format!("persistentvolumeclaim {name:?} is not made: {error}");
                        self.view.events.record(&about, Severity::Warning, "FailedCreate", &why);
                        next = Next::At(clock::timestamp() + AGAIN);
                    }
                }
            }
        }
        Ok(next)
    }
}

impl Look for EphemeralClaimsLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

/// The volumes of a pod that are made for it, each with the template of its claim.
fn ephemeral(pod: &Pod) -> impl Iterator<Item = (&str, Value)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((volume.name.as_str(), serde_json::to_value(template).ok()?))
    })
}

/// Whether a claim belongs to another object than this pod, with which it goes: mostly the pod that had the name before.
fn is_of_another(claim: &PersistentVolumeClaim, uid: &str) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true)) && !is_of_pod(claim, uid)
}

/// Whether a pod may be waiting for a claim.
fn is_waiting(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_over = matches!(phase, Some("Succeeded" | "Failed"));
    !pod.terminating() && !is_over && ephemeral(pod).next().is_some()
}

/// The claims of a pod for its `ephemeral` volumes.
fn claims(pod: &Pod) -> Vec<Value> {
    let claim = |(volume, template): (&str, Value)| {
        let mut metadata = json!({
            "name": own_claim(pod.name(), volume),
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod.name(),
                "uid": pod.uid(),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        });
        for field in ["labels", "annotations"] {
            if let Some(given) = template["metadata"].get(field) {
                metadata[field] = given.clone();
            }
        }
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": template["spec"],
        })
    };
    ephemeral(pod).map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_made_for_each_ephemeral_volume_and_is_the_pods_own() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "emptyDir": {}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                    "metadata": {"labels": {"x": "y"}},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}]},
        }))
        .unwrap();
        let made = claims(&pod);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["metadata"]["name"], "p-scratch");
        assert_eq!(made[0]["metadata"]["labels"], json!({"x": "y"}));
        assert_eq!(made[0]["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(made[0]["spec"]["resources"]["requests"]["storage"], "1Gi");
        let typed = serde_json::from_value(made[0].clone()).unwrap();
        assert!(is_of_pod(&typed, "u") && !is_of_another(&typed, "u"));
        assert!(is_of_another(&typed, "remade"), "it is waited for until that is gone");
        let foreign = PersistentVolumeClaim::default();
        assert!(!is_of_another(&foreign, "u"), "it stays, and the scheduler says so");
        assert!(is_waiting(&pod));
        let mut going = pod.clone();
        going.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(clock::timestamp()));
        assert!(!is_waiting(&going));
    }
}
