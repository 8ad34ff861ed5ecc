//! What roles and bindings of all scopes have in common: rules, subjects, and the role that is meant.

use crate::cause::Cause;
use crate::field::{
    Causes, Path, at, default_text, get, list, list_mut, object_mut, same, set, text,
};
use crate::names;
use crate::resource::{Column, Resource};
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::Value;

/// The group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Anything that can stand in a path may be the name of a role or a binding.
pub fn any_name(_: &str) -> Vec<String> {
    Vec::new()
}

/// The columns of roles.
pub fn role_columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column { kind: "date".into(), ..Column::text("Created At", "When the role was created.") },
    ]
}

/// The cells of a role.
pub fn role_cells(role: &Value) -> Vec<Value> {
    vec![name(role), text(role, "metadata.creationTimestamp").into()]
}

/// A role without rules says so.
pub fn default_role(role: &mut Value) {
    if list(role, "rules").is_empty() {
        set(role, "rules", Value::Null);
    }
}

/// What is wrong with the rules of a role.
pub fn validate_rules(role: &Value, resource: Scope, causes: &mut Causes) {
    for (index, rule) in list(role, "rules").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        validate_rule(rule, resource, &Path::new("rules").index(index), causes);
    }
}

/// Where a role or a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In its namespace.
    Namespace,
    /// In all namespaces and outside them.
    Cluster,
}

fn validate_rule(rule: &Value, scope: Scope, path: &Path, causes: &mut Causes) {
    if list(rule, "verbs").is_empty() {
        causes.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    let urls = get(rule, "nonResourceURLs");
    let has = |field: &str| !list(rule, field).is_empty();
    if has("nonResourceURLs") {
        let path = path.child("nonResourceURLs");
        if scope == Scope::Namespace {
            let why = "namespaced rules cannot apply to non-resource URLs";
            causes.invalid(&path, urls.clone(), why);
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            causes.invalid(&path, urls.clone(), why);
        }
        return;
    }
    if !has("apiGroups") {
        let why = "resource rules must supply at least one api group";
        causes.required(&path.child("apiGroups"), why);
    }
    if !has("resources") {
        let why = "resource rules must supply at least one resource";
        causes.required(&path.child("resources"), why);
    }
}

/// The columns of bindings.
pub fn binding_columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Role", "The kind and name of the role that is given."),
        Column::age(),
        Column::text("Users", "The users it is given to.").wide(),
        Column::text("Groups", "The groups it is given to.").wide(),
        Column::text("ServiceAccounts", "The service accounts it is given to.").wide(),
    ]
}

/// The cells of a binding.
pub fn binding_cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", text(binding, "roleRef.kind"), text(binding, "roleRef.name"));
    let named = |kind: &str| {
        let of_kind = list(binding, "subjects").iter().filter(|it| text(it, "kind") == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match text(subject, "namespace") {
                "" => text(subject, "name").to_owned(),
                namespace => format!("{namespace}/{}", text(subject, "name")),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        name(binding),
        role.into(),
        age(binding, now),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]
}

/// Roles are of this group, and so are users and groups; service accounts are of the core.
pub fn default_binding(binding: &mut Value) {
    default_text(object_mut(binding, "roleRef"), "apiGroup", GROUP);
    for subject in list_mut(binding, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            default_text(subject, "apiGroup", GROUP);
        }
    }
}

/// What is wrong with a new binding, or with one as it is to be.
pub fn validate_binding(binding: &Value, scope: Scope) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (role, path) = (get(binding, "roleRef"), Path::new("roleRef"));
    if text(role, "apiGroup") != GROUP {
        causes.not_supported(&path.child("apiGroup"), text(role, "apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = match scope {
        Scope::Namespace => &["Role", "ClusterRole"],
        Scope::Cluster => &["ClusterRole"],
    };
    if !kinds.contains(&text(role, "kind")) {
        causes.not_supported(&path.child("kind"), text(role, "kind"), kinds);
    }
    match text(role, "name") {
        "" => causes.required(&path.child("name"), ""),
        name => causes.invalid_all(&path.child("name"), name, names::path_segment(name)),
    }
    for (index, subject) in list(binding, "subjects").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        validate_subject(subject, scope, &Path::new("subjects").index(index), &mut causes);
    }
    causes.into_vec()
}

fn validate_subject(subject: &Value, scope: Scope, path: &Path, causes: &mut Causes) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        causes.required(&path.child("name"), "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                causes.invalid_all(&path.child("name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                causes.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if scope == Scope::Cluster && text(subject, "namespace").is_empty() {
                causes.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                causes.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        kind => {
            let kinds = ["ServiceAccount", "User", "Group"];
            causes.not_supported(&path.child("kind"), kind, &kinds);
        }
    }
}

/// The role of a binding stays: who could change it could give what was meant for a few to all whom it names.
pub fn validate_changed_binding(new: &Value, old: &Value, scope: Scope) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate_binding(new, scope));
    if !same(at(new, "roleRef"), at(old, "roleRef")) {
        causes.invalid(&Path::new("roleRef"), at(new, "roleRef").clone(), "cannot change roleRef");
    }
    causes.into_vec()
}

/// A row of this group.
pub fn row(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    schema: &str,
) -> Resource {
    Resource {
        name: any_name,
        put_creates: true,
        ..Resource::named(GROUP, "v1", kind, plural, singular, schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_rule_is_of_resources_or_of_paths_and_of_paths_in_cluster_roles_alone() {
        let rows: [(Value, &[&str], &[&str]); 4] = [
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), &[], &[]),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}), &["nonResourceURLs"], &[]),
            (
                json!({"nonResourceURLs": ["/x"], "resources": ["pods"]}),
                &["verbs", "nonResourceURLs", "nonResourceURLs"],
                &["verbs", "nonResourceURLs"],
            ),
            (json!({"verbs": ["get"]}), &["apiGroups", "resources"], &["apiGroups", "resources"]),
        ];
        for (rule, in_namespace, in_cluster) in rows {
            for (scope, wrong) in [(Scope::Namespace, in_namespace), (Scope::Cluster, in_cluster)] {
                let mut causes = Causes::default();
                validate_rules(&json!({ "rules": [rule] }), scope, &mut causes);
                let wrong: Vec<String> =
                    wrong.iter().map(|field| format!("rules[0].{field}")).collect();
                assert_eq!(fields(causes.into_vec()), wrong, "{rule} {scope:?}");
            }
        }
    }

    #[test]
    fn a_binding_names_one_role_for_good_and_subjects_of_three_kinds() {
        let binding = |role: &str, subject: Value| {
            let mut binding = json!({
                "roleRef": {"kind": role, "name": "r"}, "subjects": [subject],
            });
            default_binding(&mut binding);
            binding
        };
        let user = json!({"kind": "User", "name": "u"});
        let account = json!({"kind": "ServiceAccount", "name": "a"});
        let robot = json!({"kind": "Robot", "name": "r"});
        let rows: [(&str, &Value, &[&str], &[&str]); 3] = [
            ("Role", &user, &[], &["roleRef.kind"]),
            ("ClusterRole", &account, &[], &["subjects[0].namespace"]),
            ("ClusterRole", &robot, &["subjects[0].kind"], &["subjects[0].kind"]),
        ];
        for (role, subject, in_namespace, in_cluster) in rows {
            let binding = binding(role, subject.clone());
            let wrong = |scope| fields(validate_binding(&binding, scope));
            assert_eq!(wrong(Scope::Namespace), in_namespace, "{binding}");
            assert_eq!(wrong(Scope::Cluster), in_cluster, "{binding}");
        }
        let (one, other) = (binding("Role", user.clone()), binding("ClusterRole", user.clone()));
        let wrong = validate_changed_binding(&other, &one, Scope::Namespace);
        assert_eq!(fields(wrong), ["roleRef"]);
    }
}
