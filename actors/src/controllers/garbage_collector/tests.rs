use super::super::engine::mirrors::Mirrors;
use super::*;
use impresario_registry::{Epoch, Key, MemoryRegistry, Registry as _, RegistryHandle, Shard};
use impresario_runtime::clock;

/// Stores an object in the namespace `ns`, which is made where it is not there.
async fn create(registry: &MemoryRegistry, resource: &str, object: &Value) -> Key {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "ns", "uid": "ns", "creationTimestamp": "2024-01-01T00:00:00Z"}});
    let made = Transaction::create(Key::new("namespaces", "", "ns"), namespace.to_string());
    let _ = registry.transact(made).await;
    create_alone(registry, resource, object).await
}

async fn create_alone(registry: &MemoryRegistry, resource: &str, object: &Value) -> Key {
    let key = Key::new(resource, "ns", object["metadata"]["name"].as_str().unwrap());
    registry.transact(Transaction::create(key.clone(), object.to_string())).await.unwrap();
    key
}

/// A collector of `now` whose mirrors show `before`.
fn look(now: &MemoryRegistry, before: &MemoryRegistry) -> GarbageCollectorLook {
    now.assign_shards(&["test".to_owned()]);
    let graph = Graph::over(&Mirrors::over(Arc::new(before.clone())));
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let objects = Objects::new(Arc::new(now.clone()) as RegistryHandle);
    let events = Recorder::start(objects.clone(), "garbage-collector-controller", "");
    GarbageCollectorLook::new(&objects, graph, fence, events)
}

async fn stored(registry: &MemoryRegistry, key: &Key) -> Option<Value> {
    let entry = registry.get(key.clone(), Consistency::Local).await.unwrap().0?;
    Some(serde_json::from_slice(&entry.value).unwrap())
}

fn owned(name: &str, kind: &str, uid: &str) -> Value {
    let api_version = if kind == "Job" { "batch/v1" } else { "v1" };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": name, "namespace": "ns", "uid": name, "ownerReferences": [{
            "apiVersion": api_version, "kind": kind, "name": "web", "uid": uid,
            "controller": true}]}})
}

#[tokio::test]
async fn a_dependent_that_has_let_go_of_its_owner_is_not_deleted_with_it() {
    let (now, before) = (MemoryRegistry::default(), MemoryRegistry::default());
    let pod = owned("web-1", "ReplicationController", "gone");
    for registry in [&now, &before] {
        create(registry, "pods", &pod).await;
    }
    let (key, mut free) = (Key::new("pods", "ns", "web-1"), pod);
    free["metadata"]["ownerReferences"] = json!([]);
    now.transact(Transaction::default().put(key.clone(), free.to_string())).await.unwrap();
    let looks = look(&now, &before);
    assert!(matches!(looks.look_once().await.unwrap(), Next::At(_)));
    assert_eq!(stored(&now, &key).await, Some(free), "the owner went and was to leave it alone");
}

#[tokio::test]
async fn a_pod_keeps_its_end_for_a_job_that_no_mirror_shows_yet() {
    let mut pod = owned("web-1", "Job", "j1");
    pod["metadata"]["finalizers"] = json!([TRACKING]);
    pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    pod["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    let (now, before) = (MemoryRegistry::default(), MemoryRegistry::default());
    for registry in [&now, &before] {
        create(registry, "pods", &pod).await;
    }
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "web", "namespace": "ns", "uid": "j1"}});
    let job = create(&now, "batch/jobs", &job).await;
    let key = Key::new("pods", "ns", "web-1");
    look(&now, &before).look_once().await.unwrap();
    assert_eq!(stored(&now, &key).await, Some(pod), "its end is still to be counted");
    now.transact(Transaction::default().delete(job)).await.unwrap();
    look(&now, &before).look_once().await.unwrap();
    assert_eq!(stored(&now, &key).await, None);
}

#[tokio::test]
async fn what_can_never_be_deleted_keeps_nothing_else_from_going() {
    let now = MemoryRegistry::default();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "default", "uid": "n", "ownerReferences": [{
            "apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "gone"}]}});
    let kept = Key::new("namespaces", "", "default");
    now.transact(Transaction::create(kept.clone(), namespace.to_string())).await.unwrap();
    let garbage = create(&now, "pods", &owned("web-1", "ReplicationController", "gone")).await;
    let looks = look(&now, &now);
    let begun = clock::now();
    assert!(looks.look_once().await.is_ok(), "one refusal is no failure of all");
    assert!(stored(&now, &kept).await.is_some());
    assert_eq!(stored(&now, &garbage).await, None);
    // It is tried again, but not all the time.
    assert!(!looks.retries.may_try("n", begun));
}

/// A mirror that lags is a mirror of the registry as it was.
#[tokio::test]
async fn an_owner_is_not_let_go_while_the_registry_has_a_dependent_that_no_mirror_shows() {
    let owner = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {
        "name": "web", "namespace": "ns", "uid": "u1", "finalizers": [plan::ORPHAN],
        "deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": "web-1", "namespace": "ns", "uid": "u2", "ownerReferences": [{
            "apiVersion": "v1", "kind": "ReplicationController", "name": "web", "uid": "u1"}]}});
    let (now, before) = (MemoryRegistry::default(), MemoryRegistry::default());
    for registry in [&now, &before] {
        create(registry, "replicationcontrollers", &owner).await;
    }
    let dependent = create(&now, "pods", &pod).await;
    let key = Key::new("replicationcontrollers", "ns", "web");
    assert!(matches!(look(&now, &before).look_once().await.unwrap(), Next::At(_)));
    let held = now.get(key.clone(), Consistency::Local).await.unwrap().0;
    assert!(held.is_some(), "it waits until the mirrors show the pod");

    let caught_up = look(&now, &now);
    caught_up.look_once().await.unwrap();
    let pod = now.get(dependent, Consistency::Local).await.unwrap().0.unwrap();
    let pod: Value = serde_json::from_slice(&pod.value).unwrap();
    assert_eq!(pod["metadata"].get("ownerReferences"), None, "the pod stays, without its owner");
}

#[tokio::test]
async fn what_its_type_cannot_read_goes_with_its_owner_and_keeps_what_it_owns() {
    let registry = MemoryRegistry::default();
    // As a release before might have stored them.
    let mut garbage = owned("garbage", "ReplicationController", "gone");
    garbage["spec"] = "unreadable".into();
    let mut owner = owned("boss", "Job", "x");
    owner["metadata"]["ownerReferences"] = json!([]);
    owner["spec"] = "unreadable".into();
    let mut kept = owned("kept", "Pod", "boss");
    kept["metadata"]["ownerReferences"][0]["name"] = "boss".into();
    let mut keys = Vec::new();
    for pod in [&garbage, &owner, &kept] {
        keys.push(create(&registry, "pods", pod).await);
    }
    registry.assign_shards(&["test".to_owned()]);
    let mirrors = Mirrors::over(Arc::new(registry.clone()));
    let pods = mirrors.of::<k8s_openapi::api::core::v1::Pod>();
    let graph = Graph::over(&mirrors);
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let objects = Objects::new(Arc::new(registry.clone()) as RegistryHandle);
    let events = Recorder::start(objects.clone(), "garbage-collector-controller", "");
    let looks = GarbageCollectorLook::new(&objects, graph.clone(), fence, events);
    looks.look_once().await.unwrap();
    assert_eq!(pods.all().len(), 1, "the others are not what their type says");
    assert_eq!(stored(&registry, &keys[0]).await, None);
    assert!(stored(&registry, &keys[2]).await.is_some());
    let kept: ObjectMeta = serde_json::from_value(kept["metadata"].clone()).unwrap();
    let owner = &kept.owner_references.as_ref().unwrap()[0];
    assert_eq!(graph.presence(&kept, owner), Presence::Stays);
}

fn deployment(name: &str, created: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name,
        "namespace": "ns", "uid": name, "creationTimestamp": created}})
}

#[tokio::test]
async fn what_is_in_a_namespace_that_is_not_there_goes_and_the_next_of_that_name_is_empty() {
    let registry = MemoryRegistry::default();
    let left = deployment("left", "2023-01-01T00:00:00Z");
    let key = create_alone(&registry, "apps/deployments", &left).await;
    look(&registry, &registry).look_once().await.unwrap();
    assert_eq!(stored(&registry, &key).await, None);

    // The namespace was made anew before anybody looked.
    let (now, early) = (MemoryRegistry::default(), "2023-01-01T00:00:00Z");
    for name in ["left", "restored"] {
        create_alone(&now, "apps/deployments", &deployment(name, early)).await;
    }
    let late = deployment("restored", "2025-01-01T00:00:00Z").to_string();
    let restored = Key::new("apps/deployments", "ns", "restored");
    now.transact(Transaction::default().put(restored.clone(), late)).await.unwrap();
    // Written back in the order of keys: with the namespace that it was once made with, within one second.
    let together = deployment("together", "2024-01-01T00:00:00Z");
    let together = create_alone(&now, "apps/deployments", &together).await;
    let own = create(&now, "apps/deployments", &deployment("own", early)).await;
    look(&now, &now).look_once().await.unwrap();
    assert_eq!(stored(&now, &key).await, None, "it is of the namespace before");
    // Later by the one count and earlier by the other: nobody knows.
    assert!(stored(&now, &own).await.is_some() && stored(&now, &restored).await.is_some());
    assert!(stored(&now, &together).await.is_some(), "the clock does not say which came first");
}

#[tokio::test]
async fn what_is_in_a_namespace_that_no_mirror_shows_yet_stays() {
    let (now, before) = (MemoryRegistry::default(), MemoryRegistry::default());
    let object = deployment("web", "2024-01-01T00:00:00Z");
    let key = create(&now, "apps/deployments", &object).await;
    create_alone(&before, "apps/deployments", &object).await;
    let looks = look(&now, &before);
    assert!(matches!(looks.look_once().await.unwrap(), Next::At(_)), "it is looked at again");
    assert!(stored(&now, &key).await.is_some());
}

#[tokio::test]
async fn a_namespace_that_comes_or_goes_wakes_the_collector_and_so_does_what_is_in_none() {
    let registry = MemoryRegistry::default();
    let graph = Graph::over(&Mirrors::over(Arc::new(registry.clone())));
    for part in graph.parts().iter() {
        part.mirror.reached(1, CATCH_UP).await.unwrap();
    }
    let mut litter = graph.litter();
    let mut woken = async || tokio::time::timeout(crate::testing::LIMIT, litter.next()).await;
    create_alone(&registry, "apps/deployments", &deployment("left", "2024-01-01T00:00:00Z")).await;
    assert_eq!(woken().await, Ok(Some(())));
    let space = Key::new("namespaces", "", "ns");
    let object = json!({"metadata": {"name": "ns", "uid": "ns"}}).to_string();
    registry.transact(Transaction::create(space.clone(), object)).await.unwrap();
    assert_eq!(woken().await, Ok(Some(())));
    registry.transact(Transaction::default().delete(space)).await.unwrap();
    assert_eq!(woken().await, Ok(Some(())));
}

/// The schema of a kind that forbids nothing.
fn anything() -> Arc<impresario_api::structural::Structural> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    Arc::new(impresario_api::structural::Structural::parse(&schema).unwrap())
}

#[tokio::test]
async fn the_collector_learns_of_a_kind_that_comes_and_forgets_one_that_goes() {
    let registry = MemoryRegistry::default();
    let mirrors = Mirrors::over(Arc::new(registry.clone()));
    let graph = Graph::over(&mirrors);
    let knows = |key: &str| graph.parts().iter().any(|part| resource_key(&part.resource) == key);
    let mut litter = graph.litter();
    let mut woken = async || tokio::time::timeout(crate::testing::LIMIT, litter.next()).await;
    let (group, key) = ("collected.example.com", "collected.example.com/things");
    let names = [group, "v1", "Thing", "things", "thing"].map(str::to_owned);
    let row = Resource::of_schema(names, anything());
    impresario_api::catalog::served().take(row).unwrap();
    assert_eq!(woken().await, Ok(Some(())));
    assert!(knows(key));
    create_alone(&registry, key, &json!({"metadata": {"name": "left", "uid": "t"}})).await;
    while graph.strays().is_empty() {
        assert_eq!(woken().await, Ok(Some(())));
    }
    assert_eq!(graph.strays()[0].0.plural, "things");

    impresario_api::catalog::served().drop_row(group, "things").unwrap();
    assert_eq!(woken().await, Ok(Some(())));
    assert!(!knows(key) && graph.strays().is_empty());
}

#[tokio::test]
async fn what_an_object_owned_goes_with_its_kind_unless_the_object_or_a_definition_is_left() {
    let registry = MemoryRegistry::default();
    let group = "uninstalled.example.com";
    let names = [group, "v1", "Gadget", "gadgets", "gadget"].map(str::to_owned);
    let row = Resource::of_schema(names, anything());
    impresario_api::catalog::served().take(row).unwrap();
    let owner = |name: &str, uid: &str, kind: &str| {
        let mut pod = owned(name, kind, uid);
        let reference = &mut pod["metadata"]["ownerReferences"][0];
        reference["apiVersion"] = format!("{group}/v1").into();
        pod
    };
    let gone = create(&registry, "pods", &owner("gone", "g1", "Gadget")).await;
    let never = create(&registry, "pods", &owner("never", "g1", "Unknown")).await;
    let held = create(&registry, "pods", &owner("held", "g2", "Gadget")).await;
    let looks = look(&registry, &registry);
    impresario_api::catalog::served().drop_row(group, "gadgets").unwrap();

    let definition =
        Key::new("apiextensions.k8s.io/customresourcedefinitions", "", format!("gadgets.{group}"));
    let object = json!({"metadata": {"name": format!("gadgets.{group}"), "uid": "d"}});
    let made = Transaction::create(definition.clone(), object.to_string());
    registry.transact(made).await.unwrap();
    looks.look_once().await.unwrap();
    assert!(stored(&registry, &gone).await.is_some(), "its kind may be served again");

    registry.transact(Transaction::default().delete(definition)).await.unwrap();
    let left = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "g2"}});
    create(&registry, &format!("{group}/gadgets"), &left).await;
    // What was put off is not tried at once; another look is as one after that.
    let GarbageCollectorLook { objects, graph, fence, events, .. } = looks;
    GarbageCollectorLook::new(&objects, graph, fence, events).look_once().await.unwrap();
    assert_eq!(stored(&registry, &gone).await, None);
    assert!(stored(&registry, &held).await.is_some(), "its owner is there");
    assert!(stored(&registry, &never).await.is_some(), "nobody can say what owns it");
}
