//! Amounts that containers ask for, and names of what can be asked for.

use crate::field::{Causes, Path, as_map, entries, existing_mut, get, list, map, set, text};
use crate::names;
use crate::quantity::{self, Quantity};
use serde_json::Value;
use std::collections::HashSet;

const CONTAINER: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a resource is Kubernetes' own rather than a device's.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a resource is a device's, as `nvidia.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified(&format!("requests.{name}")).is_empty()
}

/// Whether limits may be over requests.
pub fn can_overcommit(name: &str) -> bool {
    is_native(name) && !is_hugepages(name)
}

/// An amount must not be negative, and whole where the resource comes in pieces.
pub fn quantity_value(path: &Path, resource: &str, value: &Value, causes: &mut Causes) {
    let Some(amount) = quantity::parse(value) else { return };
    if amount.sign() < 0 {
        causes.invalid(path, amount.to_string(), "must be greater than or equal to 0");
    }
    if (is_extended(resource) || resource == "pods") && !amount.is_whole() {
        causes.invalid(path, amount.to_string(), "must be an integer");
    }
}

/// The name of something that containers ask for.
pub fn container_resource(path: &Path, name: &str, causes: &mut Causes) {
    let wrong = names::qualified(name);
    let is_name = wrong.is_empty();
    causes.invalid_all(path, name, wrong);
    if !name.contains('/') {
        if is_name && !STANDARD.contains(&name) && !is_hugepages(name) {
            causes.invalid(path, name, "must be a standard resource type or fully qualified");
        }
        if !CONTAINER.contains(&name) && !is_hugepages(name) {
            causes.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        causes.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// The name of any resource: a standard one, or one with the domain of who defines it.
pub fn standard_resource(path: &Path, name: &str, causes: &mut Causes) {
    let wrong = names::qualified(name);
    let is_name = wrong.is_empty();
    causes.invalid_all(path, name, wrong);
    if is_name && !name.contains('/') && !STANDARD.contains(&name) && !is_hugepages(name) {
        causes.invalid(path, name, "must be a standard resource type or fully qualified");
    }
}

/// The name of what a quota counts.
pub fn quota_resource(path: &Path, name: &str, causes: &mut Causes) {
    let wrong = names::qualified(name);
    let is_name = wrong.is_empty();
    causes.invalid_all(path, name, wrong);
    let counted = STANDARD.contains(&name) && name != "storage"
        || is_hugepages(name.strip_prefix("requests.").unwrap_or(name));
    if is_name && !name.contains('/') && !counted {
        causes.invalid(path, name, "must be a standard resource for quota");
    }
}

/// The `resources` of a container.
pub fn validate_requirements(resources: &Value, path: &Path, causes: &mut Causes) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let limit_of = |name: &str| get(resources, "limits").get(name).and_then(quantity::parse);
    let (mut huge, mut plain) = (false, false);
    let mut note = |name: &str| {
        huge |= is_hugepages(name);
        plain |= matches!(name, "cpu" | "memory");
    };
    for (name, value) in entries(resources, "limits") {
        let path = limits_path.key(name);
        container_resource(&path, name, causes);
        quantity_value(&path, name, value, causes);
        note(name);
    }
    for (name, value) in entries(resources, "requests") {
        let path = requests_path.key(name);
        container_resource(&path, name, causes);
        quantity_value(&path, name, value, causes);
        note(name);
        let Some(request) = quantity::parse(value) else { continue };
        match limit_of(name) {
            Some(limit) if !can_overcommit(name) && request != limit => {
                let why = format!("must be equal to {name} limit of {limit}");
                causes.invalid(&requests_path, request.to_string(), &why);
            }
            Some(limit) if can_overcommit(name) && request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                causes.invalid(&requests_path, request.to_string(), &why);
            }
            None if !can_overcommit(name) => {
                causes.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    if huge && !plain {
        causes.forbidden(path, "HugePages require cpu or memory");
    }
    let mut claims = HashSet::new();
    for (index, claim) in list(resources, "claims").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("claims").index(index);
        let name = text(claim, "name");
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else if !claims.insert((name, text(claim, "request"))) {
            causes.duplicate(&path, name);
        }
    }
}

/// Spells every amount canonically.
pub fn canonical_requirements(resources: &mut Value) {
    for side in ["limits", "requests"] {
        if let Some(amounts) = existing_mut(resources, side) {
            canonical_amounts(amounts);
        }
    }
}

/// Spells every amount of a map canonically.
pub fn canonical_amounts(amounts: &mut Value) {
    for amount in as_map(amounts).values_mut() {
        if let Some(spelling) = quantity::canonical(amount) {
            *amount = spelling.into();
        }
    }
}

/// What a container may use it also asks for, unless it says otherwise.
pub fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = map(resources, "limits").cloned() else { return };
    let mut requests = map(resources, "requests").cloned().unwrap_or_default();
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
    if !requests.is_empty() {
        set(resources, "requests", Value::Object(requests));
    }
}

/// The amount that a map of amounts has of a resource.
pub fn amount(amounts: &Value, resource: &str) -> Option<Quantity> {
    amounts.get(resource).and_then(quantity::parse)
}

/// The class that decides who has to go first when a node runs short.
pub fn quality_of_service(pod: &Value) -> &'static str {
    let containers = ["spec.containers", "spec.initContainers"].map(|path| list(pod, path));
    let mut guaranteed = true;
    let mut any = false;
    for container in containers.into_iter().flatten() {
        let [requests, limits] = ["resources.requests", "resources.limits"]
            .map(|path| crate::field::at(container, path));
        for resource in ["cpu", "memory"] {
            let positive = |amounts: &Value| amount(amounts, resource).filter(|a| a.sign() > 0);
            let (request, limit) = (positive(requests), positive(limits));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
