//! ValidatingAdmissionPolicyBinding: where a policy is in force, and with which parameters.

use crate::cause::Cause;
use crate::field::{Causes, Path, get, list};
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::webhooks;
use crate::table;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        categories: words(["api-extensions"]),
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("PolicyName", "Which policy."),
            Column::text("ParamRef", "What says more to it."),
            Column::age(),
        ],
        cells: Arc::new(table::admission::binding),
        generation: true,
        effect: Effect::by("every write that comes through the API"),
        rules: Rules {
            default: Arc::new(webhooks::default_binding),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            "validatingadmissionpolicybinding",
            "api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
        )
    }
}

fn validate(binding: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    webhooks::binding(binding, &mut causes);
    let path = Path::new("spec").child("validationActions");
    let actions = list(binding, "spec.validationActions");
    let mut seen = HashSet::new();
    for action in actions.iter().filter_map(Value::as_str) {
        if causes.is_full() {
            break;
        }
        if !ACTIONS.contains(&action) {
            causes.not_supported(&path, action, &ACTIONS);
        }
        if !seen.insert(action) {
            causes.duplicate(&path, action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        causes.invalid(&path, get(get(binding, "spec"), "validationActions").clone(), why);
    }
    if actions.is_empty() {
        causes.required(&path, "");
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_binding_says_what_a_policy_does() {
        let rows = [
            (json!(["Deny", "Audit"]), ""),
            (json!([]), "spec.validationActions"),
            (json!(["Deny", "Warn"]), "spec.validationActions"),
            (json!(["Audit", "Audit"]), "spec.validationActions"),
            (json!(["Shout"]), "spec.validationActions"),
        ];
        for (actions, expected) in rows {
            let causes =
                validate(&json!({"spec": {"policyName": "p", "validationActions": actions}}));
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{actions}");
        }
    }
}
