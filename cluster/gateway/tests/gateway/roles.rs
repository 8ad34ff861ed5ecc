//! Roles and bindings decide what users may do, whether they ask for it or about it.

use crate::harness::{Answer, Harness, Kubectl, Shows, TOKEN};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const JSON: (&str, &str) = ("content-type", "application/json");

fn role(name: &str, verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({
        "metadata": {"name": name},
        "rules": [{"verbs": verbs, "apiGroups": [group], "resources": resources}],
    })
}

fn binding(name: &str, role: (&str, &str), user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

impl Harness {
    /// As this user, whom the administrator impersonates.
    async fn as_user(&self, user: &str, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(Shows::Admin, method, path, &[("impersonate-user", user), JSON], body).await
    }

    /// Asks until it is answered by this code, which a change of roles may take a moment to bring about.
    async fn until(&self, user: &str, method: &str, path: &str, body: &Value, code: u16) -> Answer {
        let mut changes = self.roles.changes();
        let asking = async {
            loop {
                let answer = self.as_user(user, method, path, body).await;
                if answer.code == code {
                    return answer;
                }
                changes.next().await;
            }
        };
        let answer = tokio::time::timeout(Duration::from_mins(1), asking).await;
        answer.unwrap_or_else(|_| panic!("{user} {method} {path} is never answered by {code}"))
    }

    async fn made(&self, path: &str, object: &Value) {
        let answer = self.ask("POST", path, object).await;
        assert_eq!(answer.code, 201, "{path}: {}", String::from_utf8_lossy(&answer.body));
    }

    /// Gives `ann` these verbs on these resources in a namespace.
    async fn given(&self, namespace: &str, name: &str, verbs: &[&str], group: &str, what: &[&str]) {
        let base = format!("{RBAC}/namespaces/{namespace}");
        self.made(&format!("{base}/roles"), &role(name, verbs, group, what)).await;
        let binding = binding(name, ("Role", name), "ann");
        self.made(&format!("{base}/rolebindings"), &binding).await;
    }
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

const NOTHING: Value = Value::Null;

#[tokio::test]
async fn a_user_may_what_is_bound_to_them_where_it_is_bound_and_until_it_is_taken() {
    let server = Harness::start().await;
    let (here, there) =
        ("/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/kube-public/configmaps");
    assert_eq!(server.as_user("ann", "GET", here, &NOTHING).await.code, 403);
    server.given("default", "maps", &["get", "list"], "", &["configmaps"]).await;
    server.until("ann", "GET", here, &NOTHING, 200).await;
    assert_eq!(server.as_user("ann", "GET", there, &NOTHING).await.code, 403);
    assert_eq!(server.as_user("bob", "GET", here, &NOTHING).await.code, 403);
    let map = json!({"metadata": {"name": "x"}});
    let refused = server.as_user("ann", "POST", here, &map).await;
    assert_eq!(
        message(&refused),
        "configmaps is forbidden: User \"ann\" cannot create resource \"configmaps\" in API group \"\" in the namespace \
         \"default\""
    );
    let taken = format!("{RBAC}/namespaces/default/rolebindings/maps");
    assert_eq!(server.ask("DELETE", &taken, &NOTHING).await.code, 200);
    server.until("ann", "GET", here, &NOTHING, 403).await;
}

#[tokio::test]
async fn a_rule_for_one_object_lets_it_be_followed_by_name() {
    let server = Harness::start().await;
    let mut named = role("one", &["get", "list", "watch"], "", &["configmaps"]);
    named["rules"][0]["resourceNames"] = json!(["kube-root-ca.crt"]);
    let base = format!("{RBAC}/namespaces/default");
    server.made(&format!("{base}/roles"), &named).await;
    server.made(&format!("{base}/rolebindings"), &binding("one", ("Role", "one"), "ann")).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let one = format!("{maps}?fieldSelector=metadata.name%3Dkube-root-ca.crt");
    server.until("ann", "GET", &one, &NOTHING, 200).await;
    assert_eq!(server.as_user("ann", "GET", maps, &NOTHING).await.code, 403);
    let other = format!("{maps}?fieldSelector=metadata.name%3Dother");
    assert_eq!(server.as_user("ann", "GET", &other, &NOTHING).await.code, 403);
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let server = Harness::start().await;
    let rbac = "rbac.authorization.k8s.io";
    server.given("default", "roles", &["*"], rbac, &["roles", "rolebindings"]).await;
    server.given("default", "maps", &["get"], "", &["configmaps"]).await;
    let base = format!("{RBAC}/namespaces/default");
    let (roles, bindings) = (format!("{base}/roles"), format!("{base}/rolebindings"));
    let may_not = "attempting to grant RBAC permissions not currently held";
    server.until("ann", "GET", &roles, &NOTHING, 200).await;
    server.until("ann", "GET", "/api/v1/namespaces/default/configmaps/x", &NOTHING, 404).await;
    // `*` on roles says `escalate` and `bind`, too.
    let secrets = role("secrets", &["get"], "", &["secrets"]);
    assert_eq!(server.as_user("ann", "POST", &roles, &secrets).await.code, 201);

    let all = ["create", "get", "list", "update", "patch", "delete"];
    let plain =
        json!([{"verbs": all, "apiGroups": [rbac], "resources": ["roles", "rolebindings"]}]);
    let patch = json!({"rules": plain});
    assert_eq!(server.ask("PATCH", &format!("{roles}/roles"), &patch).await.code, 200);
    let more = role("more", &["get"], "", &["secrets"]);
    let refused = server.until("ann", "POST", &roles, &more, 403).await;
    assert!(message(&refused).contains(may_not), "{}", message(&refused));
    assert!(
        message(&refused).ends_with("{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"),
        "{}",
        message(&refused)
    );
    let own = role("own", &["get"], "", &["configmaps"]);
    assert_eq!(server.as_user("ann", "POST", &roles, &own).await.code, 201);
    // Nor by a change, whole or in parts.
    let mut grown = server.ask("GET", &format!("{roles}/own"), &NOTHING).await.json();
    grown["rules"][0]["resources"] = json!(["configmaps", "secrets"]);
    let put = server.as_user("ann", "PUT", &format!("{roles}/own"), &grown).await;
    assert_eq!(put.code, 403, "{}", message(&put));
    let headers = [("impersonate-user", "ann"), ("content-type", "application/merge-patch+json")];
    let body = json!({"rules": grown["rules"]}).to_string();
    let path = format!("{roles}/own");
    let patched = server.send(Shows::Admin, "PATCH", &path, &headers, body).await;
    assert_eq!(patched.code, 403, "{}", message(&patched));

    for (name, role, code) in [
        ("a", ("ClusterRole", "cluster-admin"), 403),
        ("b", ("Role", "secrets"), 403),
        ("c", ("Role", "maps"), 201),
        ("d", ("Role", "not-there"), 404),
    ] {
        let answer = server.as_user("ann", "POST", &bindings, &binding(name, role, "dan")).await;
        assert_eq!(answer.code, code, "{role:?}: {}", message(&answer));
    }
}

#[tokio::test]
async fn a_role_is_bound_right_after_it_was_made() {
    let server = Harness::start().await;
    let rbac = "rbac.authorization.k8s.io";
    server.given("default", "roles", &["create", "get"], rbac, &["roles", "rolebindings"]).await;
    let base = format!("{RBAC}/namespaces/default");
    let (roles, bindings) = (format!("{base}/roles"), format!("{base}/rolebindings"));
    server.until("ann", "GET", &format!("{roles}/roles"), &NOTHING, 200).await;
    for number in 0..20 {
        let name = format!("r{number}");
        let own = role(&name, &["get"], rbac, &["roles"]);
        let made = server.as_user("ann", "POST", &roles, &own).await;
        assert_eq!(made.code, 201, "{}", message(&made));
        let bound = binding(&name, ("Role", &name), "dan");
        let made = server.as_user("ann", "POST", &bindings, &bound).await;
        assert_eq!(made.code, 201, "{}", message(&made));
    }
}

#[tokio::test]
async fn reviews_answer_and_keep_nothing() {
    let server = Harness::start().await;
    server.given("default", "maps", &["get"], "", &["configmaps"]).await;
    server.until("ann", "GET", "/api/v1/namespaces/default/configmaps/x", &NOTHING, 404).await;
    let base = "/apis/authorization.k8s.io/v1";
    let about = |verb: &str| json!({"resourceAttributes": {"namespace": "default", "verb": verb, "resource": "configmaps"}});
    let why = "RBAC: allowed by RoleBinding \"maps/default\" of Role \"maps\" to User \"ann\"";
    for (verb, status) in
        [("get", json!({"allowed": true, "reason": why})), ("delete", json!({"allowed": false}))]
    {
        let own = json!({ "spec": about(verb) });
        let path = format!("{base}/selfsubjectaccessreviews");
        let answer = server.as_user("ann", "POST", &path, &own).await;
        assert_eq!((answer.code, &answer.json()["status"]), (201, &status), "{verb}");
        assert_eq!(answer.json()["kind"], "SelfSubjectAccessReview");
        let mut of_another = own.clone();
        of_another["spec"]["user"] = "ann".into();
        for plural in ["subjectaccessreviews", "namespaces/default/localsubjectaccessreviews"] {
            let answer = server.ask("POST", &format!("{base}/{plural}"), &of_another).await;
            assert_eq!((answer.code, &answer.json()["status"]), (201, &status), "{plural} {verb}");
            let path = format!("{base}/{plural}");
            assert_eq!(server.as_user("ann", "POST", &path, &of_another).await.code, 403);
        }
    }
    let rules = json!({"spec": {"namespace": "default"}});
    let path = format!("{base}/selfsubjectrulesreviews");
    let told = server.as_user("ann", "POST", &path, &rules).await.json();
    let resources = told["status"]["resourceRules"].as_array().unwrap();
    let expected = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]});
    assert!(resources.contains(&expected), "{told}");
    assert_eq!(told["status"]["incomplete"], false);
    for (method, path) in [
        ("GET", format!("{base}/selfsubjectaccessreviews")),
        ("DELETE", format!("{base}/selfsubjectaccessreviews/x")),
    ] {
        assert_eq!(server.ask(method, &path, &NOTHING).await.code, 405, "{method} {path}");
    }
}

#[tokio::test]
async fn a_review_that_asks_about_nothing_or_nobody_is_refused_by_its_fields() {
    let server = Harness::start().await;
    let base = "/apis/authorization.k8s.io/v1";
    let about = json!({"verb": "get", "resource": "pods"});
    let path = json!({"verb": "get", "path": "/version"});
    let local = "namespaces/default/localsubjectaccessreviews";
    for (plural, spec, fields) in [
        ("selfsubjectaccessreviews", json!({}), vec!["spec.resourceAttributes"]),
        (
            "selfsubjectaccessreviews",
            json!({"resourceAttributes": about, "nonResourceAttributes": path}),
            vec!["spec.nonResourceAttributes"],
        ),
        ("subjectaccessreviews", json!({"resourceAttributes": about}), vec!["spec.user"]),
        (
            local,
            json!({"user": "ann", "resourceAttributes": about}),
            vec!["spec.resourceAttributes.namespace"],
        ),
        (
            local,
            json!({"user": "ann", "nonResourceAttributes": path}),
            vec!["spec.nonResourceAttributes"],
        ),
    ] {
        let answer =
            server.ask("POST", &format!("{base}/{plural}"), &json!({ "spec": spec })).await;
        let told = answer.json();
        let causes = told["details"]["causes"].as_array().cloned().unwrap_or_default();
        let named: Vec<&str> =
            causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
        assert_eq!((answer.code, named), (422, fields), "{plural} {spec}");
    }
    let none = json!({"spec": {}});
    let rules = server.ask("POST", &format!("{base}/selfsubjectrulesreviews"), &none).await;
    assert_eq!((rules.code, message(&rules)), (400, "no namespace on request".to_owned()));
}

#[tokio::test]
async fn everybody_is_told_who_they_are_and_as_whom_they_act() {
    let server = Harness::start().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let eve = server.send(Shows::Token(TOKEN), "POST", path, &[JSON], "{}").await;
    assert_eq!(
        eve.json()["status"]["userInfo"],
        json!({"username": "eve", "groups": ["impresario:viewers", "system:authenticated"]})
    );
    let headers = [
        JSON,
        ("impersonate-user", "system:serviceaccount:default:bot"),
        ("impersonate-uid", "u-1"),
        ("impersonate-extra-scope", "view"),
    ];
    let bot = server.send(Shows::Admin, "POST", path, &headers, "{}").await;
    assert_eq!(
        bot.json()["status"]["userInfo"],
        json!({
            "username": "system:serviceaccount:default:bot", "uid": "u-1", "extra": {"scope": ["view"]},
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        })
    );
    let stranger = server.send(Shows::Nothing, "POST", path, &[JSON], "{}").await;
    assert_eq!(stranger.code, 403);
}

#[tokio::test]
async fn who_may_impersonate_one_may_not_another() {
    let server = Harness::start().await;
    let rule = json!({
        "metadata": {"name": "as-bob"},
        "rules": [{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]}],
    });
    server.made(&format!("{RBAC}/clusterroles"), &rule).await;
    let bound = binding("as-bob", ("ClusterRole", "as-bob"), "eve");
    server.made(&format!("{RBAC}/clusterrolebindings"), &bound).await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let mut changes = server.roles.changes();
    let as_user = async |name: &str| {
        let headers = [JSON, ("impersonate-user", name)];
        server.send(Shows::Token(TOKEN), "POST", path, &headers, "{}").await
    };
    loop {
        let answer = as_user("bob").await;
        if answer.code == 201 {
            assert_eq!(answer.json()["status"]["userInfo"]["username"], "bob");
            break;
        }
        changes.next().await;
    }
    assert_eq!(as_user("root").await.code, 403);
    // The viewer's own rights are not had besides.
    let headers = [("impersonate-user", "bob")];
    let read = server.send(Shows::Token(TOKEN), "GET", "/api/v1/pods", &headers, "").await;
    let why = message(&read);
    assert!(why.starts_with("pods is forbidden: User \"bob\" cannot list"), "{why}");
}

#[tokio::test]
async fn a_masters_cluster_has_the_default_roles_and_keeps_its_rights_without_their_bindings() {
    let server = Harness::start().await;
    let path = format!("{RBAC}/clusterrolebindings/cluster-admin");
    assert_eq!(server.ask("DELETE", &path, &NOTHING).await.code, 200);
    let roles = server.ask("GET", &format!("{RBAC}/clusterroles"), &NOTHING).await.json();
    let names: Vec<&str> = roles["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["metadata"]["name"].as_str().unwrap())
        .collect();
    for name in ["admin", "cluster-admin", "edit", "view", "system:discovery", "impresario:viewers"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

/// Runs a command until it prints this, which a change of roles may take a moment to bring about.
async fn says(server: &Harness, kubectl: &Kubectl, words: &[&str], wanted: &str) {
    let mut changes = server.roles.changes();
    let asking = async {
        loop {
            let said = kubectl.run(words).await;
            if said.out.trim() == wanted {
                return;
            }
            changes.next().await;
        }
    };
    let said = tokio::time::timeout(Duration::from_mins(1), asking).await;
    said.unwrap_or_else(|_| panic!("kubectl {words:?} never says {wanted}"));
}

#[tokio::test]
async fn kubectl_asks_gives_and_reconciles_access() {
    for version in ["1.27", "1.30", "1.33"] {
        let server = Harness::start().await;
        let kubectl = server.kubectl(version);
        assert_eq!(kubectl.good(&["auth", "can-i", "*", "*"]).await.trim(), "yes");
        assert_eq!(kubectl.good(&["auth", "can-i", "get", "/version"]).await.trim(), "yes");
        let ann = ["auth", "can-i", "list", "configmaps", "--as", "ann"];
        assert_eq!(kubectl.run(&ann).await.out.trim(), "no");
        let role = ["create", "role", "maps", "--verb=get,list", "--resource=configmaps"];
        kubectl.good(&role).await;
        kubectl.good(&["create", "rolebinding", "maps", "--role=maps", "--user=ann"]).await;
        says(&server, &kubectl, &ann, "yes").await;
        let told = kubectl.good(&["auth", "can-i", "--list", "--as", "ann"]).await;
        assert!(told.contains("configmaps") && told.contains("/openapi/*"), "{told}");
        let refused = kubectl.run(&["get", "secrets", "--as", "ann"]).await;
        assert!(refused.err.contains("cannot list resource \"secrets\""), "{refused:?}");
        if version != "1.27" {
            let who = kubectl.good(&["auth", "whoami", "--as", "ann", "--as-uid", "u-1"]).await;
            assert!(who.contains("ann") && who.contains("u-1"), "{who}");
        }
        let manifest = kubectl.manifest(
            "reconciled.yaml",
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: nodes}\nrules:\n\
             - {apiGroups: [''], resources: [nodes], verbs: [list]}\n---\napiVersion: rbac.authorization.k8s.io/v1\n\
             kind: ClusterRoleBinding\nmetadata: {name: nodes}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: \
             ClusterRole, name: nodes}\nsubjects:\n- {kind: User, name: ann}\n",
        );
        kubectl.good(&["auth", "reconcile", "-f", &manifest]).await;
        says(&server, &kubectl, &["auth", "can-i", "list", "nodes", "--as", "ann"], "yes").await;
        kubectl.good(&["apply", "-f", &manifest]).await;
        let table = kubectl.good(&["get", "clusterroles,clusterrolebindings,rolebindings"]).await;
        assert!(table.contains("CREATED AT") && table.contains("ClusterRole/nodes"), "{table}");
        let described = kubectl.good(&["describe", "role", "maps"]).await;
        assert!(described.contains("[get list]"), "{described}");
    }
}
