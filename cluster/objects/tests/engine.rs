//! The engine of objects, over a registry in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures_util::StreamExt;
use impresario_api::catalog::{MOST_TAKEN, find};
use impresario_api::resource::Row;
use impresario_objects::{
    Binding, DeleteOptions, Deleted, Door, Filter, ListQuery, ObjectEvent, Objects, WatchQuery,
    WriteOptions,
};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{
    Around, BoxFuture, Committed, Consistency, Key, Operation, Registry, TransactError, Transaction,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn resource(plural: &str) -> Row {
    find("", "v1", plural).unwrap()
}

async fn objects() -> Objects {
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    objects.lay_foundation("authority", 6443).await.unwrap();
    objects
}

async fn create(objects: &Objects, plural: &str, object: Value) -> Value {
    objects.create(&resource(plural), "default", object, &WriteOptions::default()).await.unwrap()
}

#[tokio::test]
async fn laying_the_foundation_again_changes_nothing() {
    let objects = objects().await;
    let before = objects.list(&resource("namespaces"), &ListQuery::default()).await.unwrap();
    objects.lay_foundation("authority", 6443).await.unwrap();
    let after = objects.list(&resource("namespaces"), &ListQuery::default()).await.unwrap();
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
                    .modify(&resource("configmaps"), Door::Main, "default", "sum", &options, |old| {
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
    let sum = objects.get(&resource("configmaps"), "default", "sum").await.unwrap();
    assert_eq!(sum["data"]["n"], "40");
}

#[tokio::test]
async fn a_namespace_takes_objects_though_what_closed_one_of_its_name_was_left_by_an_older_member()
{
    let registry = Arc::new(MemoryRegistry::new());
    let objects = Objects::new(registry.clone());
    objects.lay_foundation("authority", 6443).await.unwrap();
    let closed = || Key::new("impresario.dev/closingnamespaces", "", "default");
    let left = || registry.transact(Transaction::new().put(closed(), "{}"));
    let is_left =
        async || registry.get(closed(), Consistency::Linearizable).await.unwrap().0.is_some();
    left().await.unwrap();
    create(&objects, "configmaps", json!({"metadata": {"name": "a"}})).await;
    assert!(!is_left().await);
    left().await.unwrap();
    let options = WriteOptions::default();
    let label = |old: &Value| {
        let mut new = old.clone();
        new["metadata"]["labels"]["a"] = "b".into();
        Ok(new)
    };
    objects
        .modify(&resource("namespaces"), Door::Main, "", "default", &options, label)
        .await
        .unwrap();
    assert!(!is_left().await);

    // One that goes is closed with each write of it, and stays closed.
    let zoo = json!({"metadata": {"name": "zoo"}});
    objects.create(&resource("namespaces"), "", zoo, &options).await.unwrap();
    let delete = DeleteOptions::default();
    objects.delete(&resource("namespaces"), "", "zoo", &delete, &options).await.unwrap();
    let map = json!({"metadata": {"name": "a"}});
    let refused = objects.create(&resource("configmaps"), "zoo", map, &options).await.unwrap_err();
    assert_eq!(refused.code(), 403, "{refused:?}");
    let closed = Key::new("impresario.dev/closingnamespaces", "", "zoo");
    assert!(registry.get(closed, Consistency::Linearizable).await.unwrap().0.is_some());
}

#[tokio::test]
async fn no_more_definitions_are_kept_than_kinds_can_be_served() {
    let registry = Arc::new(MemoryRegistry::new());
    let objects = Objects::new(registry.clone());
    let plural = "apiextensions.k8s.io/customresourcedefinitions";
    let key = |number: usize| Key::new(plural, "", format!("xs.g-{number}.example.com"));
    for number in 0..MOST_TAKEN {
        registry.transact(Transaction::new().put(key(number), "{}")).await.unwrap();
    }
    let kind = find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let definition = json!({
        "metadata": {"name": "ys.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "ys", "kind": "Y"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object"}}}],
        },
    });
    let options = WriteOptions::default();
    let create = || objects.create(&kind, "", definition.clone(), &options);
    let refused = create().await.unwrap_err();
    assert_eq!(refused.code(), 403, "{refused:?}");
    assert!(refused.message.contains("delete one first"), "{refused:?}");
    let gone = Transaction::new().delete(key(7));
    registry.transact(gone).await.unwrap();
    create().await.unwrap();
}

#[tokio::test]
async fn a_watch_of_one_nodes_pods_sees_them_bound_and_gone() {
    let objects = objects().await;
    let filter = Filter {
        fields: Some(impresario_api::selector::FieldSelector::parse("spec.nodeName=n1").unwrap()),
        ..Filter::default()
    };
    let query = WatchQuery { filter, ..WatchQuery::default() };
    let mut watch = objects.watch(&resource("pods"), query).await.unwrap();
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    create(&objects, "pods", pod).await;
    objects.bind("default", "p", &Binding::to("n1"), &WriteOptions::default()).await.unwrap();
    let again = objects.bind("default", "p", &Binding::to("n2"), &WriteOptions::default()).await;
    assert_eq!(again.unwrap_err().code(), 409);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    let gone = objects
        .delete(&resource("pods"), "default", "p", &now, &WriteOptions::default())
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
            &resource("namespaces"),
            &ListQuery::default(),
            &DeleteOptions::default(),
            &WriteOptions::default(),
        )
        .await;
    assert_eq!(refused.unwrap_err().code(), 403, "default must stay");
    let left = objects.list(&resource("namespaces"), &ListQuery::default()).await.unwrap().items;
    let zoo = left.iter().find(|namespace| namespace["metadata"]["name"] == "zoo").unwrap();
    assert!(zoo["metadata"]["deletionTimestamp"].is_string(), "{zoo}");
}

/// A registry in which something happens to the namespace `default` just before each of these writes to config maps.
struct Restless {
    registry: MemoryRegistry,
    closes: bool,
    left: AtomicUsize,
}

impl Around for Restless {
    fn inner(&self) -> &dyn Registry {
        &self.registry
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Box::pin(async move {
            let is_map = |operation: &Operation| operation.key().resource == "configmaps";
            let left = |left: usize| left.checked_sub(1);
            let order = Ordering::SeqCst;
            if transaction.operations.iter().any(is_map)
                && self.left.fetch_update(order, order, left).is_ok()
            {
                let objects = Objects::new(Arc::new(self.registry.clone()));
                let (namespaces, options) = (&resource("namespaces"), WriteOptions::default());
                if self.closes {
                    let deletion = DeleteOptions::default();
                    objects.delete(namespaces, "", "zoo", &deletion, &options).await.unwrap();
                } else {
                    let changed =
                        objects.modify(namespaces, Door::Main, "", "zoo", &options, |old| {
                            let mut new = old.clone();
                            new["metadata"]["annotations"] = json!({"at": left_of(&self.left)});
                            Ok(new)
                        });
                    changed.await.unwrap();
                }
            }
            self.registry.transact(transaction).await
        })
    }
}

fn left_of(count: &AtomicUsize) -> String {
    count.load(Ordering::SeqCst).to_string()
}

async fn restless(closes: bool) -> (Arc<Restless>, Objects) {
    let left = AtomicUsize::new(usize::MAX);
    let registry = Arc::new(Restless { registry: MemoryRegistry::new(), closes, left });
    let objects = Objects::new(registry.clone());
    create(&objects, "namespaces", json!({"metadata": {"name": "zoo"}})).await;
    (registry, objects)
}

#[tokio::test]
async fn things_are_made_in_a_namespace_that_is_changed_all_the_time() {
    let (registry, objects) = restless(false).await;
    let map = json!({"metadata": {"name": "m"}});
    let made = objects.create(&resource("configmaps"), "zoo", map, &WriteOptions::default()).await;
    assert!(made.is_ok(), "{made:?}");
    assert_eq!(registry.left.load(Ordering::SeqCst), usize::MAX - 1, "at the first try");
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_goes_until_another_of_its_name_is_there() {
    let (registry, objects) = restless(true).await;
    let (options, maps) = (WriteOptions::default(), &resource("configmaps"));
    let map = json!({"metadata": {"name": "m"}});
    let refused = objects.create(maps, "zoo", map.clone(), &options).await.unwrap_err();
    assert_eq!(refused.code(), 403, "it was closed between the look and the write: {refused}");
    registry.left.store(0, Ordering::SeqCst);
    let namespaces = resource("namespaces");
    let freed = objects.modify(&namespaces, Door::Finalize, "", "zoo", &options, |old| {
        let mut new = old.clone();
        new["spec"]["finalizers"] = json!([]);
        Ok(new)
    });
    freed.await.unwrap();
    let gone = objects.create(maps, "zoo", map.clone(), &options).await.unwrap_err();
    assert_eq!(gone.code(), 404, "{gone}");
    create(&objects, "namespaces", json!({"metadata": {"name": "zoo"}})).await;
    objects.create(maps, "zoo", map, &options).await.unwrap();
}

#[tokio::test]
async fn no_service_takes_the_address_of_the_api_before_the_api_has_it() {
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    create(&objects, "namespaces", json!({"metadata": {"name": "default"}})).await;
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "127.96.0.1", "ports": [{"port": 80}]}});
    let options = WriteOptions::default();
    let refused =
        objects.create(&resource("services"), "default", service("thief"), &options).await;
    assert_eq!(refused.unwrap_err().code(), 422);
    objects.lay_foundation("authority", 6443).await.unwrap();
    let api = objects.get(&resource("services"), "default", "kubernetes").await.unwrap();
    assert_eq!(api["spec"]["clusterIP"], "127.96.0.1");
}

#[tokio::test]
async fn what_nobody_could_read_is_not_stored_whoever_has_made_it() {
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    create(&objects, "namespaces", json!({"metadata": {"name": "default"}})).await;
    let (maps, options) = (&resource("configmaps"), WriteOptions::default());
    let odd = json!({"metadata": {"name": "m"}, "data": {"a": 1}});
    let refused = objects.create(maps, "default", odd, &options).await.unwrap_err();
    assert_eq!(refused.code(), 400, "{refused}");
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "more": true});
    let made = objects.create(maps, "default", map, &options).await.unwrap();
    assert!(made.get("more").is_none(), "{made}");
    let spoil = |old: &serde_json::Value| {
        let mut new = old.clone();
        new["metadata"]["labels"] = json!(["a"]);
        Ok(new)
    };
    let refused = objects.modify(maps, Door::Main, "default", "m", &options, spoil).await;
    assert_eq!(refused.unwrap_err().code(), 400);
    assert_eq!(objects.get(maps, "default", "m").await.unwrap(), made);
}
