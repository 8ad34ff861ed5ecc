//! What may change in a pod that is there: images, a deadline, more tolerations, fewer gates.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, at, copy, entries, get, has, list, list_mut, number, object_mut, same, set, text,
};
use crate::rules::metadata;
use crate::status::Status;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

/// What the server keeps of the old pod where a writer leaves it out.
pub fn prepare_update(new: &mut Value, old: &Value, _: &Context<'_>) -> Result<(), Status> {
    let spec = object_mut(new, "spec");
    for field in ["priority", "preemptionPolicy", "serviceAccountName", "serviceAccount"] {
        if !has(spec, field) || text(spec, field).is_empty() && get(spec, field).is_string() {
            copy(get(old, "spec"), spec, field);
        }
    }
    // A patch that replaces the list of tolerations does not mean those that every pod has.
    super::tolerate_trouble(new);
    Ok(())
}

fn images(new: &Value, lists: &str, path: &Path, causes: &mut Causes) {
    for (index, container) in list(new, lists).iter().enumerate() {
        if causes.is_full() {
            break;
        }
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
    causes.append(metadata::validate_again(new));
    super::validate_own(new, &mut causes);
    let (new, old) = (get(new, "spec"), get(old, "spec"));
    for containers in ["containers", "initContainers"] {
        if list(new, containers).len() != list(old, containers).len() {
            causes
                .forbidden(&path.child(containers), "pod updates may not add or remove containers");
            return causes.into_vec();
        }
        images(new, containers, &path, &mut causes);
    }
    if deadline(new, old, &path.child("activeDeadlineSeconds"), &mut causes).is_break() {
        return causes.into_vec();
    }
    tolerations(new, old, &path.child("tolerations"), &mut causes);
    gates(new, old, &path.child("schedulingGates"), &mut causes);
    if !list(old, "schedulingGates").is_empty() {
        choices(new, old, &path, &mut causes);
    }
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
    copy(old, spec, "nodeSelector");
    if has(spec, "affinity") || has(old, "affinity.nodeAffinity") {
        let affinity = object_mut(spec, "affinity");
        copy(get(old, "affinity"), affinity, "nodeAffinity");
    }
}

/// What a pod that waits at a gate says about nodes may become more, and not other.
fn choices(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    let kept = entries(old, "nodeSelector")
        .all(|(key, value)| get(new, "nodeSelector").get(key) == Some(value));
    if !kept {
        causes.invalid(
            &path.child("nodeSelector"),
            get(new, "nodeSelector").clone(),
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
    let terms = |spec| list(at(spec, "affinity.nodeAffinity"), NODE_TERMS);
    let (now, before) = (terms(new), terms(old));
    let path = NODE_TERMS
        .split('.')
        .fold(path.child("affinity").child("nodeAffinity"), |path, field| path.child(field));
    if before.is_empty() {
        return;
    }
    if now.len() != before.len() {
        causes.invalid(
            &path,
            Value::from(now),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    for (index, (now, before)) in now.iter().zip(before).enumerate() {
        if causes.is_full() {
            break;
        }
        if !is_narrower(now, before) {
            causes.invalid(
                &path.index(index),
                now.clone(),
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
}

const NODE_TERMS: &str = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";

/// Whether a term has all conditions of another, and perhaps more after them. One without
/// conditions chooses nothing, so that more conditions would choose more.
fn is_narrower(now: &Value, before: &Value) -> bool {
    let fields = ["matchExpressions", "matchFields"];
    let is_empty = |term: &Value| fields.iter().all(|field| list(term, field).is_empty());
    if is_empty(before) {
        return is_empty(now);
    }
    fields.iter().all(|field| {
        let (now, before) = (list(now, field), list(before, field));
        now.len() >= before.len() && now.iter().zip(before).all(|(a, b)| same(a, b))
    })
}

/// What follows is not looked at when the deadline is wrong in itself.
fn deadline(new: &Value, old: &Value, path: &Path, causes: &mut Causes) -> ControlFlow<()> {
    let (new, old) = (number(new, "activeDeadlineSeconds"), number(old, "activeDeadlineSeconds"));
    match (new, old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            let why = format!("must be between 0 and {}, inclusive", i32::MAX);
            causes.invalid(path, new, &why);
            return ControlFlow::Break(());
        }
        (Some(new), Some(old)) if new > old => {
            causes.invalid(path, new, "must be less than or equal to previous value");
            return ControlFlow::Break(());
        }
        (None, Some(_)) => causes.invalid(
            path,
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    ControlFlow::Continue(())
}

/// Tolerations may be added and their seconds changed, none may go.
fn tolerations(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    // What a toleration says besides: all of its fields are text.
    let says =
        |toleration| ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
    let new_all = list(new, "tolerations");
    let now: HashSet<[&str; 4]> = new_all.iter().map(says).collect();
    let kept = list(old, "tolerations").iter().all(|old| now.contains(&says(old)));
    if !kept {
        causes.forbidden(
            path,
            "existing toleration can not be modified except its tolerationSeconds",
        );
        return;
    }
    super::scheduling::tolerations(new_all, path, causes);
}

fn gates(new: &Value, old: &Value, path: &Path, causes: &mut Causes) {
    let before: HashSet<&str> =
        list(old, "schedulingGates").iter().map(|gate| text(gate, "name")).collect();
    for (index, gate) in list(new, "schedulingGates").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        if !before.contains(text(gate, "name")) {
            let why = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                text(gate, "name")
            );
            causes.forbidden(&path.index(index).child("name"), &why);
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
            if causes.is_full() {
                break;
            }
            let path = path.child(field).index(index);
            causes.not_negative(&path.child("restartCount"), number(status, "restartCount"));
        }
    }
    // A container that ended for good cannot run again.
    if text(new, "spec.restartPolicy") != "Always" {
        let statuses = list(new, "status.containerStatuses").iter().rev();
        // Of several of one name the first is meant.
        let now: HashMap<&str, &Value> = statuses.map(|one| (text(one, "name"), one)).collect();
        for (index, status) in list(old, "status.containerStatuses").iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let ended = at(status, "state.terminated");
            let over = !ended.is_null()
                && (text(new, "spec.restartPolicy") == "Never"
                    || number(ended, "exitCode").unwrap_or(0) == 0);
            let now = now.get(text(status, "name"));
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
