//! What cannot be done, and what a late mirror must not lead to.

use super::super::super::late::late;
use super::super::Reconciler;
use super::{World, condition};
use crate::testing::LIMIT;
use futures_util::FutureExt as _;
use impresario_registry::Registry as _;
use impresario_registry_api::{ListRequest, Selection};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_selector_that_can_select_none_of_its_sets_makes_none_and_is_said() {
    let hash = super::super::marks::HASH;
    let one = |operator: &str| json!({"key": hash, "operator": operator});
    for selector in [
        json!({"matchLabels": {"app": "web", hash: "abc"}}),
        json!({"matchLabels": {"app": "web"}, "matchExpressions": [one("DoesNotExist")]}),
    ] {
        let world = World::new().await;
        world.deploy(json!({})).await;
        let mut deployment = world.deployment().await;
        deployment["spec"]["selector"] = selector;
        deployment["spec"]["template"]["metadata"]["labels"][hash] = "abc".into();
        world.put("apps/deployments", &deployment).await;
        world.rounds(20).await;
        assert_eq!(world.all("apps/replicasets").await, Vec::<Value>::new());
        let deployment = world.deployment().await;
        assert_eq!(condition(&deployment, "ReplicaFailure"), "True SelectorNeverMatches");
    }
}

#[tokio::test]
async fn a_set_that_another_has_or_nobody_is_not_scaled_by_what_a_late_mirror_says() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 2})).await;
    world.rounds(4).await;
    let (objects, _opener) = late(world.registry.clone(), "apps/replicasets");
    let late = World::over(world.registry.clone(), objects);
    let worker = late.worker::<Reconciler>(&world.deployment().await);
    worker.caught_up().await.unwrap();
    world.change(|it| it["spec"]["replicas"] = 5.into()).await;
    let mut set = world.all("apps/replicasets").await.remove(0);
    let foreign = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "other",
        "uid": "other", "controller": true}]);
    for owners in [json!([]), foreign] {
        set["metadata"]["ownerReferences"] = owners;
        world.put("apps/replicasets", &set).await;
        let request = ListRequest::of(Selection::all("apps/deployments"));
        let seen = world.registry.list(request).await.unwrap().entries[0].mod_revision;
        late.shared.mirrors.of::<Deployment>().reached(seen, LIMIT).await.unwrap();
        worker.look_once().await.unwrap_err();
        assert_eq!(world.all("apps/replicasets").await, [set.clone()]);
    }
}

#[tokio::test]
async fn a_set_that_cannot_be_changed_is_said_and_the_deployment_not_taken_for_done() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 5})).await;
    world.rounds(4).await;
    let mut set = world.all("apps/replicasets").await.remove(0);
    // From before a rule became stricter.
    set["metadata"]["labels"]["bad"] = "no label's value!".into();
    world.put("apps/replicasets", &set).await;
    world.refuses.store(true, Ordering::Relaxed);
    world.change(|it| it["spec"]["replicas"] = 2.into()).await;
    world.rounds(2).await;
    assert_eq!(world.sets().await, ["1=one:5"]);
    let deployment = world.deployment().await;
    assert_eq!(condition(&deployment, "ReplicaFailure"), "True FailedUpdate");
    let generation = deployment["metadata"]["generation"].as_i64().unwrap();
    assert!(deployment["status"]["observedGeneration"].as_i64().unwrap() < generation);
    world.until_told("FailedUpdate").await;

    set["metadata"]["labels"].as_object_mut().unwrap().remove("bad");
    world.put("apps/replicasets", &set).await;
    world.refuses.store(false, Ordering::Relaxed);
    world.rounds(3).await;
    assert_eq!(world.sets().await, ["1=one:2"]);
    let deployment = world.deployment().await;
    assert_eq!(condition(&deployment, "ReplicaFailure"), "- -");
    assert_eq!(deployment["status"]["observedGeneration"], generation);
}

#[tokio::test]
async fn notes_that_a_set_has_no_room_for_keep_no_pods_from_coming() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 1})).await;
    world.rounds(4).await;
    let large = |size: usize| "x".repeat(size);
    let mut set = world.all("apps/replicasets").await.remove(0);
    set["metadata"]["annotations"]["its"] = large(150_000).into();
    world.put("apps/replicasets", &set).await;
    world.refuses.store(true, Ordering::Relaxed);
    world
        .change(|it| {
            it["metadata"]["annotations"]["more"] = large(150_000).into();
            it["spec"]["replicas"] = 3.into();
        })
        .await;
    world.rounds(3).await;
    assert_eq!(world.sets().await, ["1=one:3"]);
    let deployment = world.deployment().await;
    assert_eq!(deployment["status"]["availableReplicas"], 3);
    assert_eq!(deployment["status"]["observedGeneration"], deployment["metadata"]["generation"]);
    assert_eq!(condition(&deployment, "ReplicaFailure"), "True FailedUpdate");
}

#[tokio::test]
async fn a_look_waits_until_it_sees_what_the_one_before_has_changed() {
    let world = World::new().await;
    world.deploy(json!({"replicas": 2})).await;
    world.rounds(4).await;
    world.change(|it| it["spec"]["replicas"] = 5.into()).await;
    let (objects, opener) = late(world.registry.clone(), "apps/replicasets");
    let late = World::over(world.registry.clone(), objects);
    let worker = late.worker::<Reconciler>(&world.deployment().await);
    worker.look_once().await.unwrap();
    assert_eq!(world.sets().await, ["1=one:5"]);
    late.seen::<Deployment>().await;
    let mut looking = worker.look_once().boxed();
    assert!(futures_util::poll!(&mut looking).is_pending(), "it would scale the set again");
    opener.send_replace(true);
    looking.await.unwrap();
}
