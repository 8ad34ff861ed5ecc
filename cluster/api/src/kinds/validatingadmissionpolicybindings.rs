//! ValidatingAdmissionPolicyBinding: where a policy holds, with which parameters, and what follows where it does not.

use crate::field::text;
use crate::resource::{Column, Resource, Rules, words};
use crate::rules::expressions;
use crate::table::{age, name};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        categories: words(["api-extensions"]),
        columns: vec![
            Column::name(),
            Column::text("PolicyName", "Which policy it is of."),
            Column::text("ParamRef", "Where the parameters are."),
            Column::age(),
        ],
        cells: Arc::new(|binding, now| {
            let (namespace, params) =
                (text(binding, "spec.paramRef.namespace"), text(binding, "spec.paramRef.name"));
            let params: Value = match (namespace, params) {
                (_, "") => "<unset>".into(),
                ("", params) => format!("*/{params}").into(),
                (namespace, params) => format!("{namespace}/{params}").into(),
            };
            let policy = text(binding, "spec.policyName");
            vec![name(binding), policy.into(), params, age(binding, now)]
        }),
        generation: true,
        rules: Rules {
            default: Arc::new(expressions::fill_in_binding),
            validate: Arc::new(expressions::validate_binding),
            validate_update: Arc::new(|new, _| expressions::validate_binding(new)),
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
