//! A webhook, as its configuration says it.

use super::target::Target;
use impresario_api::cel::{Budget, Program, Type, Value as Cel};
use impresario_api::rules::expressions::{REVIEW_VERSIONS, condition};
use impresario_api::selector::LabelSelector;
use impresario_client::objects::stored::text;
use serde_json::Value;
use std::time::Duration;

/// The work that the conditions of one webhook may take for one request.
const STEPS: u64 = 1_000_000;
/// How long a webhook has where its configuration does not say.
const USUAL_SECONDS: u64 = 10;
/// The longest that a configuration may say.
const MOST_SECONDS: u64 = 30;

/// An expression that must hold for a webhook to be told.
#[derive(Debug)]
struct Condition {
    name: String,
    program: Program,
}

/// Why a webhook is told of a request, or not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Told,
    /// It is not.
    Spared,
    /// Nobody can say.
    Fault(String),
}

/// A webhook that can be called.
#[derive(Debug)]
pub(super) struct Hook {
    /// Its name, which is that of no other in its configuration.
    pub(super) name: String,
    /// The version of `AdmissionReview` that it prefers of those that are spoken.
    pub(super) version: &'static str,
    /// Where it is, or why it cannot be reached: that concerns only what it is about.
    pub(super) target: Result<Target, String>,
    /// In namespaces with these labels.
    pub(super) namespaces: LabelSelector,
    /// Of objects with these labels, before or after.
    pub(super) objects: LabelSelector,
    conditions: Vec<Condition>,
    /// How long it has.
    pub(super) limit: Duration,
    /// Whether it may be told of what is only tried.
    pub(super) dry_runs: bool,
    /// Whether it is told again if a later one changed the object.
    pub(super) again: bool,
}

impl Hook {
    /// Reads an entry of `webhooks`; an error says what is wrong with it.
    pub(super) fn read(entry: &Value) -> Result<Self, String> {
        let selector = |field: &str| match entry.get(field).filter(|value| !value.is_null()) {
            None => Ok(LabelSelector::everything()),
            Some(value) => LabelSelector::from_object(value).map_err(|error| error.to_string()),
        };
        let versions = entry["admissionReviewVersions"].as_array().into_iter().flatten();
        let Some(version) = versions
            .filter_map(Value::as_str)
            .find_map(|version| REVIEW_VERSIONS.into_iter().find(|spoken| *spoken == version))
        else {
            let spoken = REVIEW_VERSIONS.join(", ");
            return Err(format!("admissionReviewVersions has none that is spoken here: {spoken}"));
        };
        let conditions = entry["matchConditions"].as_array().into_iter().flatten();
        let seconds = entry["timeoutSeconds"].as_u64().unwrap_or(USUAL_SECONDS);
        Ok(Self {
            name: text(entry, "/name").to_owned(),
            version,
            target: Target::read(&entry["clientConfig"]),
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
            conditions: conditions.map(compiled).collect::<Result<_, _>>()?,
            limit: Duration::from_secs(seconds.clamp(1, MOST_SECONDS)),
            dry_runs: matches!(text(entry, "/sideEffects"), "None" | "NoneOnDryRun"),
            again: text(entry, "/reinvocationPolicy") == "IfNeeded",
        })
    }

    /// Whether its conditions hold. One that does not hold decides, whatever is wrong with others.
    pub(super) fn holds(&self, object: &Value, old: &Value, request: &Value) -> Verdict {
        let mut budget = Budget::new(STEPS);
        let mut fault = None;
        for condition in &self.conditions {
            let values = [object, old, request].map(|value| Cel::of(value, &Type::Dyn));
            match condition.program.run(values.into(), &mut budget) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Verdict::Spared,
                Ok(other) => {
                    let what = other.type_name();
                    fault = fault.or(Some(format!("{}: it gives a {what}", condition.name)));
                }
                Err(error) => fault = fault.or(Some(format!("{}: {error}", condition.name))),
            }
        }
        fault.map_or(Verdict::Told, Verdict::Fault)
    }
}

fn compiled(entry: &Value) -> Result<Condition, String> {
    let name = text(entry, "/name").to_owned();
    match condition(text(entry, "/expression")) {
        Ok(program) => Ok(Condition { name, program }),
        Err(why) => Err(format!("the condition {name}: {why}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(in crate::webhooks) fn entry(more: &Value) -> Value {
        let mut entry = json!({
            "name": "a.example.com",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:1/x", "caBundle": ""},
            "sideEffects": "None",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            entry[key] = value.clone();
        }
        entry
    }

    #[test]
    fn a_hook_is_read_with_its_defaults_and_its_limits() {
        let hook = Hook::read(&entry(&json!({}))).unwrap();
        assert!(hook.namespaces.is_everything() && hook.objects.is_everything());
        assert_eq!(hook.limit, Duration::from_secs(10));
        assert!(hook.dry_runs && !hook.again);
        let long = Hook::read(&entry(&json!({"timeoutSeconds": 4000}))).unwrap();
        assert_eq!(long.limit, Duration::from_secs(30));
        let old = Hook::read(&entry(&json!({"admissionReviewVersions": ["v2", "v1beta1"]})));
        assert_eq!(old.unwrap().version, "v1beta1");
        let new = Hook::read(&entry(&json!({"admissionReviewVersions": ["v2"]})));
        assert!(new.unwrap_err().contains("v1"));
        let text = Hook::read(&entry(&json!({
            "matchConditions": [{"name": "c", "expression": "'a'"}],
        })));
        assert!(text.unwrap_err().contains("bool"));
        let unknown = Hook::read(&entry(&json!({
            "matchConditions": [{"name": "c", "expression": "authorizer.group('')"}],
        })));
        assert!(unknown.unwrap_err().contains("authorizer"));
    }

    #[test]
    fn a_hook_that_cannot_be_reached_has_its_selectors_and_conditions_all_the_same() {
        // A placeholder, until somebody has put an authority there.
        let config = json!({"url": "https://127.0.0.1:1/x", "caBundle": "Cg=="});
        let hook = Hook::read(&entry(&json!({
            "clientConfig": config,
            "objectSelector": {"matchLabels": {"a": "b"}},
            "matchConditions": [{"name": "c", "expression": "false"}],
        })));
        let hook = hook.unwrap();
        assert!(hook.target.as_ref().unwrap_err().contains("no certificate"));
        assert!(!hook.objects.matches_object(&json!({"metadata": {"labels": {"a": "c"}}})));
        assert_eq!(hook.holds(&json!({}), &Value::Null, &json!({})), Verdict::Spared);
    }

    #[test]
    fn all_conditions_must_hold_and_one_that_does_not_decides() {
        let holds = |expressions: &[&str]| {
            let conditions: Vec<Value> = expressions
                .iter()
                .map(|expression| json!({"name": "c", "expression": expression}))
                .collect();
            let hook = Hook::read(&entry(&json!({"matchConditions": conditions}))).unwrap();
            let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}});
            hook.holds(&object, &Value::Null, &json!({"userInfo": {"username": "eve"}}))
        };
        assert_eq!(holds(&[]), Verdict::Told);
        assert_eq!(holds(&["object.metadata.labels.x == 'y'", "oldObject == null"]), Verdict::Told);
        assert_eq!(holds(&["request.userInfo.username != 'eve'"]), Verdict::Spared);
        assert_eq!(holds(&["object.spec.a == 1", "false"]), Verdict::Spared);
        assert!(matches!(holds(&["object.spec.a == 1"]), Verdict::Fault(why) if why.contains('c')));
    }
}
