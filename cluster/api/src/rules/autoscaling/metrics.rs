//! What an autoscaler measures, and what it should be.

use crate::field::{Causes, Path, at, existing_mut, get, has, number, set, text};
use crate::quantity;
use crate::rules::pod::label_selector;
use serde_json::Value;

/// The types of a metric, with where each says what is measured.
pub(super) const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const TARGETS: [&str; 3] = ["Utilization", "Value", "AverageValue"];

/// Spells the amounts of a metric canonically.
pub(super) fn canonical(metric: &mut Value) {
    for (_, source) in SOURCES {
        let target = existing_mut(metric, source).and_then(|source| existing_mut(source, "target"));
        let Some(target) = target else { continue };
        for field in ["value", "averageValue"] {
            if let Some(spelling) = quantity::canonical(get(target, field)) {
                set(target, field, spelling);
            }
        }
    }
}

/// The metrics of an autoscaler.
pub(super) fn validate(all: &[Value], path: &Path, causes: &mut Causes) {
    for (index, metric) in all.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let (path, kind) = (path.index(index), text(metric, "type"));
        let Some((_, wanted)) = SOURCES.iter().find(|(known, _)| *known == kind) else {
            if !kind.is_empty() {
                let known = SOURCES.map(|(known, _)| known);
                causes.not_supported(&path.child("type"), kind, &known);
            }
            continue;
        };
        if !has(metric, wanted) {
            let why = "must populate information for the given metric source";
            causes.required(&path.child(wanted), why);
        }
        for (_, other) in SOURCES.iter().filter(|(_, source)| source != wanted) {
            if has(metric, other) {
                let why = "must populate the given metric source only";
                causes.forbidden(&path.child(other), why);
            }
        }
        if has(metric, wanted) {
            source(kind, get(metric, wanted), &path.child(wanted), causes);
        }
    }
}

fn source(kind: &str, source: &Value, path: &Path, causes: &mut Causes) {
    if kind == "Object" {
        object_reference(get(source, "describedObject"), &path.child("describedObject"), causes);
    }
    if has(source, "metric") {
        let (metric, path) = (get(source, "metric"), path.child("metric"));
        label_selector(get(metric, "selector"), &path.child("selector"), causes);
        for part in ['/', '%'] {
            if text(metric, "name").contains(part) {
                let why = format!("may not contain '{part}'");
                causes.invalid(&path.child("name"), text(metric, "name"), &why);
            }
        }
    }
    let (target, path) = (get(source, "target"), path.child("target"));
    target_of(target, &path, causes);
    let given = |field: &str| has(target, field);
    let average = path.child("averageValue");
    match kind {
        "Object" if !given("value") && !given("averageValue") => causes
            .required(&average, "must set either a target value for metric or a per-pod target"),
        "External" => match (given("value"), given("averageValue")) {
            (false, false) => causes.required(
                &average,
                "must set either a target value for metric or a per-pod target",
            ),
            (true, true) => causes.forbidden(
                &path.child("value"),
                "may not set both a target value for metric and a per-pod target",
            ),
            _ => {}
        },
        "Pods" if !given("averageValue") => {
            causes.required(&average, "must specify a positive target averageValue");
        }
        "Resource" | "ContainerResource" => {
            match (given("averageUtilization"), given("averageValue")) {
                (false, false) => causes.required(
                    &path.child("averageUtilization"),
                    "must set either a target raw value or a target utilization",
                ),
                (true, true) => causes.forbidden(
                    &average,
                    "may not set both a target raw value and a target utilization",
                ),
                _ => {}
            }
        }
        _ => {}
    }
}

fn target_of(target: &Value, path: &Path, causes: &mut Causes) {
    let kind = text(target, "type");
    if !kind.is_empty() && !TARGETS.contains(&kind) {
        let why = "must be either Utilization, Value, or AverageValue";
        causes.invalid(&path.child("type"), kind, why);
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = quantity::parse(at(target, field)).filter(|it| it.sign() <= 0) {
            causes.invalid(&path.child(field), amount.to_string(), "must be positive");
        }
    }
    if let Some(percent) = number(target, "averageUtilization").filter(|percent| *percent < 1) {
        causes.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

/// What is scaled, or measured: its kind and its name are parts of a path.
pub(super) fn object_reference(reference: &Value, path: &Path, causes: &mut Causes) {
    for field in ["kind", "name"] {
        let given = text(reference, field);
        for part in ['/', '%'] {
            if given.contains(part) {
                causes.invalid(&path.child(field), given, &format!("may not contain '{part}'"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_metric_says_what_is_measured_and_what_it_should_be() {
        let resource = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        let pods = |target: Value| json!({"type": "Pods", "pods": {"metric": {"name": "q"}, "target": target}});
        let external = |target: Value| json!({"type": "External", "external": {"metric": {"name": "q"}, "target": target}});
        let rows = [
            (resource(json!({"type": "Utilization", "averageUtilization": 50})), ""),
            (resource(json!({"type": "Utilization"})), "m[0].resource.target.averageUtilization"),
            (
                resource(json!({"type": "Utilization", "averageUtilization": 0})),
                "m[0].resource.target.averageUtilization",
            ),
            (
                resource(json!({"type": "Half", "averageUtilization": 1})),
                "m[0].resource.target.type",
            ),
            (
                resource(
                    json!({"type": "Utilization", "averageUtilization": 1, "averageValue": "1"}),
                ),
                "m[0].resource.target.averageValue",
            ),
            (pods(json!({"type": "AverageValue", "averageValue": "10"})), ""),
            (
                pods(json!({"type": "AverageValue", "averageValue": "0"})),
                "m[0].pods.target.averageValue",
            ),
            (pods(json!({"type": "Value", "value": "1"})), "m[0].pods.target.averageValue"),
            (external(json!({"type": "Value"})), "m[0].external.target.averageValue"),
            (
                external(json!({"type": "Value", "value": "1", "averageValue": "1"})),
                "m[0].external.target.value",
            ),
            (json!({"type": "Moon"}), "m[0].type"),
            (json!({"type": "Pods", "resource": {}}), "m[0].pods m[0].resource"),
        ];
        for (metric, expected) in rows {
            let mut causes = Causes::default();
            validate(std::slice::from_ref(&metric), &Path::new("m"), &mut causes);
            let fields: Vec<String> =
                causes.into_vec().into_iter().map(|cause| cause.field).collect();
            assert_eq!(fields.join(" "), expected, "{metric}");
        }
    }
}
