//! A daemon set's pod for one node.

use super::super::engine::view::View;
use super::super::owned::pod_from;
use super::super::pod_view::PodView as _;
use super::marks::{FAILURES, GENERATION, HASH};
use impresario_api::kinds::daemonsets::TEMPLATE_GENERATION;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use serde_json::{Value, json};

/// The field of a node by which a pod is bound to go there.
const NAME: &str = "metadata.name";

/// Taints that say what a node is short of: a daemon's pod runs there all the same (Kubernetes documentation,
/// "DaemonSet", "Taints and tolerations").
const BEARS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The same, for pods that use the host's network.
const BEARS_ON_HOST: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What its pods tolerate: what the template says, and what every daemon does.
pub(super) fn tolerations(spec: Option<&PodSpec>) -> Vec<Toleration> {
    let mut all = spec.and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let on_host = spec.is_some_and(|spec| spec.host_network == Some(true));
    let bears = BEARS.into_iter().chain(on_host.then_some(BEARS_ON_HOST));
    for (key, effect) in bears {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// What the pods for all nodes have in common.
pub(super) fn common(view: &View<'_, DaemonSet>, hash: &str) -> Value {
    let metadata = &view.object.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let mut pod = pod_from(&view.stored["spec"]["template"], &view.owner(), name);
    let labels = &mut pod["metadata"]["labels"];
    labels[HASH] = hash.into();
    let generation = metadata.annotations.as_ref().and_then(|all| all.get(TEMPLATE_GENERATION));
    // One that is no number, from before it was kept, is none: no pod could have it for a label.
    if let Some(generation) = generation.and_then(|said| said.parse::<u64>().ok()) {
        labels[GENERATION] = generation.to_string().into();
    }
    pod["spec"]["tolerations"] = json!(tolerations(view.object.spec.template.spec.as_ref()));
    pod
}

/// The pod for a node on which so many have failed before.
pub(super) fn pod_for(common: &Value, node: &str, failures: u32) -> Value {
    let mut pod = common.clone();
    if failures > 0 {
        pod["metadata"]["annotations"][FAILURES] = failures.to_string().into();
    }
    let spec = &mut pod["spec"];
    // Instead of what the template requires: that it may go there has been looked at.
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({
        "nodeSelectorTerms": [{"matchFields": [{"key": NAME, "operator": "In", "values": [node]}]}],
    });
    pod
}

/// The node on which a pod is, or for which it is made; none of a pod that was adopted and waits for any.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if pod.bound() {
        return spec.node_name.as_deref();
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields =
        required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == NAME)?;
    field.values.as_ref()?.first().map(String::as_str)
}
