//! ValidatingAdmissionPolicy: expressions that must hold of what is written.

use crate::field::{list, text};
use crate::resource::{Column, Resource, Rules, Subresource, words};
use crate::rules::expressions;
use crate::table::{age, name};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        categories: words(["api-extensions"]),
        subresources: vec![Subresource::status("ValidatingAdmissionPolicy")],
        columns: vec![
            Column::name(),
            Column::integer("Validations", "How many expressions must hold."),
            Column::text("ParamKind", "Of which kind its parameters are."),
            Column::age(),
        ],
        cells: Arc::new(|policy, now| {
            let (version, kind) =
                (text(policy, "spec.paramKind.apiVersion"), text(policy, "spec.paramKind.kind"));
            let params: Value =
                if kind.is_empty() { "<unset>".into() } else { format!("{version}/{kind}").into() };
            let count = list(policy, "spec.validations").len();
            vec![name(policy), count.into(), params, age(policy, now)]
        }),
        generation: true,
        rules: Rules {
            default: Arc::new(expressions::fill_in_policy),
            validate: Arc::new(expressions::validate_policy),
            validate_update: Arc::new(|new, _| expressions::validate_policy(new)),
            warnings: Arc::new(expressions::warnings),
            ..Rules::plain()
        },
        ..Resource::named(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            "validatingadmissionpolicy",
            "api.admissionregistration.v1.ValidatingAdmissionPolicy",
        )
    }
}
