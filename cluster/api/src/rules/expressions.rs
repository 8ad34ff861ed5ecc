//! The expressions of webhooks and policies of admission: what they may name, and what they must give.

use crate::cel::{Program, Type, Variable, syntax};
use crate::field::{list, text};
use crate::resource::Resource;
use serde_json::Value;

/// The versions of `AdmissionReview` that are spoken.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// What the conditions of webhooks may name; of objects nothing is known beforehand.
const OF_WEBHOOKS: [&str; 3] = ["object", "oldObject", "request"];
/// What the expressions of policies may name.
const OF_POLICIES: [&str; 6] =
    ["object", "oldObject", "request", "params", "namespaceObject", "variables"];

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

/// Who has an expression run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Nobody yet: it must be an expression, and what its words mean is not asked.
    Nowhere,
    /// A webhook, before it is asked.
    ForWebhooks,
    /// A policy.
    ForPolicies,
}

/// Whether an expression can be run where it stands; an error says why not.
pub fn check(expression: &str, runs: Runs, gives: Gives) -> Result<(), String> {
    let checked = match runs {
        Runs::Nowhere => syntax(expression).map_err(|error| error.to_string()),
        Runs::ForWebhooks => return condition(expression).map(drop),
        Runs::ForPolicies => return compile(expression, gives).map(drop),
    };
    checked.map_err(|why| format!("compilation failed: {why}"))
}

/// Compiles an expression of a policy, over `object`, `oldObject`, `request`, `params`, `namespaceObject` and
/// `variables` in this order; an error says why it cannot be.
pub fn compile(expression: &str, gives: Gives) -> Result<Program, String> {
    of(expression, gives, &OF_POLICIES)
}

/// Compiles the condition of a webhook, over `object`, `oldObject` and `request` in this order.
pub fn condition(expression: &str) -> Result<Program, String> {
    of(expression, Gives::Bool, &OF_WEBHOOKS)
}

fn of(expression: &str, gives: Gives, names: &[&str]) -> Result<Program, String> {
    let variables: Vec<Variable> =
        names.iter().map(|name| ((*name).to_owned(), Type::Dyn)).collect();
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

/// Whether neither webhooks nor policies are asked about a kind: one that refuses everything could not be taken away
/// otherwise.
pub fn is_exempt(resource: &Resource) -> bool {
    resource.group == "admissionregistration.k8s.io"
}

/// What of a policy is stored and not done.
pub fn not_done_of_policy(policy: &Value) -> Vec<String> {
    if list(policy, "spec.auditAnnotations").is_empty() {
        return Vec::new();
    }
    vec!["spec.auditAnnotations: there is no audit log yet, and nothing is recorded".to_owned()]
}

/// What a configuration of webhooks asks for in vain: the rules that this API never tells a webhook of.
pub fn not_done_of_webhooks(configuration: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for hook in list(configuration, "webhooks") {
        let name = text(hook, "name");
        for rule in list(hook, "rules") {
            let words = |field: &str| -> Vec<&str> {
                list(rule, field).iter().filter_map(Value::as_str).collect()
            };
            if words("operations").contains(&"CONNECT") {
                let what = "operation CONNECT is not told to webhooks yet";
                warnings.push(format!("webhook {name:?}: {what}"));
            }
            for resource in words("resources") {
                let what = match resource {
                    "pods/binding" | "bindings" | "pods/eviction" => "is not told to webhooks yet",
                    "pods/status" | "nodes/status" => {
                        "is not told to webhooks where a node writes it"
                    }
                    _ => continue,
                };
                warnings.push(format!("webhook {name:?}: {resource} {what}"));
            }
        }
    }
    warnings.sort();
    warnings.dedup();
    warnings
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expression_is_checked_by_who_runs_it() {
        for (expression, runs, gives, expected) in [
            ("object.spec.replicas <= 5", Runs::ForPolicies, Gives::Bool, ""),
            ("params.max > variables.x", Runs::ForPolicies, Gives::Bool, ""),
            ("params.max > 1", Runs::ForWebhooks, Gives::Bool, "params"),
            ("1 + 1", Runs::ForPolicies, Gives::Bool, "bool"),
            ("1 + 1", Runs::ForPolicies, Gives::Text, "string"),
            ("1 + 1", Runs::ForPolicies, Gives::Anything, ""),
            ("'x'", Runs::ForWebhooks, Gives::Bool, "bool"),
            ("authorizer.path('/')", Runs::ForPolicies, Gives::Anything, "authorizer"),
            ("authorizer.path('/')", Runs::Nowhere, Gives::Anything, ""),
            ("1 +", Runs::Nowhere, Gives::Anything, "compilation failed"),
        ] {
            match (check(expression, runs, gives), expected) {
                (Ok(()), "") => {}
                (Err(why), word) if !word.is_empty() => {
                    assert!(why.contains(word), "{expression}: {why}");
                }
                (other, _) => panic!("{expression} {runs:?} {gives:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_never_told_is_said_once() {
        let hook = |operations: &[&str], resources: &[&str]| json!({"name": "a.example.com", "rules": [{"operations": operations, "resources": resources}]});
        let told = hook(&["CREATE"], &["pods"]);
        assert_eq!(not_done_of_webhooks(&json!({"webhooks": [told]})), Vec::<String>::new());
        let vain = hook(&["CONNECT", "CREATE"], &["pods/binding", "pods", "pods/binding"]);
        assert_eq!(not_done_of_webhooks(&json!({"webhooks": [vain]})).len(), 2);
        assert_eq!(not_done_of_policy(&json!({"spec": {"auditAnnotations": [{}]}})).len(), 1);
    }
}
