//! A stateful set's pod for a place.

use super::super::engine::effects::Effects;
use super::super::engine::view::View;
use super::super::owned::pod_from;
use super::super::pod_view::PodView as _;
use super::super::revisions::template_of;
use super::claims::claim_name;
use super::failures::FAILURES;
use super::members::Member;
use impresario_api::kinds::daemonsets::REVISION_HASH;
use impresario_api::kinds::statefulsets::{POD_INDEX, POD_NAME};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the pods of a revision have in common.
pub(super) struct Common {
    pod: Value,
    /// The volumes for which each has a claim.
    claimed: Vec<String>,
}

impl Common {
    pub(super) fn of(
        view: &View<'_, StatefulSet>,
        spec: &StatefulSetSpec,
        revision: &ControllerRevision,
    ) -> Self {
        let mut pod = pod_from(&template_of(revision), &view.owner(), "");
        if let Some(fields) = pod["metadata"].as_object_mut() {
            fields.remove("generateName");
        }
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        pod["metadata"]["labels"][REVISION_HASH] = name.into();
        if let Some(service) = spec.service_name.as_deref().filter(|name| !name.is_empty()) {
            pod["spec"]["subdomain"] = service.into();
        }
        let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
        Self { pod, claimed: templates.iter().filter_map(|it| it.metadata.name.clone()).collect() }
    }

    /// The pod for a place at which so many have failed before: with its name for the host, and its claims for volumes.
    pub(super) fn pod(&self, name: &str, ordinal: i64, failures: u32) -> Value {
        let mut pod = self.pod.clone();
        let metadata = &mut pod["metadata"];
        metadata["name"] = name.into();
        metadata["labels"][POD_NAME] = name.into();
        metadata["labels"][POD_INDEX] = ordinal.to_string().into();
        if failures > 0 {
            metadata["annotations"][FAILURES] = failures.to_string().into();
        }
        let spec = &mut pod["spec"];
        spec["hostname"] = name.into();
        if self.claimed.is_empty() {
            return pod;
        }
        let claimed = self.claimed.iter().map(|volume| {
            let claim = json!({ "claimName": claim_name(volume, name) });
            json!({ "name": volume, "persistentVolumeClaim": claim })
        });
        let own = spec["volumes"].as_array().cloned().unwrap_or_default();
        let is_claimed =
            |volume: &Value| self.claimed.iter().any(|it| volume["name"] == it.as_str());
        let others = own.into_iter().filter(|volume| !is_claimed(volume));
        spec["volumes"] = claimed.chain(others).collect();
        pod
    }
}

/// Gives a pod that stays the labels that tell which it is, where it has lost them.
pub(super) fn identify(member: &Member<'_>, effects: &mut Effects) {
    let pod = member.pod;
    if pod.terminating() || pod.finished() {
        return;
    }
    let wanted = [(POD_NAME, pod.name().to_owned()), (POD_INDEX, member.ordinal.to_string())];
    let missing: BTreeMap<&str, String> =
        wanted.into_iter().filter(|(key, value)| pod.labels().get(*key) != Some(value)).collect();
    if !missing.is_empty() {
        effects.change(pod, json!({ "metadata": { "labels": missing } }), None);
    }
}
