//! Creating, changing and deleting, and what is refused.

use crate::harness::{Harness, Shows, TOKEN};
use serde_json::{Value, json};
use std::collections::HashSet;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn config(name: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data})
}

fn controller(name: &str, replicas: i64) -> Value {
    json!({"kind": "ReplicationController", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"app": name},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn an_object_has_its_identity_and_is_replaced_only_as_it_was_seen() {
    let server = Harness::start().await;
    let created = server.ask("POST", CONFIGS, &config("a", json!({"k": "1"}))).await;
    assert_eq!(created.code, 201);
    let mut object = created.json();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(object["metadata"][field].is_string(), "{field}");
    }
    let twice = server.ask("POST", CONFIGS, &config("a", json!({}))).await;
    assert_eq!((twice.code, &twice.json()["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(twice.json()["message"], "configmaps \"a\" already exists");

    object["data"]["k"] = "2".into();
    let path = format!("{CONFIGS}/a");
    let updated = server.ask("PUT", &path, &object).await;
    assert_eq!(updated.code, 200);
    let stale = server.ask("PUT", &path, &object).await;
    assert_eq!((stale.code, &stale.json()["reason"]), (409, &json!("Conflict")));
    let same = server.ask("PUT", &path, &updated.json()).await.json();
    assert_eq!(same["metadata"]["resourceVersion"], updated.json()["metadata"]["resourceVersion"]);
    let blind = server.ask("PUT", &path, &config("a", json!({"k": "3"}))).await;
    assert_eq!(blind.json()["data"]["k"], "3");
    assert_eq!(server.ask("PUT", &path, &config("b", json!({}))).await.code, 400);
    assert_eq!(
        server.ask("PUT", &format!("{CONFIGS}/none"), &config("none", json!({}))).await.code,
        404
    );
    let name =
        server.ask("POST", CONFIGS, &json!({"metadata": {"generateName": "gen-"}})).await.json();
    assert_eq!(name["metadata"]["name"].as_str().unwrap().len(), 9);
}

#[tokio::test]
async fn replacing_makes_services_and_endpoints_but_nothing_that_was_seen_before() {
    let server = Harness::start().await;
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let path = format!("{SERVICES}/web");
    assert_eq!(server.ask("PUT", &format!("{path}?dryRun=All"), &service).await.code, 201);
    assert_eq!(server.ask("GET", &path, &json!(null)).await.code, 404);
    let made = server.ask("PUT", &path, &service).await;
    assert_eq!((made.code, &made.json()["spec"]["type"]), (201, &json!("ClusterIP")));
    assert_eq!(server.ask("PUT", &path, &service).await.code, 200);
    assert_eq!(server.ask("DELETE", &path, &json!(null)).await.code, 200);
    assert_eq!(server.ask("PUT", &path, &made.json()).await.code, 404);
    let endpoints = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "web"}});
    let path = "/api/v1/namespaces/default/endpoints/web";
    assert_eq!(server.ask("PUT", path, &endpoints).await.code, 201);
    let told =
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    for (method, path, body) in [
        ("GET", path, &json!(null)),
        ("GET", "/api/v1/endpoints", &json!(null)),
        ("PUT", path, &endpoints),
        ("GET", "/api/v1/namespaces/default/endpoints/none", &json!(null)),
    ] {
        let answer = server.ask(method, path, body).await;
        let all: Vec<_> = answer.headers.get_all("warning").iter().collect();
        assert_eq!(all, [told], "{method} {path}");
    }
    let other = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "other"}});
    assert_eq!(
        server.ask("PUT", "/api/v1/namespaces/default/endpoints/none", &other).await.code,
        400
    );
    let viewer = server
        .send(
            Shows::Token(TOKEN),
            "PUT",
            path,
            &[("content-type", "application/json")],
            endpoints.to_string(),
        )
        .await;
    assert_eq!(viewer.code, 403);
}

#[tokio::test]
async fn a_dry_run_answers_and_changes_nothing() {
    let server = Harness::start().await;
    assert_eq!(
        server.ask("POST", &format!("{CONFIGS}?dryRun=All"), &config("a", json!({}))).await.code,
        201
    );
    assert_eq!(server.ask("GET", &format!("{CONFIGS}/a"), &json!(null)).await.code, 404);
    server.ask("POST", CONFIGS, &config("a", json!({"k": "1"}))).await;
    assert_eq!(
        server.ask("POST", &format!("{CONFIGS}?dryRun=All"), &config("a", json!({}))).await.code,
        409
    );
    let patched =
        server.ask("PATCH", &format!("{CONFIGS}/a?dryRun=All"), &json!({"data": {"k": "2"}})).await;
    assert_eq!(patched.json()["data"]["k"], "2");
    assert_eq!(
        server.ask("DELETE", &format!("{CONFIGS}/a?dryRun=All"), &json!(null)).await.code,
        200
    );
    assert_eq!(
        server.ask("GET", &format!("{CONFIGS}/a"), &json!(null)).await.json()["data"]["k"],
        "1"
    );
    assert_eq!(
        server.ask("POST", &format!("{CONFIGS}?dryRun=Some"), &config("b", json!({}))).await.code,
        422
    );
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored_as_asked() {
    let server = Harness::start().await;
    let mut object = config("a", json!({}));
    object["dta"] = json!({"x": "y"});
    let strict = server.ask("POST", &format!("{CONFIGS}?fieldValidation=Strict"), &object).await;
    assert_eq!(strict.code, 400);
    assert!(
        strict.json()["message"]
            .as_str()
            .unwrap()
            .contains("strict decoding error: unknown field \"dta\"")
    );
    let warned = server.ask("POST", CONFIGS, &object).await;
    assert_eq!(
        (warned.code, warned.header("warning")),
        (201, "299 - \"unknown field \\\"dta\\\"\"")
    );
    let ignored = server.ask("PUT", &format!("{CONFIGS}/a?fieldValidation=Ignore"), &object).await;
    assert_eq!((ignored.code, ignored.header("warning")), (200, ""));
}

#[tokio::test]
async fn bad_input_is_answered_with_every_cause_and_changes_nothing() {
    let server = Harness::start().await;
    let rc = "/api/v1/namespaces/default/replicationcontrollers";
    let mut wrong = controller("Bad_Name", -1);
    wrong["spec"]["selector"] = json!({"app": "other"});
    let answer = server.ask("POST", rc, &wrong).await;
    let status = answer.json();
    assert_eq!((answer.code, &status["reason"]), (422, &json!("Invalid")));
    let fields: HashSet<&str> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    for field in ["metadata.name", "spec.replicas", "spec.template.metadata.labels"] {
        assert!(fields.contains(field), "{field} in {fields:?}");
    }
    let json = [("content-type", "application/json")];
    for (body, code) in
        [("{", 400), (r#"{"kind":"Nothing","apiVersion":"v1"}"#, 400), (r#"{"data":{"a":1}}"#, 400)]
    {
        let answer = server.send(Shows::Admin, "POST", CONFIGS, &json, body).await;
        assert_eq!((answer.code, &answer.json()["kind"]), (code, &json!("Status")), "{body}");
    }
    let text =
        server.send(Shows::Admin, "POST", CONFIGS, &[("content-type", "text/plain")], "a").await;
    assert_eq!(text.code, 415);
    assert_eq!(server.ask("POST", "/api/v1/configmaps", &config("a", json!({}))).await.code, 405);
    assert_eq!(
        server
            .ask("POST", "/api/v1/namespaces/none/configmaps", &config("a", json!({})))
            .await
            .code,
        404
    );
    assert_eq!(server.ask("TRACE", CONFIGS, &json!(null)).await.code, 405);
    // Objects are made in their collection, not under a name.
    assert_eq!(
        server.ask("POST", &format!("{CONFIGS}/a"), &config("a", json!({}))).await.code,
        405
    );
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "kube-system"}});
    assert_eq!(server.ask("POST", CONFIGS, &elsewhere).await.code, 400);
}

#[tokio::test]
async fn patches_of_three_forms_change_what_they_name() {
    let server = Harness::start().await;
    let rc = "/api/v1/namespaces/default/replicationcontrollers";
    assert_eq!(server.ask("POST", rc, &controller("web", 1)).await.code, 201);
    let path = format!("{rc}/web");
    let patch = |kind: &'static str, body: Value| {
        let (server, path) = (&server, &path);
        async move {
            let kind = format!("application/{kind}+json");
            server
                .send(Shows::Admin, "PATCH", path, &[("content-type", &kind)], body.to_string())
                .await
        }
    };
    let merged = patch("merge-patch", json!({"metadata": {"labels": {"a": "b"}}})).await.json();
    assert_eq!(merged["metadata"]["labels"]["a"], "b");
    let containers = json!([{"name": "side", "image": "s"}]);
    let strategic = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let both = patch("strategic-merge-patch", strategic).await.json();
    assert_eq!(both["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    assert_eq!(both["metadata"]["generation"], 2);
    let tested =
        patch("json-patch", json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]))
            .await
            .json();
    assert_eq!(tested["spec"]["replicas"], 4);
    assert_eq!(patch("json-patch", json!([{"op": "remove", "path": "/none"}])).await.code, 422);
    assert_eq!(patch("merge-patch", json!({"metadata": {"resourceVersion": "1"}})).await.code, 409);

    let scale = server
        .ask("PATCH", &format!("{path}/scale"), &json!({"spec": {"replicas": 7}}))
        .await
        .json();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(7), &json!("app=web"))
    );
    let negative =
        server.ask("PATCH", &format!("{path}/scale"), &json!({"spec": {"replicas": -7}})).await;
    assert_eq!(
        (negative.code, &negative.json()["message"]),
        (
            422,
            &json!(
                "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -7: must be greater than or equal to 0"
            )
        )
    );
    let status = json!({"spec": {"replicas": 1}, "status": {"replicas": 3}});
    let reported = server.ask("PATCH", &format!("{path}/status"), &status).await.json();
    assert_eq!(
        (&reported["spec"]["replicas"], &reported["status"]["replicas"]),
        (&json!(7), &json!(3))
    );
}

#[tokio::test]
async fn no_two_services_get_one_address_and_it_comes_back_when_one_goes() {
    let server = Harness::start().await;
    let service = |name: &str, address: Option<&str>| {
        let mut object = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        if let Some(address) = address {
            object["spec"]["clusterIP"] = address.into();
        }
        object
    };
    let mut seen = HashSet::from(["127.96.0.1".to_owned()]);
    for number in 0..20 {
        let created =
            server.ask("POST", SERVICES, &service(&format!("s{number}"), None)).await.json();
        let address =
            created["spec"]["clusterIP"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned();
        assert!(address.starts_with("127.96."), "{address}");
        assert!(seen.insert(address), "twice in {seen:?}");
    }
    assert_eq!(server.ask("POST", SERVICES, &service("a", Some("127.96.9.9"))).await.code, 201);
    let taken = server.ask("POST", SERVICES, &service("b", Some("127.96.9.9"))).await;
    assert_eq!(
        (taken.code, &taken.json()["details"]["causes"][0]["field"]),
        (422, &json!("spec.clusterIPs"))
    );
    assert_eq!(server.ask("POST", SERVICES, &service("c", Some("10.0.0.1"))).await.code, 422);
    assert_eq!(server.ask("DELETE", &format!("{SERVICES}/a"), &json!(null)).await.code, 200);
    assert_eq!(server.ask("POST", SERVICES, &service("b", Some("127.96.9.9"))).await.code, 201);
    let mut port = service("np", None);
    port["spec"]["type"] = "NodePort".into();
    let port = server.ask("POST", SERVICES, &port).await.json();
    assert!((30_000..32_768).contains(&port["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
}

#[tokio::test]
async fn what_is_deleted_lingers_while_something_holds_it() {
    let server = Harness::start().await;
    let mut held = config("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let held = server.ask("POST", CONFIGS, &held).await.json();
    let path = format!("{CONFIGS}/held");
    let foreign =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    assert_eq!(server.ask("DELETE", &path, &foreign).await.code, 409);
    let deleted = server.ask("DELETE", &path, &json!(null)).await.json();
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(deleted["metadata"]["uid"], held["metadata"]["uid"]);
    let again = server.ask("POST", CONFIGS, &config("held", json!({}))).await;
    assert_eq!(again.code, 409);
    assert_eq!(
        again.json()["message"],
        "object is being deleted: configmaps \"held\" already exists"
    );
    let freed = server.ask("PATCH", &path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200);
    assert_eq!(server.ask("GET", &path, &json!(null)).await.code, 404);

    let gone = server.ask("POST", CONFIGS, &config("gone", json!({}))).await.json();
    let status = server.ask("DELETE", &format!("{CONFIGS}/gone"), &json!(null)).await.json();
    assert_eq!(
        (&status["status"], &status["details"]["uid"]),
        (&json!("Success"), &gone["metadata"]["uid"])
    );

    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.ask("POST", pods, &pod).await.code, 201);
    let ending =
        server.ask("DELETE", &format!("{pods}/p"), &json!({"gracePeriodSeconds": 5})).await.json();
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(
        server.ask("DELETE", &format!("{pods}/p?gracePeriodSeconds=0"), &json!(null)).await.json()
            ["metadata"]["name"],
        "p",
        "clients expect a pod, not a Status"
    );
    assert_eq!(server.ask("GET", &format!("{pods}/p"), &json!(null)).await.code, 404);
    for name in ["x", "y"] {
        server
            .ask("POST", CONFIGS, &json!({"metadata": {"name": name, "labels": {"sweep": "yes"}}}))
            .await;
    }
    let swept = server
        .ask("DELETE", &format!("{CONFIGS}?labelSelector=sweep%3Dyes"), &json!(null))
        .await
        .json();
    assert_eq!(swept["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_going() {
    let server = Harness::start().await;
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "short"}});
    assert_eq!(server.ask("POST", "/api/v1/namespaces", &namespace).await.code, 201);
    let path = "/api/v1/namespaces/short";
    let going = server.ask("DELETE", path, &json!(null)).await.json();
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = server.ask("POST", &format!("{path}/configmaps"), &config("a", json!({}))).await;
    assert_eq!((refused.code, &refused.json()["reason"]), (403, &json!("Forbidden")));
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut last = going.clone();
    last["spec"]["finalizers"] = json!([]);
    assert_eq!(server.ask("PUT", &format!("{path}/finalize"), &last).await.code, 200);
    assert_eq!(server.ask("GET", path, &json!(null)).await.code, 404);
    assert_eq!(server.ask("DELETE", "/api/v1/namespaces/default", &json!(null)).await.code, 403);
}

#[tokio::test]
async fn the_answer_to_a_deletion_is_the_object_where_clients_of_the_kind_expect_it() {
    let server = Harness::start().await;
    let spec = json!({"ports": [{"port": 80}]});
    for (kind, plural, spec, answer) in [
        ("Service", "services", &spec, "Service"),
        ("ServiceAccount", "serviceaccounts", &json!(null), "ServiceAccount"),
        ("ConfigMap", "configmaps", &json!(null), "Status"),
        ("Secret", "secrets", &json!(null), "Status"),
    ] {
        let path = format!("/api/v1/namespaces/default/{plural}");
        let object =
            json!({"kind": kind, "apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec});
        assert_eq!(server.ask("POST", &path, &object).await.code, 201, "{kind}");
        let said = server.ask("DELETE", &format!("{path}/x"), &json!(null)).await.json();
        assert_eq!(said["kind"], answer, "{kind}");
    }
}

#[tokio::test]
async fn the_oldest_kinds_leave_what_they_own_alone_unless_they_are_told_otherwise() {
    let server = Harness::start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j"}, "spec": {"template": template}});
    let path = "/apis/batch/v1/namespaces/default/jobs";
    for (options, finalizers) in [
        (json!(null), json!(["orphan"])),
        (json!({"propagationPolicy": "Background"}), json!(null)),
        (json!({"orphanDependents": false}), json!(null)),
    ] {
        let created = server.ask("POST", path, &job).await;
        assert_eq!(created.code, 201, "{}", created.json());
        let said = server.ask("DELETE", &format!("{path}/j"), &options).await.json();
        assert_eq!(said["metadata"]["finalizers"], finalizers, "{options}");
        server.ask("PATCH", &format!("{path}/j"), &json!({"metadata": {"finalizers": null}})).await;
    }
}

#[tokio::test]
async fn a_replication_controller_that_is_deleted_leaves_its_pods_unless_it_is_told_otherwise() {
    let server = Harness::start().await;
    let labels = json!({"a": "b"});
    let controller = json!({
        "kind": "ReplicationController", "apiVersion": "v1", "metadata": {"name": "r"},
        "spec": {"selector": labels, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    });
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    for (options, finalizers) in [
        (json!(null), json!(["orphan"])),
        (json!({"propagationPolicy": "Foreground"}), json!(["foregroundDeletion"])),
    ] {
        let created = server.ask("POST", path, &controller).await;
        assert_eq!(created.code, 201, "{}", created.json());
        server.ask("DELETE", &format!("{path}/r"), &options).await;
        let going = server.ask("GET", &format!("{path}/r"), &json!(null)).await.json();
        assert_eq!(going["metadata"]["finalizers"], finalizers, "{options}: {going}");
        server.ask("PATCH", &format!("{path}/r"), &json!({"metadata": {"finalizers": null}})).await;
    }
    server.ask("POST", path, &controller).await;
    let background = json!({"propagationPolicy": "Background"});
    server.ask("DELETE", &format!("{path}/r"), &background).await;
    assert_eq!(server.ask("GET", &format!("{path}/r"), &json!(null)).await.code, 404);
}

#[tokio::test]
async fn labels_and_annotations_pass_the_status_door() {
    let server = Harness::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.ask("POST", pods, &pod).await.code, 201);
    let change = json!({"metadata": {"annotations": {"seen": "yes"}, "labels": {"x": "y"}},
        "spec": {"nodeName": "n"}, "status": {"message": "hello"}});
    let said = server.ask("PATCH", &format!("{pods}/p/status"), &change).await.json();
    assert_eq!(said["metadata"]["annotations"]["seen"], "yes", "{said}");
    assert_eq!(said["metadata"]["labels"]["x"], "y");
    assert_eq!(said["status"]["message"], "hello");
    assert_eq!(said["spec"]["nodeName"], json!(null));
}

#[tokio::test]
async fn the_token_of_an_account_that_says_so_is_not_mounted() {
    let server = Harness::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "quiet"}, "automountServiceAccountToken": false});
    assert_eq!(server.ask("POST", accounts, &account).await.code, 201);
    for (name, account, mounts) in [("a", "quiet", false), ("b", "default", true)] {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
            "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}});
        let said = server.ask("POST", "/api/v1/namespaces/default/pods", &pod).await.json();
        assert_eq!(said["spec"]["volumes"].is_array(), mounts, "{account}");
    }
}
