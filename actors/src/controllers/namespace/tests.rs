//! A namespace against a registry in memory, by the engine.

use super::super::activation::Activation;
use super::super::control::Next;
use super::super::engine::mirrors::Mirrors;
use super::super::engine::shared::Shared;
use super::super::engine::worker::Worker;
use super::*;
use futures_util::future::BoxFuture;
use impresario_objects::Objects;
use impresario_registry::{
    Epoch, Fence, Key, MemoryRegistry, Registry, Revision, Transaction, shard_of,
};
use impresario_registry_api::{Around, Consistency, ListRequest, Page, ReadError, RegistryHandle};
use impresario_runtime::clock;
use std::sync::Arc;
use std::time::Duration;

/// No passing test spends it.
const LIMIT: Duration = Duration::from_secs(60);

fn namespace(uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "uid": uid},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
}

fn going(uid: &str) -> Value {
    let mut namespace = namespace(uid);
    namespace["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    namespace["status"]["phase"] = "Terminating".into();
    namespace
}

async fn create(registry: &MemoryRegistry, key: Key, object: &Value) -> Revision {
    registry.transact(Transaction::create(key, object.to_string())).await.unwrap().revision
}

async fn registry(namespace: &Value) -> MemoryRegistry {
    let registry = MemoryRegistry::default();
    registry.assign_shards(&["test".to_owned()]);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "x", "uid": "m"}});
    create(&registry, Key::new("namespaces", "", "x"), namespace).await;
    create(&registry, Key::new("configmaps", "x", "m"), &map).await;
    registry
}

/// The work on the namespace of this uid in `now`, with mirrors that show `before`.
fn worker(
    now: &MemoryRegistry,
    before: &MemoryRegistry,
    uid: &str,
) -> (Worker<Reconciler>, Shared) {
    worker_over(Arc::new(now.clone()), before, uid)
}

fn worker_over(
    now: RegistryHandle,
    before: &MemoryRegistry,
    uid: &str,
) -> (Worker<Reconciler>, Shared) {
    let objects = Objects::new(now);
    let shared = Shared {
        mirrors: Mirrors::over(Arc::new(before.clone())),
        authority: "authority".into(),
        ..Shared::start(objects, "test")
    };
    let activation = Activation {
        actor: "namespace/x".into(),
        namespace: String::new(),
        name: "x".into(),
        uid: uid.into(),
        fence: Fence { shard: shard_of(uid), epoch: Epoch(1) },
        since: clock::now(),
    };
    (Worker::new(shared.clone(), &activation), shared)
}

async fn held(registry: &MemoryRegistry, key: Key) -> Option<Value> {
    let entry = registry.get(key, Consistency::Local).await.unwrap().0?;
    Some(serde_json::from_slice(&entry.value).unwrap())
}

/// Looks until nothing more is to be done before somebody says so.
async fn settled(worker: &Worker<Reconciler>) {
    let looks = async {
        while let Next::At(at) = worker.look_once().await.unwrap() {
            let wait = at.duration_since(clock::timestamp());
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, looks).await.is_ok());
}

#[tokio::test]
async fn a_namespace_that_was_made_again_is_not_emptied_for_the_one_before() {
    let (before, now) = (registry(&going("old")).await, registry(&namespace("new")).await);
    let (worker, shared) = worker(&now, &before, "old");
    assert_eq!(worker.look_once().await.unwrap(), Next::WhenTold);
    assert!(held(&now, Key::new("configmaps", "x", "m")).await.is_some());
    // Not by the last action of a look that was under way, either.
    worker.let_go(&shared.objects).await.unwrap();
    let kept = held(&now, Key::new("namespaces", "", "x")).await.unwrap();
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test]
async fn a_namespace_that_goes_is_emptied_and_then_gone() {
    let now = registry(&going("old")).await;
    settled(&worker(&now, &now, "old").0).await;
    assert!(held(&now, Key::new("configmaps", "x", "m")).await.is_none());
    assert!(held(&now, Key::new("namespaces", "", "x")).await.is_none());
}

#[tokio::test]
async fn pods_go_before_what_they_use_and_conditions_say_what_is_left() {
    let now = registry(&going("old")).await;
    let pod = |finalizers: &[&str]| {
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "x", "uid": "p", "finalizers": finalizers},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
    };
    let key = Key::new("pods", "x", "p");
    create(&now, key.clone(), &pod(&["example.com/mine"])).await;
    let (worker, _) = worker(&now, &now, "old");
    let reads = async {
        loop {
            worker.look_once().await.unwrap();
            let namespace = held(&now, Key::new("namespaces", "", "x")).await.unwrap();
            let conditions = namespace["status"]["conditions"].as_array().cloned();
            if let Some(conditions) = conditions {
                break conditions;
            }
        }
    };
    let conditions = tokio::time::timeout(LIMIT, reads).await.unwrap();
    let message = |kind: &str| {
        let said = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        said["message"].as_str().unwrap().to_owned()
    };
    assert!(message("NamespaceContentRemaining").ends_with("pods. has 1 resource instances"));
    assert!(message("NamespaceFinalizersRemaining").contains("example.com/mine in 1"));
    assert!(held(&now, Key::new("configmaps", "x", "m")).await.is_some(), "the pod may use it");
    now.transact(Transaction::new().delete(key)).await.unwrap();
    settled(&worker).await;
    assert!(held(&now, Key::new("namespaces", "", "x")).await.is_none());
}

/// A registry that remembers of which resources lists of a namespace were asked.
struct Asked {
    inner: MemoryRegistry,
    resources: parking_lot::Mutex<Vec<String>>,
}

impl Around for Asked {
    fn inner(&self) -> &dyn Registry {
        &self.inner
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        if request.select.namespace.is_some() {
            self.resources.lock().push(request.select.resource.clone());
        }
        self.inner.list(request)
    }
}

#[tokio::test]
async fn nothing_is_read_of_what_waits_until_the_pods_are_gone() {
    let now = registry(&going("old")).await;
    let finalizers = |finalizer: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "x",
            "uid": "p", "finalizers": [finalizer], "deletionTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
    };
    let key = Key::new("pods", "x", "p");
    create(&now, key.clone(), &finalizers("example.com/one")).await;
    let asked = Arc::new(Asked { inner: now.clone(), resources: parking_lot::Mutex::default() });
    let (worker, _) = worker_over(asked.clone(), &now, "old");
    let said = async |word: &str| {
        worker.look_once().await.unwrap();
        let namespace = held(&now, Key::new("namespaces", "", "x")).await.unwrap();
        assert!(namespace["status"]["conditions"].to_string().contains(word), "{namespace}");
    };
    said("example.com/one in 1").await;
    let other = finalizers("example.com/two").to_string();
    now.transact(Transaction::new().put(key.clone(), other)).await.unwrap();
    said("example.com/two in 1").await;
    assert_eq!(*asked.resources.lock(), ["pods", "pods"]);
    now.transact(Transaction::new().delete(key)).await.unwrap();
    settled(&worker).await;
    assert!(held(&now, Key::new("namespaces", "", "x")).await.is_none());
}

#[tokio::test]
async fn a_namespace_is_furnished_and_what_somebody_changed_is_put_back() {
    let now = registry(&namespace("new")).await;
    let (worker, shared) = worker(&now, &now, "new");
    settled(&worker).await;
    let account = Key::new("serviceaccounts", "x", ACCOUNT);
    assert!(held(&now, account).await.is_some());
    let key = Key::new("configmaps", "x", AUTHORITY_MAP);
    let map = held(&now, key.clone()).await.unwrap();
    assert_eq!(map["data"], json!({AUTHORITY_KEY: "authority"}));

    let mut spoilt = map.clone();
    spoilt["data"] = json!({AUTHORITY_KEY: "another", "more": "x"});
    spoilt["binaryData"] = json!({"bytes": "eA=="});
    let spoil = Transaction::new().put(key.clone(), spoilt.to_string());
    let revision = now.transact(spoil).await.unwrap().revision;
    let maps = shared.mirrors.named::<ConfigMap>(AUTHORITY_MAP);
    maps.reached(revision, LIMIT).await.unwrap();
    assert_eq!(maps.all().len(), 1, "there are others");
    settled(&worker).await;
    let map = held(&now, key).await.unwrap();
    assert_eq!(map["data"], json!({AUTHORITY_KEY: "authority"}));
    assert_eq!(map.get("binaryData"), None);
}
