//! NetworkPolicy: who may talk to which pods.

use crate::cause::Cause;
use crate::field::{
    Causes, Path, at, default_text, get, has, list, list_mut, number, object_mut, set, text,
};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::declared;
use crate::rules::pod::{label_selector, port_by_number_or_name};
use crate::selector::LabelSelector;
use crate::table::{age, name, or_none};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// The directions, with where the peers of a rule stand.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];
const POLICY_TYPES: [&str; 2] = ["Ingress", "Egress"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["netpol"]),
        columns: vec![
            Column::name(),
            Column::text("Pod-Selector", "Which pods it is about."),
            Column::age(),
        ],
        cells: Arc::new(|policy, now| {
            let selector = LabelSelector::from_object(at(policy, "spec.podSelector"));
            let selector = selector.map_or(String::new(), |selector| selector.to_string());
            vec![name(policy), or_none(&selector), age(policy, now)]
        }),
        generation: true,
        effect: Effect::missing("no traffic is kept from any pod by it"),
        rules: Rules {
            default: Arc::new(default_policy),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "networking.k8s.io",
            "v1",
            "NetworkPolicy",
            "networkpolicies",
            "networkpolicy",
            "api.networking.v1.NetworkPolicy",
        )
    }
}

fn default_policy(policy: &mut Value) {
    let spec = object_mut(policy, "spec");
    object_mut(spec, "podSelector");
    for (direction, _) in DIRECTIONS {
        for rule in list_mut(spec, direction) {
            for port in list_mut(rule, "ports") {
                default_text(port, "protocol", "TCP");
            }
        }
    }
    if list(spec, "policyTypes").is_empty() {
        let types =
            if list(spec, "egress").is_empty() { &POLICY_TYPES[..1] } else { &POLICY_TYPES };
        set(spec, "policyTypes", json!(types));
    }
}

fn validate(policy: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(policy, "spec"), Path::new("spec"));
    label_selector(get(spec, "podSelector"), &path.child("podSelector"), &mut causes);
    for (direction, peers) in DIRECTIONS {
        for (index, rule) in list(spec, direction).iter().enumerate() {
            let path = path.child(direction).index(index);
            for (index, entry) in list(rule, "ports").iter().enumerate() {
                if causes.is_full() {
                    break;
                }
                port(entry, &path.child("ports").index(index), &mut causes);
            }
            for (index, entry) in list(rule, peers).iter().enumerate() {
                if causes.is_full() {
                    break;
                }
                peer(entry, &path.child(peers).index(index), &mut causes);
            }
        }
    }
    let (types, types_path) = (list(spec, "policyTypes"), path.child("policyTypes"));
    if types.len() > POLICY_TYPES.len() {
        let why = "may not specify more than two policyTypes";
        causes.invalid(&types_path, get(spec, "policyTypes").clone(), why);
    } else {
        for (index, kind) in types.iter().enumerate() {
            if !POLICY_TYPES.contains(&kind.as_str().unwrap_or_default()) {
                causes.not_supported(&types_path.index(index), kind.clone(), &POLICY_TYPES);
            }
        }
    }
    declared::validate("api.networking.v1.NetworkPolicy", policy, &mut causes);
    causes.into_vec()
}

fn port(entry: &Value, path: &Path, causes: &mut Causes) {
    let end_path = path.child("endPort");
    let end = number(entry, "endPort");
    match get(entry, "port") {
        Value::Null => {
            if end.is_some() {
                causes.invalid(&end_path, end, "may not be specified when `port` is not specified");
            }
        }
        given => {
            port_by_number_or_name(given, &path.child("port"), causes);
            match (given.as_i64(), end) {
                (_, None) => {}
                (None, Some(end)) => {
                    causes.invalid(
                        &end_path,
                        end,
                        "may not be specified when `port` is non-numeric",
                    );
                }
                (Some(first), Some(end)) => {
                    if end < first {
                        causes.invalid(&end_path, end, "must be greater than or equal to `port`");
                    }
                    if let Some(why) = names::port_number(end) {
                        causes.invalid(&end_path, end, why);
                    }
                }
            }
        }
    }
}

fn peer(entry: &Value, path: &Path, causes: &mut Causes) {
    let selectors = ["podSelector", "namespaceSelector"];
    let given = selectors.iter().filter(|selector| has(entry, selector)).count();
    for selector in selectors {
        label_selector(get(entry, selector), &path.child(selector), causes);
    }
    let has_block = has(entry, "ipBlock");
    if has_block {
        ip_block(get(entry, "ipBlock"), &path.child("ipBlock"), causes);
    }
    match (has_block, given) {
        (false, 0) => causes.required(path, "must specify a peer"),
        (true, 1..) => causes.forbidden(path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(block: &Value, path: &Path, causes: &mut Causes) {
    let (cidr, cidr_path) = (text(block, "cidr"), path.child("cidr"));
    if cidr.is_empty() {
        return; // the tables require it
    }
    let Some(whole) = Range::parse(cidr) else {
        causes.invalid_all(&cidr_path, cidr, names::cidr(cidr));
        return;
    };
    for (index, except) in list(block, "except").iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let (path, except) =
            (path.child("except").index(index), except.as_str().unwrap_or_default());
        match Range::parse(except) {
            None => causes.invalid_all(&path, except, names::cidr(except)),
            Some(part) if !whole.is_more_than(&part) => {
                causes.invalid(&path, except, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

/// Addresses that begin with the same bits.
struct Range {
    address: IpAddr,
    bits: u8,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        if !names::cidr(text).is_empty() {
            return None;
        }
        let (address, bits) = text.split_once('/')?;
        Some(Self { address: address.parse().ok()?, bits: bits.parse().ok()? })
    }

    /// Whether the other one is within this one, and not the same.
    fn is_more_than(&self, other: &Self) -> bool {
        let begins_alike = match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        };
        begins_alike && other.bits > self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: Value) -> Value {
        let mut policy = json!({"spec": spec});
        default_policy(&mut policy);
        policy
    }

    #[test]
    fn a_policy_names_its_peers_and_ports_in_one_way_each() {
        let from = |peer: Value| json!({"ingress": [{"from": [peer]}]});
        let ports = |port: Value| json!({"egress": [{"ports": [port]}]});
        let block =
            |cidr: &str, except: &str| from(json!({"ipBlock": {"cidr": cidr, "except": [except]}}));
        let excepted = "spec.ingress[0].from[0].ipBlock.except[0]";
        let rows = [
            (from(json!({"podSelector": {}})), ""),
            (from(json!({})), "spec.ingress[0].from[0]"),
            (
                from(json!({"podSelector": {}, "ipBlock": {"cidr": "::/0"}})),
                "spec.ingress[0].from[0]",
            ),
            (from(json!({"ipBlock": {}})), "spec.ingress[0].from[0].ipBlock.cidr"),
            (
                from(
                    json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
                ),
                "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].operator",
            ),
            (block("10.0.0.0/8", "10.1.0.0/16"), ""),
            (block("10.0.0.0/8", "10.0.0.0/8"), excepted),
            (block("10.0.0.0/8", "11.0.0.0/16"), excepted),
            (block("fd00::/8", "fd01::/16"), ""),
            (block("fd00::/8", "10.0.0.0/16"), excepted),
            (block("0.0.0.0/0", "10.0.0.0"), excepted),
            (ports(json!({"port": "http"})), ""),
            (ports(json!({"port": 0})), "spec.egress[0].ports[0].port"),
            (ports(json!({"protocol": "ICMP"})), "spec.egress[0].ports[0].protocol"),
            (ports(json!({"endPort": 2})), "spec.egress[0].ports[0].endPort"),
            (ports(json!({"port": "http", "endPort": 2})), "spec.egress[0].ports[0].endPort"),
            (ports(json!({"port": 1, "endPort": 2})), ""),
            (json!({"policyTypes": ["Ingress", "Both"]}), "spec.policyTypes[1]"),
            (json!({"policyTypes": ["Ingress", "Egress", "Egress"]}), "spec.policyTypes"),
        ];
        for (spec, expected) in rows {
            let causes = validate(&policy(spec.clone()));
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
    }

    #[test]
    fn a_policy_with_rules_for_what_goes_out_is_about_that_too() {
        let types = |spec: Value| policy(spec)["spec"]["policyTypes"].clone();
        assert_eq!(types(json!({})), json!(["Ingress"]));
        assert_eq!(types(json!({"egress": [{}]})), json!(["Ingress", "Egress"]));
        assert_eq!(types(json!({"policyTypes": ["Egress"]})), json!(["Egress"]));
    }
}
