//! FlowSchema: which requests are of which level of priority.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, default, flag, get, has, list, number, object_mut, set, text};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, Subresource};
use crate::rules::declared;
use crate::status::Status;
use crate::table::{NONE, age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

const PRECEDENCE_MAX: i64 = 10_000;
/// The schema that takes what no other takes; the only one with precedence 1 is `exempt`.
const VERBS: [&str; 9] =
    ["*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        subresources: vec![Subresource::status("FlowSchema")],
        columns: vec![
            Column::name(),
            Column::text("PriorityLevel", "The level of its requests."),
            Column::text("MatchingPrecedence", "Which of those that match goes first: the lowest."),
            Column::text("DistinguisherMethod", "What tells its flows apart."),
            Column::age(),
            Column::text("MissingPL", "Whether there is no such level."),
        ],
        cells: Arc::new(cells),
        generation: true,
        effect: Effect::missing("no request goes before another by it"),
        rules: Rules {
            default: Arc::new(|schema| {
                default(object_mut(schema, "spec"), "matchingPrecedence", 1000);
                object_mut(schema, "status");
            }),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            validate_status: Arc::new(|new, _| validate_conditions(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "flowcontrol.apiserver.k8s.io",
            "v1",
            "FlowSchema",
            "flowschemas",
            "flowschema",
            "api.flowcontrol.v1.FlowSchema",
        )
    }
}

fn prepare_create(schema: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(schema, "status", json!({}));
    Ok(())
}

fn validate(schema: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(schema, "spec"), Path::new("spec"));
    let precedence = number(spec, "matchingPrecedence").unwrap_or(0);
    let precedence_path = path.child("matchingPrecedence");
    if !(1..=PRECEDENCE_MAX).contains(&precedence) {
        let why = format!("must be between 1 and {PRECEDENCE_MAX}, inclusive");
        causes.invalid(&precedence_path, precedence, &why);
    } else if precedence == 1 && text(schema, "metadata.name") != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        causes.invalid(&precedence_path, precedence, why);
    }
    let method = text(spec, "distinguisherMethod.type");
    if !method.is_empty() && !["ByUser", "ByNamespace"].contains(&method) {
        let path = path.child("distinguisherMethod").child("type");
        causes.not_supported(&path, method, &["ByNamespace", "ByUser"]);
    }
    let level = text(spec, "priorityLevelConfiguration.name");
    if !level.is_empty() {
        let path = path.child("priorityLevelConfiguration").child("name");
        causes.invalid_all(&path, level, names::dns_subdomain(level));
    }
    for (index, rule) in list(spec, "rules").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        validate_rule(rule, &path.child("rules").index(index), &mut causes);
    }
    declared::validate("api.flowcontrol.v1.FlowSchema", schema, &mut causes);
    causes.into_vec()
}

fn validate_rule(rule: &Value, path: &Path, causes: &mut Causes) {
    for (index, subject) in list(rule, "subjects").iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.child("subjects").index(index);
        let kinds = [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")];
        let kind = text(subject, "kind");
        let Some((_, wanted)) = kinds.iter().find(|(known, _)| *known == kind) else {
            if !kind.is_empty() {
                causes.not_supported(
                    &path.child("kind"),
                    kind,
                    &["Group", "ServiceAccount", "User"],
                );
            }
            continue;
        };
        if !has(subject, wanted) {
            causes.required(
                &path.child(wanted),
                &format!("{wanted} is required when subject kind is '{kind}'"),
            );
        }
        for (_, other) in kinds.iter().filter(|(_, field)| field != wanted) {
            if has(subject, other) {
                causes.forbidden(
                    &path.child(other),
                    &format!("{other} is forbidden when subject kind is not '{kind}'"),
                );
            }
        }
    }
    if list(rule, "resourceRules").is_empty() && list(rule, "nonResourceRules").is_empty() {
        causes.required(
            path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    for (index, one) in list(rule, "resourceRules").iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.child("resourceRules").index(index);
        verbs(one, &path, causes);
        for field in ["apiGroups", "resources", "namespaces"] {
            alone(one, field, &path, causes);
        }
        if list(one, "namespaces").is_empty() && !flag(one, "clusterScope") {
            let why =
                "resource rules that are not cluster scoped must supply at least one namespace";
            causes.required(&path.child("namespaces"), why);
        }
    }
    for (index, one) in list(rule, "nonResourceRules").iter().enumerate() {
        if causes.is_full() {
            return;
        }
        let path = path.child("nonResourceRules").index(index);
        verbs(one, &path, causes);
        alone(one, "nonResourceURLs", &path, causes);
        for (index, url) in
            list(one, "nonResourceURLs").iter().filter_map(Value::as_str).enumerate()
        {
            if url == "*" || causes.is_full() {
                break;
            }
            let path = path.child("nonResourceURLs").index(index);
            let star = url.find('*').is_some_and(|at| at + 1 < url.len() || !url.ends_with("/*"));
            if !url.starts_with('/') || url.contains(' ') || url.contains("//") {
                causes.invalid(
                    &path,
                    url,
                    "must start with '/', and contain no white-space and no '//'",
                );
            } else if star {
                causes.invalid(&path, url, "wildcard can only do suffix matching");
            }
        }
    }
}

fn verbs(rule: &Value, path: &Path, causes: &mut Causes) {
    alone(rule, "verbs", path, causes);
    let known = |verb: &&Value| !VERBS.contains(&verb.as_str().unwrap_or_default());
    if list(rule, "verbs").iter().any(|verb| known(&verb)) && has(rule, "resources") {
        let given = get(rule, "verbs").clone();
        causes.not_supported(&path.child("verbs"), given, &VERBS);
    }
}

/// What means everything stands alone.
fn alone(rule: &Value, field: &str, path: &Path, causes: &mut Causes) {
    let all = list(rule, field);
    if all.len() > 1 && all.iter().any(|one| one == "*") {
        let why = format!("if '*' is present, must not specify other {field}");
        causes.invalid(&path.child(field), get(rule, field).clone(), &why);
    }
}

/// What is wrong with the conditions of a schema, or of a level.
pub(super) fn validate_conditions(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("status").child("conditions");
    let mut seen = std::collections::HashSet::new();
    for (index, condition) in list(object, "status.conditions").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, kind) = (path.index(index), text(condition, "type"));
        if kind.is_empty() {
            causes.required(&path.child("type"), "must not be empty");
        }
        if !seen.insert(kind) {
            causes.duplicate(&path.child("type"), kind);
        }
    }
    causes.into_vec()
}

fn cells(schema: &Value, now: Timestamp) -> Vec<Value> {
    let method = match text(schema, "spec.distinguisherMethod.type") {
        "" => NONE,
        method => method,
    };
    let mut conditions = list(schema, "status.conditions").iter();
    let dangling = conditions.find(|one| text(one, "type") == "Dangling");
    let missing = match dangling.map(|one| text(one, "status")) {
        Some("True") => "True",
        Some("False") => "False",
        _ => "?",
    };
    vec![
        name(schema),
        text(schema, "spec.priorityLevelConfiguration.name").into(),
        number(schema, "spec.matchingPrecedence").unwrap_or(0).into(),
        method.into(),
        age(schema, now),
        missing.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_names_a_level_and_what_it_is_about() {
        let rule = |more: Value| {
            let mut rule = json!({"subjects": [{"kind": "User", "user": {"name": "a"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}]});
            for (field, value) in more.as_object().unwrap() {
                rule[field] = value.clone();
            }
            json!({"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 5, "rules": [rule]})
        };
        let level = json!({"name": "l"});
        let rows = [
            (rule(json!({})), ""),
            (json!({"matchingPrecedence": 5}), "spec.priorityLevelConfiguration.name"),
            (
                json!({"priorityLevelConfiguration": level, "matchingPrecedence": 1}),
                "spec.matchingPrecedence",
            ),
            (
                json!({"priorityLevelConfiguration": level, "matchingPrecedence": 0}),
                "spec.matchingPrecedence",
            ),
            (
                json!({"priorityLevelConfiguration": level, "matchingPrecedence": 5, "distinguisherMethod": {"type": "ByAge"}}),
                "spec.distinguisherMethod.type",
            ),
            (rule(json!({"subjects": []})), "spec.rules[0].subjects"),
            (
                rule(json!({"subjects": [{"kind": "Group", "user": {"name": "a"}}]})),
                "spec.rules[0].subjects[0].group spec.rules[0].subjects[0].user",
            ),
            (rule(json!({"resourceRules": []})), "spec.rules[0]"),
            (
                rule(
                    json!({"resourceRules": [{"verbs": ["fly"], "apiGroups": ["*", "a"], "resources": ["pods"], "clusterScope": true}]}),
                ),
                "spec.rules[0].resourceRules[0].verbs spec.rules[0].resourceRules[0].apiGroups",
            ),
            (
                rule(
                    json!({"resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}),
                ),
                "spec.rules[0].resourceRules[0].namespaces",
            ),
            (
                rule(json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a*"]}]})),
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]",
            ),
            (
                rule(
                    json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a/*"]}]}),
                ),
                "",
            ),
        ];
        for (spec, expected) in rows {
            let causes = validate(&json!({"metadata": {"name": "s"}, "spec": spec}));
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
    }
}
