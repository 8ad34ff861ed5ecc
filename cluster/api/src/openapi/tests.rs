use super::*;
use crate::schema::Message;
use std::collections::BTreeSet;

fn document(path: &str) -> Value {
    let rows = with_unkept(&served().resources());
    let rows: Vec<Row> = rows.into_iter().filter(|row| index_path(row) == path).collect();
    v3_document(&rows)
}

#[test]
fn every_reference_leads_somewhere() {
    for kept in documents().iter() {
        let document = v3_document(&kept.rows);
        follow(&document, &document, "#/components/schemas/");
    }
    let document = v2_document(&with_unkept(&served().resources()));
    follow(&document, &document, "#/definitions/");
}

fn follow(value: &Value, document: &Value, root: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                assert!(target.starts_with(root), "{target}");
                assert!(document.pointer(&target[1..]).is_some(), "{target} is missing");
            }
            map.values().for_each(|value| follow(value, document, root));
        }
        Value::Array(list) => list.iter().for_each(|value| follow(value, document, root)),
        _ => {}
    }
}

#[test]
fn the_index_names_every_group_version_with_a_lasting_hash() {
    let index = v3_index();
    for row in &with_unkept(&served().resources()) {
        let path = index_path(row);
        let url = index["paths"][&path]["serverRelativeURL"].as_str().unwrap();
        let body = document(&path).to_string();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", digest(body.as_bytes())));
        let document = v3(&path).unwrap();
        assert_eq!(Some(document.hash.as_str()), url.rsplit('=').next());
        assert_eq!(*document.bytes, *body.as_bytes());
        assert!(Arc::ptr_eq(&document.bytes, &v3(&path).unwrap().bytes), "it is made once");
    }
    assert!(v3("apis/nothing/v1").is_none());
    assert!(Arc::ptr_eq(&v2().bytes, &v2().bytes), "it is made once");
}

/// kubectl scans the PATCH operations for the kind, then for the parameter.
#[test]
fn kubectl_finds_field_validation_for_every_kind_that_can_be_patched() {
    for row in
        served().resources().iter().filter(|row| row.verbs.contains(&crate::resource::Verb::Patch))
    {
        let document = document(&index_path(row));
        let wanted = json!({"group": row.group, "version": row.version, "kind": row.kind});
        let found = document["paths"].as_object().unwrap().values().any(|path| {
            let patch = &path["patch"];
            let parameters = patch["parameters"].as_array();
            patch["x-kubernetes-group-version-kind"] == wanted
                && parameters
                    .into_iter()
                    .flatten()
                    .any(|parameter| parameter["name"] == "fieldValidation")
        });
        assert!(found, "{wanted}");
    }
}

#[test]
fn schemas_say_how_lists_merge_and_which_kind_they_are() {
    let document = document("api/v1");
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert!(schemas["io.k8s.api.core.v1.Volume"]["properties"]["emptyDir"].is_object());
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
}

#[test]
fn the_strategy_of_a_deployment_keeps_only_what_a_client_names() {
    // Or a client's `apply` from RollingUpdate to Recreate would leave what only the former may have.
    let document = document("apis/apps/v1");
    let schemas = &document["components"]["schemas"];
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
}

#[test]
fn the_smallest_v2_document_says_its_version() {
    assert_eq!(V2_PROTOBUF, [0x0a, 0x03, b'2', b'.', b'0']);
    assert!(!V2_PROTOBUF_TYPE.contains('@'));
}

/// Objects that leave everything out that may be.
fn sparse() -> Vec<Value> {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    // Without the account's volume, whose token lives for another time than the default.
    let pod = json!({
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "valueFrom": field("metadata.name")}],
            "livenessProbe": {"httpGet": {"port": 80}},
        }],
        "volumes": [
            {"name": "a", "configMap": {"name": "a"}},
            {"name": "b", "secret": {"secretName": "b"}},
            {"name": "c", "downwardAPI": {"items": [
                {"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        ],
    });
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
    let selecting = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let mut ends = template.clone();
    ends["spec"]["restartPolicy"] = "Never".into();
    let object = |version: &str, kind: &str, rest: Value| {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
        for (name, part) in rest.as_object().unwrap() {
            object[name] = part.clone();
        }
        object
    };
    // What a server fills in of a job it fills in when one is made of the template.
    let job = json!({"backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false, "template": ends});
    let nightly = json!({"schedule": "@daily", "jobTemplate": {"spec": job}});
    let trains = json!({"spec": {"trainer": {"template": template},
        "parameterServer": {"template": template}, "stop": {"epochs": 1}}});
    vec![
        object("v1", "Pod", json!({"spec": pod})),
        object("v1", "Secret", json!({})),
        object("v1", "Service", json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})),
        object("v1", "ReplicationController", json!({"spec": {"template": template}})),
        object("apps/v1", "ReplicaSet", json!({"spec": selecting})),
        object("apps/v1", "Deployment", json!({"spec": selecting})),
        object("apps/v1", "DaemonSet", json!({"spec": selecting})),
        object("apps/v1", "StatefulSet", json!({"spec": selecting})),
        object("batch/v1", "Job", json!({"spec": {"template": ends}})),
        object("batch/v1", "CronJob", json!({"spec": nightly})),
        object("training.impresario.dev/v1", "TrainingJob", trains),
        object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}),
        ),
        object(
            "v1",
            "PersistentVolume",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "hostPath": {"path": "/t"}}}),
        ),
        object(
            "v1",
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        object(
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}}),
        ),
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}}),
        ),
        object("scheduling.k8s.io/v1", "PriorityClass", json!({})),
        object("storage.k8s.io/v1", "CSIDriver", json!({})),
        object("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "example.com/p"})),
    ]
}

/// Each object within one, with the message that describes it.
fn walk(message: &'static Message, value: &Value, seen: &mut impl FnMut(&'static Message, &Value)) {
    seen(message, value);
    for field in message.json_fields() {
        let (Some(inner), Some(part)) = (field.message(), value.get(field.name)) else { continue };
        match part {
            Value::Array(list) => list.iter().for_each(|one| walk(inner, one, seen)),
            Value::Object(_) => walk(inner, part, seen),
            _ => {}
        }
    }
}

#[test]
fn the_defaults_that_are_published_are_those_that_admission_writes() {
    let allocator = crate::admission::RandomAllocator::default();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let context =
        crate::admission::Context { namespace: "d", user: "u", now, allocator: &allocator };
    let mut left: BTreeSet<_> = schemas::defaults().keys().copied().collect();
    assert!(left.len() > 25);
    for object in sparse() {
        let row = crate::catalog::find_object(&object).unwrap();
        let message = row.schema.message().unwrap();
        let admitted = crate::admission::admit_create(&row, object, &context).unwrap();
        walk(message, &admitted, &mut |message, value| {
            for ((of, field), default) in schemas::defaults() {
                if *of == message.name {
                    assert_eq!(value.get(*field), Some(default), "{of}.{field}");
                    left.remove(&(*of, *field));
                }
            }
        });
    }
    assert!(left.is_empty(), "no object has these: {left:?}");
    let document = document("api/v1");
    let protocol = &document["components"]["schemas"]["io.k8s.api.core.v1.ServicePort"]["properties"]
        ["protocol"];
    assert_eq!(protocol["default"], "TCP");
}
