//! What a service must be.

use super::{needs_health_check, needs_node_ports};
use crate::cause::Cause;
use crate::field::{Causes, Path, get, has, list, number, same, text};
use crate::names;
use crate::rules::addresses::{PROTOCOLS, endpoint_ip};
use crate::rules::metadata;
use crate::rules::pod::port_by_number_or_name;
use serde_json::{Value, json};
use std::collections::HashSet;

const TYPES: &[&str] = &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const TRAFFIC: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["SingleStack", "PreferDualStack", "RequireDualStack"];

/// A service.
pub fn validate(service: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let spec = get(service, "spec");
    let path = Path::new("spec");
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    let headless = text(spec, "clusterIP") == "None";
    if ports.is_empty() && !headless && kind != "ExternalName" {
        causes.required(&path.child("ports"), "");
    }
    by_type(spec, kind, &path, &mut causes);
    validate_ports(spec, kind, &path, &mut causes);
    metadata::labels(spec, "selector", &path.child("selector"), &mut causes);
    validate_affinity(spec, &path, &mut causes);
    validate_cluster_ips(spec, kind, &path, &mut causes);
    for (index, ip) in list(spec, "externalIPs").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let ip = ip.as_str().unwrap_or_default();
        let path = path.child("externalIPs").index(index);
        if names::ip(ip).is_empty() {
            endpoint_ip(&path, ip, &mut causes);
        } else {
            causes.invalid_all(&path, ip, names::ip(ip));
        }
    }
    causes.one_of(&path.child("type"), kind, TYPES);
    validate_balancer(spec, kind, &path, &mut causes);
    validate_traffic(spec, kind, &path, &mut causes);
    causes.into_vec()
}

fn by_type(spec: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    match kind {
        "NodePort" | "LoadBalancer" if text(spec, "clusterIP") == "None" => {
            let why = format!("may not be set to 'None' for {kind} services");
            causes.invalid(&path.child("clusterIPs").index(0), "None", &why);
        }
        "ExternalName" => {
            if !list(spec, "clusterIPs").is_empty() {
                causes.forbidden(
                    &path.child("clusterIPs"),
                    "may not be set for ExternalName services",
                );
            }
            let name = text(spec, "externalName");
            if name.is_empty() {
                causes.required(&path.child("externalName"), "");
            } else {
                let plain = name.strip_suffix('.').unwrap_or(name);
                causes.invalid_all(&path.child("externalName"), name, names::dns_subdomain(plain));
            }
        }
        _ => {}
    }
}

fn validate_ports(spec: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    let ports = list(spec, "ports");
    let ports_path = path.child("ports");
    let mut port_names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = ports_path.index(index);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                causes.required(&path.child("name"), "");
            }
        } else {
            causes.invalid_all(&path.child("name"), name, names::dns_label(name));
            if !port_names.insert(name) {
                causes.duplicate(&path.child("name"), name);
            }
        }
        let own = number(port, "port").unwrap_or(0);
        if let Some(why) = names::port_number(own) {
            causes.invalid(&path.child("port"), own, why);
        }
        causes.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
        port_by_number_or_name(get(port, "targetPort"), &path.child("targetPort"), causes);
        let app = text(port, "appProtocol");
        if !app.is_empty() {
            causes.invalid_all(&path.child("appProtocol"), app, names::qualified(app));
        }
        let node_port = number(port, "nodePort").unwrap_or(0);
        if node_port != 0 && kind == "ClusterIP" {
            causes.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let (mut seen, mut seen_node) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = ports_path.index(index);
        let protocol = text(port, "protocol");
        let own = number(port, "port").unwrap_or(0);
        if !seen.insert((protocol, own)) {
            causes.duplicate(&path, json!({ "protocol": protocol, "port": own }));
        }
        let node_port = number(port, "nodePort").unwrap_or(0);
        if node_port != 0 && !seen_node.insert((protocol, node_port)) {
            causes.duplicate(&path.child("nodePort"), node_port);
        }
    }
}

fn validate_affinity(spec: &Value, path: &Path, causes: &mut Causes) {
    let affinity = text(spec, "sessionAffinity");
    causes.one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig");
    if affinity == "ClientIP" {
        let path = path.child("clientIP").child("timeoutSeconds");
        match number(spec, "sessionAffinityConfig.clientIP.timeoutSeconds") {
            None => causes.required(&path, "when session affinity type is ClientIP"),
            Some(seconds) if !(1..=86_400).contains(&seconds) => {
                causes.invalid(&path, seconds, "must be greater than 0 and less than 86400");
            }
            Some(_) => {}
        }
    } else if affinity == "None" && has(spec, "sessionAffinityConfig") {
        causes.forbidden(&path, "must not be set when session affinity is None");
    }
}

fn validate_cluster_ips(spec: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    if kind == "ExternalName" {
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if has(spec, field) {
                causes.forbidden(&path.child(field), "may not be set for ExternalName services");
            }
        }
        return;
    }
    let ips: Vec<&str> =
        list(spec, "clusterIPs").iter().map(|ip| ip.as_str().unwrap_or_default()).collect();
    let all = || get(spec, "clusterIPs").clone();
    let (first, ips_path) = (text(spec, "clusterIP"), path.child("clusterIPs"));
    match ips.first() {
        None if !first.is_empty() => causes.required(&ips_path, ""),
        Some(_) if first.is_empty() => {
            causes.invalid(&ips_path, all(), "must be empty when `clusterIP` is not specified");
        }
        Some(other) if *other != first => {
            causes.invalid(&ips_path, all(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    families(spec, path, causes);
    let mut wrong = Causes::default();
    for (index, ip) in ips.iter().enumerate() {
        if index > 0 || *ip != "None" {
            wrong.invalid_all(&ips_path.index(index), ip, names::ip(ip));
        } else if ips.len() > 1 {
            wrong.invalid(&ips_path, all(), "'None' must be the first and only value");
        }
    }
    let readable = wrong.is_empty();
    causes.append(wrong.into_vec());
    if ips.len() > 2 {
        causes.invalid(&ips_path, all(), "may only hold up to 2 values");
    }
    if !readable || ips == ["None"] {
        return;
    }
    if ips.len() > 1 && ips.iter().all(|ip| ip.contains(':') == ips[0].contains(':')) {
        let why = "may specify no more than one IP for each IP family";
        causes.invalid(&ips_path, all(), why);
    }
    for (index, (ip, family)) in ips.iter().zip(list(spec, "ipFamilies")).enumerate() {
        if causes.is_full() {
            break;
        }
        let is = if ip.contains(':') { "IPv6" } else { "IPv4" };
        let family = family.as_str().unwrap_or_default();
        if FAMILIES.contains(&family) && family != is {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            causes.invalid(&ips_path.index(index), *ip, &why);
        }
    }
}

fn families(spec: &Value, path: &Path, causes: &mut Causes) {
    let families_path = path.child("ipFamilies");
    let families = list(spec, "ipFamilies");
    let mut seen = HashSet::new();
    for (index, family) in families.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = families_path.index(index);
        if !family.as_str().is_some_and(|family| FAMILIES.contains(&family)) {
            causes.not_supported(&path, family.clone(), FAMILIES);
        }
        if !seen.insert(family.as_str()) {
            causes.duplicate(&path, family.clone());
        }
    }
    let policy = text(spec, "ipFamilyPolicy");
    if has(spec, "ipFamilyPolicy") && !FAMILY_POLICIES.contains(&policy) {
        causes.not_supported(&path.child("ipFamilyPolicy"), policy, FAMILY_POLICIES);
    }
}

fn validate_balancer(spec: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    // Spelt so where it is refused.
    let ranges_path = path.child("LoadBalancerSourceRanges");
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && kind != "LoadBalancer" {
        causes.forbidden(&ranges_path, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in ranges.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let range = range.as_str().unwrap_or_default();
        causes.invalid_all(&ranges_path.index(index), range, names::cidr(range.trim()));
    }
    if kind != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if has(spec, field) {
                causes.forbidden(
                    &path.child(field),
                    "may only be used when `type` is 'LoadBalancer'",
                );
            }
        }
    } else if !text(spec, "loadBalancerClass").is_empty() {
        let class = text(spec, "loadBalancerClass");
        causes.invalid_all(&path.child("loadBalancerClass"), class, names::qualified(class));
    }
}

fn validate_traffic(spec: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    let external = text(spec, "externalTrafficPolicy");
    let external_path = path.child("externalTrafficPolicy");
    let reachable =
        needs_node_ports(kind) || kind == "ClusterIP" && !list(spec, "externalIPs").is_empty();
    if !external.is_empty() && !reachable {
        causes.invalid(
            &external_path,
            external,
            "may only be set for externally-accessible services",
        );
    } else if reachable {
        causes.one_of(&external_path, external, TRAFFIC);
    }
    let check = number(spec, "healthCheckNodePort").unwrap_or(0);
    let check_path = path.child("healthCheckNodePort");
    if check != 0 {
        if !needs_health_check(spec) {
            causes.invalid(
                &check_path,
                check,
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            );
        } else if let Some(why) = names::port_number(check) {
            causes.invalid(&check_path, check, why);
        }
    }
    let internal = text(spec, "internalTrafficPolicy");
    if kind != "ExternalName" || !internal.is_empty() {
        causes.one_of(&path.child("internalTrafficPolicy"), internal, TRAFFIC);
    }
    let distribution = text(spec, "trafficDistribution");
    if !distribution.is_empty() {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        causes.one_of(&path.child("trafficDistribution"), distribution, &known);
    }
}

/// A change of a service (new, old): the addresses it was given stay.
pub fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, before) = (get(new, "spec"), get(old, "spec"));
    let path = Path::new("spec");
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if !external(spec) && !external(before) {
        for field in ["clusterIPs", "ipFamilies"] {
            let (now, was) = (list(spec, field).first(), list(before, field).first());
            if was.is_some() && now != was {
                let now = now.cloned().unwrap_or(Value::Null);
                let path = path.child(field).index(0);
                let why = "may not change once set";
                causes.invalid(&path, now, why);
            }
        }
    }
    let class = "loadBalancerClass";
    if text(before, "type") == "LoadBalancer"
        && text(spec, "type") == "LoadBalancer"
        && !same(get(spec, class), get(before, class))
    {
        causes.invalid(&path.child(class), get(spec, class).clone(), "may not change once set");
    }
    let check = "healthCheckNodePort";
    if needs_health_check(before)
        && needs_health_check(spec)
        && number(before, check) != number(spec, check)
    {
        causes.forbidden(&path.child(check), "field is immutable");
    }
    causes.append(metadata::validate_again(new));
    causes.append(validate(new));
    causes.into_vec()
}
