//! Which objects a quota is about.

use crate::field::{at, get, has, list, number, text};
use crate::resource::Resource;
use crate::rules::resources::quality_of_service;
use serde_json::Value;

/// The scopes that there are.
pub const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// What must be so of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

/// All that a quota asks for.
pub(super) fn of(quota: &Value) -> Vec<Scope> {
    let plain = list(quota, "spec.scopes").iter().filter_map(Value::as_str).map(|name| Scope {
        name: name.to_owned(),
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    let terms = list(quota, "spec.scopeSelector.matchExpressions").iter().map(|term| Scope {
        name: text(term, "scopeName").to_owned(),
        operator: text(term, "operator").to_owned(),
        values: list(term, "values").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    });
    plain.chain(terms).collect()
}

impl Scope {
    /// Whether an object is within.
    pub(super) fn has(&self, resource: &Resource, object: &Value) -> bool {
        if !resource.group.is_empty() {
            return false;
        }
        match (&*resource.plural, self.name.as_str()) {
            ("pods", "Terminating") => ends(object),
            ("pods", "NotTerminating") => !ends(object),
            ("pods", "BestEffort") => quality_of_service(object) == "BestEffort",
            ("pods", "NotBestEffort") => quality_of_service(object) != "BestEffort",
            ("pods", "PriorityClass") => self.selects(&[text(object, "spec.priorityClassName")]),
            ("pods", "CrossNamespacePodAffinity") => looks_elsewhere(object),
            ("persistentvolumeclaims", "VolumeAttributesClass") => self.selects(&[
                text(object, "spec.volumeAttributesClassName"),
                text(object, "status.currentVolumeAttributesClassName"),
                text(object, "status.modifyVolumeStatus.targetVolumeAttributesClassName"),
            ]),
            // What is of no scope is in none.
            _ => false,
        }
    }

    /// Whether one of these names is asked for; an empty one is none.
    fn selects(&self, names: &[&str]) -> bool {
        let named: Vec<&str> = names.iter().copied().filter(|name| !name.is_empty()).collect();
        let is_listed = |name: &&str| self.values.iter().any(|value| value == name);
        match self.operator.as_str() {
            "Exists" => !named.is_empty(),
            "DoesNotExist" => named.is_empty(),
            "In" => named.iter().any(is_listed),
            "NotIn" => named.is_empty() || named.iter().any(|name| !is_listed(name)),
            _ => false,
        }
    }
}

/// Whether a pod has a time at which it ends.
fn ends(pod: &Value) -> bool {
    number(pod, "spec.activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

/// Whether where a pod goes depends on pods of other namespaces.
fn looks_elsewhere(pod: &Value) -> bool {
    let elsewhere =
        |term: &Value| !list(term, "namespaces").is_empty() || has(term, "namespaceSelector");
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = get(at(pod, "spec.affinity"), kind);
        let required = list(affinity, "requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = list(affinity, "preferredDuringSchedulingIgnoredDuringExecution");
        required.iter().any(elsewhere)
            || preferred.iter().any(|term| elsewhere(get(term, "podAffinityTerm")))
    })
}
