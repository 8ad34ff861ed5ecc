//! Who gives rights away must have them.
//!
//! As Kubernetes' `policybased` stores of roles and bindings have it, with their words.

use super::GROUP;
use super::cover::{MOST_COMPARED, missing};
use super::index::{Asked, Asker, Index, rules_in};
use super::policy::PolicyRule;
use impresario_api::catalog::find_object;
use impresario_api::resource::Row;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::stored::text;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many of the rules that somebody lacks are told.
const MOST_TOLD: usize = 100;

/// Fields of the metadata that the garbage collector changes: to do so gives nothing away.
const COLLECTORS: [&str; 4] = ["ownerReferences", "finalizers", "managedFields", "resourceVersion"];

/// Whether an object gives rights.
pub(super) fn concerns(object: &Value) -> bool {
    text(object, "/apiVersion").split_once('/').is_some_and(|(group, _)| group == GROUP)
}

/// What a write would give away, and what its writer has.
pub(super) struct Given<'a> {
    row: Row,
    name: &'a str,
    owned: Vec<Arc<[PolicyRule]>>,
    wanted: Arc<[PolicyRule]>,
    gathers: Option<Vec<Arc<[PolicyRule]>>>,
}

/// What somebody would give away who makes `new` of `old`, or of nothing; nothing where that need not be looked at.
/// Compares no rules with each other: that is [`Given::check`], for which nothing is locked.
pub(super) fn given<'a>(
    index: &Index,
    asker: Asker<'_>,
    old: Option<&Value>,
    new: &'a Value,
) -> Result<Option<Given<'a>>, Status> {
    let row = find_object(new).ok_or_else(|| Status::internal("no roles are served"))?;
    let (namespace, name) = (text(new, "/metadata/namespace"), text(new, "/metadata/name"));
    let is_binding = new.get("roleRef").is_some();
    let (kind, role) = (text(new, "/roleRef/kind"), text(new, "/roleRef/name"));
    let resource = if kind == "Role" { "roles" } else { "clusterroles" };
    let (verb, resource, named) =
        if is_binding { ("bind", resource, role) } else { ("escalate", &*row.plural, name) };
    let overrules =
        Asked::Resource { verb, group: GROUP, resource, subresource: "", namespace, name: named };
    if index.allows(asker, overrules).is_some() {
        return Ok(None);
    }
    let wanted = if is_binding {
        let not_found = || {
            let why = format!("{resource}.{GROUP} {role:?} not found");
            Status::new(Reason::NotFound, why)
        };
        index.rules_of_role(namespace, kind, role).ok_or_else(not_found)?.clone()
    } else {
        PolicyRule::read_all(new).into()
    };
    // It gathers what others write into roles later on, and nobody can take it from it.
    let aggregates = !is_binding
        && [old, Some(new)].into_iter().flatten().any(|role| role["aggregationRule"].is_object());
    let gathers = aggregates.then(|| index.roles_of(asker, ""));
    let owned = index.roles_of(asker, namespace);
    Ok(Some(Given { row, name, owned, wanted, gathers }))
}

/// Whether nothing is different but what the garbage collector changes.
pub(super) fn is_collectors(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !COLLECTORS.contains(&field.as_str()));
        }
        object
    };
    bare(old) == bare(new)
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), urls: all(), ..PolicyRule::default() },
    ]
}

impl Given<'_> {
    /// Whether its writer has all of it; else, in Kubernetes' words, which they lack.
    pub(super) fn check(self, asker: Asker<'_>) -> Result<(), Status> {
        let refused = |why: String| Err(Status::forbidden(&self.row, self.name, why));
        let lacking = missing(&rules_in(&self.owned), &self.wanted, MOST_COMPARED);
        if !lacking.is_empty() {
            return refused(words(asker, &lacking));
        }
        match &self.gathers {
            Some(owned) if !missing(&rules_in(owned), &everything(), MOST_COMPARED).is_empty() => {
                refused("must have cluster-admin privileges to use an aggregationRule".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn words(asker: Asker<'_>, lacking: &[PolicyRule]) -> String {
    let more = lacking.len().saturating_sub(MOST_TOLD);
    let lacking: BTreeSet<String> =
        lacking.iter().take(MOST_TOLD).map(ToString::to_string).collect();
    let mut lacking: Vec<String> = lacking.into_iter().collect();
    if more > 0 {
        lacking.push(format!("and {more} more"));
    }
    let groups: Vec<String> = asker.groups.iter().map(|group| format!("{group:?}")).collect();
    format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        asker.name,
        groups.join(" "),
        lacking.join("\n")
    )
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
        if old.is_some_and(|old| is_collectors(old, new)) {
            return "ok".to_owned();
        }
        let index = sample();
        let given = given(&index, asker, old, new);
        let checked = given.and_then(|given| given.map_or(Ok(()), |given| given.check(asker)));
        checked.map_or_else(|status| status.message, |()| "ok".to_owned())
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
