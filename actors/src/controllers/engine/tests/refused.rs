//! What cannot be done of what a controller wants.

use super::super::effects::Draft;
use super::super::kind_name::KindName;
use super::*;

/// Makes the secrets that a config map names, each in the place of the one that it says, or lets that grow, and tells
/// of none.
enum Quiet {}

impl Controller for Quiet {
    type Object = ConfigMap;

    const SILENT_OF: &'static [KindName] = &[KindName::of::<Secret>()];

    fn looks_at() -> LooksAt<ConfigMap> {
        LooksAt::itself().owned_or_adopted::<Secret>(wanted)
    }

    fn reconcile(view: &View<'_, ConfigMap>, _: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let owner = view.owner().reference();
        let secret = |name: &str| json!({"metadata": {"name": name, "ownerReferences": [owner]}});
        let there = |name: &str| {
            view.of::<Secret>().iter().find(|it| it.metadata.name.as_deref() == Some(name))
        };
        for (what, name) in view.object.data.iter().flatten() {
            match there(what) {
                Some(old) if name == "grows" => {
                    effects.rewrite(old.as_ref(), json!({"data": {"x": "x".repeat(4 << 20)}}));
                }
                Some(old) => {
                    let new = secret(name);
                    effects.replace(old.as_ref(), &Draft::new(move || new.clone()), None);
                }
                None if there(name).is_none() => effects.create::<Secret>(secret(name)),
                None => {}
            }
        }
        effects
    }
}

fn names(of: &[Value]) -> Vec<&str> {
    of.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_cannot_be_replaced_stays_until_it_can() {
    let world = World::new().await;
    world.create("secrets", "old", json!({"app": "a"}), json!({})).await;
    for (map, name, left) in [("a", "No Name!", ["old"]), ("b", "new", ["new"])] {
        world.create("configmaps", map, json!({"app": "a"}), json!({"old": name})).await;
        let outcome = world.worker_of::<Quiet>(map).look_once().await;
        assert_eq!(outcome.is_ok(), map == "b", "{outcome:?}");
        assert_eq!(names(&world.all("secrets").await), left);
    }
}

#[tokio::test]
async fn what_is_refused_is_said_of_kinds_too_of_which_it_is_not_said_what_is_done() {
    let world = World::new().await;
    world.create("secrets", "old", json!({"app": "a"}), json!({})).await;
    for (map, data, reason) in [
        ("a", json!({"new": "No Name!"}), "FailedCreate"),
        ("b", json!({"old": "grows"}), "FailedUpdate"),
    ] {
        let uid = world.create("configmaps", map, json!({"app": "a"}), data).await;
        let error = world.worker_of::<Quiet>(map).look_once().await.unwrap_err();
        assert!(error.is_for_what_is_wanted(), "{error}");
        let is_told = |event: &Value| {
            event["reason"] == reason && event["involvedObject"]["uid"] == uid.as_str()
        };
        world.until("events", |events| events.iter().any(is_told)).await;
    }
    assert_eq!(world.all("events").await.len(), 2);
}

#[tokio::test]
async fn a_name_that_another_has_keeps_nothing_else_from_being_made() {
    let world = World::new().await;
    world.create("secrets", "others", json!({"app": "b"}), json!({})).await;
    let data = json!({"1": "others", "2": "mine"});
    world.create("configmaps", "a", json!({"app": "a"}), data).await;
    let error = world.worker_of::<Quiet>("a").look_once().await.unwrap_err();
    assert!(!error.is_for_what_is_wanted(), "{error}");
    assert_eq!(names(&world.all("secrets").await), ["mine", "others"]);
}

/// Makes one secret, in the first of its places that nobody else has.
enum Elsewhere {}

impl Controller for Elsewhere {
    type Object = ConfigMap;

    const SILENT_OF: &'static [KindName] = &[KindName::of::<Secret>()];

    fn looks_at() -> LooksAt<ConfigMap> {
        LooksAt::itself().owned_or_adopted::<Secret>(wanted)
    }

    fn reconcile(view: &View<'_, ConfigMap>, _: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let free = view.object.data.iter().flatten().find(|(_, name)| !view.is_taken(name));
        if let Some((_, name)) = free.filter(|_| view.of::<Secret>().is_empty()) {
            let owner = view.owner().reference();
            effects
                .create::<Secret>(json!({"metadata": {"name": name, "ownerReferences": [owner]}}));
        }
        effects
    }
}

#[tokio::test]
async fn names_that_others_have_are_kept_in_mind_until_one_is_found_that_is_free() {
    let world = World::new().await;
    for name in ["one", "two"] {
        world.create("secrets", name, json!({"app": "b"}), json!({})).await;
    }
    let data = json!({"1": "one", "2": "two", "3": "free"});
    world.create("configmaps", "a", json!({"app": "a"}), data).await;
    let worker = world.worker_of::<Elsewhere>("a");
    for _ in 0..2 {
        worker.look_once().await.unwrap_err();
    }
    worker.look_once().await.unwrap();
    assert_eq!(names(&world.all("secrets").await), ["free", "one", "two"]);
}
