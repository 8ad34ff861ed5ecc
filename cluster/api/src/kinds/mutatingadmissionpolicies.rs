//! MutatingAdmissionPolicy: what is changed of objects before they are written, in CEL.

use crate::cause::Cause;
use crate::field::{Causes, Path, get, has, list, text};
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::expressions::Runs;
use crate::rules::{declared, webhooks};
use crate::table::{age, name, or_unset};
use serde_json::Value;
use std::sync::Arc;

const MESSAGE: &str = "api.admissionregistration.v1.MutatingAdmissionPolicy";

/// The row.
pub fn resource() -> Resource {
    Resource {
        categories: words(["api-extensions"]),
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::integer("Mutations", "How many changes it makes."),
            Column::text("ParamKind", "The kind of what says more to it."),
            Column::age(),
        ],
        cells: Arc::new(|policy, now| {
            let mutations = list(policy, "spec.mutations").len();
            let params = super::validatingadmissionpolicies::param_kind(policy);
            vec![name(policy), mutations.into(), or_unset(&params), age(policy, now)]
        }),
        generation: true,
        effect: Effect::missing("nothing is changed by it"),
        rules: Rules {
            default: Arc::new(|policy| webhooks::default_policy(policy, true)),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingAdmissionPolicy",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicy",
            MESSAGE,
        )
    }
}

fn validate(policy: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    webhooks::policy(policy, Runs::Nowhere, &mut causes);
    let path = Path::new("spec").child("mutations");
    let mutations = list(policy, "spec.mutations");
    if mutations.is_empty() {
        causes.required(&path, "mutations must contain at least one item");
    }
    for (index, mutation) in mutations.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        let [wanted, other] = match text(mutation, "patchType") {
            "ApplyConfiguration" => ["applyConfiguration", "jsonPatch"],
            "JSONPatch" => ["jsonPatch", "applyConfiguration"],
            _ => continue, // the tables know the types
        };
        if text(get(mutation, wanted), "expression").trim().is_empty() {
            causes.required(&path.child(wanted).child("expression"), "");
        }
        if has(mutation, other) {
            let why = format!("not allowed when the patchType is not that of {other}");
            causes.invalid(&path.child(other), get(mutation, other).clone(), &why);
        }
    }
    declared::validate(MESSAGE, policy, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_says_what_it_changes_of_what() {
        let matches = json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]});
        let apply = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}});
        let rows = [
            (json!({"matchConstraints": matches, "mutations": [apply]}), ""),
            (json!({"mutations": [apply]}), "spec.matchConstraints"),
            (
                json!({"matchConstraints": {}, "mutations": [apply]}),
                "spec.matchConstraints.resourceRules",
            ),
            (json!({"matchConstraints": matches}), "spec.mutations"),
            (
                json!({"matchConstraints": matches, "mutations": [{"patchType": "JSONPatch", "applyConfiguration": {}}]}),
                "spec.mutations[0].jsonPatch.expression spec.mutations[0].applyConfiguration",
            ),
            (
                json!({"matchConstraints": matches, "mutations": [{"patchType": "Merge"}]}),
                "spec.mutations[0].patchType",
            ),
        ];
        for (spec, expected) in rows {
            let mut policy = json!({"spec": spec});
            webhooks::default_policy(&mut policy, true);
            let causes = validate(&policy);
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
    }
}
