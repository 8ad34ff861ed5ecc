use super::*;
use futures_util::StreamExt as _;
use impresario_api::catalog::find;
use impresario_api::resource::Row;
use impresario_objects::{Binding, DeleteOptions, Door, WriteOptions};
use impresario_registry::{Epoch, Fence, Key, MemoryRegistry, Shard};
use impresario_registry_api::Transaction;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

fn row(plural: &str) -> Row {
    find("", "v1", plural).unwrap()
}

struct World {
    objects: Objects,
    followed: Followed,
    look: QuotaLook,
    now: Mutex<Timestamp>,
}

impl World {
    async fn new(hard: Value) -> Self {
        let registry = MemoryRegistry::default();
        let objects = Objects::new(Arc::new(registry.clone()));
        objects.lay_foundation("pem", 6443).await.unwrap();
        registry.assign_shards(&["test".to_owned()]);
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let followed = Followed::follow(Arc::new(registry));
        let look = QuotaLook::new(objects.fenced(fence), followed.clone());
        let now = Mutex::new(clock::timestamp());
        let world = Self { objects, followed, look, now };
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
        world.create("resourcequotas", quota).await.unwrap();
        world
    }

    async fn create(
        &self,
        plural: &str,
        object: Value,
    ) -> Result<Value, impresario_api::status::Status> {
        self.objects.create(&row(plural), "default", object, &WriteOptions::default()).await
    }

    async fn used(&self) -> Value {
        let quota = self.objects.get(&row("resourcequotas"), "default", "q").await.unwrap();
        quota["status"]["used"].clone()
    }

    /// A time by which the pace does not matter.
    fn later(&self) -> Timestamp {
        let mut now = self.now.lock();
        *now += SignedDuration::from_secs(10);
        *now
    }

    /// Looks whenever something is told, as its actor does, until the quota says so.
    async fn until_used(&self, expected: Value) {
        let mut changes = self.followed.changes();
        let looking = async {
            while self.used().await != expected {
                changes.next().await;
                let now = self.later();
                self.look.look_once(now).await.unwrap();
            }
        };
        let done = timeout(LIMIT, looking).await;
        assert!(done.is_ok(), "{expected} expected, {} used", self.used().await);
    }
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "100m"}}}]}})
}

#[tokio::test]
async fn what_goes_and_what_ends_is_free_again() {
    let world = World::new(json!({"pods": "2", "requests.cpu": "1", "secrets": "1"})).await;
    let early = world.create("pods", pod("early")).await.unwrap_err();
    assert!(early.message.contains("status unknown for quota: q"), "{early}");
    world.until_used(json!({"pods": "0", "requests.cpu": "0", "secrets": "0"})).await;
    for name in ["a", "b"] {
        world.create("pods", pod(name)).await.unwrap();
    }
    world.create("secrets", json!({"metadata": {"name": "s"}})).await.unwrap();
    assert_eq!(world.used().await, json!({"pods": "2", "requests.cpu": "200m", "secrets": "1"}));
    let refused = world.create("pods", pod("c")).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
    // One is deleted, one ends.
    let (write, delete) = (WriteOptions::default(), DeleteOptions::default());
    world.objects.delete(&row("pods"), "default", "a", &delete, &write).await.unwrap();
    world.objects.delete(&row("secrets"), "default", "s", &delete, &write).await.unwrap();
    world.until_used(json!({"pods": "1", "requests.cpu": "100m", "secrets": "0"})).await;
    world.objects.bind("default", "b", &Binding::to("n1"), &write).await.unwrap();
    let ended = |old: &Value| {
        let mut pod = old.clone();
        pod["status"]["phase"] = "Succeeded".into();
        Ok(pod)
    };
    world.objects.modify(&row("pods"), Door::Status, "default", "b", &write, ended).await.unwrap();
    world.until_used(json!({"pods": "0", "requests.cpu": "0", "secrets": "0"})).await;
    world.create("pods", pod("c")).await.unwrap();
}

#[tokio::test]
async fn a_quota_that_asks_for_something_else_is_counted_anew() {
    let world = World::new(json!({"pods": "2"})).await;
    world.until_used(json!({"pods": "0"})).await;
    let present = world.create("configmaps", json!({"metadata": {"name": "m"}})).await;
    present.unwrap();
    let asks = |old: &Value| {
        let mut quota = old.clone();
        quota["spec"]["hard"] = json!({"configmaps": "3"});
        Ok(quota)
    };
    let write = WriteOptions::default();
    let (quotas, objects) = (row("resourcequotas"), &world.objects);
    objects.modify(&quotas, Door::Main, "default", "q", &write, asks).await.unwrap();
    // The other one is the authority that every namespace has.
    world.until_used(json!({"configmaps": "2"})).await;
    let mark = json!({"metadata": {"name": "n"}});
    world.create("configmaps", mark).await.unwrap();
    let over = world.create("configmaps", json!({"metadata": {"name": "o"}})).await.unwrap_err();
    assert_eq!(over.code(), 403, "{over}");
}

#[tokio::test]
async fn a_namespace_is_counted_once_in_a_second_at_most() {
    let world = World::new(json!({"pods": "2"})).await;
    world.until_used(json!({"pods": "0"})).await;
    let now = world.later() + SignedDuration::from_mins(60);
    assert_eq!(world.look.look_once(now).await.unwrap(), Next::WhenTold, "nobody asked");
    world.look.due.lock().insert("default".to_owned());
    assert_eq!(world.look.look_once(now).await.unwrap(), Next::At(now + PACE));
    assert_eq!(world.look.look_once(now + PACE).await.unwrap(), Next::WhenTold);
    assert!(world.look.due.lock().is_empty());
}

#[tokio::test]
async fn a_namespace_that_cannot_be_counted_keeps_no_other_from_it() {
    let world = World::new(json!({"pods": "2"})).await;
    let (objects, write) = (&world.objects, WriteOptions::default());
    let space = json!({"metadata": {"name": "broken"}});
    objects.create(&row("namespaces"), "", space, &write).await.unwrap();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}});
    objects.create(&row("resourcequotas"), "broken", quota, &write).await.unwrap();
    let damaged = Transaction::create(Key::new("pods", "broken", "p"), "{");
    objects.registry().transact(damaged).await.unwrap();
    let mut changes = world.followed.changes();
    while world.followed.namespaces().len() < 2 {
        changes.next().await;
    }
    assert!(world.look.look_once(world.later()).await.is_err());
    assert_eq!(world.used().await, json!({"pods": "0"}));
    // It is tried again.
    assert!(world.look.due.lock().contains("broken"));
}
