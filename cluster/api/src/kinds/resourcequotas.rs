//! ResourceQuota: how much of everything a namespace may have together.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, entries, existing_mut, get, list, object_mut, set, text};
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::declared;
use crate::rules::resources::{canonical_amounts, quantity_value, quota_resource};
use crate::status::Status;
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["quota"]),
        subresources: vec![Subresource::status("ResourceQuota")],
        columns: vec![
            Column::name(),
            Column::text("Request", "What is used of what may be asked for."),
            Column::text("Limit", "What is used of what may be granted."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        effect: Effect::missing("nothing is counted or refused by it"),
        rules: Rules {
            default: Arc::new(default_quota),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(|new, _| validate_status(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "",
            "v1",
            "ResourceQuota",
            "resourcequotas",
            "resourcequota",
            "api.core.v1.ResourceQuota",
        )
    }
}

fn default_quota(quota: &mut Value) {
    for (part, maps) in [("spec", &["hard"][..]), ("status", &["hard", "used"])] {
        let part = object_mut(quota, part);
        for amounts in maps {
            if let Some(amounts) = existing_mut(part, amounts) {
                canonical_amounts(amounts);
            }
        }
    }
}

fn prepare_create(quota: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(quota, "status", json!({}));
    Ok(())
}

fn cells(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    // In the order of the names.
    let hard: std::collections::BTreeMap<_, _> = entries(quota, "status.hard").collect();
    for (resource, most) in hard {
        let used = at(quota, "status.used").get(resource).and_then(Value::as_str).unwrap_or("0");
        let told = format!("{resource}: {used}/{}", most.as_str().unwrap_or_default());
        let is_limit = resource.starts_with("limits.");
        (if is_limit { &mut limits } else { &mut requests }).push(told);
    }
    vec![name(quota), requests.join(", ").into(), limits.join(", ").into(), age(quota, now)]
}

fn validate(quota: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec");
    amounts(get(quota, "spec"), "hard", &path, &mut causes);
    scopes(get(quota, "spec"), &path, &mut causes);
    declared::validate("api.core.v1.ResourceQuota", quota, &mut causes);
    causes.into_vec()
}

fn amounts(part: &Value, field: &str, path: &Path, causes: &mut Causes) {
    for (resource, amount) in entries(part, field) {
        if causes.is_full() {
            return;
        }
        let path = path.child(field).key(resource);
        quota_resource(&path, resource, causes);
        quantity_value(&path, resource, amount, causes);
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// What a quota of pods that ask for nothing can count.
const OF_BEST_EFFORT: [&str; 1] = ["pods"];
/// What a quota of other pods can count.
const OF_PODS: [&str; 9] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
];

/// Scopes are known, once each, can be had together, and fit what is counted.
fn scopes(spec: &Value, path: &Path, causes: &mut Causes) {
    let given: Vec<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    if !given.is_empty() {
        let shown = get(spec, "scopes").clone();
        one_list(&given, spec, &path.child("scopes"), &shown, causes);
    }
    let selector = path.child("scopeSelector").child("matchExpressions");
    let expressions = list(spec, "scopeSelector.matchExpressions");
    let named: Vec<&str> = expressions.iter().map(|one| text(one, "scopeName")).collect();
    if !named.is_empty() {
        let shown = at(spec, "scopeSelector.matchExpressions").clone();
        one_list(&named, spec, &selector, &shown, causes);
    }
    for (index, expression) in expressions.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = selector.index(index);
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        let has_values = !list(expression, "values").is_empty();
        let values = path.child("values");
        match operator {
            "In" | "NotIn" if !has_values => {
                causes.required(
                    &values,
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                );
            }
            "Exists" | "DoesNotExist" if has_values => {
                causes.invalid(
                    &values,
                    get(expression, "values").clone(),
                    "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
                );
            }
            _ => {}
        }
        let is_chosen_by_value = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope) && !is_chosen_by_value && operator != "Exists" {
            causes.invalid(
                &path.child("operator"),
                operator,
                "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
    }
}

fn one_list(scopes: &[&str], spec: &Value, path: &Path, shown: &Value, causes: &mut Causes) {
    let mut seen = HashSet::new();
    for scope in scopes {
        if causes.is_full() {
            return;
        }
        if !SCOPES.contains(scope) {
            if path.to_string().ends_with(".scopes") {
                causes.not_supported(path, *scope, &SCOPES);
            }
            continue;
        }
        // Each is looked at once, however often it is said.
        if !seen.insert(*scope) {
            continue;
        }
        let fits = |resource: &str| match *scope {
            "BestEffort" => OF_BEST_EFFORT.contains(&resource),
            "VolumeAttributesClass" => resource != "pods" && !OF_PODS.contains(&resource),
            _ => OF_PODS.contains(&resource) || resource == "limits.ephemeral-storage",
        };
        let unfit =
            entries(spec, "hard").find(|(resource, _)| is_counted(resource) && !fits(resource));
        if unfit.is_some() {
            causes.invalid(path, shown.clone(), "unsupported scope applied to resource");
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| seen.contains(scope)) {
            causes.invalid(path, shown.clone(), "conflicting scopes");
        }
    }
}

/// Whether a resource has scopes at all: those of pods and claims; what is somebody's own may have any.
fn is_counted(resource: &str) -> bool {
    !resource.contains('/')
}

/// The scopes of a quota say what it counted.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate(new));
    let sorted = |quota: &Value| {
        let mut scopes: Vec<String> =
            list(quota, "spec.scopes").iter().map(Value::to_string).collect();
        scopes.sort();
        scopes
    };
    if sorted(new) != sorted(old) {
        let scopes = at(new, "spec.scopes").clone();
        causes.invalid(&Path::new("spec").child("scopes"), scopes, "field is immutable");
    }
    causes.into_vec()
}

fn validate_status(quota: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    for field in ["hard", "used"] {
        amounts(get(quota, "status"), field, &Path::new("status"), &mut causes);
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: Vec<Cause>) -> String {
        causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_quota_counts_what_is_known_in_scopes_that_fit() {
        let selector = |scope: &str, operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions":
                [{"scopeName": scope, "operator": operator, "values": values}]}})
        };
        let expression = "spec.scopeSelector.matchExpressions[0]";
        let rows = [
            (
                json!({"hard": {"pods": "1", "count/jobs.batch": "5", "requests.nvidia.com/gpu": "4"}}),
                String::new(),
            ),
            (json!({"hard": {"pods": "1500m"}}), "spec.hard[pods]".to_owned()),
            (json!({"hard": {"unicorns": "1"}}), "spec.hard[unicorns]".to_owned()),
            (json!({"hard": {"hugepages-2Mi": "1", "requests.hugepages-2Mi": "1"}}), String::new()),
            (json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), String::new()),
            (json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}), "spec.scopes".to_owned()),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]}),
                "spec.scopes".to_owned(),
            ),
            (json!({"scopes": ["Other"]}), "spec.scopes".to_owned()),
            (selector("PriorityClass", "In", json!(["high"])), String::new()),
            (selector("PriorityClass", "In", json!([])), format!("{expression}.values")),
            (selector("PriorityClass", "Exists", json!(["a"])), format!("{expression}.values")),
            (selector("BestEffort", "In", json!(["a"])), format!("{expression}.operator")),
            (selector("Other", "Exists", json!([])), format!("{expression}.scopeName")),
        ];
        for (spec, expected) in rows {
            assert_eq!(told(validate(&json!({"spec": spec}))), expected, "{spec}");
        }
    }

    #[test]
    fn the_scopes_of_a_quota_stay_in_whatever_order() {
        let quota = |scopes: Value| json!({"spec": {"scopes": scopes}});
        let both = quota(json!(["BestEffort", "NotTerminating"]));
        let turned = quota(json!(["NotTerminating", "BestEffort"]));
        assert_eq!(told(validate_update(&turned, &both)), "");
        assert_eq!(told(validate_update(&quota(json!(["BestEffort"])), &both)), "spec.scopes");
        let used = json!({"status": {"used": {"pods": "-1"}}});
        assert_eq!(told(validate_status(&used)), "status.used[pods]");
    }
}
