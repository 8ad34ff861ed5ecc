//! Discovery, objects and lists as clients read them.

use crate::harness::{Harness, Shows};
use serde_json::{Value, json};

async fn config(server: &Harness, name: &str, labels: Value) {
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}, "data": {"k": name}});
    let answer = server.ask("POST", "/api/v1/namespaces/kube-public/configmaps", &body).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn discovery_is_given_in_the_form_asked_for_and_not_twice() {
    let server = Harness::start().await;
    let new =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = server.send(Shows::Admin, "GET", "/api", &[("accept", new)], "").await;
    assert_eq!(
        answer.header("content-type"),
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(answer.header("vary"), "Accept");
    assert_eq!(answer.json()["kind"], "APIGroupDiscoveryList");
    let again = [("accept", new), ("if-none-match", answer.header("etag"))];
    assert_eq!(server.send(Shows::Admin, "GET", "/api", &again, "").await.code, 304);

    assert_eq!(server.ask("GET", "/api", &json!(null)).await.json()["kind"], "APIVersions");
    assert_eq!(server.ask("GET", "/apis", &json!(null)).await.json()["kind"], "APIGroupList");
    assert_eq!(server.ask("GET", "/apis/batch", &json!(null)).await.json()["kind"], "APIGroup");
    let list = server.ask("GET", "/apis/batch/v1", &json!(null)).await.json();
    let names = list["resources"].as_array().unwrap().iter().map(|row| row["name"].as_str());
    let names: Vec<&str> = names.flatten().filter(|name| !name.contains('/')).collect();
    assert_eq!(names, ["cronjobs", "jobs"]);
    for missing in [
        "/apis/none",
        "/apis/none/v1",
        "/api/v2",
        "/nothing",
        "/api/v1/nothing",
        "/openapi/v3/apis/none/v1",
    ] {
        let answer = server.ask("GET", missing, &json!(null)).await;
        assert_eq!((answer.code, &answer.json()["kind"]), (404, &json!("Status")), "{missing}");
    }
}

#[tokio::test]
async fn every_openapi_document_of_the_index_is_there_and_kept_under_its_hash() {
    let server = Harness::start().await;
    let index = server.ask("GET", "/openapi/v3", &json!(null)).await.json();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/batch/v1"));
    for entry in paths.values() {
        let answer =
            server.ask("GET", entry["serverRelativeURL"].as_str().unwrap(), &json!(null)).await;
        assert_eq!(answer.code, 200);
        assert!(answer.header("cache-control").contains("immutable"));
        assert!(answer.json()["components"]["schemas"].is_object());
    }
    let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let old = server.send(Shows::Admin, "GET", "/openapi/v2", &[("accept", asked)], "").await;
    assert_eq!(
        old.header("content-type"),
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    assert_eq!(&old.body[..], b"\x0a\x032.0");
}

#[tokio::test]
async fn pages_of_a_list_show_one_state_whatever_happens_between_them() {
    let server = Harness::start().await;
    for name in ["a", "b", "c", "d"] {
        config(&server, name, json!({})).await;
    }
    let path = "/api/v1/namespaces/kube-public/configmaps";
    let first = server.ask("GET", &format!("{path}?limit=2"), &json!(null)).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);

    config(&server, "bb", json!({})).await;
    server.ask("DELETE", &format!("{path}/d"), &json!(null)).await;

    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest =
        server.ask("GET", &format!("{path}?limit=9&continue={token}"), &json!(null)).await.json();
    assert_eq!(names(&rest), ["c", "d", "kube-root-ca.crt"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(rest["metadata"].get("continue").is_none());

    let exact = first["metadata"]["resourceVersion"].as_str().unwrap();
    let old = format!("{path}?resourceVersion={exact}&resourceVersionMatch=Exact");
    assert_eq!(names(&server.ask("GET", &old, &json!(null)).await.json()).len(), 5);
    assert_eq!(server.ask("GET", &format!("{path}?continue=broken"), &json!(null)).await.code, 400);
    let future = server.ask("GET", &format!("{path}?resourceVersion=999999"), &json!(null)).await;
    assert_eq!(
        (future.code, &future.json()["details"]["causes"][0]["reason"]),
        (504, &json!("ResourceVersionTooLarge"))
    );
}

#[tokio::test]
async fn selectors_choose_by_label_and_field_and_unknown_ones_are_refused() {
    let server = Harness::start().await;
    config(&server, "a", json!({"tier": "web"})).await;
    config(&server, "b", json!({"tier": "db"})).await;
    let list = |query: &'static str| {
        let server = &server;
        async move { server.ask("GET", &format!("/api/v1/configmaps?{query}"), &json!(null)).await }
    };
    assert_eq!(names(&list("labelSelector=tier+in+(web,x)").await.json()), ["a"]);
    assert_eq!(names(&list("labelSelector=tier,tier!%3Dweb").await.json()), ["b"]);
    assert_eq!(names(&list("fieldSelector=metadata.name%3Db").await.json()), ["b"]);
    assert_eq!(names(&list("fieldSelector=metadata.name!%3Da,metadata.namespace%3Dkube-public&labelSelector=tier").await.json()), ["b"]);
    for (wrong, code) in [
        ("labelSelector=a+in+b", 400),
        ("fieldSelector=spec.nothing%3Dx", 400),
        ("resourceVersion=x", 422),
        ("limit=few", 400),
        ("timeoutSeconds=long&watch=1", 400),
    ] {
        let answer = list(wrong).await;
        assert_eq!((answer.code, &answer.json()["kind"]), (code, &json!("Status")), "{wrong}");
    }
    assert_eq!(names(&list("limit=-1&labelSelector=tier").await.json()), ["a", "b"]);
}

#[tokio::test]
async fn an_object_is_shown_whole_as_a_table_or_by_its_metadata() {
    let server = Harness::start().await;
    config(&server, "a", json!({})).await;
    let path = "/api/v1/namespaces/kube-public/configmaps";
    let get = |path: String, accept: &'static str| {
        let server = &server;
        async move { server.send(Shows::Admin, "GET", &path, &[("accept", accept)], "").await }
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let shown = get(format!("{path}/a"), table).await.json();
    assert_eq!((&shown["kind"], &shown["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let shown = get(format!("{path}?includeObject=None"), table).await.json();
    assert_eq!(shown["rows"].as_array().unwrap().len(), 2, "a, and what every namespace has");
    assert!(shown["rows"][0].get("object").is_none());
    let list = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let shown = get(path.into(), list).await.json();
    assert_eq!(shown["kind"], "PartialObjectMetadataList");
    assert!(shown["items"][0].get("data").is_none());
    assert_eq!(get(path.into(), "application/vnd.kubernetes.protobuf").await.code, 406);
    assert_eq!(
        get(format!("{path}/a"), "application/vnd.kubernetes.protobuf,application/json")
            .await
            .json()["kind"],
        "ConfigMap"
    );
    let yaml = get(format!("{path}/a"), "application/yaml").await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(String::from_utf8_lossy(&yaml.body).contains("apiVersion: v1"), "{:?}", yaml.body);
}

#[tokio::test]
async fn logs_are_text_and_what_has_none_says_why() {
    let server = Harness::start().await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}});
    let created = server.ask("POST", "/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(created.code, 201, "{}", created.json());
    let log = "/api/v1/namespaces/default/pods/p/log";
    let unbound = server.ask("GET", &format!("{log}?container=a"), &json!(null)).await;
    assert_eq!(
        (unbound.code, &unbound.json()["message"]),
        (400, &json!("pod p does not have a host assigned"))
    );

    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(
        server.ask("POST", "/api/v1/namespaces/default/pods/p/binding", &binding).await.code,
        201
    );
    assert_eq!(
        server.ask("POST", "/api/v1/namespaces/default/pods/p/binding", &binding).await.code,
        409
    );

    let text = server.ask("GET", &format!("{log}?container=b&tailLines=3"), &json!(null)).await;
    assert_eq!(text.body, "p/b tail=Some(3)\nsecond line\n");
    assert!(text.header("content-type").starts_with("text/plain"));
    assert_eq!(server.ask("GET", log, &json!(null)).await.code, 400);
    assert_eq!(server.ask("GET", &format!("{log}?container=c"), &json!(null)).await.code, 400);
}
