//! A daemon set by the engine, over a registry in memory.

use super::super::super::activation::Activation;
use super::super::super::engine::shared::Shared;
use super::super::super::engine::worker::Worker;
use super::super::super::late::late;
use super::super::super::view::served;
use super::super::Reconciler;
use futures_util::FutureExt as _;
use impresario_objects::{Objects, WriteOptions};
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Epoch, Fence, Key, ListRequest, Selection, Transaction, shard_of};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn no_second_revision_is_made_while_no_mirror_shows_the_first_and_pods_wait_for_it() {
    let registry = MemoryRegistry::default();
    registry.assign_shards(&["test".to_owned()]);
    let objects = Objects::new(Arc::new(registry.clone()));
    objects.lay_foundation("pem", 6443).await.unwrap();
    let labels = json!({"app": "agent"});
    let set = json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let options = WriteOptions::default();
    let set =
        objects.create(&served("apps", "daemonsets"), "default", set, &options).await.unwrap();
    let node = json!({"metadata": {"name": "n0", "uid": "n0"}, "spec": {}}).to_string();
    registry.transact(Transaction::create(Key::new("nodes", "", "n0"), node)).await.unwrap();

    let (objects, opener) = late(registry.clone(), "apps/controllerrevisions");
    let uid = set["metadata"]["uid"].as_str().unwrap().to_owned();
    let activation = Activation {
        actor: "agent".into(),
        namespace: "default".into(),
        name: "agent".into(),
        fence: Fence { shard: shard_of(&uid), epoch: Epoch(1) },
        uid,
        since: std::time::Instant::now(),
    };
    let worker: Worker<Reconciler> = Worker::new(Shared::start(objects, "test"), &activation);
    let count = async |resource: &str| {
        let request = ListRequest::of(Selection::all(resource));
        registry.list(request).await.unwrap().entries.len()
    };
    worker.look_once().await.unwrap();
    assert_eq!((count("apps/controllerrevisions").await, count("pods").await), (1, 0));
    let mut looking = worker.look_once().boxed();
    assert!(futures_util::poll!(&mut looking).is_pending(), "it would make another");
    opener.send_replace(true);
    looking.await.unwrap();
    worker.look_once().await.unwrap();
    assert_eq!((count("apps/controllerrevisions").await, count("pods").await), (1, 1));
}
