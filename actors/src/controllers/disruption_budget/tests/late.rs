//! A disruption budget by the engine, over a registry in memory.

use super::super::super::activation::Activation;
use super::super::super::engine::shared::Shared;
use super::super::super::engine::worker::Worker;
use super::super::super::late::late;
use super::super::super::view::served;
use super::super::Reconciler;
use crate::testing::LIMIT;
use impresario_objects::{Objects, WriteOptions};
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Epoch, Fence, Key, Transaction, shard_of};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn who_takes_over_counts_no_pod_that_the_one_before_has_seen_go() {
    let registry = MemoryRegistry::default();
    registry.assign_shards(&["test".to_owned()]);
    let objects = Objects::new(Arc::new(registry.clone()));
    objects.lay_foundation("pem", 6443).await.unwrap();
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 2,
        "selector": {"matchLabels": {"app": "web"}}}});
    let (row, options) = (served("policy", "poddisruptionbudgets"), WriteOptions::default());
    let budget = objects.create(&row, "default", budget, &options).await.unwrap();
    let put = async |name: &str, goes: Option<&str>| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"},
                "deletionTimestamp": goes},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let put = Transaction::new().put(Key::new("pods", "default", name), pod.to_string());
        registry.transact(put).await.unwrap();
    };
    for name in ["a", "b", "c"] {
        put(name, None).await;
    }
    let (late, opener) = late(registry.clone(), "pods");
    let shared = Shared::start(late, "test");
    shared.mirrors.of::<Pod>().reached(1, LIMIT).await.unwrap();
    put("a", Some("2026-03-01T00:00:00Z")).await;

    let uid = budget["metadata"]["uid"].as_str().unwrap().to_owned();
    let activation = Activation {
        actor: "disruptionbudget".into(),
        namespace: "default".into(),
        name: "b".into(),
        fence: Fence { shard: shard_of(&uid), epoch: Epoch(1) },
        uid,
        since: clock::now(),
    };
    let worker: Worker<Reconciler> = Worker::new(shared, &activation);
    // It would count three. Nothing else is under way when the clock goes on.
    let looked = tokio::time::timeout(Duration::from_millis(1), worker.look_once()).await;
    assert!(looked.is_err(), "{looked:?}");
    opener.send_replace(true);
    worker.look_once().await.unwrap();
    let status = objects.get(&row, "default", "b").await.unwrap()["status"].clone();
    assert_eq!((&status["currentHealthy"], &status["disruptionsAllowed"]), (&json!(2), &json!(0)));
}
