//! What webhooks and policies of admission share: which requests they are about, and how they are called.

use super::expressions::{self, Gives, REVIEW_VERSIONS, Runs};
use crate::cause::Cause;
use crate::field::{
    Causes, Path, default, default_text, get, has, list, list_mut, map, number, object_mut, set,
    text,
};
use crate::names;
use crate::rules::declared;
use crate::rules::pod::label_selector;
use serde_json::{Value, json};
use std::collections::HashSet;

const OPERATIONS: [&str; 5] = ["*", "CREATE", "UPDATE", "DELETE", "CONNECT"];
const CONDITIONS_MAX: usize = 64;
const TIMEOUT_SECONDS: std::ops::RangeInclusive<i64> = 1..=30;

/// Defaults of a configuration of webhooks; those that change objects have one more.
pub fn default_webhooks(configuration: &mut Value, changes: bool) {
    for webhook in list_mut(configuration, "webhooks") {
        default_text(webhook, "failurePolicy", "Fail");
        default_text(webhook, "matchPolicy", "Equivalent");
        object_mut(webhook, "namespaceSelector");
        object_mut(webhook, "objectSelector");
        default(webhook, "timeoutSeconds", 10);
        if changes {
            default_text(webhook, "reinvocationPolicy", "Never");
        }
        for rule in list_mut(webhook, "rules") {
            default_text(rule, "scope", "*");
        }
        let client = object_mut(webhook, "clientConfig");
        if has(client, "service") {
            default(object_mut(client, "service"), "port", 443);
        }
    }
}

/// Defaults of the resources that a policy or a binding is about.
pub fn default_matches(matches: &mut Value) {
    default_text(matches, "matchPolicy", "Equivalent");
    object_mut(matches, "namespaceSelector");
    object_mut(matches, "objectSelector");
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in list_mut(matches, field) {
            default_text(rule, "scope", "*");
        }
    }
}

/// What is wrong with a configuration of webhooks of this kind.
pub fn validate_webhooks(kind: &str, configuration: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("webhooks");
    let mut seen = HashSet::new();
    for (index, webhook) in list(configuration, "webhooks").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, name) = (path.index(index), text(webhook, "name"));
        if !name.is_empty() {
            qualified_name(name, &path.child("name"), &mut causes);
        }
        if !seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        one_webhook(webhook, &path, &mut causes);
    }
    declared::validate(kind, configuration, &mut causes);
    causes.into_vec()
}

/// A name of at least three labels, as `check.example.com`.
fn qualified_name(name: &str, path: &Path, causes: &mut Causes) {
    causes.invalid_all(path, name, names::dns_subdomain(name));
    if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        causes.invalid(path, name, why);
    }
}

fn one_webhook(webhook: &Value, path: &Path, causes: &mut Causes) {
    for (index, rule) in list(webhook, "rules").iter().enumerate() {
        if causes.is_full() {
            return;
        }
        rule_with_operations(rule, &path.child("rules").index(index), causes);
    }
    let effects = text(webhook, "sideEffects");
    if matches!(effects, "Some" | "Unknown") {
        // They were taken in older versions, and the tables know them still.
        causes.not_supported(&path.child("sideEffects"), effects, &["None", "NoneOnDryRun"]);
    }
    let timeout = number(webhook, "timeoutSeconds");
    if let Some(seconds) = timeout.filter(|seconds| !TIMEOUT_SECONDS.contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        causes.invalid(&path.child("timeoutSeconds"), seconds, why);
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(get(webhook, selector), &path.child(selector), causes);
    }
    let versions = list(webhook, "admissionReviewVersions");
    let versions_path = path.child("admissionReviewVersions");
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().filter_map(Value::as_str).enumerate() {
        if causes.is_full() {
            return;
        }
        let path = versions_path.index(index);
        if !seen.insert(version) {
            causes.invalid(&path, version, "duplicate version");
        }
        causes.invalid_all(&path, version, names::dns_1035_label(version));
    }
    if !versions.is_empty() && !REVIEW_VERSIONS.iter().any(|known| seen.contains(known)) {
        let given = get(webhook, "admissionReviewVersions").clone();
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        causes.invalid(&versions_path, given, &why);
    }
    conditions(webhook, Runs::ForWebhooks, path, causes);
    if map(webhook, "clientConfig").is_some_and(|client| !client.is_empty()) {
        client(get(webhook, "clientConfig"), &path.child("clientConfig"), causes);
    } else if has(webhook, "clientConfig") {
        causes.required(&path.child("clientConfig"), "exactly one of url or service is required");
    }
}

/// How a webhook is called.
fn client(client: &Value, path: &Path, causes: &mut Causes) {
    let (url, has_service) = (text(client, "url"), has(client, "service"));
    if has(client, "url") == has_service {
        causes.required(path, "exactly one of url or service is required");
    }
    if has(client, "url") {
        let path = path.child("url");
        match url.strip_prefix("https://") {
            None => causes.invalid(&path, url, "'https' is the only allowed URL scheme"),
            Some(rest) => {
                let (host, tail) =
                    rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
                if host.is_empty() {
                    causes.invalid(&path, url, "host must be specified");
                }
                if host.contains('@') {
                    causes.invalid(&path, url, "user information is not permitted in the URL");
                }
                if tail.contains('#') {
                    causes.invalid(&path, url, "fragments are not permitted in the URL");
                }
                if tail.contains('?') {
                    causes.invalid(&path, url, "query parameters are not permitted in the URL");
                }
            }
        }
    }
    if has_service {
        let (service, path) = (get(client, "service"), path.child("service"));
        if let Some(why) = names::port_number(number(service, "port").unwrap_or(443)) {
            causes.invalid(&path.child("port"), number(service, "port"), why);
        }
        let place = text(service, "path");
        if has(service, "path") && !place.starts_with('/') {
            causes.invalid(&path.child("path"), place, "must start with a '/'");
        } else if place.contains("//") {
            causes.invalid(&path.child("path"), place, "segment may not be empty");
        }
    }
}

/// Which requests a rule is about.
fn rule_with_operations(rule: &Value, path: &Path, causes: &mut Causes) {
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        let (all, path) = (list(rule, field), path.child(field));
        if all.is_empty() {
            causes.required(&path, "");
        }
        if all.len() > 1 && field != "resources" && all.iter().any(|one| one == "*") {
            let why = format!("if '*' is present, must not specify other {field}");
            causes.invalid(&path, get(rule, field).clone(), &why);
        }
        for (index, one) in all.iter().filter_map(Value::as_str).enumerate() {
            if causes.is_full() {
                return;
            }
            if field == "operations" && !OPERATIONS.contains(&one) {
                causes.not_supported(&path.index(index), one, &OPERATIONS);
            }
            if field == "apiVersions" && one.is_empty() || field == "resources" && one.is_empty() {
                causes.required(&path.index(index), "");
            }
        }
    }
}

/// The resources that a policy or a binding is about; a policy must be about some.
pub fn matches(matches: &Value, is_policy: bool, path: &Path, causes: &mut Causes) {
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(get(matches, selector), &path.child(selector), causes);
    }
    if is_policy && list(matches, "resourceRules").is_empty() {
        causes.required(&path.child("resourceRules"), "");
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in list(matches, field).iter().enumerate() {
            if causes.is_full() {
                return;
            }
            let path = path.child(field).index(index);
            rule_with_operations(rule, &path, causes);
            let mut seen = HashSet::new();
            for (index, name) in list(rule, "resourceNames").iter().enumerate() {
                if !seen.insert(name.as_str()) {
                    causes.duplicate(&path.child("resourceNames").index(index), name.clone());
                }
            }
        }
    }
}

/// Conditions in CEL: so many at most, named once each.
pub fn conditions(object: &Value, runs: Runs, path: &Path, causes: &mut Causes) {
    let (all, path) = (list(object, "matchConditions"), path.child("matchConditions"));
    if all.len() > CONDITIONS_MAX {
        causes.too_many(&path, all.len(), CONDITIONS_MAX);
    }
    named_expressions(all, names::qualified, (runs, Gives::Bool), &path, causes);
}

/// Expressions that have names of this form, each once, and that can be run.
pub fn named_expressions(
    all: &[Value],
    check: names::Check,
    (runs, gives): (Runs, Gives),
    path: &Path,
    causes: &mut Causes,
) {
    let mut seen = HashSet::new();
    for (index, one) in all.iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let (path, name) = (path.index(index), text(one, "name"));
        if !name.is_empty() {
            causes.invalid_all(&path.child("name"), name, check(name));
        }
        if !seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        expression(text(one, "expression"), (runs, gives), &path.child("expression"), causes);
    }
}

/// An expression in CEL that can be run where it stands.
pub fn expression(given: &str, (runs, gives): (Runs, Gives), path: &Path, causes: &mut Causes) {
    if given.is_empty() {
        return; // the tables require those that must be there
    }
    if given.trim().is_empty() {
        causes.required(path, "");
    } else if let Err(why) = expressions::check(given, runs, gives) {
        causes.invalid(path, given, &why);
    }
}

/// A name of a variable in CEL.
pub fn identifier(name: &str) -> Vec<String> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if begins && bytes.all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        Vec::new()
    } else {
        vec!["name is not a valid CEL identifier".to_owned()]
    }
}

/// The kind of the objects that say more to a policy.
pub fn param_kind(spec: &Value, path: &Path, causes: &mut Causes) {
    if !has(spec, "paramKind") {
        return;
    }
    let (kind, path) = (get(spec, "paramKind"), path.child("paramKind"));
    for field in ["apiVersion", "kind"] {
        if text(kind, field).is_empty() {
            causes.required(&path.child(field), "");
        }
    }
    let version = text(kind, "apiVersion");
    let parts: Vec<&str> = version.split('/').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) && !version.is_empty() {
        causes.invalid(&path.child("apiVersion"), version, "must be of the form 'group/version'");
    }
}

/// A binding of a policy, in its spec.
pub fn binding(binding: &Value, causes: &mut Causes) {
    let (spec, path) = (get(binding, "spec"), Path::new("spec"));
    let policy = text(spec, "policyName");
    if policy.is_empty() {
        causes.required(&path.child("policyName"), "");
    } else {
        causes.invalid_all(&path.child("policyName"), policy, names::dns_subdomain(policy));
    }
    if has(spec, "paramRef") {
        let (reference, path) = (get(spec, "paramRef"), path.child("paramRef"));
        let (name, has_selector) = (text(reference, "name"), has(reference, "selector"));
        if name.is_empty() && !has_selector {
            causes.required(&path, "one of name or selector must be specified");
        } else if !name.is_empty() && has_selector {
            causes.forbidden(&path.child("name"), "name and selector are mutually exclusive");
        }
        label_selector(get(reference, "selector"), &path.child("selector"), causes);
        let action = text(reference, "parameterNotFoundAction");
        causes.one_of(&path.child("parameterNotFoundAction"), action, &["Allow", "Deny"]);
    }
    if has(spec, "matchResources") {
        matches(get(spec, "matchResources"), false, &path.child("matchResources"), causes);
    }
}

/// Defaults of a binding.
pub fn default_binding(binding: &mut Value) {
    let spec = object_mut(binding, "spec");
    if has(spec, "matchResources") {
        default_matches(object_mut(spec, "matchResources"));
    }
}

/// Defaults of a policy; those that change objects have one more.
pub fn default_policy(policy: &mut Value, changes: bool) {
    let spec = object_mut(policy, "spec");
    default_text(spec, "failurePolicy", "Fail");
    if changes {
        default_text(spec, "reinvocationPolicy", "Never");
    }
    if has(spec, "matchConstraints") {
        default_matches(object_mut(spec, "matchConstraints"));
    }
}

/// What both kinds of policies have in common.
pub fn policy(policy: &Value, runs: Runs, causes: &mut Causes) {
    let (spec, path) = (get(policy, "spec"), Path::new("spec"));
    param_kind(spec, &path, causes);
    let constraints = path.child("matchConstraints");
    if has(spec, "matchConstraints") {
        matches(get(spec, "matchConstraints"), true, &constraints, causes);
    } else {
        causes.required(&constraints, "");
    }
    conditions(spec, runs, &path, causes);
    let (all, path) = (list(spec, "variables"), path.child("variables"));
    named_expressions(all, identifier, (runs, Gives::Anything), &path, causes);
}

/// A status as it is at first.
pub fn no_status(object: &mut Value) {
    set(object, "status", json!({}));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(webhook: &Value) -> String {
        let mut configuration = json!({"webhooks": [{
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://a.b/c"},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        }]});
        for (field, value) in webhook.as_object().unwrap() {
            configuration["webhooks"][0][field] = value.clone();
        }
        default_webhooks(&mut configuration, false);
        let kind = "api.admissionregistration.v1.ValidatingWebhookConfiguration";
        let causes = validate_webhooks(kind, &configuration);
        let fields = causes.into_iter().map(|cause| cause.field.replace("webhooks[0].", ""));
        fields.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_webhook_says_what_it_is_asked_about_and_where_it_is() {
        let url = |url: &str| json!({"clientConfig": {"url": url}});
        let rule = |field: &str, value: Value| {
            let mut rule = json!({"operations": ["CREATE"], "apiGroups": ["a"], "apiVersions": ["v1"], "resources": ["b"]});
            rule[field] = value;
            json!({"rules": [rule]})
        };
        let rows = [
            (json!({}), ""),
            (json!({"name": "a.b"}), "name"),
            (json!({"sideEffects": "Some"}), "sideEffects"),
            (json!({"sideEffects": ""}), "sideEffects"),
            (json!({"timeoutSeconds": 31}), "timeoutSeconds"),
            (json!({"failurePolicy": "Cry"}), "failurePolicy"),
            (json!({"admissionReviewVersions": []}), "admissionReviewVersions"),
            (json!({"admissionReviewVersions": ["v2"]}), "admissionReviewVersions"),
            (url("http://a.b"), "clientConfig.url"),
            (url("https://a.b/?c"), "clientConfig.url"),
            (url("https://u@a.b/#c"), "clientConfig.url clientConfig.url"),
            (json!({"clientConfig": {}}), "clientConfig"),
            (json!({"clientConfig": {"service": {"name": "s"}}}), "clientConfig.service.namespace"),
            (
                json!({"clientConfig": {"service": {"name": "s", "namespace": "d", "path": "a"}}}),
                "clientConfig.service.path",
            ),
            (rule("operations", json!(["READ"])), "rules[0].operations[0]"),
            (rule("operations", json!(["*", "CREATE"])), "rules[0].operations"),
            (rule("apiGroups", json!([])), "rules[0].apiGroups"),
            (rule("scope", json!("Here")), "rules[0].scope"),
            (
                json!({"matchConditions": [{"name": "a", "expression": "1 +"}]}),
                "matchConditions[0].expression",
            ),
            (
                json!({"matchConditions": [{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]}),
                "matchConditions[1].name",
            ),
        ];
        for (webhook, expected) in rows {
            assert_eq!(told(&webhook), expected, "{webhook}");
        }
    }

    #[test]
    fn a_binding_names_its_policy_and_one_way_to_its_parameters() {
        let rows = [
            (json!({"policyName": "p"}), ""),
            (json!({}), "spec.policyName"),
            (
                json!({"policyName": "p", "paramRef": {}}),
                "spec.paramRef spec.paramRef.parameterNotFoundAction",
            ),
            (
                json!({"policyName": "p", "paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}}),
                "spec.paramRef.name",
            ),
        ];
        for (spec, expected) in rows {
            let mut causes = Causes::default();
            binding(&json!({"spec": spec}), &mut causes);
            let fields: Vec<String> = causes.into_vec().into_iter().map(|it| it.field).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
    }
}
