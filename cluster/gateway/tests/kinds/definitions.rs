//! Kinds that users define, as their clients meet them.

use crate::defining::{Cluster, DEFINITIONS, LIMIT, crontab, crontabs, said};
use crate::harness::Shows;
use crate::lines::Lines;
use crate::watch;
use impresario_api::catalog::find;
use impresario_objects::{Door, Objects, WriteOptions};
use serde_json::{Value, json};

#[tokio::test]
async fn a_kind_that_is_defined_is_served_by_its_definition() {
    let (cluster, group) = (Cluster::start().await, "stable.example.com");
    let defined = cluster.define(&crontabs(group), "Established", "True").await;
    assert_eq!(said(&defined, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(said(&defined, "Established")["reason"], "InitialNamesAccepted");
    assert_eq!(defined["status"]["acceptedNames"], defined["spec"]["names"]);
    assert_eq!(defined["status"]["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    let path = format!("/apis/{group}/v1/namespaces/default/crontabs");
    let one = format!("{path}/a");

    // Defaulted and pruned.
    let spec = json!({"cronSpec": "* * * * */5", "weight": 2});
    let made = cluster.ask("POST", &path, crontab("a", spec)).await;
    assert_eq!(made.code, 201, "{}", made.json());
    assert_eq!(made.json()["spec"], json!({"cronSpec": "* * * * */5", "replicas": 1}));
    assert!(made.header("warning").contains("unknown field"), "{}", made.header("warning"));

    // Validated by the schema, and by its rules.
    for (spec, field) in [
        (json!({}), "spec.cronSpec"),
        (json!({"cronSpec": "never"}), "spec.cronSpec"),
        (json!({"cronSpec": "*", "replicas": 11}), "spec.replicas"),
        (json!({"cronSpec": "*", "replicas": "two"}), "spec.replicas"),
    ] {
        let wrong = cluster.ask("POST", &path, crontab("b", spec.clone())).await;
        assert_eq!(wrong.code, 422, "{spec}");
        assert_eq!(wrong.json()["details"]["causes"][0]["field"], field, "{}", wrong.json());
    }
    let patch = |replicas: i64| json!({"spec": {"replicas": replicas}});
    assert_eq!(cluster.ask("PATCH", &one, patch(4)).await.code, 200);
    let shrunk = cluster.ask("PATCH", &one, patch(3)).await;
    assert_eq!(shrunk.code, 422);
    let message = shrunk.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("replicas may not shrink"), "{message}");

    // Status and scale.
    let status =
        json!({"spec": {"replicas": 9}, "status": {"replicas": 4, "labelSelector": "app=a"}});
    let told = cluster.ask("PATCH", &format!("{one}/status"), status).await.json();
    assert_eq!((&told["spec"]["replicas"], &told["status"]["replicas"]), (&json!(4), &json!(4)));
    let scale = cluster.get(&format!("{one}/scale")).await;
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["status"], json!({"replicas": 4, "selector": "app=a"}));
    let scaled = cluster.ask("PATCH", &format!("{one}/scale"), patch(5)).await.json();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let refused = cluster.ask("PATCH", &format!("{one}/scale"), patch(2)).await;
    assert_eq!(refused.code, 422, "the rules hold for this door too");
    let now = cluster.get(&one).await;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(5), &json!(3)));

    // Columns, selectors, discovery and OpenAPI.
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = cluster.server.send(Shows::Admin, "GET", &path, &table, "").await.json();
    let headings: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(headings, ["Name", "Spec", "Replicas"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "* * * * */5", 5]));
    let selected = |value: &str| format!("{path}?fieldSelector=spec.cronSpec%3D{value}");
    assert_eq!(cluster.get(&selected("x")).await["items"], json!([]));
    let listed = cluster.get(&path).await;
    assert_eq!(
        (&listed["kind"], listed["items"].as_array().unwrap().len()),
        (&json!("CronTabList"), 1)
    );
    let resources = cluster.get(&format!("/apis/{group}/v1")).await;
    let names: Vec<_> =
        resources["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["ct"]));
    for (path, at) in [
        (
            format!("/openapi/v3/apis/{group}/v1"),
            "/components/schemas/com.example.stable.v1.CronTab",
        ),
        ("/openapi/v2".to_owned(), "/definitions/com.example.stable.v1.CronTab"),
    ] {
        let document = cluster.get(&path).await;
        let schema = document.pointer(at).unwrap_or_else(|| panic!("{path} has no {at}"));
        assert_eq!(schema["properties"]["spec"]["properties"]["cronSpec"]["description"], "When.");
        let image = &schema["properties"]["spec"]["properties"]["image"];
        assert_eq!(image.get("nullable").is_some(), path.contains("v3"), "{path}");
    }
}

#[tokio::test]
async fn with_a_definition_go_its_objects_and_all_who_follow_them() {
    let (cluster, group) = (Cluster::start().await, "ending.example.com");
    cluster.define(&crontabs(group), "Established", "True").await;
    let path = format!("/apis/{group}/v1/namespaces/default/crontabs");
    let (definition, held) = (format!("{DEFINITIONS}/crontabs.{group}"), format!("{path}/held"));
    let spec = || json!({"cronSpec": "*"});
    assert_eq!(cluster.ask("POST", &path, crontab("a", spec())).await.code, 201);
    let mut holds = crontab("held", spec());
    holds["metadata"]["finalizers"] = json!(["example.com/holds"]);
    assert_eq!(cluster.ask("POST", &path, holds).await.code, 201);
    let mut lines = watch(&cluster.server, &path).await;
    for _ in 0..2 {
        assert_eq!(lines.next().await.unwrap()["type"], "ADDED");
    }

    assert_eq!(cluster.ask("DELETE", &definition, Value::Null).await.code, 200);
    // One goes, one waits for who holds it, and nothing comes.
    let mut changes = [lines.next().await.unwrap(), lines.next().await.unwrap()];
    changes.sort_by_key(|line| line["object"]["metadata"]["name"].to_string());
    let changed: Vec<_> =
        changes.iter().map(|line| (&line["type"], &line["object"]["metadata"]["name"])).collect();
    assert_eq!(changed, [(&json!("DELETED"), &json!("a")), (&json!("MODIFIED"), &json!("held"))]);
    let name = format!("crontabs.{group}");
    let goes = cluster
        .until(&name, |now| said(now, "Terminating")["message"].to_string().contains("finalizers"))
        .await;
    assert_eq!(said(&goes, "Terminating")["reason"], "InstanceDeletionInProgress");
    let refused = cluster.ask("POST", &path, crontab("b", spec())).await;
    assert_eq!(refused.code, 405, "{}", refused.json());
    assert!(refused.json()["message"].as_str().unwrap().contains("is terminating"));

    let mut ends = Lines::of(
        &cluster.server,
        &format!("{DEFINITIONS}?fieldSelector=metadata.name%3D{name}&watch=true"),
        "application/json",
    )
    .await;
    assert_eq!(ends.next().await.unwrap()["type"], "ADDED");
    let free = json!({"metadata": {"finalizers": null}});
    assert_eq!(cluster.ask("PATCH", &held, free).await.code, 200);
    assert_eq!(lines.next().await.unwrap()["type"], "DELETED");
    while ends.next().await.unwrap()["type"] != "DELETED" {}
    let end = lines.next().await.expect("the end is told");
    assert_eq!((&end["type"], &end["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(cluster.ask("GET", &path, Value::Null).await.code, 404);
    assert_eq!(cluster.ask("GET", &format!("/apis/{group}/v1"), Value::Null).await.code, 404);

    // Another of its name begins empty.
    cluster.define(&crontabs(group), "Established", "True").await;
    assert_eq!(cluster.get(&path).await["items"], json!([]));
}

#[tokio::test]
async fn a_strict_patch_is_not_refused_for_fields_that_left_the_schema_and_lay_in_the_object() {
    let (cluster, group) = (Cluster::start().await, "strict.example.com");
    let mut definition = crontabs(group);
    let weight = json!({"type": "integer"});
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    definition.pointer_mut(properties).unwrap()["weight"] = weight;
    let name = format!("crontabs.{group}");
    cluster.define(&definition, "Established", "True").await;
    let path = format!("/apis/{group}/v1/namespaces/default/crontabs");
    let one = format!("{path}/a?fieldValidation=Strict");
    let made = crontab("a", json!({"cronSpec": "*", "weight": 2}));
    assert_eq!(cluster.ask("POST", &path, made).await.code, 201);
    let without = json!([{"op": "remove", "path": format!("{properties}/weight")}]);
    let headers = [("content-type", "application/json-patch+json")];
    let at = format!("{DEFINITIONS}/{name}");
    let without = without.to_string();
    let changed = cluster.server.send(Shows::Admin, "PATCH", &at, &headers, without).await;
    assert_eq!(changed.code, 200, "{}", changed.json());
    let patch = |spec: Value| json!({"spec": spec});
    // Until it is served without.
    let refused = loop {
        let refused = cluster.ask("PATCH", &one, patch(json!({"weight": 3}))).await;
        if !matches!(refused.code, 200 | 503) {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.code, 422, "{}", refused.json());
    let message = refused.json()["message"].to_string();
    assert!(message.contains("unknown field \\\"spec.weight"), "{message}");
    let patched = cluster.ask("PATCH", &one, patch(json!({"replicas": 4}))).await;
    assert_eq!(patched.code, 200, "{}", patched.json());
    assert_eq!(patched.json()["spec"], json!({"cronSpec": "*", "replicas": 4}));
}

#[tokio::test]
async fn of_two_that_want_one_name_the_second_waits_for_the_first_to_go() {
    let (cluster, group) = (Cluster::start().await, "names.example.com");
    cluster.define(&crontabs(group), "Established", "True").await;
    let mut second = crontabs(group);
    second["metadata"]["name"] = json!(format!("others.{group}"));
    second["spec"]["names"] = json!({"plural": "others", "singular": "other", "kind": "CronTab"});
    let refused = cluster.define(&second, "NamesAccepted", "False").await;
    assert_eq!(said(&refused, "NamesAccepted")["reason"], "KindConflict");
    assert_eq!(said(&refused, "Established")["status"], "False");
    let others = format!("/apis/{group}/v1/namespaces/default/others");
    assert_eq!(cluster.ask("GET", &others, Value::Null).await.code, 404);
    let first = format!("{DEFINITIONS}/crontabs.{group}");
    assert_eq!(cluster.ask("DELETE", &first, Value::Null).await.code, 200);
    let name = format!("others.{group}");
    cluster.until(&name, |now| said(now, "Established")["status"] == "True").await;
    assert_eq!(cluster.get(&others).await["kind"], "CronTabList");
}

#[tokio::test]
async fn a_definition_that_changes_is_served_as_it_is_now() {
    let (cluster, group) = (Cluster::start().await, "changing.example.com");
    let mut definition = crontabs(group);
    cluster.define(&definition, "Established", "True").await;
    let path = format!("/apis/{group}/v1/namespaces/default/crontabs");
    let mut lines = watch(&cluster.server, &path).await;
    let before = find(group, "v1", "crontabs").unwrap();
    let version = &mut definition["spec"]["versions"][0];
    version["additionalPrinterColumns"] = json!([]);
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["weight"] =
        json!({"type": "integer"});
    let patch = json!({"spec": definition["spec"]});
    let changed = cluster.ask("PATCH", &format!("{DEFINITIONS}/crontabs.{group}"), patch).await;
    assert_eq!((changed.code, &changed.json()["metadata"]["generation"]), (200, &json!(2)));
    // It is served some moments later: who asks too early is not wrong, only early.
    let columns = async || {
        let form = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let table = cluster.server.send(Shows::Admin, "GET", &path, &form, "").await.json();
        table["columnDefinitions"].as_array().map_or(0, Vec::len)
    };
    tokio::time::timeout(LIMIT, async {
        while columns().await != 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the new columns");
    let spec = json!({"cronSpec": "*", "weight": 7});
    let made = cluster.ask("POST", &path, crontab("a", spec)).await.json();
    assert_eq!(made["spec"]["weight"], 7);
    assert_eq!(lines.next().await.unwrap()["object"]["spec"]["weight"], 7, "who follows goes on");

    // Who still has the kind as it was knows no weight, and takes none away.
    let objects = Objects::new(cluster.server.registry.clone());
    let relabel = |old: &Value| {
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"tier": "db"});
        Ok(new)
    };
    let write = WriteOptions::default();
    let late = objects.modify(&before, Door::Main, "default", "a", &write, relabel).await;
    assert_eq!(late.unwrap_err().code(), 503);
    let late = objects.create(&before, "default", crontab("b", json!({"cronSpec": "*"})), &write);
    assert_eq!(late.await.unwrap_err().code(), 503);
    let now = find(group, "v1", "crontabs").unwrap();
    let done = objects.modify(&now, Door::Main, "default", "a", &write, relabel).await.unwrap();
    assert_eq!(
        (&done["spec"]["weight"], &done["metadata"]["labels"]["tier"]),
        (&json!(7), &json!("db"))
    );
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_when_it_is_defined() {
    let cluster = Cluster::start().await;
    let mut several = crontabs("several.example.com");
    let mut second = several["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    several["spec"]["versions"].as_array_mut().unwrap().push(second);
    let own = crontabs("impresario.dev");
    for (definition, why) in [
        (several, "several served versions are not supported yet"),
        (own, "belongs to Impresario itself"),
    ] {
        let refused = cluster.ask("POST", DEFINITIONS, definition).await;
        assert_eq!(refused.code, 422);
        assert!(refused.json()["message"].as_str().unwrap().contains(why), "{}", refused.json());
    }
}

#[tokio::test]
async fn kubectl_of_three_generations_uses_a_kind_that_is_defined() {
    for version in ["1.27", "1.30", "1.33"] {
        let cluster = Cluster::start().await;
        let group = format!("kubectl-{}.example.com", version.replace('.', "-"));
        let kubectl = cluster.server.kubectl(version);
        let file = |name: &str, object: &Value| kubectl.manifest(name, &object.to_string());
        let mut definition = crontabs(&group);
        let (crd, one) = (format!("crd/crontabs.{group}"), format!("crontabs.{group}/a"));
        kubectl.good(&["apply", "-f", &file("definition.json", &definition)]).await;
        kubectl.good(&["wait", "--for=condition=Established", &crd, "--timeout=60s"]).await;
        let object = |spec: Value| {
            let head = json!({"apiVersion": format!("{group}/v1"), "kind": "CronTab"});
            let mut object = crontab("a", spec);
            object.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
            object
        };
        let spec = json!({"cronSpec": "* * * * */5"});
        kubectl.good(&["apply", "-f", &file("object.json", &object(spec))]).await;
        kubectl.good(&["scale", &one, "--replicas=3"]).await;
        let shrunk = kubectl.run(&["scale", &one, "--replicas=2"]).await;
        assert!(!shrunk.ok && shrunk.err.contains("replicas may not shrink"), "{}", shrunk.err);
        let table = kubectl.good(&["get", &format!("crontabs.{group}")]).await;
        assert!(table.contains("SPEC") && table.contains("* * * * */5"), "{table}");
        let api_version = format!("--api-version={group}/v1");
        let told = kubectl.good(&["explain", "crontabs", &api_version, "--recursive"]).await;
        assert!(told.contains("cronSpec"), "{told}");
        // Applied again, changed: the lists of a definition are replaced as a whole.
        definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
            {"name": "Copies", "type": "integer", "jsonPath": ".spec.replicas"},
        ]);
        kubectl.good(&["apply", "-f", &file("definition.json", &definition)]).await;
        let now = cluster.get(&format!("{DEFINITIONS}/crontabs.{group}")).await;
        let columns = &now["spec"]["versions"][0]["additionalPrinterColumns"];
        assert_eq!(columns.as_array().unwrap().len(), 1, "{columns}");
        let listed = kubectl.good(&["get", "crd"]).await;
        assert!(listed.contains("CREATED AT"), "{listed}");
        kubectl.good(&["delete", &crd, "--timeout=60s"]).await;
        let gone = kubectl.run(&["get", &crd]).await;
        assert!(!gone.ok && gone.err.contains("not found"), "{}", gone.err);
    }
}

#[tokio::test]
async fn objects_of_a_defined_kind_are_applied_by_the_list_types_of_its_schema() {
    let (cluster, group) = (Cluster::start().await, "applied.example.com");
    let mut definition = crontabs(group);
    let properties = definition
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .unwrap();
    properties["steps"] = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
        "items": { "type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"}, "port": {"type": "integer", "default": 80}, "run": {"type": "string"} } },
    });
    properties["tags"] =
        json!({ "type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"} });
    properties["whole"] = json!({ "type": "object", "x-kubernetes-map-type": "atomic",
        "additionalProperties": {"type": "string"} });
    properties["free"] = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    cluster.define(&definition, "Established", "True").await;
    let path = format!("/apis/{group}/v1/namespaces/default/crontabs/a");
    let apply = async |query: &str, spec: Value| {
        let mut object = crontab("a", spec);
        object["apiVersion"] = format!("{group}/v1").into();
        object["kind"] = "CronTab".into();
        let headers = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{path}?{query}");
        cluster.server.send(Shows::Admin, "PATCH", &path, &headers, object.to_string()).await
    };
    let first = json!({ "cronSpec": "*", "steps": [{"name": "x", "run": "1"}], "tags": ["a", "b"],
        "whole": {"k": "1"}, "free": {"any": {"thing": 1}} });
    let made = apply("fieldManager=one", first.clone()).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let made = made.json();
    assert_eq!(made["spec"]["steps"], json!([{"name": "x", "port": 80, "run": "1"}]));
    let owned = json!({ "f:spec": {
        "f:cronSpec": {},
        "f:steps": { "k:{\"name\":\"x\",\"port\":80}": { ".": {}, "f:name": {}, "f:run": {} } },
        "f:tags": { "v:\"a\"": {}, "v:\"b\"": {} },
        "f:whole": {},
        "f:free": { "f:any": { ".": {}, "f:thing": {} } },
    } });
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], owned);
    let second = json!({ "steps": [{"name": "y", "run": "2"}], "tags": ["b", "c"] });
    let both = apply("fieldManager=two", second).await.json();
    assert_eq!(both["spec"]["tags"], json!(["a", "b", "c"]));
    assert_eq!(both["spec"]["steps"].as_array().unwrap().len(), 2);
    let refused = apply(
        "fieldManager=two",
        json!({ "whole": {"k": "2"}, "steps": [{"name": "x", "run": "2"}] }),
    )
    .await;
    assert_eq!(refused.code, 409);
    let refused = refused.json();
    let mut fields: Vec<_> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["field"].clone())
        .collect();
    fields.sort_by_key(ToString::to_string);
    assert_eq!(fields, [json!(".spec.steps[name=\"x\",port=80].run"), json!(".spec.whole")]);
    // What one no longer applies goes where the other does not apply it.
    let less = json!({ "cronSpec": "*", "tags": ["a"] });
    let left = apply("fieldManager=one", less).await.json();
    assert_eq!(left["spec"]["tags"], json!(["a", "b", "c"]));
    assert_eq!(left["spec"]["steps"], json!([{"name": "y", "port": 80, "run": "2"}]));
    assert!(left["spec"].get("whole").is_none());
    let unknown = apply("fieldManager=one", json!({ "cronSpec": "*", "weight": 2 })).await;
    assert_eq!(unknown.code, 500);
    assert!(
        unknown.json()["message"]
            .as_str()
            .unwrap()
            .ends_with(".spec.weight: field not declared in schema")
    );
    // The status alone is taken through its door.
    let status = json!({ "apiVersion": format!("{group}/v1"), "kind": "CronTab", "spec": { "cronSpec": "5" },
        "metadata": { "labels": { "l": "1" } }, "status": { "replicas": 3 } });
    let headers = [("content-type", "application/apply-patch+yaml")];
    let door = format!("{path}/status?fieldManager=teller");
    let told =
        cluster.server.send(Shows::Admin, "PATCH", &door, &headers, status.to_string()).await;
    assert_eq!(told.code, 200, "{}", told.json());
    let told = told.json();
    assert_eq!((&told["status"]["replicas"], &told["spec"]["cronSpec"]), (&json!(3), &json!("*")));
    let entries = told["metadata"]["managedFields"].as_array().unwrap();
    let teller = entries.iter().find(|entry| entry["manager"] == "teller").unwrap();
    assert_eq!(
        (&teller["subresource"], &teller["fieldsV1"]),
        (&json!("status"), &json!({ "f:status": { "f:replicas": {} } }))
    );
}
