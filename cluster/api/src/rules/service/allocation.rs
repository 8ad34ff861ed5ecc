//! The addresses and ports that a service is given.

use super::{needs_health_check, needs_node_ports};
use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, at, default, default_text, existing_mut, get, has, list, list_mut, map, number,
    object_mut, same, set, text,
};
use serde_json::{Value, json};
use std::collections::HashSet;

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
    if !headless_without_selector {
        second_family(spec, before, &path, &mut causes);
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
    health_check_port(spec, before, context, &mut causes);
    if let Some(status) = existing_mut(service, "status") {
        default(status, "loadBalancer", json!({}));
    }
    let causes = causes.into_vec();
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

/// The cluster gives out addresses of IPv4 alone: what is wanted of another family would be stored and never served.
/// What stands there already may stay. A service without a selector may name any family: it is given nothing.
fn second_family(spec: &Value, before: &Value, path: &Path, causes: &mut Causes) {
    let is_new = |field: &str| !same(get(spec, field), get(before, field));
    let policy = "ipFamilyPolicy";
    if text(spec, policy) == "RequireDualStack" && is_new(policy) {
        let why = "this cluster is not configured for dual-stack services";
        causes.invalid(&path.child(policy), "RequireDualStack", why);
    }
    let why = "not configured on this cluster";
    for (index, family) in
        list(spec, "ipFamilies").iter().enumerate().filter(|_| is_new("ipFamilies"))
    {
        if family != "IPv4" {
            causes.invalid(&path.child("ipFamilies").index(index), family.clone(), why);
        }
    }
    for (index, ip) in
        list(spec, "clusterIPs").iter().enumerate().skip(1).filter(|_| is_new("clusterIPs"))
    {
        causes.invalid(&path.child("clusterIPs").index(index), ip.clone(), why);
    }
}

/// The port at which a balancer asks a node whether it has a pod of the service.
fn health_check_port(spec: &mut Value, before: &Value, context: &Context<'_>, causes: &mut Causes) {
    const FIELD: &str = "healthCheckNodePort";
    if !needs_health_check(spec) {
        return;
    }
    let path = Path::new("spec").child(FIELD);
    let given = number(spec, FIELD).unwrap_or(0);
    if given == 0 {
        let used: Vec<_> = list(spec, "ports")
            .iter()
            .filter_map(|port| Some((0, String::new(), number(port, "nodePort")?)))
            .collect();
        match draw_unused(context, &used) {
            Ok(port) => set(spec, FIELD, port),
            Err(why) => causes.invalid(&path, 0, &why),
        }
    } else if number(before, FIELD) != Some(given)
        && let Err(why) = context.allocator.node_port(Some(u16::try_from(given).unwrap_or(0)))
    {
        causes.invalid(&path, given, &why);
    }
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
