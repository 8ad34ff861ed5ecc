//! Who gets in, and what they may do there.

use crate::harness::{Harness, Shows, TOKEN};
use crate::logged;
use impresario_runtime::{ClusterAuthority, PeerRole};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_stranger_asks_whether_we_live_and_nothing_else() {
    let server = Harness::start().await;
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(server.send(Shows::Nothing, "GET", open, &[], "").await.code, 200, "{open}");
    }
    let answer =
        server.send(Shows::Nothing, "GET", "/api/v1/namespaces/default/pods", &[], "").await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.json()["message"],
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let answer = server.send(Shows::Nothing, "GET", "/apis", &[], "").await;
    assert_eq!(
        answer.json()["message"],
        "forbidden: User \"system:anonymous\" cannot get path \"/apis\""
    );
}

#[tokio::test]
async fn a_wrong_credential_is_a_401_even_where_a_stranger_would_get_in() {
    let server = Harness::start().await;
    let day = Duration::from_hours(24);
    let foreign = ClusterAuthority::create("other")
        .unwrap()
        .issue("admin", PeerRole::Admin, &[], day)
        .unwrap();
    for wrong in [Shows::Token("guess"), Shows::Certificate(&foreign)] {
        let answer = server.send(wrong, "GET", "/version", &[], "").await;
        assert_eq!((answer.code, answer.json()["reason"].clone()), (401, json!("Unauthorized")));
    }
}

#[tokio::test]
async fn a_viewer_reads_and_changes_nothing() {
    let server = Harness::start().await;
    let viewer = Shows::Token(TOKEN);
    assert_eq!(server.send(viewer, "GET", "/api/v1/namespaces", &[], "").await.code, 200);
    assert_eq!(server.send(viewer, "GET", "/apis", &[], "").await.code, 200);
    let json = [("content-type", "application/json")];
    for (method, path) in [
        ("POST", "/api/v1/namespaces"),
        ("DELETE", "/api/v1/namespaces/kube-public"),
        ("GET", "/api/v1/secrets"),
    ] {
        let body = r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"x"}}"#;
        assert_eq!(
            server.send(viewer, method, path, &json, body).await.code,
            403,
            "{method} {path}"
        );
    }
    assert_eq!(server.ask("GET", "/api/v1/namespaces/x", &json!(null)).await.code, 404);
}

#[tokio::test]
async fn access_to_a_namespace_is_decided_in_that_namespace() {
    let server = Harness::start().await;
    for path in ["kube-public", "kube-public/status"] {
        let path = format!("/api/v1/namespaces/{path}");
        let json = [("content-type", "application/json")];
        let answer = server.send(Shows::Token(TOKEN), "PUT", &path, &json, "{}").await;
        let why = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(answer.code == 403 && why.contains("in the namespace \"kube-public\""), "{why}");
    }
}

#[tokio::test]
async fn who_asks_to_act_as_another_does_not_act_as_themselves() {
    let server = Harness::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for more in ["impersonate-group", "Impersonate-Uid", "Impersonate-Extra-Scope", "accept"] {
        // What a viewer may do by themselves they may not as somebody else, be it another viewer.
        let headers = [("Impersonate-User", "ann"), (more, "application/json")];
        let answer = server.send(Shows::Token(TOKEN), "GET", path, &headers, "").await;
        assert_eq!((answer.code, &answer.json()["reason"]), (403, &json!("Forbidden")), "{more}");
        assert_eq!(
            answer.json()["message"],
            "users \"ann\" is forbidden: User \"eve\" cannot impersonate resource \"users\" in API group \"\" at the \
             cluster scope"
        );
    }
    let answer = server.send(Shows::Admin, "GET", path, &[("impersonate-group", "dev")], "").await;
    assert_eq!(answer.code, 400, "a group of nobody");
}

#[tokio::test]
async fn a_machine_that_joins_by_the_name_of_a_user_is_not_that_user() {
    let server = Harness::start().await;
    let binding = json!({
        "metadata": {"name": "ann"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "ann"}],
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(server.ask("POST", path, &binding).await.code, 201);
    let hour = Duration::from_hours(1);
    let may = async |role: PeerRole| {
        let shown = server.issue_as("ann", role, hour);
        let shows = Shows::Certificate(&shown);
        server.send(shows, "GET", "/api/v1/secrets", &[], "").await
    };
    // Seen by who has that name by right: then the roles are known here.
    while may(PeerRole::Client).await.code != 200 {
        tokio::task::yield_now().await;
    }
    let guest = PeerRole::Guest { scope: "j".into() };
    for (role, user) in [
        (PeerRole::Node, "system:node:ann"),
        (PeerRole::Control, "system:node:ann"),
        (guest, "impresario:guest:ann"),
    ] {
        let answer = may(role.clone()).await;
        let why = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.code == 403 && why.contains(user), "{role:?}: {} {why}", answer.code);
    }
    let node = server.issue_as("n1", PeerRole::Node, hour);
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let json = [("content-type", "application/json")];
    let body = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;
    let answer = server.send(Shows::Certificate(&node), "POST", path, &json, body).await;
    let info = &answer.json()["status"]["userInfo"];
    assert_eq!(info["username"], "system:node:n1");
    assert!(info["groups"].as_array().unwrap().contains(&json!("system:nodes")), "{info}");
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_and_is_a_short_line_now_and_then() {
    let server = Harness::start().await;
    let long = "a".repeat(50_000);
    let (path, names) = (format!("/{long}"), [("impersonate-user", long.as_str())]);
    for _ in 0..40 {
        for (shows, path, headers, code) in [
            (Shows::Nothing, path.as_str(), &[][..], 403),
            (Shows::Token("guess"), "/version", &[][..], 401),
            (Shows::Token(TOKEN), "/api/v1/secrets", &[][..], 403),
            (Shows::Token(TOKEN), "/api/v1/pods", &names[..], 403),
        ] {
            assert_eq!(server.send(shows, "GET", path, headers, "").await.code, code);
        }
    }
    for (role, rule) in [
        ("stranger", "Nothing"),
        ("stranger", "Credential"),
        ("user", "Nothing"),
        ("user", "Impersonation"),
    ] {
        assert_eq!(server.refused(role, rule), 40, "{role} {rule}: {:?}", server.refusals.read());
    }
    assert_eq!(server.refusals.total(), 160);
    let log = logged::take();
    for words in ["access was refused", "a credential was refused", "impersonation was refused"] {
        let lines = log.lines().filter(|line| line.contains(words)).count();
        // Two of them see their access refused. A line may be due again on a machine that is very slow.
        assert!((1..20).contains(&lines), "{words:?} is said {lines} times");
    }
    let longest = log.lines().map(str::len).max();
    assert!(longest < Some(1000), "a line of {longest:?} bytes");
}
