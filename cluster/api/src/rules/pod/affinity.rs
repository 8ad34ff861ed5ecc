//! Affinity: which nodes a pod wants, and which pods it wants near or far.

use crate::field::{Causes, Path, get, list, number, text};
use crate::names;
use crate::rules::metadata;
use serde_json::Value;
use std::collections::HashSet;

const NEEDS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// An affinity; null is none.
pub fn validate(affinity: &Value, path: &Path, causes: &mut Causes) {
    node_affinity(get(affinity, "nodeAffinity"), &path.child("nodeAffinity"), causes);
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (get(affinity, kind), path.child(kind));
        for (index, term) in list(affinity, REQUIRED).iter().enumerate() {
            if causes.is_full() {
                break;
            }
            pod_term(term, &path.child(REQUIRED).index(index), causes);
        }
        for (index, preference) in list(affinity, PREFERRED).iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let path = path.child(PREFERRED).index(index);
            weight(preference, &path, causes);
            pod_term(get(preference, "podAffinityTerm"), &path.child("podAffinityTerm"), causes);
        }
    }
}

fn weight(preference: &Value, path: &Path, causes: &mut Causes) {
    let weight = number(preference, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        causes.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn node_affinity(affinity: &Value, path: &Path, causes: &mut Causes) {
    let required = get(affinity, REQUIRED);
    if !required.is_null() {
        node_selector(required, &path.child(REQUIRED), causes);
    }
    for (index, preference) in list(affinity, PREFERRED).iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child(PREFERRED).index(index);
        weight(preference, &path, causes);
        node_term(get(preference, "preference"), true, &path.child("preference"), causes);
    }
}

/// A `NodeSelector` object.
pub fn node_selector(selector: &Value, path: &Path, causes: &mut Causes) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        causes.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        node_term(term, false, &path.index(index), causes);
    }
}

/// A wish that cannot be met may name values that no node can have; a condition may not.
fn node_term(term: &Value, is_wish: bool, path: &Path, causes: &mut Causes) {
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("matchExpressions").index(index);
        let (operator, values) = (text(expression, "operator"), list(expression, "values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                causes.required(&path.child("values"), NEEDS_VALUES);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                causes.forbidden(&path.child("values"), NO_VALUES);
            }
            "Gt" | "Lt" if values.len() != 1 => causes.required(
                &path.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => {
                causes.invalid(&path.child("operator"), operator, "not a valid selector operator");
            }
        }
        let key = text(expression, "key");
        causes.invalid_all(&path.child("key"), key, names::qualified(key));
        let checked = if is_wish { &[] } else { values };
        for (index, value) in checked.iter().filter_map(Value::as_str).enumerate() {
            if causes.is_full() {
                break;
            }
            let path = path.child("values").index(index);
            causes.invalid_all(&path, value, names::label_value(value));
        }
    }
    for (index, expression) in list(term, "matchFields").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("matchFields").index(index);
        let (operator, values) = (text(expression, "operator"), list(expression, "values"));
        match operator {
            "In" | "NotIn" if values.len() != 1 => causes.required(
                &path.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            "In" | "NotIn" => {}
            _ => {
                causes.invalid(&path.child("operator"), operator, "not a valid selector operator");
            }
        }
        let key = text(expression, "key");
        if key == "metadata.name" {
            for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
                if causes.is_full() {
                    break;
                }
                let path = path.child("values").index(index);
                causes.invalid_all(&path, value, names::dns_subdomain(value));
            }
        } else {
            causes.invalid(&path.child("key"), key, "not a valid field selector key");
        }
    }
}

fn pod_term(term: &Value, path: &Path, causes: &mut Causes) {
    label_selector(get(term, "labelSelector"), &path.child("labelSelector"), causes);
    label_selector(get(term, "namespaceSelector"), &path.child("namespaceSelector"), causes);
    label_keys(term, path, causes);
    for namespace in list(term, "namespaces").iter().filter_map(Value::as_str) {
        if causes.is_full() {
            break;
        }
        causes.invalid_all(&path.child("namespace"), namespace, names::dns_label(namespace));
    }
    let key = text(term, "topologyKey");
    let path = path.child("topologyKey");
    if key.is_empty() {
        causes.required(&path, "can not be empty");
    }
    causes.invalid_all(&path, key, names::qualified(key));
}

/// Labels of the pod itself that others must share, or must not.
fn label_keys(term: &Value, path: &Path, causes: &mut Causes) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, path) = (list(term, field), path.child(field));
        if !keys.is_empty() && get(term, "labelSelector").is_null() {
            causes.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            if causes.is_full() {
                break;
            }
            causes.invalid_all(&path.index(index), key, names::qualified(key));
        }
    }
    let others: HashSet<&str> =
        list(term, "mismatchLabelKeys").iter().filter_map(Value::as_str).collect();
    for (index, key) in list(term, "matchLabelKeys").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        if key.as_str().is_some_and(|key| others.contains(key)) {
            causes.invalid(
                &path.child("matchLabelKeys").index(index),
                key.clone(),
                "exists in both matchLabelKeys and mismatchLabelKeys",
            );
        }
    }
}

/// A `LabelSelector` object; null is none.
pub fn label_selector(selector: &Value, path: &Path, causes: &mut Causes) {
    metadata::labels(selector, "matchLabels", &path.child("matchLabels"), causes);
    for (index, expression) in list(selector, "matchExpressions").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("matchExpressions").index(index);
        let (operator, values) = (text(expression, "operator"), list(expression, "values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                causes.required(&path.child("values"), NEEDS_VALUES);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                causes.forbidden(&path.child("values"), NO_VALUES);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                causes.invalid(&path.child("operator"), operator, "not a valid selector operator");
            }
        }
        let key = text(expression, "key");
        causes.invalid_all(&path.child("key"), key, names::qualified(key));
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            if causes.is_full() {
                break;
            }
            let path = path.child("values").index(index);
            causes.invalid_all(&path, value, names::label_value(value));
        }
    }
}
