//! Tolerations, gates and the spreading of pods over zones and machines.

use super::affinity::label_selector;
use crate::field::{Causes, Path, get, has, list, number, text};
use crate::names;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// What a taint does.
pub const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const POLICIES: &[&str] = &["Honor", "Ignore"];

/// These parts of a spec.
pub fn validate(spec: &Value, path: &Path, causes: &mut Causes) {
    spread(spec, &path.child("topologySpreadConstraints"), causes);
    let gates_path = path.child("schedulingGates");
    let mut seen = HashSet::new();
    for (index, gate) in list(spec, "schedulingGates").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, name) = (gates_path.index(index), text(gate, "name"));
        causes.invalid_all(&path, name, names::qualified(name));
        if !seen.insert(name) {
            causes.duplicate(&path, name);
        }
    }
    tolerations(list(spec, "tolerations"), &path.child("tolerations"), causes);
}

/// The tolerations of a spec.
pub fn tolerations(all: &[Value], path: &Path, causes: &mut Causes) {
    for (index, toleration) in all.iter().enumerate() {
        if causes.is_full() {
            break;
        }
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
                        value,
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
    let all = list(spec, "topologySpreadConstraints");
    let kind = |constraint| -> [&str; 2] {
        ["topologyKey", "whenUnsatisfiable"].map(|field| text(constraint, field))
    };
    // The last of each kind; the others are told as its doubles.
    let last: HashMap<[&str; 2], usize> =
        all.iter().enumerate().map(|(index, one)| (kind(one), index)).collect();
    for (index, constraint) in all.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        let skew = number(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            causes.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        let [key, action] = kind(constraint);
        if key.is_empty() {
            causes.required(&path.child("topologyKey"), "can not be empty");
        }
        if !ACTIONS.contains(&action) {
            causes.not_supported(&path.child("whenUnsatisfiable"), action, ACTIONS);
        }
        if last.get(&[key, action]).is_some_and(|last| *last > index) {
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
            if action != "DoNotSchedule" {
                let why = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                );
                causes.invalid(&path, domains, &why);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if has(constraint, policy) && !POLICIES.contains(&text(constraint, policy)) {
                causes.not_supported(&path.child(policy), text(constraint, policy), POLICIES);
            }
        }
        label_keys(constraint, &path.child("matchLabelKeys"), causes);
        label_selector(get(constraint, "labelSelector"), &path.child("labelSelector"), causes);
    }
}

/// Labels of the pod itself that are added to the selector, which may not name them already.
fn label_keys(constraint: &Value, path: &Path, causes: &mut Causes) {
    let keys = list(constraint, "matchLabelKeys");
    let selector = get(constraint, "labelSelector");
    if !keys.is_empty() && selector.is_null() {
        causes.forbidden(path, "must not be specified when labelSelector is not set");
    }
    let expressions: HashSet<&str> =
        list(selector, "matchExpressions").iter().map(|one| text(one, "key")).collect();
    for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        causes.invalid_all(&path, key, names::qualified(key));
        let in_selector =
            get(selector, "matchLabels").get(key).is_some() || expressions.contains(key);
        if in_selector {
            causes.invalid(&path, key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}
