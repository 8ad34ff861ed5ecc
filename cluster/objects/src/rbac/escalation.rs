//! Who gives rights away must have them.
//!
//! As Kubernetes' `policybased` stores of roles and bindings have it, with their words.

use super::GROUP;
use super::cover::missing;
use super::index::{Asked, Asker, Index};
use super::policy::PolicyRule;
use impresario_api::catalog::find_object;
use impresario_api::resource::Row;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::stored::text;
use serde_json::Value;
use std::collections::BTreeSet;

/// Fields of the metadata that the garbage collector changes: to do so gives nothing away.
const COLLECTORS: [&str; 4] = ["ownerReferences", "finalizers", "managedFields", "resourceVersion"];

/// Whether an object gives rights.
pub(super) fn concerns(object: &Value) -> bool {
    text(object, "/apiVersion").split_once('/').is_some_and(|(group, _)| group == GROUP)
}

/// Whether somebody may make `new` of `old`, or of nothing.
pub(super) fn check(
    index: &Index,
    asker: Asker<'_>,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    if old.is_some_and(|old| is_collectors(old, new)) {
        return Ok(());
    }
    let row = find_object(new).ok_or_else(|| Status::internal("no roles are served"))?;
    if new.get("roleRef").is_some() {
        binding(index, asker, &row, new)
    } else {
        role(index, asker, &row, old, new)
    }
}

/// Whether nothing is different but what the garbage collector changes.
fn is_collectors(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !COLLECTORS.contains(&field.as_str()));
        }
        object
    };
    bare(old) == bare(new)
}

fn role(
    index: &Index,
    asker: Asker<'_>,
    row: &Row,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    let (namespace, name) = (text(new, "/metadata/namespace"), text(new, "/metadata/name"));
    let escalates = Asked::Resource {
        verb: "escalate",
        group: GROUP,
        resource: &row.plural,
        subresource: "",
        namespace,
        name,
    };
    if index.allows(asker, escalates).is_some() {
        return Ok(());
    }
    let refused = |why: String| Status::forbidden(row, name, why);
    confirm(index, asker, namespace, &PolicyRule::read_all(new)).map_err(refused)?;
    // It gathers what others write into roles later on, and nobody can take it from it.
    let aggregates =
        [old, Some(new)].into_iter().flatten().any(|role| role["aggregationRule"].is_object());
    if aggregates && !missing(&index.rules_of(asker, ""), &everything()).is_empty() {
        let why = "must have cluster-admin privileges to use an aggregationRule";
        return Err(refused(why.to_owned()));
    }
    Ok(())
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), urls: all(), ..PolicyRule::default() },
    ]
}

fn binding(index: &Index, asker: Asker<'_>, row: &Row, new: &Value) -> Result<(), Status> {
    let (namespace, name) = (text(new, "/metadata/namespace"), text(new, "/metadata/name"));
    let (kind, role) = (text(new, "/roleRef/kind"), text(new, "/roleRef/name"));
    let resource = if kind == "Role" { "roles" } else { "clusterroles" };
    let binds = Asked::Resource {
        verb: "bind",
        group: GROUP,
        resource,
        subresource: "",
        namespace,
        name: role,
    };
    if index.allows(asker, binds).is_some() {
        return Ok(());
    }
    let Some(rules) = index.rules_of_role(namespace, kind, role) else {
        let why = format!("{resource}.{GROUP} {role:?} not found");
        return Err(Status::new(Reason::NotFound, why));
    };
    confirm(index, asker, namespace, rules).map_err(|why| Status::forbidden(row, name, why))
}

/// Whether somebody has all rights of these rules in a namespace; else, in Kubernetes' words, which they lack.
fn confirm(
    index: &Index,
    asker: Asker<'_>,
    namespace: &str,
    rules: &[PolicyRule],
) -> Result<(), String> {
    let lacking = missing(&index.rules_of(asker, namespace), rules);
    if lacking.is_empty() {
        return Ok(());
    }
    let lacking: BTreeSet<String> = lacking.iter().map(ToString::to_string).collect();
    let lacking: Vec<String> = lacking.into_iter().collect();
    let groups: Vec<String> = asker.groups.iter().map(|group| format!("{group:?}")).collect();
    Err(format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        asker.name,
        groups.join(" "),
        lacking.join("\n")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    const VERSION: &str = "rbac.authorization.k8s.io/v1";

    fn reads(resource: &str) -> Value {
        json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get", "list"]}])
    }

    fn role_of(namespace: &str, name: &str, rules: Value) -> Value {
        json!({
            "apiVersion": VERSION, "kind": "Role", "rules": rules,
            "metadata": {"namespace": namespace, "name": name},
        })
    }

    fn cluster_role(name: &str, rules: Value) -> Value {
        json!({
            "apiVersion": VERSION, "kind": "ClusterRole", "rules": rules, "metadata": {"name": name},
        })
    }

    fn binding_of(namespace: &str, role: (&str, &str), user: &str) -> Value {
        json!({
            "apiVersion": VERSION, "kind": "RoleBinding",
            "metadata": {"namespace": namespace, "name": "b"},
            "roleRef": {"apiGroup": GROUP, "kind": role.0, "name": role.1},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
        })
    }

    /// `ann` reads pods in `a`; `bea` may escalate there, `cid` may bind the role `maps`.
    fn sample() -> Index {
        let mut index = Index::default();
        let on = |verb: &str, resource: &str, names: Value| json!([{"apiGroups": [GROUP], "resources": [resource], "verbs": [verb], "resourceNames": names}]);
        for (role, user) in [
            (role_of("a", "pods", reads("pods")), "ann"),
            (role_of("a", "escalates", on("escalate", "roles", json!([]))), "bea"),
            (role_of("a", "binds", on("bind", "clusterroles", json!(["maps"]))), "cid"),
        ] {
            let name = role["metadata"]["name"].as_str().unwrap().to_owned();
            let mut binding = binding_of("a", ("Role", &name), user);
            binding["metadata"]["name"] = name.into();
            index.put_role(&role);
            index.put_binding(&binding);
        }
        index.put_role(&cluster_role("maps", reads("configmaps")));
        index.put_role(&cluster_role("pods", reads("pods")));
        index
    }

    fn says(user: &str, old: Option<&Value>, new: &Value) -> String {
        let groups = ["system:authenticated".to_owned()];
        let asker = Asker { name: user, groups: &groups };
        check(&sample(), asker, old, new).map_or_else(|status| status.message, |()| "ok".to_owned())
    }

    #[test]
    fn nobody_writes_into_a_role_what_they_do_not_have() {
        let (maps, pods) =
            (role_of("a", "x", reads("configmaps")), role_of("a", "x", reads("pods")));
        assert_eq!(
            says("ann", None, &maps),
            "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is \
             attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"configmaps\"], \
             Verbs:[\"get\" \"list\"]}"
        );
        assert_eq!(says("ann", None, &pods), "ok");
        assert_eq!(says("bea", None, &maps), "ok", "who may escalate may");
        assert!(
            says("ann", None, &role_of("b", "x", reads("pods"))).contains("not currently held")
        );
        assert!(says("ann", Some(&pods), &maps).contains("not currently held"));
        let mut collected = maps.clone();
        collected["metadata"]["finalizers"] = json!(["a.b/c"]);
        assert_eq!(says("ann", Some(&maps), &collected), "ok", "that gives nothing away");
    }

    #[test]
    fn nobody_binds_a_role_whose_rights_they_do_not_have() {
        let maps = binding_of("a", ("ClusterRole", "maps"), "dan");
        assert!(says("ann", None, &maps).contains("not currently held"));
        assert_eq!(says("cid", None, &maps), "ok", "who may bind it may");
        assert_eq!(says("ann", None, &binding_of("a", ("ClusterRole", "pods"), "dan")), "ok");
        assert_eq!(
            says("ann", None, &binding_of("a", ("Role", "none"), "dan")),
            "roles.rbac.authorization.k8s.io \"none\" not found"
        );
    }

    #[test]
    fn to_gather_what_others_write_takes_every_right() {
        let mut role = cluster_role("x", json!(null));
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        assert!(says("ann", None, &role).ends_with("to use an aggregationRule"));
        let plain = cluster_role("x", json!(null));
        assert_eq!(says("ann", None, &plain), "ok");
        assert!(says("ann", Some(&role), &plain).ends_with("to use an aggregationRule"));
    }
}
