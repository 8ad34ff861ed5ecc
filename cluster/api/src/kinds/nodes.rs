//! Node: a machine, what it has and how it is.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, as_map, at, default, entries, existing_mut, flag, list, number, object_mut, set,
    text,
};
use crate::names;
use crate::quantity;
use crate::resource::{Column, Effect, FieldLabel, Resource, Rules, Subresource, words};
use crate::rules::metadata;
use crate::rules::resources::quantity_value;
use crate::status::Status;
use crate::table::{NONE, UNKNOWN, age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// The taint of a node that has not said yet that it is ready.
pub const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["no"]),
        namespaced: false,
        subresources: vec![Subresource::status("Node")],
        columns: vec![
            Column::name(),
            Column::text("Status", "Whether it takes pods."),
            Column::text("Roles", "What it is for."),
            Column::age(),
            Column::text("Version", "The version of the node's own program."),
            Column::text("Internal-IP", "Its address within the cluster.").wide(),
            Column::text("External-IP", "Its address for the world.").wide(),
            Column::text("OS-Image", "Its operating system.").wide(),
            Column::text("Kernel-Version", "Its kernel.").wide(),
            Column::text("Container-Runtime", "What runs its containers.").wide(),
        ],
        cells: Arc::new(cells),
        effect: Effect::by("the scheduler and the life cycle of nodes"),
        rules: Rules {
            default: Arc::new(default_node),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(|new, old| {
                let mut causes = validate_changes(new, old);
                causes.extend(validate_status(new));
                causes
            }),
            ..Rules::plain()
        },
        fields: vec![FieldLabel {
            absent: "false".into(),
            ..FieldLabel::new("spec.unschedulable", "/spec/unschedulable")
        }],
        ..Resource::named("", "v1", "Node", "nodes", "node", "api.core.v1.Node")
    }
}

/// Fields that are always written, and amounts in their canonical spelling.
fn default_node(node: &mut Value) {
    settle_pod_ranges(object_mut(node, "spec"));
    let status = object_mut(node, "status");
    default(object_mut(object_mut(status, "daemonEndpoints"), "kubeletEndpoint"), "Port", 0);
    let info = object_mut(status, "nodeInfo");
    for field in [
        "architecture",
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeProxyVersion",
        "kubeletVersion",
        "machineID",
        "operatingSystem",
        "osImage",
        "systemUUID",
    ] {
        default(info, field, "");
    }
    // A node that tells its capacity alone offers all of it.
    let capacity = at(status, "capacity").clone();
    if capacity.as_object().is_some_and(|map| !map.is_empty()) {
        default(status, "allocatable", capacity);
    }
    for field in ["capacity", "allocatable"] {
        if let Some(amounts) = existing_mut(status, field) {
            for amount in as_map(amounts).values_mut() {
                if let Some(spelling) = quantity::canonical(amount) {
                    *amount = spelling.into();
                }
            }
        }
    }
}

/// One range of a node's pods stands in two fields, and the older one has the last word.
fn settle_pod_ranges(spec: &mut Value) {
    let ranges = pod_ranges(spec);
    if let Some(first) = ranges.first().cloned() {
        set(spec, "podCIDR", first);
        set(spec, "podCIDRs", ranges);
    }
}

/// The ranges that a node's spec gives to its pods, whichever field says so.
fn pod_ranges(spec: &Value) -> Vec<Value> {
    let (one, all) = (text(spec, "podCIDR"), list(spec, "podCIDRs"));
    if one.is_empty() || all.first().is_some_and(|first| first == one) {
        all.to_vec()
    } else {
        vec![one.into()]
    }
}

/// A node takes no pods before it has said that it is ready.
fn prepare_create(node: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    let tainted = list(node, "spec.taints").iter().any(|t| text(t, "key") == NOT_READY_TAINT);
    if !tainted && !is_ready(node) {
        let taints = as_map(object_mut(node, "spec")).entry("taints").or_insert(Value::Null);
        let taint = json!({ "key": NOT_READY_TAINT, "effect": "NoSchedule" });
        match taints {
            Value::Array(all) => all.push(taint),
            other => *other = json!([taint]),
        }
    }
    Ok(())
}

/// Whether the node says that it is ready.
pub fn is_ready(node: &Value) -> bool {
    ready_condition(node).is_some_and(|condition| text(condition, "status") == "True")
}

fn ready_condition(node: &Value) -> Option<&Value> {
    list(node, "status.conditions").iter().find(|condition| text(condition, "type") == "Ready")
}

/// Taints stand in the spec, and what is wrong with them is told of the metadata: so do Kubernetes'
/// servers, and clients look for it there.
fn validate_taints(node: &Value, causes: &mut Causes) {
    let path = Path::new("metadata").child("taints");
    let mut seen = HashSet::new();
    for (index, taint) in list(node, "spec.taints").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        let (key, value, effect) =
            (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        causes.invalid_all(&path.child("key"), key, names::qualified(key));
        causes.invalid_all(&path.child("value"), value, names::label_value(value));
        causes.one_of(
            &path.child("effect"),
            effect,
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
        if !seen.insert((key, effect)) {
            causes.duplicate(&path, taint.clone());
        }
    }
}

fn validate_status(node: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = Path::new("status");
    for field in ["capacity", "allocatable"] {
        let path = status.child(field);
        for (resource, amount) in entries(at(node, "status"), field) {
            if causes.is_full() {
                break;
            }
            quantity_value(&path.key(resource), resource, amount, &mut causes);
        }
    }
    let mut seen = HashSet::new();
    for (index, address) in list(node, "status.addresses").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            causes.duplicate(&status.child("addresses").index(index), address.clone());
        }
    }
    causes.into_vec()
}

fn validate(node: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = Path::new("spec");
    validate_taints(node, &mut causes);
    let cidrs = list(node, "spec.podCIDRs");
    for (index, cidr) in cidrs.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let cidr = cidr.as_str().unwrap_or_default();
        causes.invalid_all(&spec.child("podCIDRs").index(index), cidr, names::cidr(cidr));
    }
    if cidrs.len() > 2 {
        causes.invalid(
            &spec.child("podCIDRs"),
            at(node, "spec.podCIDRs").clone(),
            "may specify no more than one CIDR for each IP family",
        );
    }
    causes.append(validate_status(node));
    causes.into_vec()
}

fn validate_changes(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = Path::new("spec");
    let (now, before) = (pod_ranges(at(new, "spec")), pod_ranges(at(old, "spec")));
    if !before.is_empty() && now != before {
        causes.forbidden(
            &spec.child("podCIDRs"),
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let provider = text(old, "spec.providerID");
    if !provider.is_empty() && text(new, "spec.providerID") != provider {
        causes.forbidden(
            &spec.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        );
    }
    causes.into_vec()
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    // It is looked at as a new one, and then as a change.
    causes.append(metadata::validate_again(new));
    causes.append(validate(new));
    validate_taints(new, &mut causes);
    causes.append(validate_changes(new, old));
    causes.into_vec()
}

fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match ready_condition(node) {
        Some(condition) if text(condition, "status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(node, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = entries(node, "metadata.labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" => value.as_str().filter(|role| !role.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let or = |text: &str, absent: &str| Value::from(if text.is_empty() { absent } else { text });
    let address = |kind: &str| {
        let found = list(node, "status.addresses").iter().find(|a| text(a, "type") == kind);
        or(found.map_or("", |address| text(address, "address")), NONE)
    };
    let info = |field: &str| or(text(at(node, "status.nodeInfo"), field), UNKNOWN);
    vec![
        name(node),
        status.into(),
        or(&roles.join(","), NONE),
        age(node, now),
        text(node, "status.nodeInfo.kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// The port on which a node's own program listens, when it has told.
pub fn daemon_port(node: &Value) -> Option<i64> {
    number(node, "status.daemonEndpoints.kubeletEndpoint.Port").filter(|port| *port > 0)
}
