//! Admission policies in CEL and their bindings: defaults, and what is wrong with them.
//!
//! After the API reference of `admissionregistration.k8s.io/v1`.

use super::webhooks::rule;
use crate::cause::Cause;
use crate::cel::{Program, RESERVED, Type, Variable};
use crate::field::{
    Causes, Path, default_text, existing_mut, get, has, list, list_mut, object_mut, text,
};
use crate::names;
use crate::selector::LabelSelector;
use serde_json::{Value, json};
use std::collections::HashSet;

/// What the expressions of a policy may name; of objects nothing is known beforehand.
pub const VARIABLES: [&str; 6] =
    ["object", "oldObject", "request", "params", "namespaceObject", "variables"];
/// How many of one sort a policy may have.
const MAX: usize = 64;

/// What an expression must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// True or false.
    Bool,
    /// A text.
    Text,
    /// Anything.
    Anything,
}

/// Compiles an expression over [`VARIABLES`]; an error says why it cannot be.
pub fn compile(expression: &str, gives: Gives) -> Result<Program, String> {
    let variables = VARIABLES.map(|name| -> Variable { (name.to_owned(), Type::Dyn) });
    let program = Program::compile(expression, &variables)
        .map_err(|error| format!("compilation failed: {error}"))?;
    match (gives, program.gives()) {
        (Gives::Anything, _)
        | (_, Type::Dyn)
        | (Gives::Bool, Type::Bool)
        | (Gives::Text, Type::Text) => Ok(program),
        (Gives::Bool, _) => Err("must evaluate to bool".to_owned()),
        (Gives::Text, _) => Err("must evaluate to string".to_owned()),
    }
}

/// Fills in what a policy leaves out.
pub fn fill_in_policy(policy: &mut Value) {
    let Some(spec) = existing_mut(policy, "spec") else { return };
    default_text(spec, "failurePolicy", "Fail");
    fill_in_match(spec, "matchConstraints");
}

/// Fills in what a binding leaves out.
pub fn fill_in_binding(binding: &mut Value) {
    if let Some(spec) = existing_mut(binding, "spec") {
        fill_in_match(spec, "matchResources");
    }
}

fn fill_in_match(spec: &mut Value, field: &str) {
    let Some(constraints) = existing_mut(spec, field) else { return };
    default_text(constraints, "matchPolicy", "Equivalent");
    object_mut(constraints, "namespaceSelector");
    object_mut(constraints, "objectSelector");
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in list_mut(constraints, rules) {
            default_text(rule, "scope", "*");
        }
    }
}

/// What is wrong with a policy.
pub fn validate_policy(policy: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(policy, "spec"), Path::new("spec"));
    let failure = text(spec, "failurePolicy");
    causes.one_of(&path.child("failurePolicy"), failure, &["Fail", "Ignore"]);
    if !get(spec, "paramKind").is_null() {
        let path = path.child("paramKind");
        for field in ["apiVersion", "kind"] {
            if text(spec, &format!("paramKind.{field}")).is_empty() {
                causes.required(&path.child(field), "");
            }
        }
    }
    let constraints = path.child("matchConstraints");
    if get(spec, "matchConstraints").is_null() {
        causes.required(&constraints, "");
    } else {
        matches(get(spec, "matchConstraints"), true, &constraints, &mut causes);
    }
    for (field, gives) in [("matchConditions", Gives::Bool), ("variables", Gives::Anything)] {
        named(spec, field, gives, &path.child(field), &mut causes);
    }
    let validations = list(spec, "validations");
    if validations.is_empty() && list(spec, "auditAnnotations").is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let why = "validations or auditAnnotations must be specified";
            causes.required(&path.child(field), why);
        }
    }
    if validations.len() > MAX {
        causes.too_many(&path.child("validations"), validations.len(), MAX);
    }
    for (index, validation) in validations.iter().take(MAX).enumerate() {
        self::validation(validation, &path.child("validations").index(index), &mut causes);
    }
    causes.into_vec()
}

fn validation(validation: &Value, path: &Path, causes: &mut Causes) {
    let expression = text(validation, "expression");
    if expression.trim().is_empty() {
        causes.required(&path.child("expression"), "expression is not specified");
    } else if let Err(why) = compile(expression, Gives::Bool) {
        causes.invalid(&path.child("expression"), expression, &why);
    }
    let message = text(validation, "message");
    if has(validation, "message") && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        causes.invalid(&path.child("message"), message, why);
    } else if message.trim().contains(['\n', '\r']) {
        causes.invalid(&path.child("message"), message, "message must not contain line breaks");
    } else if message.is_empty() && expression.trim().contains(['\n', '\r']) {
        let why = "message must be specified if expression contains line breaks";
        causes.required(&path.child("message"), why);
    }
    let worded = text(validation, "messageExpression");
    if !worded.is_empty()
        && let Err(why) = compile(worded, Gives::Text)
    {
        causes.invalid(&path.child("messageExpression"), worded, &why);
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    if has(validation, "reason") {
        causes.one_of(&path.child("reason"), text(validation, "reason"), &reasons);
    }
}

/// Expressions with names of their own.
fn named(spec: &Value, field: &str, gives: Gives, path: &Path, causes: &mut Causes) {
    let all = list(spec, field);
    if all.len() > MAX {
        causes.too_many(path, all.len(), MAX);
        return;
    }
    let mut seen = HashSet::new();
    for (index, one) in all.iter().enumerate() {
        let path = path.index(index);
        let (name, expression) = (text(one, "name"), text(one, "expression"));
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else if gives == Gives::Bool {
            causes.invalid_all(&path.child("name"), name, names::qualified(name));
        } else if !is_identifier(name) {
            causes.invalid(&path.child("name"), name, "name is not a valid CEL identifier");
        }
        if !seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        if expression.trim().is_empty() {
            causes.required(&path.child("expression"), "");
        } else if let Err(why) = compile(expression, gives) {
            causes.invalid(&path.child("expression"), expression, &why);
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&name)
}

fn matches(constraints: &Value, needs_rules: bool, path: &Path, causes: &mut Causes) {
    let rules = path.child("resourceRules");
    if needs_rules && list(constraints, "resourceRules").is_empty() {
        causes.required(&rules, "");
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, one) in list(constraints, field).iter().enumerate() {
            rule(one, &path.child(field).index(index), causes);
        }
    }
    if has(constraints, "matchPolicy") {
        let policy = text(constraints, "matchPolicy");
        causes.one_of(&path.child("matchPolicy"), policy, &["Equivalent", "Exact"]);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        if let Err(error) = LabelSelector::from_object(get(constraints, field)) {
            let given = get(constraints, field).clone();
            causes.invalid(&path.child(field), given, &error.to_string());
        }
    }
}

/// What is wrong with a binding.
pub fn validate_binding(binding: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(binding, "spec"), Path::new("spec"));
    match text(spec, "policyName") {
        "" => causes.required(&path.child("policyName"), ""),
        name => {
            causes.invalid_all(&path.child("policyName"), name, names::dns_subdomain(name));
        }
    }
    if !get(spec, "paramRef").is_null() {
        params(get(spec, "paramRef"), &path.child("paramRef"), &mut causes);
    }
    if !get(spec, "matchResources").is_null() {
        matches(get(spec, "matchResources"), false, &path.child("matchResources"), &mut causes);
    }
    let (actions, path) = (list(spec, "validationActions"), path.child("validationActions"));
    if actions.is_empty() {
        causes.required(&path, "");
    }
    let mut seen = HashSet::new();
    for (index, action) in actions.iter().enumerate() {
        let action = action.as_str().unwrap_or_default();
        causes.one_of(&path.index(index), action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action) {
            causes.duplicate(&path.index(index), action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                   response and headers serves no purpose)";
        causes.invalid(&path, json!(actions), why);
    }
    causes.into_vec()
}

fn params(reference: &Value, path: &Path, causes: &mut Causes) {
    let by_name = !text(reference, "name").is_empty();
    let selector = get(reference, "selector");
    match (by_name, selector.is_null()) {
        (true, false) => causes.forbidden(path, "name and selector are mutually exclusive"),
        (false, true) => causes.required(path, "one of name or selector must be specified"),
        (false, false) => {
            if let Err(error) = LabelSelector::from_object(selector) {
                causes.invalid(&path.child("selector"), selector.clone(), &error.to_string());
            }
        }
        (true, true) => {}
    }
    let path = path.child("parameterNotFoundAction");
    match text(reference, "parameterNotFoundAction") {
        "" => causes.required(&path, ""),
        action => causes.one_of(&path, action, &["Allow", "Deny"]),
    }
}

/// What of a policy is stored and not done.
pub fn warnings(policy: &Value) -> Vec<String> {
    if list(policy, "spec.auditAnnotations").is_empty() {
        return Vec::new();
    }
    vec!["spec.auditAnnotations: there is no audit log yet, and nothing is recorded".to_owned()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn policy() -> Value {
        json!({"spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"],
                "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas <= 5"}],
        }})
    }

    fn binding() -> Value {
        json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
    }

    fn said(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|cause| cause.to_string()).collect()
    }

    #[test]
    fn a_policy_is_filled_in_once_and_for_all() {
        let mut policy = policy();
        fill_in_policy(&mut policy);
        let before = policy.clone();
        assert_eq!(policy.pointer("/spec/failurePolicy"), Some(&json!("Fail")));
        assert_eq!(policy.pointer("/spec/matchConstraints/objectSelector"), Some(&json!({})));
        assert_eq!(
            policy.pointer("/spec/matchConstraints/resourceRules/0/scope"),
            Some(&json!("*"))
        );
        fill_in_policy(&mut policy);
        assert_eq!(policy, before);
        assert_eq!(validate_policy(&policy), []);
    }

    #[test]
    fn each_rule_of_a_policy_names_its_field() {
        type Change = fn(&mut Value);
        let table: [(&str, &str, Change); 14] = [
            ("spec.matchConstraints", "", |spec| spec["matchConstraints"] = Value::Null),
            ("spec.matchConstraints.resourceRules", "", |spec| {
                spec["matchConstraints"]["resourceRules"] = json!([]);
            }),
            ("spec.failurePolicy", "x", |spec| spec["failurePolicy"] = json!("x")),
            ("spec.paramKind.kind", "", |spec| spec["paramKind"] = json!({"apiVersion": "v1"})),
            ("spec.validations", "", |spec| spec["validations"] = json!([])),
            ("spec.validations[0].expression", "", |spec| {
                spec["validations"][0]["expression"] = json!(" ");
            }),
            ("spec.validations[0].expression", "bool", |spec| {
                spec["validations"][0]["expression"] = json!("1");
            }),
            ("spec.validations[0].expression", "authorizer", |spec| {
                spec["validations"][0]["expression"] = json!("authorizer.path('/')");
            }),
            ("spec.validations[0].message", "line breaks", |spec| {
                spec["validations"][0]["message"] = json!("a\nb");
            }),
            ("spec.validations[0].messageExpression", "string", |spec| {
                spec["validations"][0]["messageExpression"] = json!("1 + 1");
            }),
            ("spec.validations[0].reason", "Whim", |spec| {
                spec["validations"][0]["reason"] = json!("Whim");
            }),
            ("spec.variables[0].name", "identifier", |spec| {
                spec["variables"] = json!([{"name": "a-b", "expression": "1"}]);
            }),
            ("spec.variables[1].name", "", |spec| {
                let one = json!({"name": "a", "expression": "1"});
                spec["variables"] = json!([one, one]);
            }),
            ("spec.matchConditions[0].expression", "bool", |spec| {
                spec["matchConditions"] = json!([{"name": "a", "expression": "'x'"}]);
            }),
        ];
        for (field, word, change) in table {
            let mut policy = policy();
            change(&mut policy["spec"]);
            fill_in_policy(&mut policy);
            let said = said(validate_policy(&policy));
            let is = |said: &String| said.starts_with(&format!("{field}: ")) && said.contains(word);
            assert!(said.iter().any(is), "{field} {word}: {said:?}");
        }
    }

    #[test]
    fn each_rule_of_a_binding_names_its_field() {
        type Change = fn(&mut Value);
        assert_eq!(validate_binding(&binding()), []);
        let table: [(&str, &str, Change); 8] = [
            ("spec.policyName", "", |spec| spec["policyName"] = json!("")),
            ("spec.validationActions", "", |spec| spec["validationActions"] = json!([])),
            ("spec.validationActions[0]", "x", |spec| spec["validationActions"] = json!(["x"])),
            ("spec.validationActions[1]", "", |spec| {
                spec["validationActions"] = json!(["Deny", "Deny"]);
            }),
            ("spec.validationActions", "both", |spec| {
                spec["validationActions"] = json!(["Deny", "Warn"]);
            }),
            ("spec.paramRef", "one of", |spec| {
                spec["paramRef"] = json!({"parameterNotFoundAction": "Deny"});
            }),
            ("spec.paramRef", "exclusive", |spec| {
                spec["paramRef"] =
                    json!({"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"});
            }),
            ("spec.paramRef.parameterNotFoundAction", "", |spec| {
                spec["paramRef"] = json!({"name": "a"});
            }),
        ];
        for (field, word, change) in table {
            let mut binding = binding();
            change(&mut binding["spec"]);
            let said = said(validate_binding(&binding));
            let is = |said: &String| said.starts_with(&format!("{field}: ")) && said.contains(word);
            assert!(said.iter().any(is), "{field} {word}: {said:?}");
        }
    }
}
