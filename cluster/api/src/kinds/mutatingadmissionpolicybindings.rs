//! MutatingAdmissionPolicyBinding: where a policy is in force, and with which parameters.

use crate::cause::Cause;
use crate::field::Causes;
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::webhooks;
use crate::table;
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
        cells: Arc::new(table::admission::binding),
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
