//! Bad input is answered as the Kubernetes API answers it, with a cause for every wrong field, and
//! changes nothing.

use crate::manifests::{replicas, waiting_pod};
use impresario_e2e::{Answer, Proxy, Site, with_every_kubectl};
use serde_json::{Value, json};

with_every_kubectl!(
    kubectl_shows_what_is_wrong,
    every_wrong_field_is_a_cause,
    misspelt_fields_are_errors_or_warnings_as_asked,
    what_cannot_be_read_is_refused,
    what_is_refused_changes_nothing,
);

fn path(site: &Site, resource: &str) -> String {
    format!("/api/v1/namespaces/{}/{resource}", site.kubectl.namespace)
}

/// Checks the form that every refusal has.
fn refused(answer: &Answer, code: u16, reason: &str) -> Value {
    assert_eq!(answer.code, code, "{answer:?}");
    let status = answer.json();
    assert_eq!(status["kind"], "Status", "{status}");
    assert_eq!(status["apiVersion"], "v1");
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["reason"], reason, "{status}");
    assert_eq!(status["code"], code);
    assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
    status
}

fn fields(status: &Value) -> Vec<&str> {
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    causes.filter_map(|cause| cause["field"].as_str()).collect()
}

fn kubectl_shows_what_is_wrong(site: &Site) {
    let kubectl = &site.kubectl;
    let cases = [
        (
            "unknown kind",
            "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n".to_owned(),
            "no matches for kind \"Nonsense\"",
        ),
        (
            "misspelt field",
            waiting_pod("x").replace("containers:", "containerz:"),
            "unknown field \"spec.containerz\"",
        ),
        ("wrong type", replicas("x", 1).replace("replicas: 1", "replicas: many"), "replicas"),
        (
            "bad name",
            waiting_pod("x").replace("name: x,", "name: Not_A_Name,"),
            "a lowercase RFC 1123 subdomain",
        ),
        (
            "selector",
            replicas("x", 1).replace("selector: {app: x}", "selector: {app: other}"),
            "`selector` does not match template `labels`",
        ),
        (
            "negative",
            replicas("x", 1).replace("replicas: 1", "replicas: -1"),
            "must be greater than or equal to 0",
        ),
        (
            "no container",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}\n".to_owned(),
            "spec.containers",
        ),
        (
            "wrong quantity",
            waiting_pod("x")
                .replace("image: busybox,", "image: busybox, resources: {requests: {cpu: lots}},"),
            "quantit",
        ),
    ];
    for (what, manifest, complaint) in &cases {
        for command in ["create -f -", "apply -f -"] {
            let said = kubectl.feed(command, manifest).refused();
            assert!(said.contains(complaint), "{what}: {complaint:?} is not in: {said}");
        }
    }
    assert_eq!(kubectl.run("get pods,rc -o name").ok(), "");
    let warned = kubectl.feed(
        "create --validate=warn -f -",
        &waiting_pod("warned").replace("spec:\n", "spec:\n  extra: 1\n"),
    );
    assert!(warned.err.contains("unknown field \"spec.extra\""), "{warned:?}");
    warned.ok();
}

fn every_wrong_field_is_a_cause(site: &Site) {
    let proxy = Proxy::start(&site.kubectl);
    let rc = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "Bad Name"}, "spec": {
        "replicas": -1, "selector": {"app": "a"}, "template": {"metadata": {"labels": {"app": "b"}}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "UPPER"}, {"name": "fine", "image": "x"}]}}}});
    let status = refused(&proxy.post(&path(site, "replicationcontrollers"), &rc), 422, "Invalid");
    assert_eq!(status["details"]["kind"], "ReplicationController");
    assert_eq!(status["details"]["name"], "Bad Name");
    let found = fields(&status);
    for field in [
        "metadata.name",
        "spec.replicas",
        "spec.template.metadata.labels",
        "spec.template.spec.restartPolicy",
    ] {
        assert!(found.contains(&field), "{field} is not in {found:?}");
    }
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": {
        "parallelism": -1, "completions": -1, "backoffLimit": -1,
        "template": {"spec": {"restartPolicy": "Always", "containers": [{"name": "a", "image": "b"}]}}}});
    let jobs = format!("/apis/batch/v1/namespaces/{}/jobs", site.kubectl.namespace);
    let status = refused(&proxy.post(&jobs, &job), 422, "Invalid");
    let found = fields(&status);
    for field in ["spec.parallelism", "spec.completions", "spec.backoffLimit"] {
        assert!(found.contains(&field), "{field} is not in {found:?}");
    }
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "1-bad"}, "spec": {"ports": [{"port": 0}, {"port": 70000, "name": "x"}]}});
    let status = refused(&proxy.post(&path(site, "services"), &service), 422, "Invalid");
    let found = fields(&status);
    for field in ["metadata.name", "spec.ports[0].port", "spec.ports[1].port"] {
        assert!(found.contains(&field), "{field} is not in {found:?}");
    }
}

fn misspelt_fields_are_errors_or_warnings_as_asked(site: &Site) {
    let proxy = Proxy::start(&site.kubectl);
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "dataa": {"a": "b"}});
    let maps = path(site, "configmaps");
    let strict = proxy.post(&format!("{maps}?fieldValidation=Strict"), &map("strict"));
    let status = refused(&strict, 400, "BadRequest");
    assert!(status["message"].as_str().unwrap().contains("unknown field \"dataa\""), "{status}");
    let warned = proxy.post(&format!("{maps}?fieldValidation=Warn"), &map("warn"));
    assert_eq!(warned.code, 201, "{warned:?}");
    let warning = warned.headers.iter().find(|line| line.to_lowercase().starts_with("warning:"));
    assert!(
        warning.is_some_and(|line| line.contains("unknown field \\\"dataa\\\"")),
        "{:?}",
        warned.headers
    );
    let ignored = proxy.post(&format!("{maps}?fieldValidation=Ignore"), &map("ignore"));
    assert_eq!(ignored.code, 201);
    assert!(!ignored.headers.iter().any(|line| line.to_lowercase().starts_with("warning:")));
    let twice = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"twice"},"data":{"a":"1"},"data":{"b":"2"}}"#;
    let strict =
        proxy.send("POST", &format!("{maps}?fieldValidation=Strict"), "application/json", twice);
    assert!(
        refused(&strict, 400, "BadRequest")["message"]
            .as_str()
            .unwrap()
            .contains("duplicate field \"data\"")
    );
}

fn what_cannot_be_read_is_refused(site: &Site) {
    let proxy = Proxy::start(&site.kubectl);
    let maps = path(site, "configmaps");
    refused(&proxy.send("POST", &maps, "application/json", b"{not json"), 400, "BadRequest");
    refused(&proxy.send("POST", &maps, "application/json", b""), 400, "BadRequest");
    refused(&proxy.send("POST", &maps, "text/plain", b"hello"), 415, "UnsupportedMediaType");
    let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    refused(&proxy.post(&maps, &other), 400, "BadRequest");
    let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": 7}});
    refused(&proxy.post(&maps, &wrong), 400, "BadRequest");
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "other"}});
    refused(&proxy.post(&maps, &foreign), 400, "BadRequest");
    let huge = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "huge"}, "data": {"a": "x".repeat(4 << 20)}});
    refused(&proxy.post(&maps, &huge), 413, "RequestEntityTooLarge");
    let big = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat((1 << 20) + 1)}});
    refused(&proxy.post(&maps, &big), 422, "Invalid");
    refused(&proxy.get(&format!("{maps}/nosuch")), 404, "NotFound");
    refused(&proxy.get("/api/v1/nosuch"), 404, "NotFound");
    refused(&proxy.get(&format!("{maps}?labelSelector=a%3D%3D%3Db")), 400, "BadRequest");
    refused(&proxy.get(&format!("{maps}?fieldSelector=data.a%3Db")), 400, "BadRequest");
    refused(&proxy.get(&format!("{maps}?limit=1&continue=nonsense")), 400, "BadRequest");
    refused(
        &proxy.send("PUT", "/api/v1/namespaces/default/pods", "application/json", b"{}"),
        405,
        "MethodNotAllowed",
    );
    let nowhere = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    refused(&proxy.post("/api/v1/namespaces/nosuch/configmaps", &nowhere), 404, "NotFound");
}

fn what_is_refused_changes_nothing(site: &Site) {
    let kubectl = &site.kubectl;
    let proxy = Proxy::start(kubectl);
    kubectl.feed("create -f -", &replicas("app", 0)).ok();
    let item = format!("{}/app", path(site, "replicationcontrollers"));
    let before = kubectl.json("get rc app");
    let patches = [
        ("application/merge-patch+json", json!({"spec": {"replicas": -3}}), 422, "Invalid"),
        (
            "application/merge-patch+json",
            json!({"spec": {"selector": {"app": "other"}}}),
            422,
            "Invalid",
        ),
        ("application/merge-patch+json", json!({"metadata": {"name": "other"}}), 400, "BadRequest"),
        (
            "application/strategic-merge-patch+json",
            json!({"spec": {"replicas": "many"}}),
            422,
            "Invalid",
        ),
        (
            "application/json-patch+json",
            json!([{"op": "remove", "path": "/spec/nosuch"}]),
            422,
            "Invalid",
        ),
    ];
    for (type_, patch, code, reason) in patches {
        let answer = proxy.send("PATCH", &item, type_, patch.to_string().as_bytes());
        refused(&answer, code, reason);
    }
    let mut stale = before.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    let answer = proxy.send("PUT", &item, "application/json", stale.to_string().as_bytes());
    refused(&answer, 409, "Conflict");
    let after = kubectl.json("get rc app");
    // Its controller writes the status; the rest is as it was.
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
}
