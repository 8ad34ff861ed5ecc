//! What an object counts for.

use super::names::{OF_CLASS, alias_of, count_of, is_device};
use crate::field::{at, flag, get, has, list, number, text};
use crate::policy::amounts::{Amounts, Side, is_of_pod, of_pod, read};
use crate::quantity::Quantity;
use crate::resource::Resource;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Amounts that, once bounded, each container must name.
const NAMED_BY_EACH: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Whether a change of an object of this kind may need more than before.
pub fn is_counted_when_changed(resource: &Resource) -> bool {
    resource.group.is_empty() && matches!(&*resource.plural, "services" | "persistentvolumeclaims")
}

/// What an object counts for now.
pub fn usage(resource: &Resource, object: &Value, now: Timestamp) -> Amounts {
    let one = Quantity::from_units(1);
    let mut all = Amounts::from([(count_of(resource), one)]);
    if let Some(alias) = alias_of(resource) {
        all.insert(alias.to_owned(), one);
    }
    if !resource.group.is_empty() {
        return all;
    }
    match &*resource.plural {
        "pods" if is_over(object, now) => {}
        "pods" => {
            all.insert("pods".to_owned(), one);
            let (requests, limits) = (of_pod(object, Side::Requests), of_pod(object, Side::Limits));
            all.extend(of_pods(&requests, &limits));
        }
        "services" => all.extend(of_service(object)),
        "persistentvolumeclaims" => all.extend(of_claim(object)),
        _ => {}
    }
    all
}

/// What an object counts for more than it did before; all that it counts for where it is new.
pub fn growth(resource: &Resource, object: &Value, old: Option<&Value>, now: Timestamp) -> Amounts {
    let mut grown = usage(resource, object, now);
    if let Some(old) = old {
        let before = usage(resource, old, now);
        for (name, amount) in &mut grown {
            *amount = amount.minus(before.get(name).copied().unwrap_or_else(Quantity::zero));
        }
    }
    grown.retain(|_, amount| amount.sign() > 0);
    grown
}

/// Amounts asked for and limited, by the names that quotas have for them.
fn of_pods(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut all = Amounts::new();
    for (name, amount) in requests {
        let asked = format!("requests.{name}");
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-")
        {
            all.insert(name.clone(), *amount);
            all.insert(asked, *amount);
        } else if is_device(&asked) {
            all.insert(asked, *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            all.insert(format!("limits.{name}"), *amount);
        }
    }
    all
}

/// Whether a pod needs nothing any more: it has ended, or should have been gone long ago.
fn is_over(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
        return true;
    }
    let until = text(pod, "metadata.deletionTimestamp").parse::<Timestamp>();
    let grace = number(pod, "metadata.deletionGracePeriodSeconds");
    match (until, grace) {
        (Ok(until), Some(grace)) => {
            let limit = until.checked_add(SignedDuration::from_secs(grace));
            limit.is_ok_and(|limit| limit < now)
        }
        _ => false,
    }
}

fn of_service(service: &Value) -> Amounts {
    let ports = list(service, "spec.ports");
    let numbered = ports.iter().filter(|port| number(port, "nodePort").unwrap_or(0) > 0).count();
    let (ports, balancers) = match text(service, "spec.type") {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer"
            if has(service, "spec.allocateLoadBalancerNodePorts")
                && !flag(service, "spec.allocateLoadBalancerNodePorts") =>
        {
            (numbered, 1)
        }
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    [("services.nodeports", ports), ("services.loadbalancers", balancers)]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), Quantity::from_units(count as i64)))
        .collect()
}

fn of_claim(claim: &Value) -> Amounts {
    const SIZE: &str = "requests.storage";
    const COUNT: &str = "persistentvolumeclaims";
    let one = Quantity::from_units(1);
    let mut all = Amounts::from([(COUNT.to_owned(), one)]);
    let size = read(claim, "spec.resources.requests").get("storage").copied();
    let class = text(claim, "spec.storageClassName");
    if let Some(size) = size {
        all.insert(SIZE.to_owned(), size);
    }
    if !class.is_empty() {
        all.insert(format!("{class}{OF_CLASS}{COUNT}"), one);
        if let Some(size) = size {
            all.insert(format!("{class}{OF_CLASS}{SIZE}"), size);
        }
    }
    all
}

/// What a new pod should say and does not, of what a quota bounds: `cpu for: a,b; memory for: a`.
pub(super) fn missing<'a>(
    resource: &Resource,
    object: &Value,
    bounded: impl Iterator<Item = &'a String>,
) -> Option<String> {
    if !(resource.group.is_empty() && resource.plural == "pods") {
        return None;
    }
    let by_pod = by_pod(object);
    let asked: BTreeSet<&str> = bounded
        .map(String::as_str)
        .filter(|name| NAMED_BY_EACH.contains(name) && !by_pod.contains(*name))
        .collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for containers in ["spec.containers", "spec.initContainers"] {
        for container in list(object, containers) {
            let requests = read(container, "resources.requests");
            let said = of_pods(&requests, &read(container, "resources.limits"));
            for name in asked.iter().filter(|name| !said.contains_key(**name)) {
                missing.entry(name).or_default().insert(text(container, "name"));
            }
        }
    }
    let told = missing.iter().map(|(name, containers)| {
        format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
    });
    (!missing.is_empty()).then(|| told.collect::<Vec<_>>().join("; "))
}

/// What a pod says as a whole, so that its containers need not.
fn by_pod(pod: &Value) -> BTreeSet<String> {
    let whole = at(pod, "spec.resources");
    let own = |side: Side| {
        let mut amounts = read(whole, side.name());
        amounts.retain(|name, _| is_of_pod(name));
        amounts
    };
    if get(whole, "requests").is_null() && get(whole, "limits").is_null() {
        return BTreeSet::new();
    }
    of_pods(&own(Side::Requests), &own(Side::Limits)).into_keys().collect()
}
