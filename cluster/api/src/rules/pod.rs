//! Pods: what they say when they say nothing, what they may say, and what may change.
//!
//! Each part of a pod's spec has a file of its own; here is the spec as a whole and the life of a
//! pod object: what the server decides when it is made, and the few fields that may change after.

mod affinity;
mod containers;
pub mod defaults;
mod environment;
mod handlers;
mod mounts;
mod paths;
mod scheduling;
mod security;
mod update;
mod volumes;

pub use affinity::{label_selector, node_selector};
pub use handlers::port as port_by_number_or_name;
pub use scheduling::tolerations;
pub use update::{bind, prepare_update, validate_status, validate_update};

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, get, has, list, number, object_mut, set, text};
use crate::names;
use crate::policy::{limits, priority};
use crate::rules::metadata;
use crate::rules::resources::quality_of_service;
use crate::status::{ResourceName, Status};
use serde_json::{Value, json};

const PODS: ResourceName<'_> = ResourceName { group: "", plural: "pods", kind: "Pod" };
/// The largest number that a 32-bit field holds.
const INT32_MAX: i64 = i32::MAX as i64;
/// How long a pod stays on a node that has trouble, unless it says otherwise.
const TROUBLE_SECONDS: i64 = 300;

/// Defaults of a pod.
pub fn default_pod(pod: &mut Value) {
    let spec = object_mut(pod, "spec");
    defaults::default_spec(spec);
    defaults::default_pod_spec(spec);
}

/// Seconds that a pod gets to end, as it says itself; one that runs nowhere needs none.
pub fn grace(pod: &Value) -> Option<i64> {
    let runs = !text(pod, "spec.nodeName").is_empty()
        && !matches!(text(pod, "status.phase"), "Succeeded" | "Failed");
    runs.then(|| number(pod, "spec.terminationGracePeriodSeconds").unwrap_or(30))
}

/// What the server decides about a new pod.
pub fn prepare_create(pod: &mut Value, context: &Context<'_>) -> Result<(), Status> {
    settle_account(pod, context)?;
    settle_priority(pod, context)?;
    limits::give(pod, context.allocator.limit_ranges());
    tolerate_trouble(pod);
    let mut status = json!({ "phase": "Pending", "qosClass": quality_of_service(pod) });
    if !list(pod, "spec.schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": null,
        }]);
    }
    set(pod, "status", status);
    Ok(())
}

fn forbidden(pod: &Value, why: &str) -> Status {
    Status::forbidden(PODS, text(pod, "metadata.name"), why)
}

fn settle_account(pod: &mut Value, context: &Context<'_>) -> Result<(), Status> {
    let spec = object_mut(pod, "spec");
    if text(spec, "serviceAccountName").is_empty() {
        set(spec, "serviceAccountName", "default");
        set(spec, "serviceAccount", "default");
    }
    let account = text(pod, "spec.serviceAccountName").to_owned();
    let Some(found) = context.allocator.service_account(context.namespace, &account) else {
        let namespace = context.namespace;
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
        );
        return Err(forbidden(pod, &why));
    };
    // What the pod says goes before what its account says.
    let said = at(pod, "spec.automountServiceAccountToken").as_bool();
    if said.unwrap_or(found.mounts_token) {
        defaults::mount_service_account(pod, &context.allocator.name_suffix());
    }
    Ok(())
}

fn settle_priority(pod: &mut Value, context: &Context<'_>) -> Result<(), Status> {
    let class = context.allocator.priority_class(text(pod, "spec.priorityClassName"));
    priority::settle(pod, class).map_err(|why| forbidden(pod, &why))
}

/// A pod leaves a node that is gone after a while, unless it says how long itself.
pub(super) fn tolerate_trouble(pod: &mut Value) {
    let spec = object_mut(pod, "spec");
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = list(spec, "tolerations").iter().any(|toleration| {
            matches!(text(toleration, "key"), "")
                && text(toleration, "operator") == "Exists"
                && matches!(text(toleration, "effect"), "" | "NoExecute")
                || text(toleration, "key") == key
                    && matches!(text(toleration, "effect"), "" | "NoExecute")
        });
        if !covered {
            let toleration = json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TROUBLE_SECONDS,
            });
            defaults::push(spec, "tolerations", toleration);
        }
    }
}

/// A new pod.
pub fn validate_create(pod: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec");
    let spec = get(pod, "spec");
    validate_own(pod, &mut causes);
    if !list(spec, "ephemeralContainers").is_empty() {
        causes.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        causes.forbidden(
            &path.child("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
    causes.into_vec()
}

/// What holds of a pod, new or changed.
fn validate_own(pod: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let spec = get(pod, "spec");
    annotations(pod, &Path::new("metadata").child("annotations"), causes);
    validate_spec(spec, &path, causes);
    containers::trimmed_images(spec, &path, causes);
}

/// Annotations that mean something.
fn annotations(pod: &Value, path: &Path, causes: &mut Causes) {
    let given = |name: &str| get(get(get(pod, "metadata"), "annotations"), name).as_str();
    if let Some(value) = given(MIRROR).filter(|_| text(pod, "spec.nodeName").is_empty()) {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        causes.invalid(&path.key(MIRROR), value, why);
    }
    if let Some(cost) = given(DELETION_COST).filter(|cost| !is_cost(cost)) {
        causes.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
}

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A number of 32 bits in its one spelling.
fn is_cost(text: &str) -> bool {
    let plain = text.strip_prefix('-').unwrap_or(text);
    !text.starts_with('+')
        && (plain.len() == 1 || !plain.starts_with('0'))
        && text.parse::<i32>().is_ok()
}

/// The spec of a pod or of a template.
pub fn validate_spec(spec: &Value, path: &Path, causes: &mut Causes) {
    let known = volumes::validate(spec, &path.child("volumes"), causes);
    containers::validate(spec, path, &known, causes);
    causes.one_of(
        &path.child("restartPolicy"),
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    validate_dns(spec, path, causes);
    metadata::labels(spec, "nodeSelector", &path.child("nodeSelector"), causes);
    security::validate_pod(spec, path, causes);
    affinity::validate(get(spec, "affinity"), &path.child("affinity"), causes);
    for (index, gate) in list(spec, "readinessGates").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let condition = text(gate, "conditionType");
        let path = path.child("readinessGates").index(index).child("conditionType");
        causes.invalid_all(&path, condition, names::qualified(condition));
    }
    scheduling::validate(spec, path, causes);
    let named: [(&str, names::Check); 6] = [
        ("serviceAccountName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
    ];
    for (field, check) in named {
        let value = text(spec, field);
        if !value.is_empty() {
            causes.invalid_all(&path.child(field), value, check(value));
        }
    }
    if let Some(deadline) = number(spec, "activeDeadlineSeconds")
        && !(1..=INT32_MAX).contains(&deadline)
    {
        let why = format!("must be between 1 and {INT32_MAX}, inclusive");
        causes.invalid(&path.child("activeDeadlineSeconds"), deadline, &why);
    }
    if let Some(grace) = number(spec, "terminationGracePeriodSeconds").filter(|grace| *grace < 0) {
        causes.invalid(
            &path.child("terminationGracePeriodSeconds"),
            grace,
            "must be greater than or equal to 0",
        );
    }
    if has(spec, "preemptionPolicy") {
        causes.one_of(
            &path.child("preemptionPolicy"),
            text(spec, "preemptionPolicy"),
            &["PreemptLowerPriority", "Never"],
        );
    }
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("hostAliases").index(index);
        let ip = text(alias, "ip");
        causes.invalid_all(&path.child("ip"), ip, names::ip(ip));
        let hostnames = list(alias, "hostnames").iter().filter_map(Value::as_str);
        for (index, hostname) in hostnames.enumerate() {
            if causes.is_full() {
                break;
            }
            let path = path.child("hostnames").index(index);
            causes.invalid_all(&path, hostname, names::dns_subdomain(hostname));
        }
    }
    if has(spec, "os") {
        let path = path.child("os");
        match text(spec, "os.name") {
            "" => causes.required(&path.child("name"), "cannot be empty"),
            "linux" | "windows" => {}
            // Said of the field as a whole.
            other => causes.not_supported(&path, other, &["linux", "windows"]),
        }
    }
    let overhead = path.child("overhead").child("limits");
    for (resource, amount) in crate::field::entries(spec, "overhead") {
        if causes.is_full() {
            break;
        }
        crate::rules::resources::quantity_value(&overhead.key(resource), resource, amount, causes);
    }
    if has(spec, "resources") {
        crate::rules::resources::validate_requirements(
            get(spec, "resources"),
            &path.child("resources"),
            causes,
        );
    }
}

const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

fn validate_dns(spec: &Value, path: &Path, causes: &mut Causes) {
    let policy = text(spec, "dnsPolicy");
    causes.one_of(&path.child("dnsPolicy"), policy, DNS_POLICIES);
    let config_path = path.child("dnsConfig");
    let config = get(spec, "dnsConfig");
    if policy == "None" {
        if config.is_null() {
            causes.required(&config_path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if list(config, "nameservers").is_empty() {
            causes.required(
                &config_path.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
            return;
        }
    }
    let servers = list(config, "nameservers");
    if servers.len() > 3 {
        causes.invalid(
            &config_path.child("nameservers"),
            get(config, "nameservers").clone(),
            "must not have more than 3 nameservers",
        );
    }
    for (index, server) in servers.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let server = server.as_str().unwrap_or_default();
        causes.invalid_all(
            &config_path.child("nameservers").index(index),
            server,
            names::ip(server),
        );
    }
    let searches = list(config, "searches");
    if searches.len() > 32 {
        causes.invalid(
            &config_path.child("searches"),
            get(config, "searches").clone(),
            "must not have more than 32 search paths",
        );
    }
    let length: usize =
        searches.iter().filter_map(Value::as_str).map(|search| search.len() + 1).sum();
    // A space between each two.
    if length > 2048 + 1 {
        causes.invalid(
            &config_path.child("searches"),
            get(config, "searches").clone(),
            "must not have more than 2048 characters (including spaces) in the search list",
        );
    }
    for (index, search) in searches.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let search = search.as_str().unwrap_or_default();
        let domain = search.strip_suffix('.').unwrap_or(search);
        let path = config_path.child("searches").index(index);
        if search != "." {
            causes.invalid_all(&path, domain, names::dns_subdomain_or_underscore(domain));
        }
    }
    for (index, option) in list(config, "options").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        if text(option, "name").is_empty() {
            causes.required(&config_path.child("options").index(index), "must not be empty");
        }
    }
}
