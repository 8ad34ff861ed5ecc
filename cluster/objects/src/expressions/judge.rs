//! Whether what is written is as a policy says.

use super::policy::{Check, Said};
use impresario_api::cel::{Budget, Fault, Type, Value as Cel};
use impresario_api::status::Reason;
use serde_json::Value;

/// The longest message that is passed on, in characters.
const MAX_MESSAGE: usize = 5 * 1024;

/// What the expressions of a policy look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// The object as it is to be; null in a deletion.
    pub(super) object: &'a Value,
    /// The object as it was; null in a creation.
    pub(super) old: &'a Value,
    /// What was asked for.
    pub(super) request: &'a Value,
    /// The parameters, or null.
    pub(super) params: &'a Value,
    /// The namespace of the object, or null.
    pub(super) namespace: &'a Value,
}

/// What does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// What is said of it.
    pub(super) message: String,
    /// Why it is refused.
    pub(super) reason: Reason,
}

/// What does not hold of what is seen; nothing where the policy's conditions say that it is not looked at. Where an
/// expression gives no answer, that is a violation too, unless the policy goes on then.
pub(super) fn judge<'a>(
    said: &'a Said,
    fails_open: bool,
    seen: Seen<'a>,
    budget: &mut Budget,
) -> Vec<Violation> {
    let with = |variables| values(seen, variables);
    let mut violations = Vec::new();
    let fault = |message: String| Violation { message, reason: Reason::Invalid };
    let mut failed = None;
    for condition in &said.conditions {
        match condition.program.run(with(Cel::map([])), budget) {
            Ok(Cel::Bool(true)) => {}
            Ok(Cel::Bool(false)) => return Vec::new(),
            other => {
                let why = not_bool(other);
                failed = failed.or(Some(format!("match condition {:?}: {why}", condition.name)));
            }
        }
    }
    if let Some(why) = failed {
        return if fails_open { Vec::new() } else { vec![fault(why)] };
    }
    // One that gives no value is not there for those that name it: only they fail.
    let mut variables: Vec<(String, Cel<'a>)> = Vec::new();
    for variable in &said.variables {
        if let Ok(value) = variable.program.run(with(Cel::map(variables.clone())), budget) {
            variables.push((variable.name.clone(), value));
        }
    }
    let variables = Cel::map(variables);
    for check in &said.checks {
        match check.program.run(with(variables.clone()), budget) {
            Ok(Cel::Bool(true)) => {}
            Ok(Cel::Bool(false)) => {
                let message = message(check, with(variables.clone()), budget);
                violations.push(Violation { message, reason: check.reason });
            }
            _ if fails_open => {}
            other => {
                let why = not_bool(other);
                let what = &check.expression;
                violations.push(fault(format!("expression '{what}' resulted in error: {why}")));
            }
        }
    }
    violations
}

/// The values of what expressions may name, in its order.
fn values<'a>(seen: Seen<'a>, variables: Cel<'a>) -> Vec<Cel<'a>> {
    let given = [seen.object, seen.old, seen.request, seen.params, seen.namespace];
    let given = given.into_iter().map(|value| Cel::of(value, &Type::Dyn));
    given.chain([variables]).collect()
}

fn not_bool(outcome: Result<Cel<'_>, Fault>) -> String {
    match outcome {
        Ok(other) => format!("it gives a {} and no bool", other.type_name()),
        Err(error) => error.to_string(),
    }
}

/// What is said of a check that does not hold: its own words where they can be worked out, in one line.
fn message<'a>(check: &'a Check, values: Vec<Cel<'a>>, budget: &mut Budget) -> String {
    let worded = check.worded.as_ref().and_then(|worded| match worded.run(values, budget) {
        Ok(Cel::Text(text)) => {
            let text = text.trim();
            let is_usable = !text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE;
            is_usable.then(|| text.to_owned())
        }
        _ => None,
    });
    match worded {
        Some(worded) => worded,
        None if check.message.is_empty() => format!("failed expression: {}", check.expression),
        None => check.message.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::policy::Policy;
    use super::*;
    use serde_json::json;

    fn judged(spec: Value, object: &Value, params: &Value) -> Vec<Violation> {
        let policy = Policy::read(&json!({"spec": spec}));
        let request = json!({"operation": "CREATE", "userInfo": {"username": "eve"}});
        let namespace = json!({"metadata": {"labels": {"env": "prod"}}});
        let seen =
            Seen { object, old: &Value::Null, request: &request, params, namespace: &namespace };
        let mut budget = Budget::new(100_000);
        judge(policy.said.as_ref().unwrap(), policy.fails_open, seen, &mut budget)
    }

    fn messages(spec: Value, object: &Value) -> Vec<String> {
        judged(spec, object, &Value::Null).into_iter().map(|one| one.message).collect()
    }

    #[test]
    fn what_does_not_hold_is_said_in_the_policy_s_words() {
        let five = json!({"spec": {"replicas": 5}});
        let check = |more: Value| {
            let mut check = json!({"expression": "object.spec.replicas <= 3"});
            for (key, value) in more.as_object().unwrap() {
                check[key] = value.clone();
            }
            json!({"validations": [check]})
        };
        assert_eq!(
            messages(check(json!({})), &five),
            ["failed expression: object.spec.replicas <= 3"]
        );
        assert_eq!(messages(check(json!({"message": "too many"})), &five), ["too many"]);
        let worded = json!({"message": "m", "messageExpression": "string(object.spec.replicas) + ' is too many'"});
        assert_eq!(messages(check(worded), &five), ["5 is too many"]);
        let broken = json!({"message": "m", "messageExpression": "object.none"});
        assert_eq!(messages(check(broken), &five), ["m"]);
        assert!(messages(check(json!({})), &json!({"spec": {"replicas": 3}})).is_empty());
        let denied = judged(check(json!({"reason": "Forbidden"})), &five, &Value::Null);
        assert_eq!(denied[0].reason, Reason::Forbidden);
    }

    #[test]
    fn an_expression_without_an_answer_fails_as_the_policy_says() {
        let spec = |failure: &str| json!({"failurePolicy": failure, "validations": [{"expression": "object.none.such == 1"}]});
        let said = messages(spec("Fail"), &json!({}));
        assert!(
            said[0].starts_with("expression 'object.none.such == 1' resulted in error: "),
            "{said:?}"
        );
        assert!(messages(spec("Ignore"), &json!({})).is_empty());
        let endless = json!({"validations": [{"expression":
            "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))"}]});
        let long = json!({"l": (0..200).collect::<Vec<i32>>()});
        assert!(messages(endless, &long)[0].contains("cost limit"));
    }

    #[test]
    fn conditions_variables_parameters_and_the_namespace_are_there_to_be_named() {
        let spec = json!({
            "matchConditions": [{"name": "not-eve", "expression": "request.userInfo.username != 'eve'"}],
            "validations": [{"expression": "false"}],
        });
        assert!(messages(spec, &json!({})).is_empty(), "a condition spares it");
        let spec = json!({
            "variables": [
                {"name": "broken", "expression": "object.none"},
                {"name": "two", "expression": "1 + 1"},
                {"name": "four", "expression": "variables.two * 2"},
            ],
            "validations": [
                {"expression": "variables.four == 4"},
                {"expression": "params.max >= variables.two"},
                {"expression": "namespaceObject.metadata.labels.env == 'prod'"},
                {"expression": "oldObject == null"},
            ],
        });
        assert_eq!(judged(spec.clone(), &json!({}), &json!({"max": 2})), []);
        assert_eq!(judged(spec, &json!({}), &json!({"max": 1})).len(), 1);
    }
}
