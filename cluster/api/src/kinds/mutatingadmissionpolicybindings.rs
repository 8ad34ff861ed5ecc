//! MutatingAdmissionPolicyBinding: where a policy is in force, and with which parameters.

use crate::cause::Cause;
use crate::field::{Causes, text};
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::webhooks;
use crate::table::{age, name, or_unset};
use serde_json::Value;
use std::sync::Arc;

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
        cells: Arc::new(|binding, now| {
            let namespace = match text(binding, "spec.paramRef.namespace") {
                "" => String::new(),
                namespace => format!("{namespace}/"),
            };
            let reference = match text(binding, "spec.paramRef.name") {
                "" if crate::field::has(binding, "spec.paramRef") => format!("{namespace}*"),
                "" => String::new(),
                name => format!("{namespace}{name}"),
            };
            vec![
                name(binding),
                text(binding, "spec.policyName").into(),
                or_unset(&reference),
                age(binding, now),
            ]
        }),
        generation: true,
        effect: Effect::missing("its policy is not in force"),
        rules: Rules {
            default: Arc::new(webhooks::default_binding),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            "mutatingadmissionpolicybinding",
            "api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
        )
    }
}

fn validate(binding: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    webhooks::binding(binding, &mut causes);
    causes.into_vec()
}
