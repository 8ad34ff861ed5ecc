#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn role(namespace: &str, name: &str, rules: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "rules": rules})
}

fn reads(resource: &str) -> Value {
    json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}])
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subjects: Value) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": name},
        "roleRef": {"kind": role.0, "name": role.1}, "subjects": subjects,
    })
}

fn get<'a>(namespace: &'a str, resource: &'a str) -> Asked<'a> {
    Asked::Resource { verb: "get", group: "", resource, subresource: "", namespace, name: "x" }
}

fn may(index: &Index, name: &str, groups: &[&str], asked: Asked<'_>) -> bool {
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    index.allows(Asker { name, groups: &groups }, asked).is_some()
}

fn sample() -> Index {
    let mut index = Index::default();
    index.put_role(&role("", "pod-reader", reads("pods")));
    index.put_role(&role("a", "map-reader", reads("configmaps")));
    index.put_role(&role(
        "",
        "public",
        json!([{"verbs": ["get"], "nonResourceURLs": ["/version"]}]),
    ));
    let user = json!([{"kind": "User", "name": "ann"}]);
    let account = json!([{"kind": "ServiceAccount", "name": "bot", "namespace": "b"}]);
    let own_account = json!([{"kind": "ServiceAccount", "name": "bot"}]);
    let group = json!([{"kind": "Group", "name": "all"}]);
    index.put_binding(&binding("a", "one", ("ClusterRole", "pod-reader"), user));
    index.put_binding(&binding("a", "two", ("Role", "map-reader"), account));
    index.put_binding(&binding("a", "three", ("Role", "map-reader"), own_account));
    index.put_binding(&binding("", "four", ("ClusterRole", "public"), group.clone()));
    index.put_binding(&binding("", "five", ("ClusterRole", "not-there"), group));
    index
}

#[test]
fn a_binding_gives_its_role_to_whom_it_names_and_where_it_stands() {
    let index = sample();
    let version = Asked::Path { verb: "get", path: "/version" };
    let rows: [(&str, &[&str], Asked<'_>, bool); 13] = [
        ("ann", &[], get("a", "pods"), true),
        ("ann", &[], get("b", "pods"), false),
        ("ann", &[], get("", "pods"), false),
        ("ann", &[], get("a", "configmaps"), false),
        ("bob", &["ann"], get("a", "pods"), false),
        ("system:serviceaccount:b:bot", &[], get("a", "configmaps"), true),
        ("system:serviceaccount:b:bot", &[], get("b", "configmaps"), false),
        ("system:serviceaccount:a:bot", &[], get("a", "configmaps"), true),
        ("bot", &[], get("a", "configmaps"), false),
        ("ann", &["all"], version, true),
        ("all", &[], version, false),
        ("ann", &["all"], get("a", "pods"), true),
        ("ann", &["all"], Asked::Path { verb: "get", path: "/metrics" }, false),
    ];
    for (name, groups, asked, allowed) in rows {
        assert_eq!(may(&index, name, groups, asked), allowed, "{name} {groups:?} {asked:?}");
    }
}

#[test]
fn what_allows_something_is_told_in_kubernetes_words() {
    let index = sample();
    let told = |name: &str, groups: &[String], asked| {
        index.allows(Asker { name, groups }, asked).unwrap().to_string()
    };
    assert_eq!(
        told("ann", &[], get("a", "pods")),
        r#"RBAC: allowed by RoleBinding "one/a" of ClusterRole "pod-reader" to User "ann""#
    );
    assert_eq!(
        told("system:serviceaccount:b:bot", &[], get("a", "configmaps")),
        r#"RBAC: allowed by RoleBinding "two/a" of Role "map-reader" to ServiceAccount "bot/b""#
    );
    assert_eq!(
        told("x", &["all".to_owned()], Asked::Path { verb: "get", path: "/version" }),
        r#"RBAC: allowed by ClusterRoleBinding "four" of ClusterRole "public" to Group "all""#
    );
}

#[test]
fn a_change_counts_at_once_and_leaves_nothing_behind() {
    let mut index = sample();
    let at = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    index.put_role(&role("", "pod-reader", reads("nodes")));
    assert!(!may(&index, "ann", &[], get("a", "pods")));
    assert!(may(&index, "ann", &[], get("a", "nodes")));
    index.remove_role(&at("", "pod-reader"));
    assert!(!may(&index, "ann", &[], get("a", "nodes")), "a binding to no role gives nothing");
    index.put_role(&role("", "pod-reader", reads("pods")));
    let bob = json!([{"kind": "User", "name": "bob"}]);
    index.put_binding(&binding("a", "one", ("ClusterRole", "pod-reader"), bob));
    assert!(!may(&index, "ann", &[], get("a", "pods")));
    assert!(may(&index, "bob", &[], get("a", "pods")));
    for (namespace, name) in
        [("a", "one"), ("a", "two"), ("a", "three"), ("", "four"), ("", "five")]
    {
        index.remove_binding(&at(namespace, name));
    }
    assert!(index.scopes.is_empty() && index.bindings.is_empty(), "{index:?}");
}

#[test]
fn the_same_role_given_twice_is_lost_with_the_second_binding() {
    let mut index = sample();
    let user = json!([{"kind": "User", "name": "ann"}, {"kind": "User", "name": "ann"}]);
    index.put_binding(&binding("a", "again", ("ClusterRole", "pod-reader"), user));
    for (name, left) in [("one", true), ("again", false)] {
        index.remove_binding(&("a".to_owned(), name.to_owned()));
        assert_eq!(may(&index, "ann", &[], get("a", "pods")), left, "{name}");
    }
}

/// Everything that a test draws from.
const NAMES: [&str; 3] = ["p", "q", "r"];

/// What the definition says, without any index.
fn defined(
    roles: &BTreeMap<Place, Value>,
    bindings: &BTreeMap<Place, Value>,
    asker: Asker<'_>,
    namespace: &str,
    resource: &str,
) -> bool {
    let names = |subject: &Value| match word(subject, "kind") {
        "User" => subject["name"] == asker.name,
        _ => asker.groups.iter().any(|group| subject["name"] == **group),
    };
    let holds = |(place, binding): (&Place, &Value)| {
        (place.0.is_empty() || place.0 == namespace)
            && binding["subjects"].as_array().unwrap().iter().any(names)
            && roles.get(&RoleRef::read(binding).place(&place.0)).is_some_and(|role| {
                let rules = PolicyRule::read_all(role);
                rules.iter().any(|rule| rule.allows("get", "", resource, "", "x"))
            })
    };
    bindings.iter().any(holds)
}

/// A change: which, where, of what name, of what else, and what is named by it.
type Step = (u8, usize, usize, usize, usize, bool);

fn checks(steps: Vec<Step>) {
    let mut index = Index::default();
    let (mut roles, mut bindings) = (BTreeMap::new(), BTreeMap::new());
    for (what, namespace, name, other, subject, is_user) in steps {
        let (namespace, name) = (["", "p", "q"][namespace], NAMES[name]);
        let at = (namespace.to_owned(), name.to_owned());
        match what {
            0 => {
                let role = role(namespace, name, reads(NAMES[other]));
                index.put_role(&role);
                roles.insert(at, role);
            }
            1 => {
                index.remove_role(&at);
                roles.remove(&at);
            }
            2 => {
                index.remove_binding(&at);
                bindings.remove(&at);
            }
            _ => {
                let kind = if namespace.is_empty() || what == 3 { "ClusterRole" } else { "Role" };
                let of = if is_user { "User" } else { "Group" };
                let subjects = json!([{"kind": of, "name": NAMES[subject]}]);
                let binding = binding(namespace, name, (kind, NAMES[other]), subjects);
                index.put_binding(&binding);
                bindings.insert(at, binding);
            }
        }
    }
    for (user, group) in NAMES.iter().flat_map(|user| NAMES.map(|group| (*user, group))) {
        let groups = [group.to_owned()];
        let asker = Asker { name: user, groups: &groups };
        for (namespace, resource) in
            ["", "p", "q"].iter().flat_map(|one| NAMES.map(|resource| (*one, resource)))
        {
            let told = index.allows(asker, get(namespace, resource)).is_some();
            let meant = defined(&roles, &bindings, asker, namespace, resource);
            assert_eq!(told, meant, "{user} {group} {namespace} {resource}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn after_any_changes_the_index_says_what_the_definition_says(
        steps in prop::collection::vec((0_u8..6, 0_usize..3, 0_usize..3, 0_usize..3, 0_usize..3, any::<bool>()), 0..40)
    ) {
        checks(steps);
    }
}
