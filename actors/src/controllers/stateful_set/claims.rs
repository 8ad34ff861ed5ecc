//! The claims of the pods of a stateful set: made before the pod, kept when it is replaced, and let go as the set says.
//!
//! Whoever owns a claim takes it along: the set where its claims go with it, a pod without a place where they go with
//! that. The garbage collector does the rest. (API reference, StatefulSetPersistentVolumeClaimRetentionPolicy v1.)

use super::super::engine::effects::Effects;
use super::super::engine::view::View;
use super::super::labels::{self, selects};
use super::super::pod_view::PodView as _;
use super::members::{Member, Shape};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why no pod is made where claims could not be.
const NOT_SERVED: &str = "the pods of this set have claims for volumes, and persistentvolumeclaims are not served \
    here: take volumeClaimTemplates out of it, or wait for a version that serves them";

/// The name of the claim of a pod for a volume.
pub(super) fn claim_name(volume: &str, pod: &str) -> String {
    format!("{volume}-{pod}")
}

/// The claims that a set has, and those that it asks for.
pub(super) struct Claims<'a, 'v> {
    view: &'v View<'a, StatefulSet>,
    spec: &'a StatefulSetSpec,
    there: BTreeMap<&'a str, &'a PersistentVolumeClaim>,
    volumes: Vec<&'a str>,
    is_served: bool,
    goes_with_set: bool,
    goes_with_pod: bool,
}

impl<'a, 'v> Claims<'a, 'v> {
    pub(super) fn of(
        view: &'v View<'a, StatefulSet>,
        spec: &'a StatefulSetSpec,
        is_served: bool,
    ) -> Self {
        let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
        let retention = spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |said: Option<&String>| said.is_some_and(|said| said == "Delete");
        let there = view.of::<PersistentVolumeClaim>().iter().map(Arc::as_ref);
        Self {
            view,
            spec,
            there: there
                .map(|claim| (claim.metadata.name.as_deref().unwrap_or_default(), claim))
                .collect(),
            volumes: templates.iter().filter_map(|it| it.metadata.name.as_deref()).collect(),
            is_served,
            goes_with_set: deletes(retention.and_then(|it| it.when_deleted.as_ref())),
            goes_with_pod: deletes(retention.and_then(|it| it.when_scaled.as_ref())),
        }
    }

    /// Says whose the claims of its pods are. Why no pod may be made, if none may.
    pub(super) fn keep(
        &self,
        shape: &Shape,
        members: &[Member<'_>],
        effects: &mut Effects,
    ) -> Option<&'static str> {
        if self.volumes.is_empty() {
            return None;
        }
        if !self.is_served {
            return Some(NOT_SERVED);
        }
        for member in members {
            for claim in self.of_pod(member.pod.name()) {
                let wanted = self.wanted_owners(shape, member.pod, claim);
                if owners(claim) != wanted.as_slice() {
                    effects.rewrite(claim, json!({"metadata": {"ownerReferences": wanted}}));
                }
            }
            if shape.has(member.ordinal) && !member.pod.terminating() && !member.is_healthy() {
                self.make(member.pod.name(), effects);
            }
        }
        None
    }

    /// Whether the claims of a pod that is to go are those of whom they go with.
    pub(super) fn are_ready_for_the_end_of(&self, shape: &Shape, pod: &Pod) -> bool {
        !self.is_served
            || self
                .of_pod(pod.name())
                .all(|claim| owners(claim) == self.wanted_owners(shape, pod, claim).as_slice())
    }

    /// Whether a pod may come that is to have claims: those that are there stay. One that goes with the pod that was
    /// there before is on its way out.
    pub(super) fn are_ready_for(&self, pod: &str) -> bool {
        self.of_pod(pod).all(|claim| {
            let is_of_pod = |owner: &OwnerReference| owner.kind == "Pod" && owner.name == pod;
            claim.metadata.deletion_timestamp.is_none() && !owners(claim).iter().any(is_of_pod)
        })
    }

    /// Makes those claims of a pod that are not there. What has the name of one and is not selected by the set is
    /// taken for it.
    pub(super) fn make(&self, pod: &str, effects: &mut Effects) {
        let templates = self.view.stored["spec"]["volumeClaimTemplates"].as_array();
        for template in templates.into_iter().flatten() {
            let volume = template["metadata"]["name"].as_str().unwrap_or_default();
            let name = claim_name(volume, pod);
            if !self.there.contains_key(name.as_str()) && !self.view.is_taken(&name) {
                effects.create::<PersistentVolumeClaim>(self.claim(template, &name));
            }
        }
    }

    fn claim(&self, template: &Value, name: &str) -> Value {
        let spec = self.spec;
        let mut labels: BTreeMap<String, String> =
            serde_json::from_value(template["metadata"]["labels"].clone()).unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        if !selects(&spec.selector, &labels) {
            // It would not see them again.
            labels.extend(
                spec.template.metadata.as_ref().map(labels::of).cloned().unwrap_or_default(),
            );
        }
        let mut metadata = json!({ "name": name, "labels": labels });
        for field in ["annotations", "finalizers"] {
            if let Some(given) = template["metadata"].get(field) {
                metadata[field] = given.clone();
            }
        }
        if self.goes_with_set {
            metadata["ownerReferences"] = json!([self.set_reference()]);
        }
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": template["spec"],
        })
    }

    fn of_pod(&self, pod: &str) -> impl Iterator<Item = &'a PersistentVolumeClaim> {
        let names = self.volumes.iter().map(move |volume| claim_name(volume, pod));
        names.filter_map(move |name| self.there.get(name.as_str()).copied())
    }

    /// The owners of a claim: others stay as they are.
    fn wanted_owners(
        &self,
        shape: &Shape,
        pod: &Pod,
        claim: &PersistentVolumeClaim,
    ) -> Vec<OwnerReference> {
        let set = self.set_reference();
        let is_placed = shape.ordinal_of(pod.name()).is_some_and(|ordinal| shape.has(ordinal));
        let is_other = |owner: &&OwnerReference| owner.uid != set.uid && owner.uid != pod.uid();
        let mut wanted: Vec<OwnerReference> =
            owners(claim).iter().filter(is_other).cloned().collect();
        if !is_placed && self.goes_with_pod {
            wanted.push(reference("v1", "Pod", pod.name(), pod.uid()));
        } else if self.goes_with_set {
            wanted.push(set);
        }
        wanted
    }

    fn set_reference(&self) -> OwnerReference {
        let metadata = &self.view.object.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        reference("apps/v1", "StatefulSet", &text(&metadata.name), &text(&metadata.uid))
    }
}

fn owners(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or_default()
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        ..OwnerReference::default()
    }
}
