//! Services: addresses and ports that the cluster gives out, and who may have which.

mod allocation;
mod validation;

pub use allocation::allocate;
pub use validation::{validate, validate_update};

use crate::context::Context;
use crate::field::{
    default, default_text, get, has, list, list_mut, number, object_mut, remove, same, set, text,
};
use crate::status::Status;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// A client is kept with its pod for three hours, unless it is said otherwise.
const AFFINITY_SECONDS: i64 = 10_800;

fn needs_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Whether a balancer asks each node if it has a pod of the service.
fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Defaults of a service.
pub fn default_service(service: &mut Value) {
    let spec = object_mut(service, "spec");
    default_text(spec, "type", "ClusterIP");
    default_text(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            remove(spec, "sessionAffinityConfig");
        }
        "ClientIP" => {
            let client = object_mut(object_mut(spec, "sessionAffinityConfig"), "clientIP");
            default(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
        _ => {}
    }
    for port in list_mut(spec, "ports") {
        default_text(port, "protocol", "TCP");
        let target = get(port, "targetPort");
        if target.is_null() || target == 0 || target == "" {
            let own = get(port, "port").clone();
            set(port, "targetPort", own);
        }
    }
    let kind = text(spec, "type").to_owned();
    let external =
        needs_node_ports(&kind) || kind == "ClusterIP" && !list(spec, "externalIPs").is_empty();
    if external {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    object_mut(object_mut(service, "status"), "loadBalancer");
}

/// One of the two spellings of the cluster's addresses is made from the other.
fn settle_cluster_ips(spec: &mut Value) {
    let first = text(spec, "clusterIP").to_owned();
    if !first.is_empty() && list(spec, "clusterIPs").is_empty() {
        set(spec, "clusterIPs", json!([first]));
    }
}

/// A new service has no balancer yet.
pub fn prepare_create(service: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(service, "status", json!({ "loadBalancer": {} }));
    settle_cluster_ips(object_mut(service, "spec"));
    Ok(())
}

/// What was given out stays with the service, unless its type has no use for it any more.
pub fn prepare_update(new: &mut Value, old: &Value, _: &Context<'_>) -> Result<(), Status> {
    let before = get(old, "spec");
    let spec = object_mut(new, "spec");
    let (kind, old_kind) = (text(spec, "type").to_owned(), text(before, "type"));
    if kind != "ExternalName" && old_kind != "ExternalName" {
        if text(spec, "clusterIP").is_empty() && list(spec, "clusterIPs").is_empty() {
            for field in ["clusterIP", "clusterIPs"] {
                crate::field::copy(before, spec, field);
            }
        } else if text(spec, "clusterIP") != text(before, "clusterIP")
            && same(get(spec, "clusterIPs"), get(before, "clusterIPs"))
        {
            let first = text(spec, "clusterIP").to_owned();
            let ips = if first.is_empty() { json!([]) } else { json!([first]) };
            set(spec, "clusterIPs", ips);
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if !has(spec, field) {
                crate::field::copy(before, spec, field);
            }
        }
    }
    settle_cluster_ips(spec);
    if needs_node_ports(&kind) && needs_node_ports(old_kind) {
        keep_node_ports(spec, before);
    }
    let check = "healthCheckNodePort";
    if needs_health_check(spec) && needs_health_check(before) {
        if number(spec, check).unwrap_or(0) == 0 {
            crate::field::copy(before, spec, check);
        }
    } else if needs_health_check(before) && number(spec, check) == number(before, check) {
        remove(spec, check);
    }
    drop_what_the_type_lacks(spec, before, &kind, old_kind);
    Ok(())
}

/// A port that the writer leaves to the server keeps the node port it has.
fn keep_node_ports(spec: &mut Value, before: &Value) {
    let taken: HashSet<i64> =
        list(spec, "ports").iter().filter_map(|p| number(p, "nodePort")).collect();
    // Of several of one number and protocol the first is meant.
    let before: HashMap<_, _> = list(before, "ports")
        .iter()
        .rev()
        .map(|old| ((number(old, "port"), text(old, "protocol")), number(old, "nodePort")))
        .collect();
    for port in list_mut(spec, "ports") {
        if number(port, "nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let kept = before.get(&(number(port, "port"), text(port, "protocol"))).copied().flatten();
        if let Some(kept) = kept.filter(|kept| *kept != 0 && !taken.contains(kept)) {
            set(port, "nodePort", kept);
        }
    }
}

fn drop_what_the_type_lacks(spec: &mut Value, before: &Value, kind: &str, old_kind: &str) {
    if kind == "ExternalName" && old_kind != "ExternalName" {
        for field in
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
        {
            if same(get(spec, field), get(before, field)) {
                remove(spec, field);
            }
        }
    }
    if !needs_node_ports(kind) && needs_node_ports(old_kind) {
        let ports: HashSet<Option<i64>> =
            list(before, "ports").iter().map(|p| number(p, "nodePort")).collect();
        for port in list_mut(spec, "ports") {
            if ports.contains(&number(port, "nodePort")) {
                remove(port, "nodePort");
            }
        }
        if list(spec, "externalIPs").is_empty()
            && same(get(spec, "externalTrafficPolicy"), get(before, "externalTrafficPolicy"))
        {
            remove(spec, "externalTrafficPolicy");
        }
    }
    if kind != "LoadBalancer" && old_kind == "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(get(spec, field), get(before, field)) {
                remove(spec, field);
            }
        }
    }
}
