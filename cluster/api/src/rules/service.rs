//! Services: addresses and ports that the cluster gives out, and who may have which.

use crate::admission::Context;
use crate::field::{
    Causes, Path, at, default, default_text, existing_mut, get, has, list, list_mut, map, number,
    object_mut, remove, same, set, text,
};
use crate::kinds::endpoints::PROTOCOLS;
use crate::names;
use crate::rules::addresses::endpoint_ip;
use crate::rules::metadata;
use crate::rules::pod::port_by_number_or_name;
use crate::status::{Cause, Status};
use serde_json::{Value, json};
use std::collections::HashSet;

const TYPES: &[&str] = &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const TRAFFIC: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["SingleStack", "PreferDualStack", "RequireDualStack"];
/// A client is kept with its pod for three hours, unless it is said otherwise.
const AFFINITY_SECONDS: i64 = 10_800;
/// The port of a node's own program.
const NODE_DAEMON_PORT: i64 = 10_250;

fn needs_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
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
    drop_what_the_type_lacks(spec, before, &kind, old_kind);
    Ok(())
}

/// A port that the writer leaves to the server keeps the node port it has.
fn keep_node_ports(spec: &mut Value, before: &Value) {
    let taken: HashSet<i64> =
        list(spec, "ports").iter().filter_map(|p| number(p, "nodePort")).collect();
    for port in list_mut(spec, "ports") {
        if number(port, "nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let same_port = list(before, "ports").iter().find(|old| {
            number(old, "port") == number(port, "port")
                && text(old, "protocol") == text(port, "protocol")
        });
        let kept = same_port.and_then(|old| number(old, "nodePort"));
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
        let ports: Vec<Option<i64>> =
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
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
            if same(get(spec, field), get(before, field)) {
                remove(spec, field);
            }
        }
    }
}

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
        "NodePort" | "LoadBalancer" => {
            if kind == "LoadBalancer" {
                for (index, port) in list(spec, "ports").iter().enumerate() {
                    if number(port, "port") == Some(NODE_DAEMON_PORT) {
                        causes.invalid(
                            &path.child("ports").index(index),
                            NODE_DAEMON_PORT,
                            "may not expose port 10250 externally since it is used by kubelet",
                        );
                    }
                }
            }
            if text(spec, "clusterIP") == "None" {
                let why = format!("may not be set to 'None' for {kind} services");
                causes.invalid(&path.child("clusterIPs").index(0), "None", &why);
            }
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
        if node_port != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            causes.forbidden(
                &path.child("nodePort"),
                &format!("may not be used when `type` is '{kind}'"),
            );
        }
    }
    let (mut seen, mut seen_node) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
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
    let families_path = path.child("ipFamilies");
    for (index, family) in list(spec, "ipFamilies").iter().enumerate() {
        let family = family.as_str().unwrap_or_default();
        if !FAMILIES.contains(&family) {
            causes.not_supported(&families_path.index(index), family, FAMILIES);
        }
    }
    let policy = text(spec, "ipFamilyPolicy");
    if !policy.is_empty() && !FAMILY_POLICIES.contains(&policy) {
        causes.not_supported(&path.child("ipFamilyPolicy"), policy, FAMILY_POLICIES);
    }
    if kind == "ExternalName" {
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if has(spec, field) {
                causes.forbidden(&path.child(field), "may not be set for ExternalName services");
            }
        }
        return;
    }
    let ips = list(spec, "clusterIPs");
    let ips_path = path.child("clusterIPs");
    if ips.len() > 2 {
        let why = "may only hold up to 2 values";
        causes.invalid(&ips_path, get(spec, "clusterIPs").clone(), why);
    }
    if let Some(first) = ips.first().filter(|first| *first != text(spec, "clusterIP")) {
        causes.invalid(&ips_path, first.clone(), "first value must match `clusterIP`");
    }
    for (index, ip) in ips.iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if ip == "None" {
            if index > 0 {
                causes.invalid(
                    &ips_path.index(index),
                    ip,
                    "must be empty when the first is 'None'",
                );
            }
            continue;
        }
        causes.invalid_all(&ips_path.index(index), ip, names::ip(ip));
    }
}

fn validate_balancer(spec: &Value, kind: &str, path: &Path, causes: &mut Causes) {
    let ranges_path = path.child("loadBalancerSourceRanges");
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && kind != "LoadBalancer" {
        causes.forbidden(&ranges_path, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in ranges.iter().enumerate() {
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
        if !(kind == "LoadBalancer" && external == "Local") {
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
    causes.append(validate(new));
    causes.into_vec()
}

/// Gives a service the addresses and ports that it needs and does not have.
pub fn allocate(
    service: &mut Value,
    old: Option<&Value>,
    context: &Context<'_>,
) -> Result<(), Vec<Cause>> {
    let mut causes = Causes::default();
    let path = Path::new("spec");
    let before = old.map_or(&Value::Null, |old| get(old, "spec"));
    let headless_without_selector = text(service, "spec.clusterIP") == "None"
        && map(service, "spec.selector").is_none_or(serde_json::Map::is_empty);
    let spec = object_mut(service, "spec");
    let kind = text(spec, "type").to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    let given = text(spec, "clusterIP").to_owned();
    if given.is_empty() {
        match context.allocator.cluster_ip(None) {
            Ok(ip) => {
                set(spec, "clusterIPs", json!([ip]));
                set(spec, "clusterIP", ip);
            }
            Err(why) => causes.invalid(&path.child("clusterIPs"), json!([]), &why),
        }
    } else if given != "None"
        && given != text(before, "clusterIP")
        && let Err(why) = context.allocator.cluster_ip(Some(&given))
    {
        causes.invalid(&path.child("clusterIPs"), json!([given]), &why);
    }
    if headless_without_selector && !has(spec, "ipFamilyPolicy") {
        set(spec, "ipFamilyPolicy", "RequireDualStack");
        default(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
    }
    default_text(spec, "ipFamilyPolicy", "SingleStack");
    let family = if given.contains(':') { "IPv6" } else { "IPv4" };
    default(spec, "ipFamilies", json!([family]));
    let wants_ports = kind == "NodePort"
        || kind == "LoadBalancer"
            && at(spec, "allocateLoadBalancerNodePorts") != &Value::Bool(false);
    if wants_ports || needs_node_ports(&kind) {
        node_ports(spec, before, wants_ports, context, &mut causes);
    }
    if let Some(status) = existing_mut(service, "status") {
        default(status, "loadBalancer", json!({}));
    }
    let causes = causes.into_vec();
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

/// Ports of one number for TCP and UDP share a node port, as clients of DNS expect.
fn node_ports(
    spec: &mut Value,
    before: &Value,
    draw: bool,
    context: &Context<'_>,
    causes: &mut Causes,
) {
    let held: HashSet<i64> =
        list(before, "ports").iter().filter_map(|p| number(p, "nodePort")).collect();
    let path = Path::new("spec").child("ports");
    let mut used: Vec<(i64, String, i64)> = list(spec, "ports")
        .iter()
        .filter_map(|port| {
            let node_port = number(port, "nodePort").filter(|node_port| *node_port != 0)?;
            Some((number(port, "port")?, text(port, "protocol").to_owned(), node_port))
        })
        .collect();
    for (index, port) in list_mut(spec, "ports").iter_mut().enumerate() {
        let given = number(port, "nodePort").unwrap_or(0);
        let path = path.index(index).child("nodePort");
        if given != 0 {
            let wanted = u16::try_from(given).unwrap_or(0);
            if !held.contains(&given)
                && let Err(why) = context.allocator.node_port(Some(wanted))
            {
                causes.invalid(&path, given, &why);
            }
            continue;
        }
        if !draw {
            continue;
        }
        let own = number(port, "port").unwrap_or(0);
        let protocol = text(port, "protocol").to_owned();
        let sibling = used
            .iter()
            .find(|(number, other, _)| *number == own && *other != protocol)
            .map(|(_, _, node_port)| *node_port);
        let drawn = match sibling {
            Some(node_port) => Ok(node_port),
            None => draw_unused(context, &used),
        };
        match drawn {
            Ok(node_port) => {
                used.push((own, protocol, node_port));
                set(port, "nodePort", node_port);
            }
            Err(why) => causes.invalid(&path, 0, &why),
        }
    }
}

/// Draws again when the allocator, which sees stored services only, draws a port of this one.
fn draw_unused(context: &Context<'_>, used: &[(i64, String, i64)]) -> Result<i64, String> {
    for _ in 0..64 {
        let drawn = i64::from(context.allocator.node_port(None)?);
        if !used.iter().any(|(_, _, taken)| *taken == drawn) {
            return Ok(drawn);
        }
    }
    Err("range is full".to_owned())
}
