//! What cannot be done of what a controller wants.

use super::super::effects::Draft;
use super::super::kind_name::KindName;
use super::*;

/// Makes the secrets that a config map names, the first in the place of the one that it says, and tells of none.
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
