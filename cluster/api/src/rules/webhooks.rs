//! Configurations of admission webhooks: their defaults, and what is wrong with them.
//!
//! After the API reference of `admissionregistration.k8s.io/v1`.

use crate::cause::Cause;
use crate::cel::{Program, Type, Variable};
use crate::field::{
    Causes, Path, default, default_text, existing_mut, get, has, list, list_mut, number,
    object_mut, text,
};
use crate::names;
use crate::resource::Resource;
use serde_json::{Value, json};
use std::collections::HashSet;

/// The versions of `AdmissionReview` that are spoken.
pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// What is done to objects that webhooks are told of.
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// How many conditions a webhook may have.
const MAX_CONDITIONS: usize = 64;
/// What conditions may name; of objects nothing is known beforehand.
const VARIABLES: [&str; 3] = ["object", "oldObject", "request"];

/// Compiles the condition of a webhook over `object`, `oldObject` and `request`; an error says why it cannot be.
pub fn condition(expression: &str) -> Result<Program, String> {
    let variables = VARIABLES.map(|name| -> Variable { (name.to_owned(), Type::Dyn) });
    match Program::compile(expression, &variables) {
        Ok(program) if matches!(program.gives(), Type::Bool | Type::Dyn) => Ok(program),
        Ok(_) => Err("must evaluate to bool".to_owned()),
        Err(error) => Err(format!("compilation failed: {error}")),
    }
}

/// Fills in what a configuration leaves out.
pub fn fill_in(configuration: &mut Value, mutating: bool) {
    for hook in list_mut(configuration, "webhooks") {
        default_text(hook, "failurePolicy", "Fail");
        default_text(hook, "matchPolicy", "Equivalent");
        default(hook, "timeoutSeconds", 10);
        object_mut(hook, "namespaceSelector");
        object_mut(hook, "objectSelector");
        if mutating {
            default_text(hook, "reinvocationPolicy", "Never");
        }
        for rule in list_mut(hook, "rules") {
            default_text(rule, "scope", "*");
        }
        if let Some(service) =
            existing_mut(hook, "clientConfig").and_then(|client| existing_mut(client, "service"))
        {
            default(service, "port", 443);
        }
    }
}

/// What is wrong with a configuration.
pub fn validate(configuration: &Value, mutating: bool) -> Vec<Cause> {
    let mut causes = Causes::default();
    let all = Path::new("webhooks");
    let mut seen = HashSet::new();
    for (index, hook) in list(configuration, "webhooks").iter().enumerate() {
        let path = all.index(index);
        let name = text(hook, "name");
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else {
            causes.invalid_all(&path.child("name"), name, names::dns_subdomain(name));
            if name.split('.').count() < 3 {
                let why = "should be a domain with at least three segments separated by dots";
                causes.invalid(&path.child("name"), name, why);
            }
        }
        if !seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        webhook(hook, mutating, &path, &mut causes);
    }
    causes.into_vec()
}

fn webhook(hook: &Value, mutating: bool, path: &Path, causes: &mut Causes) {
    for (index, rule) in list(hook, "rules").iter().enumerate() {
        self::rule(rule, &path.child("rules").index(index), causes);
    }
    causes.one_of(&path.child("failurePolicy"), text(hook, "failurePolicy"), &["Fail", "Ignore"]);
    causes.one_of(&path.child("matchPolicy"), text(hook, "matchPolicy"), &["Equivalent", "Exact"]);
    if mutating {
        let policies = ["IfNeeded", "Never"];
        let policy = text(hook, "reinvocationPolicy");
        causes.one_of(&path.child("reinvocationPolicy"), policy, &policies);
    }
    let effects = path.child("sideEffects");
    match text(hook, "sideEffects") {
        "" => causes.required(&effects, "must specify one of None, NoneOnDryRun"),
        effect => causes.one_of(&effects, effect, &["None", "NoneOnDryRun"]),
    }
    if let Some(seconds) = number(hook, "timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        causes.invalid(&path.child("timeoutSeconds"), seconds, why);
    }
    versions(hook, &path.child("admissionReviewVersions"), causes);
    for field in ["namespaceSelector", "objectSelector"] {
        if let Err(error) = crate::selector::LabelSelector::from_object(get(hook, field)) {
            causes.invalid(&path.child(field), get(hook, field).clone(), &error.to_string());
        }
    }
    client(get(hook, "clientConfig"), &path.child("clientConfig"), causes);
    conditions(hook, &path.child("matchConditions"), causes);
}

fn versions(hook: &Value, path: &Path, causes: &mut Causes) {
    let all = list(hook, "admissionReviewVersions");
    let spoken = REVIEW_VERSIONS.join(", ");
    if all.is_empty() {
        causes.required(path, &format!("must specify one of {spoken}"));
        return;
    }
    let mut seen = HashSet::new();
    for (index, version) in all.iter().enumerate() {
        let version = version.as_str().unwrap_or_default();
        if !seen.insert(version) {
            causes.invalid(&path.index(index), version, "duplicate version");
        }
        causes.invalid_all(&path.index(index), version, names::dns_1035_label(version));
    }
    if !REVIEW_VERSIONS.iter().any(|version| seen.contains(version)) {
        let why = format!("must include at least one of {spoken}");
        causes.invalid(path, json!(all), &why);
    }
}

pub(super) fn rule(rule: &Value, path: &Path, causes: &mut Causes) {
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        let words = list(rule, field);
        let path = path.child(field);
        if words.is_empty() {
            causes.required(&path, "");
        }
        let all = if field == "resources" { &["*", "*/*"][..] } else { &["*"][..] };
        if words.len() > 1 && words.iter().any(|word| all.contains(&word.as_str().unwrap_or(""))) {
            let why = match field {
                "resources" => "if '*/*' or '*' is present, must not specify other resources",
                "operations" => "if '*' is present, must not specify other operations",
                "apiGroups" => "if '*' is present, must not specify other API groups",
                _ => "if '*' is present, must not specify other API versions",
            };
            causes.invalid(&path, json!(words), why);
        }
        for (index, word) in words.iter().enumerate() {
            let word = word.as_str().unwrap_or_default();
            if field == "operations" {
                causes.one_of(&path.index(index), word, &OPERATIONS);
            } else if word.is_empty() && field != "apiGroups" {
                causes.required(&path.index(index), "");
            }
        }
    }
    if has(rule, "scope") {
        let scopes = ["*", "Cluster", "Namespaced"];
        causes.one_of(&path.child("scope"), text(rule, "scope"), &scopes);
    }
}

fn client(client: &Value, path: &Path, causes: &mut Causes) {
    let (url, service) = (text(client, "url"), get(client, "service"));
    match (url.is_empty(), service.is_null()) {
        (true, true) | (false, false) => {
            causes.required(path, "exactly one of url or service is required");
        }
        (false, true) => self::url(url, &path.child("url"), causes),
        (true, false) => self::service(service, &path.child("service"), causes),
    }
}

fn url(url: &str, path: &Path, causes: &mut Causes) {
    let Some(rest) = url.strip_prefix("https://") else {
        let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
        causes.invalid(path, url, why);
        return;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    for (is_wrong, why) in [
        (host.is_empty(), "host must be specified; desired format: https://host[/path]"),
        (host.contains('@'), "user information is not permitted in the URL"),
        (rest.contains('#'), "fragments are not permitted in the URL"),
        (rest.contains('?'), "query parameters are not permitted in the URL"),
    ] {
        if is_wrong {
            causes.invalid(path, url, why);
        }
    }
}

fn service(service: &Value, path: &Path, causes: &mut Causes) {
    for (field, why) in
        [("name", "service name is required"), ("namespace", "service namespace is required")]
    {
        if text(service, field).is_empty() {
            causes.required(&path.child(field), why);
        }
    }
    let below = text(service, "path");
    if !below.is_empty() && !below.starts_with('/') {
        causes.invalid(&path.child("path"), below, "must start with a '/'");
    } else if below.len() > 1 && below.contains("//") {
        causes.invalid(&path.child("path"), below, "segments of it may not be empty");
    }
    if let Some(port) = number(service, "port")
        && let Some(why) = names::port_number(port)
    {
        causes.invalid(&path.child("port"), port, why);
    }
}

fn conditions(hook: &Value, path: &Path, causes: &mut Causes) {
    let all = list(hook, "matchConditions");
    if all.len() > MAX_CONDITIONS {
        causes.too_many(path, all.len(), MAX_CONDITIONS);
        return;
    }
    let mut seen = HashSet::new();
    for (index, one) in all.iter().enumerate() {
        let path = path.index(index);
        let (name, expression) = (text(one, "name"), text(one, "expression"));
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else {
            causes.invalid_all(&path.child("name"), name, names::qualified(name));
        }
        if !seen.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        if expression.trim().is_empty() {
            causes.required(&path.child("expression"), "");
        } else if let Err(why) = condition(expression) {
            causes.invalid(&path.child("expression"), expression, &why);
        }
    }
}

/// What is asked for in vain: the rules that this API never tells a webhook of.
pub fn warnings(configuration: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for hook in list(configuration, "webhooks") {
        let name = text(hook, "name");
        for rule in list(hook, "rules") {
            let words = |field: &str| -> Vec<&str> {
                list(rule, field).iter().filter_map(Value::as_str).collect()
            };
            if words("operations").contains(&"CONNECT") {
                warnings.push(format!(
                    "webhook {name:?}: operation CONNECT is not told to webhooks yet"
                ));
            }
            for resource in words("resources") {
                if matches!(resource, "pods/binding" | "bindings" | "pods/eviction") {
                    warnings
                        .push(format!("webhook {name:?}: {resource} is not told to webhooks yet"));
                }
                if resource == "pods/status" || resource == "nodes/status" {
                    warnings.push(format!(
                        "webhook {name:?}: what a node writes of {resource} is not told to webhooks"
                    ));
                }
            }
        }
    }
    warnings.dedup();
    warnings
}

/// Whether webhooks are never told of a kind: a configuration that breaks everything could not be taken away otherwise.
pub fn is_exempt(resource: &Resource) -> bool {
    resource.group == "admissionregistration.k8s.io"
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn sound() -> Value {
        json!({
            "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": {"namespace": "n", "name": "s"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods"]}],
        })
    }

    fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut hook = sound();
        change(&mut hook);
        let mut configuration = json!({"webhooks": [hook]});
        fill_in(&mut configuration, true);
        validate(&configuration, true).into_iter().map(|cause| cause.to_string()).collect()
    }

    #[test]
    fn a_configuration_is_filled_in_as_in_kubernetes() {
        let mut configuration = json!({"webhooks": [sound()]});
        fill_in(&mut configuration, true);
        let hook = &configuration["webhooks"][0];
        for (pointer, expected) in [
            ("/failurePolicy", json!("Fail")),
            ("/matchPolicy", json!("Equivalent")),
            ("/timeoutSeconds", json!(10)),
            ("/namespaceSelector", json!({})),
            ("/objectSelector", json!({})),
            ("/reinvocationPolicy", json!("Never")),
            ("/rules/0/scope", json!("*")),
            ("/clientConfig/service/port", json!(443)),
        ] {
            assert_eq!(hook.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(validate(&configuration, true), []);
        let before = configuration.clone();
        fill_in(&mut configuration, true);
        assert_eq!(configuration, before, "twice is once");
        let mut other = json!({"webhooks": [sound()]});
        fill_in(&mut other, false);
        assert_eq!(other.pointer("/webhooks/0/reinvocationPolicy"), None);
    }

    #[test]
    fn each_rule_of_the_reference_names_its_field() {
        type Change = fn(&mut Value);
        let table: [(&str, &str, Change); 24] = [
            ("webhooks[0].name", "", |hook| hook["name"] = json!("")),
            ("webhooks[0].name", "three segments", |hook| hook["name"] = json!("a.b")),
            ("webhooks[0].rules[0].operations", "", |hook| {
                hook["rules"][0]["operations"] = json!([]);
            }),
            ("webhooks[0].rules[0].operations", "other operations", |hook| {
                hook["rules"][0]["operations"] = json!(["*", "CREATE"]);
            }),
            ("webhooks[0].rules[0].operations[0]", "MAKE", |hook| {
                hook["rules"][0]["operations"] = json!(["MAKE"]);
            }),
            ("webhooks[0].rules[0].apiGroups", "", |hook| {
                hook["rules"][0]["apiGroups"] = json!([]);
            }),
            ("webhooks[0].rules[0].resources", "other resources", |hook| {
                hook["rules"][0]["resources"] = json!(["*", "pods"]);
            }),
            ("webhooks[0].rules[0].scope", "Moon", |hook| {
                hook["rules"][0]["scope"] = json!("Moon");
            }),
            ("webhooks[0].failurePolicy", "Maybe", |hook| hook["failurePolicy"] = json!("Maybe")),
            ("webhooks[0].matchPolicy", "Some", |hook| hook["matchPolicy"] = json!("Some")),
            ("webhooks[0].reinvocationPolicy", "x", |hook| hook["reinvocationPolicy"] = json!("x")),
            ("webhooks[0].sideEffects", "", |hook| hook["sideEffects"] = json!("")),
            ("webhooks[0].sideEffects", "Some", |hook| hook["sideEffects"] = json!("Some")),
            ("webhooks[0].timeoutSeconds", "30", |hook| hook["timeoutSeconds"] = json!(31)),
            ("webhooks[0].admissionReviewVersions", "", |hook| {
                hook["admissionReviewVersions"] = json!([]);
            }),
            ("webhooks[0].admissionReviewVersions", "at least one", |hook| {
                hook["admissionReviewVersions"] = json!(["v2"]);
            }),
            ("webhooks[0].clientConfig", "exactly one", |hook| hook["clientConfig"] = json!({})),
            ("webhooks[0].clientConfig", "exactly one", |hook| {
                hook["clientConfig"]["url"] = json!("https://h/");
            }),
            ("webhooks[0].clientConfig.url", "https", |hook| {
                hook["clientConfig"] = json!({"url": "http://h/"});
            }),
            ("webhooks[0].clientConfig.url", "query", |hook| {
                hook["clientConfig"] = json!({"url": "https://h/?a"});
            }),
            ("webhooks[0].clientConfig.service.name", "required", |hook| {
                hook["clientConfig"]["service"]["name"] = json!("");
            }),
            ("webhooks[0].clientConfig.service.path", "start with", |hook| {
                hook["clientConfig"]["service"]["path"] = json!("x");
            }),
            ("webhooks[0].clientConfig.service.port", "65535", |hook| {
                hook["clientConfig"]["service"]["port"] = json!(0);
            }),
            ("webhooks[0].matchConditions[0].expression", "authorizer", |hook| {
                hook["matchConditions"] =
                    json!([{"name": "c", "expression": "authorizer.path('/')"}]);
            }),
        ];
        for (field, word, change) in table {
            let wrong = wrong(change);
            assert!(
                wrong
                    .iter()
                    .any(|said| said.starts_with(&format!("{field}: ")) && said.contains(word)),
                "{field} {word}: {wrong:?}"
            );
        }
        let twice = validate(&json!({"webhooks": [sound(), sound()]}), false);
        assert!(twice.iter().any(|cause| cause.field == "webhooks[1].name"));
    }

    #[test]
    fn what_is_never_told_is_said() {
        let mut hook = sound();
        hook["rules"][0]["operations"] = json!(["CONNECT", "CREATE"]);
        hook["rules"][0]["resources"] = json!(["pods/binding", "pods"]);
        let said = warnings(&json!({"webhooks": [hook, sound()]}));
        assert_eq!(said.len(), 2, "{said:?}");
    }
}
