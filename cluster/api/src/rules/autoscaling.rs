//! Autoscalers: what they say when they say nothing, and what they may say.
//!
//! Kept as `autoscaling/v2`; the older version is made of that by [`v1`].

mod cells;
mod metrics;
pub mod v1;

pub use cells::cells;

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, default, default_text, existing_mut, get, has, list, number, object_mut, set,
    text,
};
use crate::quantity;
use crate::rules::declared;
use crate::status::Status;
use serde_json::{Value, json};

/// How much of a CPU the pods should use on average where nothing is said, in percent of what they ask for.
const USUAL_UTILIZATION: i64 = 80;
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// Defaults of an autoscaler.
pub fn default_autoscaler(autoscaler: &mut Value) {
    let spec = object_mut(autoscaler, "spec");
    default(spec, "minReplicas", 1);
    if list(spec, "metrics").is_empty() {
        set(spec, "metrics", json!([usual_metric()]));
    }
    for metric in crate::field::list_mut(spec, "metrics") {
        metrics::canonical(metric);
    }
    if let Some(behavior) = existing_mut(spec, "behavior") {
        let rules = object_mut(behavior, "scaleUp");
        default(rules, "stabilizationWindowSeconds", 0);
        default_text(rules, "selectPolicy", "Max");
        if list(rules, "policies").is_empty() {
            let fast = json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]);
            set(rules, "policies", fast);
        }
        let rules = object_mut(behavior, "scaleDown");
        default_text(rules, "selectPolicy", "Max");
        if list(rules, "policies").is_empty() {
            let all = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
            set(rules, "policies", all);
        }
    }
    let status = object_mut(autoscaler, "status");
    default(status, "desiredReplicas", 0);
    // Written in any case.
    if !has(status, "currentMetrics") {
        set(status, "currentMetrics", Value::Null);
    }
}

/// What is measured where nothing is said.
fn usual_metric() -> Value {
    cpu_metric(USUAL_UTILIZATION)
}

fn cpu_metric(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

/// What the server decides about a new one.
pub fn prepare_create(autoscaler: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(autoscaler, "status", json!({}));
    default_autoscaler(autoscaler);
    Ok(())
}

/// What is wrong with one.
pub fn validate(autoscaler: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(autoscaler, "spec"), Path::new("spec"));
    let (least, most) = (number(spec, "minReplicas"), number(spec, "maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        let why = "must be greater than or equal to 1";
        causes.invalid(&path.child("minReplicas"), least, why);
    }
    let most_path = path.child("maxReplicas");
    if most == 0 {
        causes.required(&most_path, "");
    } else if most < 0 {
        causes.invalid(&most_path, most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        causes.invalid(&most_path, most, "must be greater than or equal to `minReplicas`");
    }
    let target = get(spec, "scaleTargetRef");
    metrics::object_reference(target, &path.child("scaleTargetRef"), &mut causes);
    metrics::validate(list(spec, "metrics"), &path.child("metrics"), &mut causes);
    for direction in ["scaleUp", "scaleDown"] {
        let rules = crate::field::at(spec, "behavior").get(direction);
        if let Some(rules) = rules.filter(|rules| rules.is_object()) {
            scaling_rules(rules, &path.child("behavior").child(direction), &mut causes);
        }
    }
    declared::validate("api.autoscaling.v2.HorizontalPodAutoscaler", autoscaler, &mut causes);
    causes.into_vec()
}

fn scaling_rules(rules: &Value, path: &Path, causes: &mut Causes) {
    if let Some(window) = number(rules, "stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        causes.not_negative(&path, Some(window));
        if window > WINDOW_SECONDS_MAX {
            let why = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            causes.invalid(&path, window, &why);
        }
    }
    let select = text(rules, "selectPolicy");
    if has(rules, "selectPolicy") && !["Max", "Min", "Disabled"].contains(&select) {
        let path = path.child("selectPolicy");
        causes.not_supported(&path, select, &["Disabled", "Max", "Min"]);
    }
    if let Some(tolerance) = quantity::parse(get(rules, "tolerance")).filter(|it| it.sign() < 0) {
        let why = "must be greater or equal to 0";
        causes.invalid(&path.child("tolerance"), tolerance.to_string(), why);
    }
    let path = path.child("policies");
    let policies = list(rules, "policies");
    if policies.is_empty() {
        causes.required(&path, "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let (path, kind) = (path.index(index), text(policy, "type"));
        if !kind.is_empty() && !["Pods", "Percent"].contains(&kind) {
            causes.not_supported(&path.child("type"), kind, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let number = number(policy, field).unwrap_or(0);
            if number <= 0 {
                causes.invalid(&path.child(field), number, "must be greater than zero");
            }
        }
        let period = number(policy, "periodSeconds").unwrap_or(0);
        if period > PERIOD_SECONDS_MAX {
            let why = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            causes.invalid(&path.child("periodSeconds"), period, &why);
        }
    }
}

/// What is wrong with the counts of a status.
pub fn validate_status(autoscaler: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let status = get(autoscaler, "status");
    for field in ["currentReplicas", "desiredReplicas"] {
        causes.not_negative(&Path::new("status").child(field), number(status, field));
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        default_autoscaler(&mut object);
        object
    }

    fn refused(spec: &Value) -> String {
        let causes = validate(&autoscaler(spec));
        causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_autoscaler_has_bounds_a_target_and_rules_that_can_be_followed() {
        let down = |rules: Value| json!({"behavior": {"scaleDown": rules}});
        let policy = |policy: Value| down(json!({"policies": [policy]}));
        let rows = [
            (json!({}), ""),
            (json!({"minReplicas": 0}), "spec.minReplicas"),
            (json!({"minReplicas": 5}), "spec.maxReplicas"),
            (json!({"maxReplicas": -1}), "spec.maxReplicas spec.maxReplicas"),
            (json!({"scaleTargetRef": {"kind": "A/b", "name": "d"}}), "spec.scaleTargetRef.kind"),
            (json!({"scaleTargetRef": {}}), "spec.scaleTargetRef.kind spec.scaleTargetRef.name"),
            (json!({"behavior": {}}), ""),
            (down(json!({"selectPolicy": "Avg"})), "spec.behavior.scaleDown.selectPolicy"),
            (
                down(json!({"stabilizationWindowSeconds": 3601})),
                "spec.behavior.scaleDown.stabilizationWindowSeconds",
            ),
            (down(json!({"tolerance": "-1"})), "spec.behavior.scaleDown.tolerance"),
            (
                policy(json!({"type": "Half", "value": 1, "periodSeconds": 1})),
                "spec.behavior.scaleDown.policies[0].type",
            ),
            (
                policy(json!({"type": "Pods", "value": 0, "periodSeconds": 1801})),
                "spec.behavior.scaleDown.policies[0].value spec.behavior.scaleDown.policies[0].periodSeconds",
            ),
        ];
        for (spec, expected) in rows {
            assert_eq!(refused(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn who_says_how_it_scales_is_told_what_it_does_otherwise() {
        let behavior = autoscaler(&json!({"behavior": {"scaleUp": {"selectPolicy": "Min"}}}));
        let behavior = &behavior["spec"]["behavior"];
        assert_eq!(behavior["scaleUp"]["selectPolicy"], "Min");
        assert_eq!(behavior["scaleUp"]["policies"].as_array().unwrap().len(), 2);
        assert_eq!(behavior["scaleDown"]["policies"].as_array().unwrap().len(), 1);
        assert!(behavior["scaleDown"].get("stabilizationWindowSeconds").is_none());
        assert_eq!(autoscaler(&json!({}))["spec"]["metrics"], json!([usual_metric()]));
    }
}
