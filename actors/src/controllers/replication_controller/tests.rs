//! Who lives, who goes, and what is said of it; then the whole of it over a registry in memory.

use super::super::activation::Activation;
use super::super::engine::effects::Effect;
use super::super::engine::view::{Part, View as Shown};
use super::super::engine::worker::Worker;
use super::super::late::late;
use super::super::mirror::Seen;
use super::super::replicas::BURST;
use super::super::table::{self, cells, pod};
use super::super::view::{View, served};
use super::{Controller as _, Effects, Reconciler};
use crate::testing::LIMIT;
use futures_util::FutureExt as _;
use impresario_objects::{Objects, WriteOptions};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::transaction::MAX_ITEMS;
use impresario_registry_api::{
    Epoch, Fence, Key, ListRequest, Registry as _, Selection, Transaction, shard_of,
};
use k8s_openapi::api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerSpec,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;

fn asking(replicas: i32, ready: i32, seen: i32) -> ReplicationController {
    let labels: std::collections::BTreeMap<_, _> = [("app".into(), "web".into())].into();
    let some = |n: i32| (n > 0).then_some(n);
    ReplicationController {
        metadata: ObjectMeta {
            name: Some("web".into()),
            uid: Some("rc".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicationControllerSpec {
            replicas: Some(replicas),
            selector: Some(labels.clone()),
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: None,
            }),
            ..ReplicationControllerSpec::default()
        }),
        status: Some(ReplicationControllerStatus {
            replicas: seen,
            fully_labeled_replicas: some(seen),
            ready_replicas: some(ready),
            available_replicas: some(ready),
            observed_generation: Some(1),
            conditions: None,
        }),
    }
}

fn reconcile(controller: &ReplicationController, pods: Vec<Pod>, now: Timestamp) -> Effects {
    let stored = serde_json::to_value(controller).unwrap();
    let parts = [Part::of(pods.into_iter().map(table::seen).collect())];
    Reconciler::reconcile(&Shown::new(controller, &stored, &parts), now)
}

fn in_words(controller: &ReplicationController, effects: &Effects) -> String {
    let mut words = Vec::new();
    let mut created = 0;
    for effect in &effects.actions {
        match effect {
            Effect::Adopt(pod) => words.push(format!("adopt {}", pod.name)),
            Effect::Release(pod) => words.push(format!("release {}", pod.name)),
            Effect::Delete(pod) => words.push(format!("delete {}", pod.name)),
            Effect::CreateFrom(_, pod) => {
                assert_eq!(pod.write()["metadata"]["ownerReferences"][0]["uid"], "rc");
                created += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    words.extend((created > 0).then(|| format!("create {created}")));
    let was = serde_json::to_value(controller.status.as_ref().unwrap()).unwrap();
    let status = effects.status.as_ref().unwrap().as_ref().unwrap();
    if *status != was {
        let count = |field: &str| status[field].as_i64().unwrap_or(0);
        words.push(format!("report {}/{}", count("readyReplicas"), count("replicas")));
    }
    words.join(", ")
}

#[test]
fn the_surplus_pod_that_loses_least_work_is_deleted_first() {
    let table = "
        replicas | ready/seen | pods, oldest first          | actions
        2        | 2/2        | a:ready b:ready             |
        3        | 2/2        | a:ready b:ready             | create 1
        900      | 0/0        |                             | create 500
        1        | 1/2        | a:ready b:unbound           | delete b
        1        | 1/2        | a:bound b:ready             | delete a
        1        | 2/2        | a:ready b:ready             | delete b
        1        | 1/1        | a:ready b:ready,terminating |
        1        | 1/1        | a:ready b:failed            |
        0        | 0/1        | a:bound                     | delete a
        1        | 2/2        | a:ready,cost=-5 b:ready     | delete a
        1        | 2/2        | a:ready,cost=7 b:ready,cost=8 | delete a
        1        | 1/2        | a:ready,cost=-5 b:bound     | delete b
        1        | 2/2        | a:ready,cost=cheap b:ready  | delete b
        2        | 3/3        | a:ready,node=2 b:ready,node=1 c:ready,node=1 | delete c
        1        | 2/2        | a:ready,node=1 b:ready,node=2 | delete b
        1        | 0/0        | a:ready,orphan              | adopt a, report 1/1
        1        | 0/0        | a:ready,orphan,other        | create 1
        1        | 1/1        | a:ready,other b:ready       | release a
        1        | 1/1        | a:ready b:ready,foreign     |
        0        | 3/3        |                             | report 0/0";
    for row in table.lines().skip(2) {
        let [replicas, seen, pods, expected] = cells(row);
        let (ready, seen) = seen.split_once('/').unwrap();
        let controller =
            asking(replicas.parse().unwrap(), ready.parse().unwrap(), seen.parse().unwrap());
        let pods: Vec<_> = pods
            .split_whitespace()
            .enumerate()
            .map(|(age, words)| pod(words, age, "rc", "web"))
            .collect();
        let effects = reconcile(&controller, pods, Timestamp::UNIX_EPOCH);
        assert_eq!(in_words(&controller, &effects), expected, "in row {row}");
    }
}

#[test]
fn all_pods_that_a_look_creates_are_written_out_from_one_draft() {
    let effects = reconcile(&asking(500, 0, 0), Vec::new(), Timestamp::UNIX_EPOCH);
    let first = &effects.actions[0];
    assert!(matches!(first, Effect::CreateFrom(..)));
    assert_eq!(effects.actions.len(), 500);
    assert!(effects.actions.iter().all(|action| action == first), "each holds what it creates");
}

#[test]
fn a_controller_that_is_being_deleted_does_nothing_to_pods_and_goes_on_counting_them() {
    let mut controller = asking(3, 3, 3);
    controller.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let words = ["a:ready,orphan", "b:ready,other", "c:ready", "d:ready,terminating", "e:failed"];
    let pods = words.iter().zip(0..).map(|(words, age)| pod(words, age, "rc", "web")).collect();
    let effects = reconcile(&controller, pods, Timestamp::UNIX_EPOCH);
    assert_eq!(in_words(&controller, &effects), "report 1/1");
}

#[test]
fn no_look_deletes_more_pods_than_can_be_taken_back() {
    let all = || (0..1_200).map(|number| pod(&format!("p{number}:ready"), number, "rc", "web"));
    let effects = reconcile(&asking(0, 0, 0), all().collect(), Timestamp::UNIX_EPOCH);
    assert_eq!(effects.actions.len(), 500);
    // Which of them are too many is not told before all are its own.
    let orphan = |number| pod(&format!("o{number}:ready,orphan"), number, "rc", "web");
    let more = (0..600).map(orphan).chain(all()).collect();
    let effects = reconcile(&asking(0, 0, 0), more, Timestamp::UNIX_EPOCH);
    assert_eq!(effects.actions.len(), 500);
    assert!(effects.actions.iter().all(|action| matches!(action, Effect::Adopt(_))));
    assert_eq!(effects.look_again, Some(Timestamp::UNIX_EPOCH));
}

#[test]
fn a_pod_becomes_available_by_time_alone_and_is_looked_at_just_then() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut controller = asking(2, 0, 2);
    controller.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let ready_since = |name: &str, second| {
        let mut pod = pod(&format!("{name}:ready"), 0, "rc", "web");
        let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions[0].last_transition_time = Some(Time(at(second)));
        pod
    };
    for (now, available, again) in [(110, 0, Some(130)), (130, 1, Some(145)), (145, 2, None)] {
        let pods = vec![ready_since("a", 100), ready_since("b", 115)];
        let effects = reconcile(&controller, pods, at(now));
        let status = effects.status.unwrap().unwrap();
        assert_eq!(status["availableReplicas"].as_i64().unwrap_or(0), available, "at {now}");
        assert_eq!(effects.look_again, again.map(at), "at {now}");
    }
}

#[test]
fn a_long_wait_for_replacements_is_said() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let failed = |names: &[&str], apart: i64| -> Vec<Pod> {
        let each = names.iter().zip(0..);
        each.map(|(name, number)| {
            let mut pod = pod(&format!("{name}:failed"), 0, "rc", "web");
            pod.metadata.creation_timestamp = Some(Time(at(1_000 + number * apart)));
            pod
        })
        .collect()
    };
    let short = reconcile(&asking(1, 0, 0), failed(&["a", "b"], 2), at(1_002));
    assert_eq!((short.look_again, short.shortfall), (Some(at(1_006)), None));
    let long = reconcile(&asking(1, 0, 0), failed(&["a", "b"], 20), at(1_020));
    assert_eq!(long.look_again, Some(at(1_060)));
    assert_eq!(long.shortfall.unwrap().reason, "PodsFail");
    assert!(long.actions.is_empty());
}

async fn controller(objects: &Objects, replicas: i32) -> String {
    let labels = json!({ "app": "web" });
    let object = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "web" },
        "spec": { "replicas": replicas, "selector": labels, "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } } },
    });
    let resource = served("", "replicationcontrollers");
    let made = objects.create(&resource, "default", object, &WriteOptions::default()).await;
    made.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// A worker for the controller of this uid.
fn look(view: &View, uid: &str) -> Worker<Reconciler> {
    let activation = Activation {
        actor: "replicationcontroller/web".into(),
        namespace: "default".into(),
        name: "web".into(),
        uid: uid.into(),
        fence: Fence { shard: shard_of(uid), epoch: Epoch(1) },
        since: std::time::Instant::now(),
    };
    Worker::new(view.shared(), &activation)
}

/// The controller as the mirror shows it.
fn seen(view: &View) -> Seen<ReplicationController> {
    view.mirrors.of::<ReplicationController>().get("default", "web").unwrap()
}

async fn founded(registry: &MemoryRegistry) -> Objects {
    registry.assign_shards(&["test".to_owned()]);
    let objects = Objects::new(Arc::new(registry.clone()));
    objects.lay_foundation("pem", 6443).await.unwrap();
    objects
}

#[tokio::test]
async fn looking_again_and_again_creates_no_more_pods_than_are_asked_for() {
    let objects = founded(&MemoryRegistry::default()).await;
    let uid = controller(&objects, 3).await;
    let view = View::start(objects, "test");
    let look = look(&view, &uid);
    for _ in 0..5 {
        look.look_once().await.unwrap();
    }
    assert_eq!(view.pods.within("default").len(), 3);
    assert_eq!(seen(&view).object.status.as_ref().unwrap().replicas, 3);
}

#[tokio::test]
async fn why_no_pod_can_be_created_stands_in_the_controller_until_one_can() {
    let registry = MemoryRegistry::default();
    let objects = founded(&registry).await;
    let uid = controller(&objects, 2).await;
    let view = View::start(objects.clone(), "test");
    let look = look(&view, &uid);
    let condition = async || {
        look.caught_up().await.unwrap();
        let seen = seen(&view);
        let conditions = seen.object.status.as_ref()?.conditions.as_ref()?;
        let [said] = conditions.as_slice() else { panic!("{conditions:?}") };
        Some((said.type_.clone(), said.reason.clone()?, said.message.clone()?))
    };
    let namespace = Key::new("namespaces", "", "default");
    registry.transact(Transaction::new().delete(namespace)).await.unwrap();
    let refused = look.look_once().await.unwrap_err();
    let failure = ("ReplicaFailure".into(), "FailedCreate".into(), refused.to_string());
    assert_eq!(condition().await, Some(failure));
    objects.lay_foundation("pem", 6443).await.unwrap();
    look.look_once().await.unwrap();
    assert_eq!(condition().await, None);
}

#[tokio::test]
async fn more_orphans_than_one_transaction_takes_are_adopted_and_none_is_created_beside_them() {
    let registry = MemoryRegistry::default();
    let objects = founded(&registry).await;
    let orphans = i32::try_from(MAX_ITEMS).unwrap() + 76;
    for number in 0..orphans {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "status": { "phase": "Pending" },
            "metadata": { "name": format!("p{number}"), "namespace": "default",
                "uid": format!("u{number}"), "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "i" }] },
        });
        let key = Key::new("pods", "default", format!("p{number}"));
        registry.transact(Transaction::create(key, pod.to_string())).await.unwrap();
    }
    let uid = controller(&objects, orphans).await;
    let view = View::start(objects, "test");
    let look = look(&view, &uid);
    for _ in 0..=(MAX_ITEMS + 76) / BURST {
        look.look_once().await.unwrap();
    }
    look.caught_up().await.unwrap();
    let pods = view.pods.within("default");
    assert_eq!(pods.len(), MAX_ITEMS + 76, "none had to be created");
    for pod in pods {
        let owners = pod.object.metadata.owner_references.clone().unwrap_or_default();
        let owner = owners.first().map(|owner| owner.uid.as_str());
        assert_eq!(owner, Some(uid.as_str()), "{}", pod.entry.key);
    }
}

#[tokio::test]
async fn a_new_activation_creates_nothing_before_it_sees_what_the_one_before_created() {
    let registry = MemoryRegistry::default();
    let objects = founded(&registry).await;
    let uid = controller(&objects, 3).await;
    let (late, opener) = late(registry, "pods");
    let view = View::start(late.clone(), "test");
    view.pods.reached(1, std::time::Duration::from_secs(60)).await.unwrap();

    // Its view is its own, and sees everything at once.
    look(&View::start(objects, "before"), &uid).look_once().await.unwrap();

    let after = look(&view, &uid);
    let mut looking = after.look_once().boxed();
    assert!(futures_util::poll!(&mut looking).is_pending());
    opener.send_replace(true);
    looking.await.unwrap();
    after.look_once().await.unwrap();
    let all = late.registry().list(ListRequest::of(Selection::all("pods"))).await.unwrap();
    assert_eq!(all.entries.len(), 3);
}

#[tokio::test]
async fn an_orphan_that_another_took_first_is_not_deleted() {
    let registry = MemoryRegistry::default();
    let objects = founded(&registry).await;
    let uid = controller(&objects, 0).await;
    let pod = |owner: serde_json::Value| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "web"},
                "ownerReferences": owner},
            "spec": {"containers": [{"name": "c", "image": "i"}]}})
    };
    let put = async |pod: serde_json::Value| {
        let put = Transaction::new().put(Key::new("pods", "default", "p"), pod.to_string());
        registry.transact(put).await.unwrap();
    };
    put(pod(json!([]))).await;
    let (late, opener) = late(registry.clone(), "pods");
    let view = View::start(late, "test");
    let look = look(&view, &uid);
    look.caught_up().await.unwrap();
    let owner = json!([{"apiVersion": "v1", "kind": "ReplicationController", "name": "quicker",
        "uid": "quicker", "controller": true}]);
    put(pod(owner)).await;
    look.look_once().await.unwrap_err();
    let pods = async || {
        let request = ListRequest::of(Selection::all("pods"));
        objects.registry().list(request).await.unwrap().entries
    };
    let left = pods().await;
    assert_eq!(left.len(), 1, "it is another's");
    opener.send_replace(true);
    view.pods.reached(left[0].mod_revision, LIMIT).await.unwrap();
    look.look_once().await.unwrap();
    assert_eq!(pods().await, left);
}
