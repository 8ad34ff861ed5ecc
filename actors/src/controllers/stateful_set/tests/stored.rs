//! A stateful set by the engine, over a registry in memory.

use super::super::super::activation::Activation;
use super::super::super::engine::shared::Shared;
use super::super::super::engine::worker::Worker;
use super::super::super::view::served;
use super::super::Reconciler;
use crate::testing::LIMIT;
use impresario_objects::{Door, ListQuery, Objects, WriteOptions};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{Epoch, Fence, shard_of};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn pods_that_the_api_takes_come_one_after_the_other_with_names_of_their_own() {
    let registry = MemoryRegistry::default();
    registry.assign_shards(&["test".to_owned()]);
    let objects = Objects::new(Arc::new(registry));
    objects.lay_foundation("pem", 6443).await.unwrap();
    let labels = json!({"app": "db"});
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "peers",
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (row, options) = (served("apps", "statefulsets"), WriteOptions::default());
    let made = objects.create(&row, "default", set, &options).await.unwrap();
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let activation = Activation {
        actor: "statefulset".into(),
        namespace: "default".into(),
        name: "db".into(),
        fence: Fence { shard: shard_of(&uid), epoch: Epoch(1) },
        uid,
        since: clock::now(),
    };
    let shared = Shared::start(objects.clone(), "test");
    let worker: Worker<Reconciler> = Worker::new(shared.clone(), &activation);
    let query = ListQuery { namespace: Some("default".into()), ..ListQuery::default() };
    let pods = async || objects.list(&served("", "pods"), &query).await.unwrap().items;
    let status =
        async || -> Value { objects.get(&row, "default", "db").await.unwrap()["status"].clone() };
    for _ in 0..4 {
        worker.look_once().await.unwrap();
    }
    let there = pods().await;
    let [pod] = there.as_slice() else { panic!("{there:#?}") };
    assert_eq!(
        (&pod["metadata"]["name"], &pod["spec"]["hostname"]),
        (&json!("db-0"), &json!("db-0"))
    );
    assert_eq!(status().await["replicas"], 1);

    let ready = |old: &Value| {
        let mut pod = old.clone();
        pod["status"]["phase"] = "Running".into();
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        Ok(pod)
    };
    let row_of_pods = served("", "pods");
    let written = objects
        .modify(&row_of_pods, Door::Status, "default", "db-0", &options, ready)
        .await
        .unwrap();
    let revision = written["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    shared.mirrors.of::<Pod>().reached(revision, LIMIT).await.unwrap();
    for _ in 0..2 {
        worker.look_once().await.unwrap();
    }
    let names: Vec<String> = pods()
        .await
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["db-0", "db-1"]);
    let status = status().await;
    assert_eq!((&status["readyReplicas"], &status["observedGeneration"]), (&json!(1), &json!(1)));
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}
