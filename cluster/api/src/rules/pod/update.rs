//! What may change in a pod that is there: images, a deadline, more tolerations, fewer gates.

use crate::admission::Context;
use crate::field::{
    Causes, Path, as_map, at, copy, get, has, list, list_mut, number, object_mut, same, set, text,
};
use crate::status::{Cause, Status};
use serde_json::Value;

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

/// What the server keeps of the old pod where a writer leaves it out.
pub fn prepare_update(new: &mut Value, old: &Value, _: &Context<'_>) -> Result<(), Status> {
    let spec = object_mut(new, "spec");
    for field in ["priority", "preemptionPolicy", "serviceAccountName", "serviceAccount"] {
        if !has(spec, field) || text(spec, field).is_empty() && get(spec, field).is_string() {
            copy(get(old, "spec"), spec, field);
        }
    }
    Ok(())
}

fn images(new: &Value, lists: &str, path: &Path, causes: &mut Causes) {
    for (index, container) in list(new, lists).iter().enumerate() {
        let image = text(container, "image");
        let path = path.child(lists).index(index).child("image");
        if image.is_empty() {
            causes.required(&path, "");
        } else if image.trim() != image {
            causes.invalid(&path, image, "must not have leading or trailing whitespace");
        }
    }
}

/// A change of a pod (new, old).
pub fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec");
    let (new, old) = (get(new, "spec"), get(old, "spec"));
    for containers in ["containers", "initContainers"] {
        if list(new, containers).len() != list(old, containers).len() {
            causes
                .forbidden(&path.child(containers), "pod updates may not add or remove containers");
            return causes.into_vec();
        }
    }
    images(new, "containers", &path, &mut causes);
    images(new, "initContainers", &path, &mut causes);
    deadline(new, old, &path.child("activeDeadlineSeconds"), &mut causes);
    tolerations(new, old, &path.child("tolerations"), &mut causes);
    gates(new, old, &path.child("schedulingGates"), &mut causes);
    if !same(&comparable(new, new, old), old) {
        causes.forbidden(&path, ONLY);
    }
    causes.into_vec()
}

/// The new spec with everything that may change put back as it was.
fn comparable(spec: &Value, new: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    for containers in ["containers", "initContainers"] {
        let before = list(old, containers);
        for (container, before) in list_mut(&mut spec, containers).iter_mut().zip(before) {
            copy(before, container, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        copy(old, &mut spec, field);
    }
    let was_negative = number(old, "terminationGracePeriodSeconds").is_some_and(|grace| grace < 0);
    if was_negative && number(new, "terminationGracePeriodSeconds") == Some(1) {
        copy(old, &mut spec, "terminationGracePeriodSeconds");
    }
    if !list(old, "schedulingGates").is_empty() {
        while_gated(&mut spec, old);
    }
    spec
}

/// A pod that waits at a gate may still become more choosy about nodes.
fn while_gated(spec: &mut Value, old: &Value) {
    let before = at(old, "nodeSelector").as_object();
    let only_more = before
        .into_iter()
        .flatten()
        .all(|(key, value)| get(spec, "nodeSelector").get(key) == Some(value));
    if only_more {
        copy(old, spec, "nodeSelector");
    }
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    if at(old, "affinity.nodeAffinity").get(required).is_none_or(Value::is_null)
        && let Some(affinity) = spec.get_mut("affinity").filter(|affinity| affinity.is_object())
    {
        copy(get(old, "affinity"), affinity, "nodeAffinity");
        if as_map(affinity).is_empty() {
            copy(old, spec, "affinity");
        }
    }
}

fn deadline(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    let (new, old) = (number(new, "activeDeadlineSeconds"), number(old, "activeDeadlineSeconds"));
    match (new, old) {
        (Some(new), _) if !(1..=i64::from(i32::MAX)).contains(&new) => {
            let why = format!("must be between 1 and {}, inclusive", i32::MAX);
            causes.invalid(path, new, &why);
        }
        (Some(new), Some(old)) if new > old => {
            causes.invalid(path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => causes.invalid(
            path,
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
}

/// Tolerations may be added and their seconds changed, none may go.
fn tolerations(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        crate::field::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let new_all = list(new, "tolerations");
    let kept = list(old, "tolerations").iter().all(|old| {
        let old = without_seconds(old);
        new_all.iter().any(|new| same(&without_seconds(new), &old))
    });
    if !kept {
        causes.forbidden(
            path,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
    for (index, toleration) in new_all.iter().enumerate() {
        let limited = has(toleration, "tolerationSeconds");
        if limited && text(toleration, "effect") != "NoExecute" {
            causes.invalid(
                &path.index(index).child("effect"),
                text(toleration, "effect"),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
    }
}

fn gates(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    let before = list(old, "schedulingGates");
    for (index, gate) in list(new, "schedulingGates").iter().enumerate() {
        if !before.iter().any(|old| text(old, "name") == text(gate, "name")) {
            causes.forbidden(
                &path.index(index).child("name"),
                "only deletion is allowed, but found new scheduling gate",
            );
        }
    }
}

/// A change of a pod's status: a pod that is over stays over, a restart count is not negative.
pub fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("status");
    let nominated = text(new, "status.nominatedNodeName");
    if !nominated.is_empty() {
        let wrong = crate::names::dns_subdomain(nominated);
        causes.invalid_all(&path.child("nominatedNodeName"), nominated, wrong);
    }
    let before = text(old, "status.qosClass");
    if !before.is_empty() && text(new, "status.qosClass") != before {
        causes.invalid(&path.child("qosClass"), text(new, "status.qosClass"), "field is immutable");
    }
    for field in ["initContainerStatuses", "containerStatuses"] {
        for (index, status) in list(get(new, "status"), field).iter().enumerate() {
            let path = path.child(field).index(index);
            causes.not_negative(&path.child("restartCount"), number(status, "restartCount"));
        }
    }
    // A container that ended for good cannot run again.
    if text(new, "spec.restartPolicy") != "Always" {
        for (index, status) in list(old, "status.containerStatuses").iter().enumerate() {
            let ended = at(status, "state.terminated");
            let over = !ended.is_null()
                && (text(new, "spec.restartPolicy") == "Never"
                    || number(ended, "exitCode").unwrap_or(0) == 0);
            let now = list(new, "status.containerStatuses")
                .iter()
                .find(|now| text(now, "name") == text(status, "name"));
            if over && now.is_some_and(|now| !has(now, "state.terminated")) {
                let path = path.child("containerStatuses").index(index).child("state");
                causes.forbidden(&path, "may not be transitioned to non-terminated state");
            }
        }
    }
    causes.into_vec()
}

/// A pod bound to a node, as the binding door makes it; `Err` says why it cannot be.
pub fn bind(pod: &Value, node: &str) -> Result<Value, String> {
    let bound = text(pod, "spec.nodeName");
    if has(pod, "metadata.deletionTimestamp") {
        let name = text(pod, "metadata.name");
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if !bound.is_empty() {
        let name = text(pod, "metadata.name");
        return Err(format!("pod {name} is already assigned to node {bound:?}"));
    }
    if !list(pod, "spec.schedulingGates").is_empty() {
        let name = text(pod, "metadata.name");
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut bound = pod.clone();
    set(object_mut(&mut bound, "spec"), "nodeName", node);
    Ok(bound)
}
