//! PodDisruptionBudget: how many of some pods may be missing because somebody wanted it.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, default, get, has, number, object_mut, set, text};
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::rollout::{Part, part};
use crate::rules::{metadata, pod};
use crate::status::Status;
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The condition that says whether one more may be missing.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
/// Its reason where one may.
pub const SUFFICIENT: &str = "SufficientPods";
/// Its reason where none may.
pub const INSUFFICIENT: &str = "InsufficientPods";
/// Its reason where it cannot be told.
pub const SYNC_FAILED: &str = "SyncFailed";
/// Whether a pod that is not ready may be evicted whatever the budget says.
pub const UNHEALTHY_POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

/// The counts of a status.
const COUNTS: [&str; 4] =
    ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["pdb"]),
        subresources: vec![Subresource::status("PodDisruptionBudget")],
        columns: vec![
            Column::name(),
            Column::text("Min Available", "How many must be there."),
            Column::text("Max Unavailable", "How many may be missing."),
            Column::integer("Allowed Disruptions", "How many more may be made to miss now."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::by("its controller, and evictions"),
        rules: Rules {
            default: Arc::new(default_budget),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(validate_status),
            ..Rules::plain()
        },
        ..Resource::named(
            "policy",
            "v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            "poddisruptionbudget",
            "api.policy.v1.PodDisruptionBudget",
        )
    }
}

fn default_budget(object: &mut Value) {
    object_mut(object, "spec");
    let status = object_mut(object, "status");
    for count in COUNTS {
        default(status, count, 0);
    }
}

fn prepare_create(object: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(object, "status", json!({}));
    default_budget(object);
    Ok(())
}

fn validate(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(object, "spec"), Path::new("spec"));
    let amounts = ["minAvailable", "maxUnavailable"];
    if amounts.iter().all(|field| has(spec, field)) {
        let why = "minAvailable and maxUnavailable cannot be both set";
        causes.invalid(&path, spec.clone(), why);
    }
    for field in amounts.into_iter().filter(|field| has(spec, field)) {
        let (given, path) = (get(spec, field), path.child(field));
        if part(given, &path, &mut causes) == Some(Part::MoreThanAll) {
            causes.invalid(&path, given.clone(), "must not be greater than 100%");
        }
    }
    if has(spec, "selector") {
        pod::label_selector(get(spec, "selector"), &path.child("selector"), &mut causes);
    }
    let policy = text(spec, "unhealthyPodEvictionPolicy");
    if has(spec, "unhealthyPodEvictionPolicy") && !UNHEALTHY_POLICIES.contains(&policy) {
        let path = path.child("unhealthyPodEvictionPolicy");
        causes.not_supported(&path, policy, &UNHEALTHY_POLICIES);
    }
    causes.into_vec()
}

fn validate_update(new: &Value, _: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    causes.append(validate(new));
    causes.into_vec()
}

fn validate_status(new: &Value, _: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    for field in COUNTS {
        let path = Path::new("status").child(field);
        causes.not_negative(&path, number(get(new, "status"), field));
    }
    causes.into_vec()
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |field: &str| match get(get(object, "spec"), field) {
        Value::Null => "N/A".into(),
        Value::String(text) => Value::from(text.as_str()),
        number => number.to_string().into(),
    };
    vec![
        name(object),
        amount("minAvailable"),
        amount("maxUnavailable"),
        number(object, "status.disruptionsAllowed").unwrap_or(0).into(),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_says_how_many_in_one_way_and_within_reason() {
        let both = json!({"minAvailable": 1, "maxUnavailable": 1});
        for (spec, fields) in [
            (json!({}), vec![]),
            (json!({"minAvailable": "100%", "selector": {}}), vec![]),
            (json!({"maxUnavailable": 0}), vec![]),
            (both, vec!["spec"]),
            (json!({"minAvailable": -1}), vec!["spec.minAvailable"]),
            (json!({"maxUnavailable": "101%"}), vec!["spec.maxUnavailable"]),
            (json!({"maxUnavailable": "1"}), vec!["spec.maxUnavailable"]),
            (
                json!({"unhealthyPodEvictionPolicy": "Never"}),
                vec!["spec.unhealthyPodEvictionPolicy"],
            ),
        ] {
            let mut object = json!({"metadata": {"name": "b"}, "spec": spec});
            default_budget(&mut object);
            let causes: Vec<String> =
                validate(&object).into_iter().map(|cause| cause.field).collect();
            assert_eq!(causes, fields, "{spec}");
        }
    }
}
