//! Which amounts a quota may bound, and of which kind each is counted.

use crate::resource::Resource;
use crate::rules::resources::is_extended;

/// What a quota may bound without a group in front.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// What is said of pods alone.
const OF_PODS: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// Kinds that may be counted by their names alone.
const COUNTED: &[&str] =
    &["configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services"];
/// How the amounts of claims of one class of storage end.
pub(super) const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Whether a name without a group is one that a quota may bound.
pub fn is_quota_resource(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge(name)
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// `count/pods`, `count/deployments.apps`.
pub(super) fn count_of(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("count/{}", resource.plural)
    } else {
        format!("count/{}.{}", resource.plural, resource.group)
    }
}

/// The name alone by which objects of a kind are counted too.
pub(super) fn alias_of(resource: &Resource) -> Option<&'static str> {
    let of_core = resource.group.is_empty();
    COUNTED.iter().copied().find(|name| of_core && resource.plural == *name)
}

/// A device by the name that a quota has for it.
pub(super) fn is_device(name: &str) -> bool {
    name.strip_prefix("requests.").is_some_and(is_extended)
}

/// Whether objects of a kind count for an amount of this name.
pub fn counts(resource: &Resource, name: &str) -> bool {
    if name.starts_with("count/") {
        return resource.namespaced && name == count_of(resource);
    }
    if !resource.group.is_empty() {
        return false;
    }
    match &*resource.plural {
        "pods" => OF_PODS.contains(&name) || is_huge(name) || is_device(name),
        "persistentvolumeclaims" => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || name.split_once(OF_CLASS).is_some_and(|(_, what)| {
                    matches!(what, "persistentvolumeclaims" | "requests.storage")
                })
        }
        "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        _ => alias_of(resource) == Some(name),
    }
}

/// Whether an amount may be bounded in a scope.
pub fn goes_with(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" => matches!(name, "pods" | "count/pods"),
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => {
            OF_PODS.contains(&name) || name == "count/pods" || is_huge(name) || is_device(name)
        }
        _ => {
            matches!(
                name,
                "persistentvolumeclaims" | "requests.storage" | "count/persistentvolumeclaims"
            ) || name.contains(OF_CLASS)
        }
    }
}
