//! ValidatingAdmissionPolicy: what must hold of objects before they are written, in CEL.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, get, has, list, object_mut, text};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::expressions::{self, Gives, Runs};
use crate::rules::{declared, webhooks};
use crate::status::Status;
use crate::table::{age, name, or_unset};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

const MESSAGE: &str = "api.admissionregistration.v1.ValidatingAdmissionPolicy";
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const ANNOTATIONS_MAX: usize = 20;

/// The row.
pub fn resource() -> Resource {
    Resource {
        categories: words(["api-extensions"]),
        namespaced: false,
        subresources: vec![Subresource::status("ValidatingAdmissionPolicy")],
        columns: vec![
            Column::name(),
            Column::integer("Validations", "How many conditions it has."),
            Column::text("ParamKind", "The kind of what says more to it."),
            Column::age(),
        ],
        cells: Arc::new(|policy, now| {
            let validations = list(policy, "spec.validations").len();
            vec![name(policy), validations.into(), or_unset(&param_kind(policy)), age(policy, now)]
        }),
        generation: true,
        effect: Effect::by("every write that comes through the API"),
        rules: Rules {
            default: Arc::new(|policy| {
                webhooks::default_policy(policy, false);
                object_mut(policy, "status");
            }),
            prepare_create: Arc::new(|policy: &mut Value, _: &Context<'_>| {
                webhooks::no_status(policy);
                Ok::<(), Status>(())
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            warnings: Arc::new(expressions::not_done_of_policy),
            ..Rules::plain()
        },
        ..Resource::named(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            "validatingadmissionpolicy",
            MESSAGE,
        )
    }
}

/// The kind of the parameters of a policy, with its version.
pub(super) fn param_kind(policy: &Value) -> String {
    if !has(policy, "spec.paramKind") {
        return String::new();
    }
    let field = |field: &str| text(crate::field::at(policy, "spec.paramKind"), field);
    format!("{}/{}", field("apiVersion"), field("kind"))
}

fn validate(policy: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    webhooks::policy(policy, Runs::ForPolicies, &mut causes);
    let (spec, path) = (get(policy, "spec"), Path::new("spec"));
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must be non-empty";
        causes.required(&path.child("validations"), why);
        causes.required(&path.child("auditAnnotations"), why);
    }
    for (index, validation) in validations.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("validations").index(index);
        webhooks::expression(
            text(validation, "expression"),
            (Runs::ForPolicies, Gives::Bool),
            &path.child("expression"),
            &mut causes,
        );
        let told = text(validation, "messageExpression");
        let words = (Runs::ForPolicies, Gives::Text);
        webhooks::expression(told, words, &path.child("messageExpression"), &mut causes);
        let message = text(validation, "message");
        if message.contains('\n') {
            causes.invalid(&path.child("message"), message, "message must not contain line breaks");
        }
        let reason = text(validation, "reason");
        if has(validation, "reason") && !REASONS.contains(&reason) {
            causes.not_supported(&path.child("reason"), reason, &REASONS);
        }
    }
    let annotations_path = path.child("auditAnnotations");
    if annotations.len() > ANNOTATIONS_MAX {
        causes.too_many(&annotations_path, annotations.len(), ANNOTATIONS_MAX);
    }
    let mut seen = HashSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, key) = (annotations_path.index(index), text(annotation, "key"));
        if !key.is_empty() {
            causes.invalid_all(&path.child("key"), key, names::qualified(key));
        }
        if !seen.insert(key) {
            causes.duplicate(&path.child("key"), key);
        }
        let value = text(annotation, "valueExpression");
        let words = (Runs::Nowhere, Gives::Text);
        webhooks::expression(value, words, &path.child("valueExpression"), &mut causes);
    }
    declared::validate(MESSAGE, policy, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_says_what_must_hold_of_what() {
        let matches = json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]});
        let policy = |more: Value| {
            let mut spec = json!({"matchConstraints": matches, "validations": [{"expression": "object.spec.replicas <= 5"}]});
            for (field, value) in more.as_object().unwrap() {
                spec[field] = value.clone();
            }
            let mut policy = json!({"spec": spec});
            webhooks::default_policy(&mut policy, false);
            policy
        };
        let rows = [
            (json!({}), ""),
            (json!({"validations": []}), "spec.validations spec.auditAnnotations"),
            (json!({"validations": [{}]}), "spec.validations[0].expression"),
            (
                json!({"validations": [{"expression": "object.("}]}),
                "spec.validations[0].expression",
            ),
            (
                json!({"validations": [{"expression": "true", "reason": "Mood"}]}),
                "spec.validations[0].reason",
            ),
            (
                json!({"validations": [{"expression": "true", "message": "a\nb"}]}),
                "spec.validations[0].message",
            ),
            (json!({"paramKind": {"kind": "K"}}), "spec.paramKind.apiVersion"),
            (json!({"variables": [{"name": "a-b", "expression": "1"}]}), "spec.variables[0].name"),
            (json!({"auditAnnotations": [{"key": "a", "valueExpression": "'x'"}]}), ""),
            (
                json!({"auditAnnotations": [{"key": "a"}]}),
                "spec.auditAnnotations[0].valueExpression",
            ),
            (json!({"failurePolicy": "Shrug"}), "spec.failurePolicy"),
        ];
        for (spec, expected) in rows {
            let causes = validate(&policy(spec.clone()));
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
    }
}
