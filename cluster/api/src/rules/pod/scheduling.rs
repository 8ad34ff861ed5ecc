//! Tolerations, gates and the spreading of pods over zones and machines.

use super::affinity::label_selector;
use crate::field::{Causes, Path, get, has, list, number, text};
use crate::names;
use serde_json::Value;
use std::collections::HashSet;

/// What a taint does.
pub const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const POLICIES: &[&str] = &["Honor", "Ignore"];

/// These parts of a spec.
pub fn validate(spec: &Value, path: &Path, causes: &mut Causes) {
    spread(spec, &path.child("topologySpreadConstraints"), causes);
    let gates_path = path.child("schedulingGates");
    let mut seen = HashSet::new();
    for (index, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let (path, name) = (gates_path.index(index), text(gate, "name"));
        causes.invalid_all(&path, name, names::qualified(name));
        if !seen.insert(name) {
            causes.duplicate(&path, name);
        }
    }
    tolerations(list(spec, "tolerations"), &path.child("tolerations"), causes);
}

/// The tolerations of a spec.
fn tolerations(all: &[Value], path: &Path, causes: &mut Causes) {
    for (index, toleration) in all.iter().enumerate() {
        let path = path.index(index);
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
        if !key.is_empty() {
            causes.invalid_all(&path.child("key"), key, names::qualified(key));
        }
        if key.is_empty() && operator != "Exists" {
            causes.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            causes.invalid(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    causes.invalid(&path.child("operator"), value, &wrong.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    causes.invalid(
                        &path.child("operator"),
                        toleration.clone(),
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            _ => causes.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            causes.one_of(&path.child("effect"), effect, EFFECTS);
        }
    }
}

fn spread(spec: &Value, path: &Path, causes: &mut Causes) {
    let mut seen = HashSet::new();
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.index(index);
        let skew = number(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            causes.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        let (key, action) =
            (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            causes.required(&path.child("topologyKey"), "can not be empty");
        } else {
            causes.invalid_all(&path.child("topologyKey"), key, names::qualified(key));
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            causes.not_supported(
                &path.child("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        if !seen.insert((key, action)) {
            causes.duplicate(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{key}, {action}}}"),
            );
        }
        if let Some(domains) = number(constraint, "minDomains") {
            let path = path.child("minDomains");
            if domains <= 0 {
                causes.invalid(&path, domains, "must be greater than zero");
            }
            if action == "ScheduleAnyway" {
                causes.invalid(
                    &path,
                    domains,
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                );
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if has(constraint, policy) && !POLICIES.contains(&text(constraint, policy)) {
                causes.not_supported(&path.child(policy), text(constraint, policy), POLICIES);
            }
        }
        for (index, key) in list(constraint, "matchLabelKeys").iter().enumerate() {
            let key = key.as_str().unwrap_or_default();
            let path = path.child("matchLabelKeys").index(index);
            causes.invalid_all(&path, key, names::qualified(key));
        }
        label_selector(get(constraint, "labelSelector"), &path.child("labelSelector"), causes);
    }
}
