//! Binding over the API: of the pod that is meant, once nothing holds it back.

use crate::harness::Harness;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn binding(metadata: &Value) -> Value {
    json!({"kind": "Binding", "apiVersion": "v1", "metadata": metadata,
        "target": {"kind": "Node", "name": "n1"}})
}

async fn pod(server: &Harness, name: &str, spec: Value) -> Value {
    let mut pod =
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
    pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    let created = server.ask("POST", PODS, &pod).await;
    assert_eq!(created.code, 201, "{}", created.json());
    created.json()
}

async fn node_of(server: &Harness, name: &str) -> Value {
    server.ask("GET", &format!("{PODS}/{name}"), &json!(null)).await.json()["spec"]["nodeName"]
        .clone()
}

#[tokio::test]
async fn a_pod_with_a_gate_is_bound_once_the_gate_is_gone() {
    let server = Harness::start().await;
    pod(&server, "p", json!({"schedulingGates": [{"name": "example.com/wait"}]})).await;
    let meant = binding(&json!({"name": "p"}));
    let refused = server.ask("POST", &format!("{PODS}/p/binding"), &meant).await;
    let said = refused.json();
    assert_eq!((refused.code, &said["reason"]), (409, &json!("Conflict")), "{said}");
    assert!(said["message"].as_str().unwrap().contains("schedulingGates"), "{said}");
    assert_eq!(node_of(&server, "p").await, json!(null));
    let opened = json!({"spec": {"schedulingGates": null}});
    assert_eq!(server.ask("PATCH", &format!("{PODS}/p"), &opened).await.code, 200);
    assert_eq!(server.ask("POST", &format!("{PODS}/p/binding"), &meant).await.code, 201);
    assert_eq!(node_of(&server, "p").await, "n1");
}

#[tokio::test]
async fn a_binding_leaves_its_annotations_and_labels_with_the_pod_whatever_door_it_came_by() {
    let server = Harness::start().await;
    let labelled = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.ask("POST", PODS, &labelled).await.code, 201);
    pod(&server, "q", json!({})).await;
    let notes = |name: &str| {
        json!({"name": name, "annotations": {"example.com/by": "me"},
            "labels": {"app": "other", "topology.kubernetes.io/zone": "a"}})
    };
    for (path, name) in [
        (format!("{PODS}/p/binding"), "p"),
        ("/api/v1/namespaces/default/bindings".to_owned(), "q"),
    ] {
        let bound = server.ask("POST", &path, &binding(&notes(name))).await;
        assert_eq!(bound.code, 201, "{path}: {}", bound.json());
        let pod = server.ask("GET", &format!("{PODS}/{name}"), &json!(null)).await.json();
        assert_eq!(pod["spec"]["nodeName"], "n1", "{path}");
        assert_eq!(pod["metadata"]["annotations"]["example.com/by"], "me", "{path}");
        assert_eq!(pod["metadata"]["labels"]["topology.kubernetes.io/zone"], "a", "{path}");
        let app = if name == "p" { "web" } else { "other" };
        assert_eq!(pod["metadata"]["labels"]["app"], app, "what selects the pod stays");
    }
}

#[tokio::test]
async fn a_binding_that_cannot_be_is_refused_and_leaves_the_pod_alone() {
    let server = Harness::start().await;
    pod(&server, "p", json!({})).await;
    let all = "/api/v1/namespaces/default/bindings";
    let nameless = server.ask("POST", all, &binding(&json!({}))).await;
    assert_eq!(nameless.code, 422, "{}", nameless.json());
    let elsewhere = json!({"name": "p", "namespace": "other"});
    assert_eq!(server.ask("POST", all, &binding(&elsewhere)).await.code, 400);
    let wrong = json!({"name": "p", "labels": {"a": "no value of a label"}});
    assert_eq!(server.ask("POST", all, &binding(&wrong)).await.code, 422);
    assert_eq!(server.ask("GET", all, &json!(null)).await.code, 405);
    let listed = server.ask("GET", "/api/v1", &json!(null)).await.json();
    let bindings =
        listed["resources"].as_array().unwrap().iter().find(|row| row["name"] == "bindings");
    assert_eq!(bindings.unwrap()["verbs"], json!(["create"]));
    assert_eq!(node_of(&server, "p").await, json!(null));
}

#[tokio::test]
async fn a_pod_is_bound_only_while_it_is_the_one_that_was_meant() {
    let server = Harness::start().await;
    let made = pod(&server, "p", json!({})).await;
    let (uid, seen) = (&made["metadata"]["uid"], &made["metadata"]["resourceVersion"]);
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = server.ask("PATCH", &format!("{PODS}/p"), &labelled).await.json();
    let now = &changed["metadata"]["resourceVersion"];
    assert_ne!(seen, now);
    for (metadata, word) in [
        (json!({"name": "p", "uid": "of-the-one-before"}), "UID in precondition"),
        (
            json!({"name": "p", "uid": uid, "resourceVersion": seen}),
            "ResourceVersion in precondition",
        ),
    ] {
        let refused = server.ask("POST", &format!("{PODS}/p/binding"), &binding(&metadata)).await;
        assert_eq!(refused.code, 409, "{metadata}");
        let said = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(said.contains(word), "{said}");
        assert_eq!(node_of(&server, "p").await, json!(null), "{metadata}");
    }
    let meant = binding(&json!({"name": "p", "uid": uid, "resourceVersion": now}));
    assert_eq!(server.ask("POST", &format!("{PODS}/p/binding"), &meant).await.code, 201);
    assert_eq!(node_of(&server, "p").await, "n1");
}
