//! Server-side apply and managed fields, as clients of the REST API meet them.

use crate::harness::{Answer, Harness, Shows};
use serde_json::{Value, json};

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(server: &Harness, path: &str, query: &str, body: &Value) -> Answer {
    let apply = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{path}?{query}");
    server.send(Shows::Admin, "PATCH", &path, &apply, body.to_string()).await
}

fn config(data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": data })
}

fn deployment(containers: &Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": {
        "selector": { "matchLabels": { "a": "b" } },
        "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": containers } } } })
}

/// The fields of each manager: `NAME OPERATION DOOR`.
fn managers(object: &Value) -> Value {
    let mut managers = json!({});
    let entries = object["metadata"]["managedFields"].as_array();
    for entry in entries.map(Vec::as_slice).unwrap_or_default() {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let who = format!("{} {} {}", text("manager"), text("operation"), text("subresource"));
        assert_eq!(text("fieldsType"), "FieldsV1", "{entry}");
        managers[who.trim()] = entry["fieldsV1"].clone();
    }
    managers
}

async fn get(server: &Harness, path: &str) -> Value {
    let answer = server.ask("GET", path, &Value::Null).await;
    assert_eq!(answer.code, 200, "{path}");
    answer.json()
}

#[tokio::test]
async fn an_apply_creates_changes_conflicts_forces_and_removes() {
    let server = Harness::start().await;
    let path = &format!("{CONFIGS}/a");
    let made =
        apply(&server, path, "fieldManager=a", &config(&json!({ "x": "1", "y": "1" }))).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let made = made.json();
    assert_eq!(made["metadata"]["name"], "a");
    assert_eq!(managers(&made), json!({ "a Apply": { "f:data": { "f:x": {}, "f:y": {} } } }));
    // Another one shares a field, and has one of its own.
    let shared =
        apply(&server, path, "fieldManager=b", &config(&json!({ "x": "1", "z": "1" }))).await;
    assert_eq!(shared.code, 200);
    let refused =
        apply(&server, path, "fieldManager=c", &config(&json!({ "x": "2", "y": "2" }))).await;
    assert_eq!(refused.code, 409);
    let status = refused.json();
    assert_eq!(status["reason"], "Conflict");
    assert_eq!(
        status["message"],
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y\nconflicts with \"b\":\n- .data.x"
    );
    let causes = status["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 3);
    assert_eq!(
        causes[0],
        json!({ "reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.x" })
    );
    let untouched = get(&server, path).await;
    assert_eq!(untouched, shared.json());
    let query = "fieldManager=c&force=true";
    let forced = apply(&server, path, query, &config(&json!({ "x": "2", "y": "2" }))).await.json();
    assert_eq!(forced["data"], json!({ "x": "2", "y": "2", "z": "1" }));
    // Who has nothing left is not told.
    assert_eq!(
        managers(&forced),
        json!({ "b Apply": { "f:data": { "f:z": {} } }, "c Apply": { "f:data": { "f:x": {}, "f:y": {} } } })
    );
    let less = apply(&server, path, "fieldManager=c", &config(&json!({ "x": "2" }))).await.json();
    assert_eq!(less["data"], json!({ "x": "2", "z": "1" }));
    // The same again is no write.
    let again = apply(&server, path, "fieldManager=c", &config(&json!({ "x": "2" }))).await.json();
    assert_eq!(again, less);
}

#[tokio::test]
async fn every_writer_is_noted_by_its_name_or_its_program() {
    let server = Harness::start().await;
    let path = &format!("{CONFIGS}/a");
    let headers = [("content-type", "application/json"), ("user-agent", "maker/v1 (linux)")];
    let object = json!({ "metadata": { "name": "a", "labels": { "l": "1" } }, "data": { "x": "1", "y": "1" } });
    let made = server.send(Shows::Admin, "POST", CONFIGS, &headers, object.to_string()).await;
    let whole = json!({ "f:data": { ".": {}, "f:x": {}, "f:y": {} }, "f:metadata": { "f:labels": { ".": {}, "f:l": {} } } });
    assert_eq!(managers(&made.json()), json!({ "maker Update": whole }));
    assert_eq!(managers(&get(&server, path).await), json!({ "maker Update": whole }));
    // A list, a watch and the metadata alone tell the same; a table does not tell.
    let list = get(&server, CONFIGS).await;
    let listed =
        list["items"].as_array().unwrap().iter().find(|one| one["metadata"]["name"] == "a");
    assert_eq!(managers(listed.unwrap()), json!({ "maker Update": whole }));
    let query = format!("{CONFIGS}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Da");
    let watched = server.ask("GET", &query, &Value::Null).await;
    let line: Value =
        serde_json::from_slice(watched.body.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(managers(&line["object"]), json!({ "maker Update": whole }));
    let as_form = async |form: &str| {
        let accept = [("accept", form)];
        server.send(Shows::Admin, "GET", path, &accept, "").await.json()
    };
    let alone = as_form("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await;
    assert_eq!(managers(&alone), json!({ "maker Update": whole }));
    let table = as_form("application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "a");
    assert!(table["rows"][0]["object"]["metadata"].get("managedFields").is_none());

    let changed = server
        .ask("PATCH", &format!("{path}?fieldManager=changer"), &json!({ "data": { "y": "2" } }))
        .await;
    let rest = json!({ "f:data": { ".": {}, "f:x": {} }, "f:metadata": { "f:labels": { ".": {}, "f:l": {} } } });
    let both = json!({ "maker Update": rest, "changer Update": { "f:data": { "f:y": {} } } });
    assert_eq!(managers(&changed.json()), both);
    // Who reads, changes and puts takes what it changed, and not what it read.
    let mut object = get(&server, path).await;
    object["data"]["z"] = "3".into();
    let put = server.ask("PUT", &format!("{path}?fieldManager=putter"), &object).await.json();
    let mut three = both.clone();
    three["putter Update"] = json!({ "f:data": { "f:z": {} } });
    assert_eq!(managers(&put), three);
    // Nor does it take anything from anybody who leaves the entries out.
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .retain(|name, _| name == "name" || name == "labels");
    let put = server.ask("PUT", &format!("{path}?fieldManager=putter"), &object).await.json();
    assert_eq!(managers(&put), three);
    let long =
        server.ask("PUT", &format!("{path}?fieldManager={}", "m".repeat(129)), &object).await;
    assert_eq!(long.code, 422);
    let odd = server.ask("PUT", &format!("{path}?fieldManager=a%0Ab"), &object).await;
    assert_eq!(odd.json()["details"]["causes"][0]["field"], "fieldManager");
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_in_words() {
    let server = Harness::start().await;
    let path = &format!("{CONFIGS}/a");
    let data = json!({ "x": "1" });
    let with = |name: &str, value: Value| {
        let mut object = config(&data);
        object["metadata"] = json!({ name: value });
        object
    };
    let mut other_version = config(&data);
    other_version["apiVersion"] = "v2".into();
    let mut untyped = config(&data);
    untyped.as_object_mut().unwrap().remove("kind");
    let table = [
        (
            "",
            config(&data),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        ("fieldManager=a&force=maybe&dryRun=Some", config(&data), 422, "dryRun"),
        (
            "fieldManager=a",
            with("managedFields", json!([])),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "fieldManager=a",
            with("name", "b".into()),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            "fieldManager=a",
            with("namespace", "b".into()),
            400,
            "the namespace of the provided object does not match",
        ),
        ("fieldManager=a", with("uid", "u".into()), 409, "uid mismatch"),
        ("fieldManager=a", other_version, 400, ""),
        ("fieldManager=a", untyped, 400, "Kind"),
        ("fieldManager=a", config(&json!({ "x": 1 })), 400, "cannot unmarshal number"),
        (
            "fieldManager=a",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "dato": {} }),
            500,
            "failed to create typed patch object (default/a; v1, Kind=ConfigMap): .dato: field not declared in schema",
        ),
    ];
    for (query, body, code, words) in table {
        let answer = apply(&server, path, query, &body).await;
        let status = answer.json();
        assert_eq!(answer.code, code, "{status}");
        assert!(status["message"].as_str().unwrap().contains(words), "{status}");
    }
    assert_eq!(server.ask("GET", path, &Value::Null).await.code, 404);
    let yaml = [("content-type", "application/apply-patch+yaml")];
    let query = format!("{path}?fieldManager=a");
    let broken = server.send(Shows::Admin, "PATCH", &query, &yaml, "a: [").await;
    assert_eq!(broken.code, 400);
    assert!(
        broken.json()["message"].as_str().unwrap().starts_with("error decoding YAML"),
        "{}",
        broken.json()
    );
    let twice = "{apiVersion: v1, kind: ConfigMap, data: {x: '1', x: '2'}}";
    let strict = format!("{query}&fieldValidation=Strict");
    let refused = server.send(Shows::Admin, "PATCH", &strict, &yaml, twice).await;
    assert_eq!(refused.code, 400, "{}", refused.json());
    let taken = server.send(Shows::Admin, "PATCH", &query, &yaml, twice).await;
    assert_eq!(taken.code, 201, "{}", taken.json());
    assert!(taken.header("warning").contains("duplicate field"), "{}", taken.header("warning"));
    // Only an apply is forced, and only of what there is it is made anew.
    let forced = server.ask("PATCH", &format!("{path}?force=true"), &json!({ "data": null })).await;
    assert_eq!(forced.json()["details"]["causes"][0]["field"], "force");
    let status = "/api/v1/namespaces/default/pods/none/status";
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "status": { "message": "m" } });
    assert_eq!(apply(&server, status, "fieldManager=a", &pod).await.code, 404);
    // Who may change and not create does not create by applying.
    let nobody =
        server.send(Shows::Token(crate::harness::TOKEN), "PATCH", &query, &yaml, twice).await;
    assert_eq!(nobody.code, 403);
}

#[tokio::test]
async fn a_dry_run_and_a_version_are_kept_to() {
    let server = Harness::start().await;
    let path = &format!("{CONFIGS}/a");
    let dry =
        apply(&server, path, "fieldManager=a&dryRun=All", &config(&json!({ "x": "1" }))).await;
    assert_eq!((dry.code, &dry.json()["data"]["x"]), (201, &json!("1")));
    assert_eq!(server.ask("GET", path, &Value::Null).await.code, 404);
    let made = apply(&server, path, "fieldManager=a", &config(&json!({ "x": "1" }))).await.json();
    let dry =
        apply(&server, path, "fieldManager=a&dryRun=All", &config(&json!({ "x": "2" }))).await;
    assert_eq!((dry.code, &dry.json()["data"]["x"]), (200, &json!("2")));
    assert_eq!(get(&server, path).await, made);
    let mut at = config(&json!({ "x": "3" }));
    at["metadata"] = json!({ "resourceVersion": made["metadata"]["resourceVersion"] });
    assert_eq!(apply(&server, path, "fieldManager=a", &at).await.code, 200);
    let late = apply(&server, path, "fieldManager=a", &at).await;
    assert_eq!((late.code, &late.json()["reason"]), (409, &json!("Conflict")));
}

#[tokio::test]
async fn lists_merge_by_their_keys_and_status_and_scale_have_entries_of_their_own() {
    let server = Harness::start().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let main = json!([{ "name": "main", "image": "i:1", "ports": [{ "containerPort": 80 }] }]);
    let mut whole = deployment(&main);
    whole["spec"]["replicas"] = 2.into();
    let made = apply(&server, path, "fieldManager=a", &whole).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let side = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "template": { "spec": {
        "containers": [{ "name": "side", "image": "s:1" }] } } } });
    assert_eq!(apply(&server, path, "fieldManager=b", &side).await.code, 200);
    let names = |object: &Value| -> Vec<String> {
        let all = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let moved = apply(&server, path, "fieldManager=a", &whole).await.json();
    assert_eq!(names(&moved), ["main", "side"]);

    // The scale: a conflict, and taken over.
    let scale = format!("{path}/scale");
    let five =
        json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "spec": { "replicas": 5 } });
    let refused = apply(&server, &scale, "fieldManager=scaler", &five).await;
    assert_eq!(refused.code, 409);
    assert_eq!(refused.json()["details"]["causes"][0]["field"], ".spec.replicas");
    let scaled = apply(&server, &scale, "fieldManager=scaler&force=true", &five).await.json();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let now = get(&server, path).await;
    assert_eq!(managers(&now)["scaler Apply scale"], json!({ "f:spec": { "f:replicas": {} } }));
    assert!(managers(&now)["a Apply"]["f:spec"].get("f:replicas").is_none());
    let refused = apply(&server, path, "fieldManager=a", &whole).await;
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "conflict with \"scaler\" with subresource \"scale\""
    );
    whole["spec"].as_object_mut().unwrap().remove("replicas");
    let left = apply(&server, path, "fieldManager=a", &whole).await.json();
    assert_eq!(left["spec"]["replicas"], 5, "it is the scaler's");
    let merged = server
        .ask(
            "PATCH",
            &format!("{scale}?fieldManager=kubectl-scale"),
            &json!({ "spec": { "replicas": 6 } }),
        )
        .await;
    assert_eq!(merged.code, 200);
    let now = managers(&get(&server, path).await);
    assert_eq!(now["kubectl-scale Update scale"], json!({ "f:spec": { "f:replicas": {} } }));

    // The status: what is said of the spec there is neither done nor owned.
    let status = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "paused": true },
        "status": { "observedGeneration": 9 } });
    let told = apply(&server, &format!("{path}/status"), "fieldManager=teller", &status).await;
    assert_eq!(told.code, 200, "{}", told.json());
    let now = get(&server, path).await;
    assert_eq!(now["status"]["observedGeneration"], 9);
    assert!(now["spec"].get("paused").is_none());
    assert_eq!(
        managers(&now)["teller Apply status"],
        json!({ "f:status": { "f:observedGeneration": {} } })
    );
}

#[tokio::test]
async fn what_a_client_applied_before_is_taken_over_by_a_patch_of_the_entries() {
    let server = Harness::start().await;
    let path = &format!("{CONFIGS}/a");
    let object = json!({ "metadata": { "name": "a" }, "data": { "x": "1", "y": "1" } });
    let query = format!("{CONFIGS}?fieldManager=kubectl-client-side-apply");
    let made = server.ask("POST", &query, &object).await.json();
    // As kubectl does it: the entry becomes one of apply, if nothing has changed meanwhile.
    let mut entries = made["metadata"]["managedFields"].clone();
    entries[0]["manager"] = "kubectl".into();
    entries[0]["operation"] = "Apply".into();
    let patch = json!([
        { "op": "replace", "path": "/metadata/managedFields", "value": entries },
        { "op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"] },
    ]);
    let json = [("content-type", "application/json-patch+json")];
    let moved = server.send(Shows::Admin, "PATCH", path, &json, patch.to_string()).await;
    assert_eq!(moved.code, 200, "{}", moved.json());
    assert_eq!(
        managers(&moved.json()),
        json!({ "kubectl Apply": { "f:data": { ".": {}, "f:x": {}, "f:y": {} } } })
    );
    let late = server.send(Shows::Admin, "PATCH", path, &json, patch.to_string()).await;
    assert_eq!(late.code, 409);
    let less = apply(&server, path, "fieldManager=kubectl", &config(&json!({ "x": "2" }))).await;
    assert_eq!(less.json()["data"], json!({ "x": "2" }), "what it does not apply any more is gone");
    // Everything is given back.
    let reset = json!([{ "op": "replace", "path": "/metadata/managedFields", "value": [{}] }]);
    let reset = server.send(Shows::Admin, "PATCH", path, &json, reset.to_string()).await.json();
    assert_eq!(managers(&reset), json!({}));
    let wrong = json!([{ "op": "add", "path": "/metadata/managedFields", "value": [
        { "manager": "a", "operation": "Dance", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {} }] }]);
    let refused = server.send(Shows::Admin, "PATCH", path, &json, wrong.to_string()).await;
    assert_eq!(
        (refused.code, refused.json()["details"]["causes"][0]["field"].clone()),
        (422, json!("metadata.managedFields[0].operation"))
    );
    // From then on nobody is noted until somebody applies.
    server.ask("PATCH", path, &json!({ "data": { "q": "1" } })).await;
    assert_eq!(managers(&get(&server, path).await), json!({}));
    let first = apply(&server, path, "fieldManager=a", &config(&json!({ "x": "2" }))).await.json();
    assert_eq!(
        managers(&first),
        json!({ "before-first-apply Update": { "f:data": { ".": {}, "f:q": {}, "f:x": {} } }, "a Apply": { "f:data": { "f:x": {} } } })
    );
}
