//! The engine with a controller of its own: one secret for each config map that asks for one.

mod refused;

use super::super::activation::Activation;
use super::super::control::{Control, LookError, Next};
use super::super::labels;
use super::super::mirror::Mirror;
use super::controller::Controller;
use super::effects::Effects;
use super::looks_at::LooksAt;
use super::shared::Shared;
use super::sources::Concerned;
use super::view::View;
use super::worker::Worker;
use crate::testing::{LIMIT, eventually};
use actix::Actor as _;
use impresario_client::protocol::control::{Changed, Describe};
use impresario_objects::Objects;
use impresario_objects::events::Severity;
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{
    Epoch, Fence, Key, ListRequest, Revision, Selection, Transaction, shard_of,
};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;

mod late;

/// Makes a secret for each config map, panics where the map says so, and looks again after an hour.
enum Sealer {}

impl Controller for Sealer {
    type Object = ConfigMap;

    fn looks_at() -> LooksAt<ConfigMap> {
        LooksAt::itself().owned_or_adopted::<Secret>(wanted)
    }

    fn reconcile(view: &View<'_, ConfigMap>, now: Timestamp) -> Effects {
        let data = view.object.data.clone().unwrap_or_default();
        assert!(!data.contains_key("panic"), "it says {}", data["panic"]);
        let mut effects = Effects::default();
        match view.of::<Secret>() {
            [] => effects.create::<Secret>(json!({"metadata": {
                "generateName": "sealed-", "ownerReferences": [view.owner().reference()] }})),
            [first, rest @ ..] => {
                if first.metadata.owner_references.is_none() {
                    effects.adopt(first.as_ref());
                }
                for secret in rest {
                    effects.delete(secret.as_ref());
                }
            }
        }
        effects.look_again(now + SignedDuration::from_hours(1));
        effects
    }
}

fn wanted(map: &ConfigMap) -> Option<LabelSelector> {
    assert!(!labels::of(&map.metadata).contains_key("panic"), "it has no selector");
    let match_labels = Some(map.metadata.labels.clone()?);
    Some(LabelSelector { match_labels, ..LabelSelector::default() })
}

struct World {
    registry: MemoryRegistry,
    shared: Shared,
}

impl World {
    async fn new() -> Self {
        let registry = MemoryRegistry::default();
        registry.assign_shards(&["test".to_owned()]);
        let objects = Objects::new(Arc::new(registry.clone()));
        objects.lay_foundation("pem", 6443).await.unwrap();
        let clock = Arc::new(|| Timestamp::from_second(1_000).unwrap());
        let shared = Shared { clock, authority: "pem".into(), ..Shared::start(objects, "test") };
        Self { registry, shared }
    }

    /// Stores an object with these labels and this data; its uid.
    async fn create(&self, resource: &str, name: &str, labels: Value, data: Value) -> String {
        let uid = format!("uid-{name}");
        let object = json!({"metadata": {"name": name, "namespace": "default", "uid": uid, "labels": labels}, "data": data});
        let create = Transaction::create(Key::new(resource, "default", name), object.to_string());
        self.registry.transact(create).await.unwrap();
        uid
    }

    /// The newest revision.
    async fn revision(&self) -> Revision {
        let request = ListRequest::of(Selection::all("configmaps"));
        self.registry.list(request).await.unwrap().revision
    }

    fn worker(&self, name: &str) -> Worker<Sealer> {
        self.worker_of(name)
    }

    fn worker_of<C: Controller<Object = ConfigMap>>(&self, name: &str) -> Worker<C> {
        let uid = format!("uid-{name}");
        let activation = Activation {
            actor: name.into(),
            namespace: "default".into(),
            name: name.into(),
            fence: Fence { shard: shard_of(&uid), epoch: Epoch(1) },
            uid,
            since: clock::now(),
        };
        Worker::new(self.shared.clone(), &activation)
    }

    /// The objects of a resource, as the registry has them.
    async fn all(&self, resource: &str) -> Vec<Value> {
        let request = ListRequest::of(Selection::all(resource));
        let entries = self.registry.list(request).await.unwrap().entries;
        entries.iter().map(|entry| serde_json::from_slice(&entry.value).unwrap()).collect()
    }

    /// Waits until the objects of a resource are as wanted.
    async fn until(&self, resource: &str, holds: impl Fn(&[Value]) -> bool) {
        eventually(resource, async || {
            let all = self.all(resource).await;
            if holds(&all) { Ok(()) } else { Err(all) }
        })
        .await;
    }
}

/// The uids of the controllers of objects.
fn owners(of: &[Value]) -> Vec<String> {
    let uid = |object: &Value| {
        object["metadata"]["ownerReferences"][0]["uid"].as_str().map(str::to_owned)
    };
    of.iter().filter_map(uid).collect()
}

#[tokio::test]
async fn what_is_done_once_is_not_done_again_and_the_clock_is_the_engines() {
    let world = World::new().await;
    world.create("configmaps", "a", json!({}), json!({})).await;
    let worker = world.worker("a");
    for _ in 0..3 {
        let next = worker.look_once().await.unwrap();
        assert_eq!(next, Next::At(Timestamp::from_second(4_600).unwrap()));
    }
    assert_eq!(owners(&world.all("secrets").await), ["uid-a"]);
}

#[tokio::test]
async fn an_orphan_is_adopted_and_another_object_of_the_name_is_not_meant() {
    let world = World::new().await;
    world.create("secrets", "left", json!({"app": "a"}), json!({})).await;
    world.create("configmaps", "a", json!({"app": "a"}), json!({})).await;
    world.worker("a").look_once().await.unwrap();
    assert_eq!(owners(&world.all("secrets").await), ["uid-a"], "none had to be made");

    // The map is made anew with another uid: the old one's actor has nothing to do with it.
    let key = Key::new("configmaps", "default", "a");
    world.registry.transact(Transaction::new().delete(key.clone())).await.unwrap();
    world
        .registry
        .transact(Transaction::new().delete(Key::new("secrets", "default", "left")))
        .await
        .unwrap();
    let anew = json!({"metadata": {"name": "a", "namespace": "default", "uid": "anew"}});
    world.registry.transact(Transaction::create(key, anew.to_string())).await.unwrap();
    assert_eq!(world.worker("a").look_once().await.unwrap(), Next::WhenTold);
    assert_eq!(world.all("secrets").await, Vec::<Value>::new());
}

#[tokio::test]
async fn who_lost_the_shard_changes_nothing() {
    let world = World::new().await;
    world.create("secrets", "left", json!({"app": "a"}), json!({})).await;
    let uid = world.create("configmaps", "a", json!({"app": "a"}), json!({})).await;
    let worker = world.worker("a");
    // The shard goes to another member and comes back: the epoch is another.
    for member in ["other", "test"] {
        world.registry.assign_shards(&[member.to_owned()]);
    }
    let error = worker.look_once().await.unwrap_err();
    assert!(error.is_fenced(), "{error} for {uid}");
    assert_eq!(owners(&world.all("secrets").await), Vec::<String>::new());
}

#[actix::test]
async fn who_lost_the_shard_creates_and_deletes_nothing_says_nothing_and_stops() {
    let owned = |name: &str| {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "uid-a",
            "controller": true});
        json!({"metadata": {"name": name, "namespace": "default", "uid": name,
            "ownerReferences": [owner]}})
    };
    for there in [vec![], vec!["one", "two"]] {
        let world = World::new().await;
        world.create("configmaps", "a", json!({}), json!({})).await;
        for name in &there {
            let create =
                Transaction::create(Key::new("secrets", "default", *name), owned(name).to_string());
            world.registry.transact(create).await.unwrap();
        }
        for member in ["other", "test"] {
            world.registry.assign_shards(&[member.to_owned()]);
        }
        let error = world.worker("a").look_once().await.unwrap_err();
        assert!(error.is_fenced() && !error.is_of_one_object(), "{error}");
        let fence = Fence { shard: shard_of("uid-a"), epoch: Epoch(1) };
        let actor = Control::new("a".into(), fence, world.worker("a").shared()).start();
        eventually(
            "it stops",
            async || if actor.connected() { Err("it looks on") } else { Ok(()) },
        )
        .await;
        assert_eq!(world.all("secrets").await.len(), there.len());
        // Events are written in their order.
        let about = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "default", "name": "a", "uid": "uid-a"}});
        world.shared.events.record(&about, Severity::Normal, "Last", "nothing comes after this");
        world.until("events", |events| events.iter().any(|event| event["reason"] == "Last")).await;
        assert_eq!(world.all("events").await.len(), 1);
    }
}

#[actix::test]
async fn a_controller_that_panics_over_one_object_says_so_and_goes_on_with_the_others() {
    let world = World::new().await;
    let bad =
        world.create("configmaps", "bad", json!({}), json!({"panic": "x".repeat(5_000)})).await;
    let good = world.create("configmaps", "good", json!({}), json!({})).await;
    let error = world.worker("bad").look_once().await.unwrap_err();
    assert!(matches!(error, LookError::Panicked { .. }) && error.is_of_one_object(), "{error}");
    assert!(error.to_string().contains("it says xxx") && error.to_string().len() < 1_000);

    let actor = |name: &str| {
        let uid = format!("uid-{name}");
        let fence = Fence { shard: shard_of(&uid), epoch: Epoch(1) };
        Control::new(name.to_owned(), fence, world.worker(name).shared()).start()
    };
    let (broken, _well) = (actor("bad"), actor("good"));
    world.until("secrets", |secrets| owners(secrets) == [good.clone()]).await;
    world
        .until("events", |events| {
            events.iter().any(|event| {
                event["reason"] == "ReconcilePanicked"
                    && event["involvedObject"]["uid"] == bad.as_str()
            })
        })
        .await;
    eventually("it says what went wrong", async || {
        let described = broken.send(Describe).await.unwrap();
        let says = described.last_error.as_ref().is_some_and(|error| error.contains("panicked"));
        if says { Ok(()) } else { Err(described) }
    })
    .await;

    // The object is mended: its actor has been trying again, and is content.
    let key = Key::new("configmaps", "default", "bad");
    let mended = json!({"metadata": {"name": "bad", "namespace": "default", "uid": bad}});
    world.registry.transact(Transaction::new().put(key, mended.to_string())).await.unwrap();
    broken.do_send(Changed);
    world.until("secrets", |secrets| owners(secrets).len() == 2).await;
}

#[tokio::test]
async fn a_change_wakes_the_controller_of_what_changed_and_those_that_would_adopt_it() {
    let world = World::new().await;
    for (name, app) in [("a", "a"), ("b", "b")] {
        world.create("configmaps", name, json!({"app": app}), json!({})).await;
    }
    let maps: Mirror<ConfigMap> = world.shared.mirrors.of();
    let secrets: Mirror<Secret> = world.shared.mirrors.of();
    maps.reached(1, LIMIT).await.unwrap();
    secrets.reached(1, LIMIT).await.unwrap();
    let (told, mut hints) = mpsc::channel(64);
    let sources = Sealer::looks_at().sources(&world.shared.mirrors);
    let names: Vec<_> = sources.iter().map(|source| source.name().to_owned()).collect();
    assert_eq!(
        names,
        ["controllers of secrets of v1", "orphans of secrets of v1 for configmaps of v1"]
    );
    let mut running: Vec<_> = sources.iter().map(|source| source.run(told.clone())).collect();
    for source in &mut running {
        assert!(futures_util::poll!(source).is_pending(), "it waits for what comes");
    }
    let running = futures_util::future::join_all(running);
    let mut next = Box::pin(async {
        tokio::pin!(running);
        let mut next = async || tokio::time::timeout(LIMIT, hints.recv()).await.unwrap().unwrap();
        let mut seen = Vec::new();
        let steps = async {
            world.create("secrets", "orphan", json!({"app": "a"}), json!({})).await;
            seen.push(next().await);
            world.create("secrets", "nobodys", json!({"app": "x"}), json!({})).await;
            world.create("configmaps", "late", json!({"app": "c"}), json!({})).await;
            // Else its own change wakes it, and it looks for orphans.
            maps.reached(world.revision().await, LIMIT).await.unwrap();
            world.create("secrets", "lates", json!({"app": "c"}), json!({})).await;
            seen.push(next().await);
            let owned = json!({"metadata": {"name": "owned", "namespace": "default", "uid": "o",
                "labels": {"app": "a"}, "ownerReferences": [{"uid": "boss", "controller": true,
                    "apiVersion": "v1", "kind": "ConfigMap", "name": "boss"}]}});
            let key = Key::new("secrets", "default", "owned");
            world.registry.transact(Transaction::create(key, owned.to_string())).await.unwrap();
            seen.push(next().await);
        };
        tokio::select! {
            _ = &mut running => panic!("they end with the mirrors"),
            () = steps => {}
        }
        seen
    });
    let of = |uid: &str| Concerned::Uids(vec![uid.to_owned()]);
    assert_eq!((&mut next).await, [of("uid-a"), of("uid-late"), of("boss")]);
}

fn zone(node: &Node) -> Option<String> {
    let zone = node.metadata.labels.as_ref()?.get("zone")?;
    assert!(zone != "nowhere", "there is no such zone");
    Some(zone.clone())
}

/// Looks at what is not its own.
enum Onlooker {}

impl Controller for Onlooker {
    type Object = ConfigMap;

    fn looks_at() -> LooksAt<ConfigMap> {
        LooksAt::itself()
            .selected::<Secret>(wanted)
            .of_its_name::<ServiceAccount>()
            .everywhere::<Node, _>(|node| zone(node).is_some(), zone)
    }

    fn reconcile(_: &View<'_, ConfigMap>, _: Timestamp) -> Effects {
        Effects::default()
    }
}

#[tokio::test]
async fn what_is_selected_or_has_its_name_or_says_something_everywhere_wakes_a_controller() {
    let world = World::new().await;
    for (name, app) in [("a", "a"), ("b", "b")] {
        world.create("configmaps", name, json!({"app": app}), json!({})).await;
    }
    let mirrors = &world.shared.mirrors;
    mirrors.of::<ConfigMap>().reached(world.revision().await, LIMIT).await.unwrap();
    mirrors.of::<Secret>().reached(1, LIMIT).await.unwrap();
    mirrors.of::<ServiceAccount>().reached(1, LIMIT).await.unwrap();
    mirrors.of::<Node>().reached(1, LIMIT).await.unwrap();
    let (told, mut hints) = mpsc::channel(64);
    let sources = Onlooker::looks_at().sources(mirrors);
    let mut running: Vec<_> = sources.iter().map(|source| source.run(told.clone())).collect();
    for source in &mut running {
        assert!(futures_util::poll!(source).is_pending(), "it waits for what comes");
    }
    let mut tasks = tokio::task::JoinSet::new();
    for source in running {
        tasks.spawn(source);
    }
    let mut next = async || tokio::time::timeout(LIMIT, hints.recv()).await.unwrap().unwrap();
    let of = |uids: &[&str]| Concerned::Uids(uids.iter().map(|&uid| uid.to_owned()).collect());

    let owned = json!({"metadata": {"name": "owned", "namespace": "default", "uid": "o",
        "labels": {"app": "a"}, "ownerReferences": [{"uid": "boss", "controller": true,
            "apiVersion": "v1", "kind": "ConfigMap", "name": "boss"}]}});
    let key = Key::new("secrets", "default", "owned");
    world.registry.transact(Transaction::create(key, owned.to_string())).await.unwrap();
    assert_eq!(next().await, of(&["uid-a"]), "whoever controls it");
    world.create("serviceaccounts", "b", json!({}), json!({})).await;
    assert_eq!(next().await, of(&["uid-b"]));
    world.create("nodes", "quiet", json!({}), json!({})).await;
    world.create("nodes", "lost", json!({"zone": "nowhere"}), json!({})).await;
    world.create("nodes", "loud", json!({"zone": "z"}), json!({})).await;
    // Of the other nodes nothing is to be said. There are maps of the cluster's own, too.
    let Concerned::Uids(all) = next().await else { panic!("not everybody") };
    assert!(["uid-a", "uid-b"].iter().all(|&uid| all.contains(&uid.to_owned())), "{all:?}");
}

#[tokio::test]
async fn a_selector_that_panics_over_one_object_keeps_nobody_else_from_being_woken() {
    let world = World::new().await;
    world.create("configmaps", "bad", json!({"panic": "x"}), json!({})).await;
    world.create("configmaps", "good", json!({"app": "a"}), json!({})).await;
    let mirrors = &world.shared.mirrors;
    mirrors.of::<ConfigMap>().reached(world.revision().await, LIMIT).await.unwrap();
    mirrors.of::<Secret>().reached(1, LIMIT).await.unwrap();
    let (told, mut hints) = mpsc::channel(64);
    let mut tasks = tokio::task::JoinSet::new();
    for source in Sealer::looks_at().sources(mirrors) {
        let mut running = source.run(told.clone());
        assert!(futures_util::poll!(&mut running).is_pending(), "it waits for what comes");
        tasks.spawn(running);
    }
    world.create("secrets", "orphan", json!({"app": "a"}), json!({})).await;
    let next = tokio::time::timeout(LIMIT, hints.recv()).await.unwrap();
    assert_eq!(next, Some(Concerned::Uids(vec!["uid-good".to_owned()])));
    let error = world.worker("bad").look_once().await.unwrap_err();
    assert!(error.to_string().contains("it has no selector"), "{error}");
    world.worker("good").look_once().await.unwrap();
    assert_eq!(owners(&world.all("secrets").await), ["uid-good"]);
}
