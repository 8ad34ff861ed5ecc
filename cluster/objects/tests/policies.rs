//! Priority classes, limit ranges and pod security levels, at the door.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use impresario_api::catalog::find;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_objects::{DeleteOptions, Door, Objects, WriteOptions};
use impresario_registry::MemoryRegistry;
use serde_json::{Value, json};
use std::sync::Arc;

fn core(plural: &str) -> Row {
    find("", "v1", plural).unwrap()
}

fn classes() -> Row {
    find("scheduling.k8s.io", "v1", "priorityclasses").unwrap()
}

async fn objects() -> Objects {
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    objects.lay_foundation("authority", 6443).await.unwrap();
    objects
}

async fn create(objects: &Objects, kind: &Row, object: Value) -> Result<Value, Status> {
    objects.create(kind, "default", object, &WriteOptions::default()).await
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod =
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key.as_str()] = value.clone();
    }
    pod
}

fn class(name: &str, value: i64, is_default: bool) -> Value {
    json!({"metadata": {"name": name}, "value": value, "globalDefault": is_default})
}

#[tokio::test]
async fn a_pod_has_the_priority_of_its_class_and_of_the_default_one_where_it_names_none() {
    let (objects, pods) = (objects().await, &core("pods"));
    let priority = async |name: &str, spec: Value| {
        let pod = create(&objects, pods, pod(name, spec)).await?;
        Ok::<_, Status>((pod["spec"]["priority"].clone(), pod["spec"]["priorityClassName"].clone()))
    };
    assert_eq!(priority("a", json!({})).await.unwrap(), (json!(0), Value::Null));
    let critical = json!({"priorityClassName": "system-node-critical"});
    assert_eq!(priority("b", critical).await.unwrap().0, 2_000_001_000);
    let batch = || json!({"priorityClassName": "batch"});
    let refused = priority("c", batch()).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"c\" is forbidden: no PriorityClass with name batch was found"
    );
    create(&objects, &classes(), class("batch", -10, true)).await.unwrap();
    assert_eq!(priority("c", batch()).await.unwrap().0, -10);
    assert_eq!(priority("d", json!({})).await.unwrap(), (json!(-10), json!("batch")));
    let said = priority("e", json!({"priority": 5})).await.unwrap_err();
    assert_eq!(said.code(), 403, "{said}");
}

#[tokio::test]
async fn one_class_at_most_is_the_default_and_those_of_the_system_stay() {
    let objects = objects().await;
    let (kind, write) = (&classes(), WriteOptions::default());
    let at_once = futures_util::future::join_all(
        ["a", "b", "c"].map(|name| create(&objects, kind, class(name, 1, true))),
    );
    let made: Vec<_> = at_once.await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    let first = made.iter().flatten().next().unwrap()["metadata"]["name"].as_str().unwrap();
    for refused in made.iter().filter_map(|made| made.as_ref().err()) {
        let why = format!(
            "PriorityClass {first} is already marked as default. Only one default can exist"
        );
        assert!(refused.message.ends_with(&why), "{refused}");
        assert_eq!(refused.code(), 403);
    }
    // Another may be it when this one is it no more.
    create(&objects, kind, class("other", 2, false)).await.unwrap();
    let mark = async |name: &str, is_default: bool| {
        let change = |old: &Value| {
            let mut class = old.clone();
            class["globalDefault"] = is_default.into();
            Ok(class)
        };
        objects.modify(kind, Door::Main, "", name, &write, change).await
    };
    assert_eq!(mark("other", true).await.unwrap_err().code(), 403);
    mark(first, false).await.unwrap();
    mark("other", true).await.unwrap();
    let delete = DeleteOptions::default();
    objects.delete(kind, "", "other", &delete, &write).await.unwrap();
    mark(first, true).await.unwrap();
    let kept = objects.delete(kind, "", "system-node-critical", &delete, &write).await.unwrap_err();
    assert_eq!(kept.code(), 403, "{kept}");
    let changed = objects
        .modify(kind, Door::Main, "", first, &write, |old| {
            let mut class = old.clone();
            class["value"] = 7.into();
            Ok(class)
        })
        .await;
    assert_eq!(changed.unwrap_err().code(), 422);
}

#[tokio::test]
async fn limit_ranges_of_the_namespace_give_and_bound() {
    let (objects, pods) = (objects().await, &core("pods"));
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"},
            "defaultRequest": {"cpu": "250m"}},
        {"type": "Pod", "max": {"memory": "1Gi"}}]}});
    create(&objects, &core("limitranges"), range).await.unwrap();
    let asking = |limits: Value| json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": limits}}]});
    let made = create(&objects, pods, pod("a", asking(json!({"memory": "1Gi"})))).await.unwrap();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(resources["requests"], json!({"cpu": "250m", "memory": "1Gi"}));
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let told = &made["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert_eq!(
        told,
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let large = asking(json!({"cpu": "2", "memory": "2Gi"}));
    let refused = create(&objects, pods, pod("b", large)).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"b\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Pod \
         is 1Gi, but limit is 2Gi]"
    );
    // A template is not bounded, only the pods that are made of it.
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": asking(json!({"cpu": "2"}))}}});
    create(&objects, &core("replicationcontrollers"), set).await.unwrap();
}

async fn labelled(objects: &Objects, labels: Value) -> Result<Vec<String>, Status> {
    let (namespaces, write) = (core("namespaces"), WriteOptions::default());
    let before = objects.before(&namespaces, "default").await;
    let change = |old: &Value| {
        let mut namespace = old.clone();
        for (key, value) in labels.as_object().unwrap() {
            namespace["metadata"]["labels"][format!("pod-security.kubernetes.io/{key}")] =
                value.clone();
        }
        Ok(namespace)
    };
    let now = objects.modify(&namespaces, Door::Main, "", "default", &write, change).await?;
    Ok(objects.warnings(&namespaces, "", before.as_ref(), &now).await)
}

#[tokio::test]
async fn a_level_refuses_pods_tells_of_templates_and_of_pods_that_are_there() {
    let (objects, pods) = (objects().await, &core("pods"));
    create(&objects, pods, pod("there", json!({"hostNetwork": true}))).await.unwrap();
    let wrong = labelled(&objects, json!({"enforce": "strict"})).await.unwrap_err();
    assert_eq!(wrong.code(), 422, "{wrong}");
    let told =
        labelled(&objects, json!({"enforce": "baseline", "warn": "restricted"})).await.unwrap();
    assert_eq!(
        told,
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "there: host namespaces",
        ]
    );
    assert!(labelled(&objects, json!({"audit": "baseline"})).await.unwrap().is_empty());
    let refused = create(&objects, pods, pod("a", json!({"hostPID": true}))).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
    let made = create(&objects, pods, pod("a", json!({}))).await.unwrap();
    let told = objects.warnings(pods, "default", None, &made).await;
    assert!(
        told[0].starts_with(
            "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"
        )
    );
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": pod("", json!({"hostPID": true}))["spec"]});
    let set =
        json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "template": template}});
    let sets = core("replicationcontrollers");
    let made = create(&objects, &sets, set).await.unwrap();
    let told = objects.warnings(&sets, "default", None, &made).await;
    assert!(told[0].contains("host namespaces (hostPID=true)"), "{told:?}");
}

#[tokio::test]
async fn a_claim_that_names_no_class_gets_the_newest_default_one_and_grows_where_its_class_says_so()
{
    let (objects, claims) = (objects().await, &core("persistentvolumeclaims"));
    let classes = &find("storage.k8s.io", "v1", "storageclasses").unwrap();
    let write = WriteOptions::default();
    let claim = |name: &str, class: Option<&str>| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let made = create(&objects, claims, claim("a", None)).await.unwrap();
    assert_eq!(made["spec"]["storageClassName"], "local");
    let made = create(&objects, claims, claim("b", Some(""))).await.unwrap();
    assert_eq!(made["spec"]["storageClassName"], "");
    let not = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "false"}}});
    let unmark = |old: &Value| Ok(impresario_api::patch::merge_patch(old, &not).unwrap());
    objects.modify(classes, Door::Main, "", "local", &write, unmark).await.unwrap();
    let made = create(&objects, claims, claim("c", None)).await.unwrap();
    assert!(made["spec"].get("storageClassName").is_none());
    // The foundation is laid again at each start: what somebody has decided stays.
    objects.lay_foundation("authority", 6443).await.unwrap();
    assert!(
        create(&objects, claims, claim("d", None)).await.unwrap()["spec"]
            .get("storageClassName")
            .is_none()
    );

    let grown = async |name: &str| {
        let bound = |old: &Value| {
            let mut new = old.clone();
            new["status"]["phase"] = "Bound".into();
            Ok(new)
        };
        objects.modify(claims, Door::Status, "default", name, &write, bound).await.unwrap();
        let more = |old: &Value| {
            let mut new = old.clone();
            new["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
            Ok(new)
        };
        objects.modify(claims, Door::Main, "default", name, &write, more).await
    };
    assert_eq!(grown("a").await.unwrap()["spec"]["resources"]["requests"]["storage"], "2Gi");
    let refused = grown("b").await.unwrap_err();
    assert!(
        refused.code() == 403 && refused.message.contains("only dynamically provisioned"),
        "{refused}"
    );
}
