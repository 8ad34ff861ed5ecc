//! Cells of what decides about other writes: configurations of webhooks, and bindings of policies.

use super::cell::{age, name, or_unset};
use crate::field::{has, list, text};
use jiff::Timestamp;
use serde_json::Value;

/// Name, number of webhooks and age of a configuration.
pub fn webhooks(configuration: &Value, now: Timestamp) -> Vec<Value> {
    let count = list(configuration, "webhooks").len();
    vec![name(configuration), count.into(), age(configuration, now)]
}

/// Name, policy, parameters and age of a binding.
pub fn binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let namespace = match text(binding, "spec.paramRef.namespace") {
        "" => String::new(),
        namespace => format!("{namespace}/"),
    };
    let reference = match text(binding, "spec.paramRef.name") {
        "" if has(binding, "spec.paramRef") => format!("{namespace}*"),
        "" => String::new(),
        name => format!("{namespace}{name}"),
    };
    let policy = text(binding, "spec.policyName");
    vec![name(binding), policy.into(), or_unset(&reference), age(binding, now)]
}
