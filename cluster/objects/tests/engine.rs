//! The engine of objects, over a registry in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures_util::StreamExt;
use impresario_api::resource::{Resource, find};
use impresario_objects::{
    Binding, DeleteOptions, Deleted, Door, Filter, ListQuery, ObjectEvent, Objects, Patch,
    WatchQuery, WriteOptions,
};
use impresario_registry::MemoryRegistry;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn resource(plural: &str) -> &'static Resource {
    find("", "v1", plural).unwrap()
}

async fn objects() -> Objects {
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    objects.lay_foundation("authority", 6443).await.unwrap();
    objects
}

async fn create(objects: &Objects, plural: &str, object: Value) -> Value {
    objects.create(resource(plural), "default", object, &WriteOptions::default()).await.unwrap()
}

#[tokio::test]
async fn laying_the_foundation_again_changes_nothing() {
    let objects = objects().await;
    let before = objects.list(resource("namespaces"), &ListQuery::default()).await.unwrap();
    objects.lay_foundation("authority", 6443).await.unwrap();
    let after = objects.list(resource("namespaces"), &ListQuery::default()).await.unwrap();
    assert_eq!((before.items, before.revision), (after.items, after.revision));
}

#[tokio::test]
async fn writers_at_once_lose_no_change_and_share_no_address() {
    let objects = objects().await;
    create(&objects, "configmaps", json!({"metadata": {"name": "sum"}, "data": {"n": "0"}})).await;
    let writers = (0..8).map(|writer| {
        let objects = objects.clone();
        tokio::spawn(async move {
            let service = json!({"metadata": {"name": format!("s{writer}")}, "spec": {"ports": [{"port": 80}]}});
            let service = create(&objects, "services", service).await;
            for _ in 0..5 {
                let options = WriteOptions::default();
                // Ten tries are the engine's bound; under this much contention the caller may need more.
                while objects
                    .modify(resource("configmaps"), Door::Main, "default", "sum", &options, |old| {
                        let mut new = old.clone();
                        let n: u64 = old["data"]["n"].as_str().unwrap().parse().unwrap();
                        new["data"]["n"] = (n + 1).to_string().into();
                        Ok(new)
                    })
                    .await
                    .is_err_and(|status| status.code() == 409)
                {}
            }
            service["spec"]["clusterIP"].as_str().unwrap().to_owned()
        })
    });
    let mut addresses = HashSet::new();
    for writer in writers.collect::<Vec<_>>() {
        assert!(addresses.insert(writer.await.unwrap()));
    }
    let sum = objects.get(resource("configmaps"), "default", "sum").await.unwrap();
    assert_eq!(sum["data"]["n"], "40");
}

#[tokio::test]
async fn a_watch_of_one_nodes_pods_sees_them_bound_and_gone() {
    let objects = objects().await;
    let filter = Filter {
        fields: Some(impresario_api::selector::FieldSelector::parse("spec.nodeName=n1").unwrap()),
        ..Filter::default()
    };
    let query = WatchQuery { filter, ..WatchQuery::default() };
    let mut watch = objects.watch(resource("pods"), query).await.unwrap();
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    create(&objects, "pods", pod).await;
    objects.bind("default", "p", &Binding::to("n1"), &WriteOptions::default()).await.unwrap();
    let again = objects.bind("default", "p", &Binding::to("n2"), &WriteOptions::default()).await;
    assert_eq!(again.unwrap_err().code(), 409);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    let gone = objects
        .delete(resource("pods"), "default", "p", &now, &WriteOptions::default())
        .await
        .unwrap();
    assert!(matches!(gone, Deleted::Gone(_)));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap().unwrap() {
            ObjectEvent::Added(pod) => seen.push(format!("added {}", pod["spec"]["nodeName"])),
            ObjectEvent::Deleted(_) => seen.push("deleted".into()),
            ObjectEvent::Bookmark { .. } => {}
            other @ ObjectEvent::Modified(_) => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["added \"n1\"", "deleted"]);
}

#[tokio::test]
async fn what_may_not_be_deleted_keeps_nothing_else_of_a_collection_from_going() {
    let objects = objects().await;
    create(&objects, "namespaces", json!({"metadata": {"name": "zoo"}})).await;
    let refused = objects
        .delete_collection(
            resource("namespaces"),
            &ListQuery::default(),
            &DeleteOptions::default(),
            &WriteOptions::default(),
        )
        .await;
    assert_eq!(refused.unwrap_err().code(), 403, "default must stay");
    let left = objects.list(resource("namespaces"), &ListQuery::default()).await.unwrap().items;
    let zoo = left.iter().find(|namespace| namespace["metadata"]["name"] == "zoo").unwrap();
    assert!(zoo["metadata"]["deletionTimestamp"].is_string(), "{zoo}");
}

#[test]
fn a_patch_that_does_not_apply_is_refused() {
    let patch = Patch::Json(json!([{"op": "test", "path": "/data/a", "value": "x"}]));
    let refused = patch.apply(resource("configmaps"), &json!({"data": {"a": "b"}}));
    assert_eq!(refused.unwrap_err().code(), 422);
}
