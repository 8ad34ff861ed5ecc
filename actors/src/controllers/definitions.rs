//! Kinds that users define: accepts their names, says when they are served, and empties those that go.
//!
//! Every control member serves the kinds by itself (`impresario_objects::definitions`); what is written of them is
//! written by the one that holds the shard of this singleton.

use super::activation::Kind;
use super::control::{Look, LookError, Next};
use super::engine::sources::Source;
use super::looking;
use crate::scheduler::Members;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::Objects;
use impresario_objects::definitions::{Definitions, Settler};
use std::sync::Arc;

/// The singleton that looks after definitions of kinds.
pub const DEFINITIONS: &str = "kind-definitions";

struct DefinitionsLook(Settler);

impl Look for DefinitionsLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        async {
            let next = self.0.settle().await?;
            Ok(next.map_or(Next::WhenTold, Next::At))
        }
        .boxed()
    }
}

/// The kind of this singleton's actor, over what the member serves. `members` names the control members, which all serve
/// the kinds.
#[must_use]
pub fn kind(objects: &Objects, definitions: &Definitions, members: Members) -> Kind {
    let (objects, followed) = (objects.clone(), definitions.clone());
    let signals = definitions.clone();
    Kind::One {
        name: DEFINITIONS,
        sources: vec![Source::signals(DEFINITIONS, move || signals.changes())],
        start: looking(move |activation| {
            let objects = objects.fenced(activation.fence);
            let members = members.clone();
            let is_alone = move || members().len() <= 1;
            Arc::new(DefinitionsLook(Settler::new(objects, followed.clone(), is_alone)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use impresario_api::catalog::find;
    use impresario_api::resource::resource_key_of;
    use impresario_objects::definitions::Followed;
    use impresario_objects::{DeleteOptions, Door, ListQuery, Reader, WriteOptions};
    use impresario_registry::{Epoch, Fence, MemoryRegistry, Shard};
    use impresario_registry_api::{ListRequest, Selection};
    use impresario_runtime::clock;
    use serde_json::{Value, json};

    /// A registry with a member that follows its definitions and holds the shard with the epoch 1.
    struct World {
        objects: Objects,
        definitions: Definitions,
        kind: impresario_api::resource::Row,
    }

    impl World {
        fn new() -> Self {
            let registry = MemoryRegistry::default();
            let objects = Objects::new(Arc::new(registry.clone()));
            let definitions = Definitions::follow(Reader::new(Arc::new(registry.clone())));
            registry.assign_shards(&["test".to_owned()]);
            let kind = find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
            Self { objects, definitions, kind }
        }

        fn look(&self, epoch: u64, members: usize) -> DefinitionsLook {
            let objects = self.objects.fenced(Fence { shard: Shard(0), epoch: Epoch(epoch) });
            DefinitionsLook(Settler::new(objects, self.definitions.clone(), move || members == 1))
        }

        /// Defines `Thing` in a group.
        async fn define(&self, group: &str) {
            let definition = json!({
                "metadata": {"name": format!("things.{group}")},
                "spec": {
                    "group": group, "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
                    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
                },
            });
            let write = WriteOptions::default();
            self.objects.create(&self.kind, "", definition, &write).await.unwrap();
            self.until_followed(group, |_| true).await;
        }

        /// Until the member has seen a definition as it should be.
        async fn until_followed(&self, group: &str, is_so: impl Fn(&Value) -> bool) {
            let name = format!("things.{group}");
            let mut changes = self.definitions.changes();
            let is = |one: &Followed| one.object["metadata"]["name"] == *name && is_so(&one.object);
            while !self.definitions.all().iter().any(&is) {
                changes.next().await;
            }
        }

        /// Looks until a definition is established and seen to be.
        async fn establish(&self, group: &str) {
            self.look(1, 1).look().await.unwrap();
            self.until_followed(group, |one| said(one, "NamesAccepted") == "True").await;
            self.look(1, 1).look().await.unwrap();
            self.until_followed(group, |one| said(one, "Established") == "True").await;
        }

        async fn create(&self, group: &str, name: &str, finalizers: Value) {
            let row = find(group, "v1", "things").unwrap();
            let thing = json!({"metadata": {"name": name, "finalizers": finalizers}});
            self.objects.create(&row, "", thing, &WriteOptions::default()).await.unwrap();
        }

        async fn delete(&self, group: &str) {
            let (name, write) = (format!("things.{group}"), WriteOptions::default());
            let options = DeleteOptions::default();
            self.objects.delete(&self.kind, "", &name, &options, &write).await.unwrap();
            let goes = |one: &Value| !one["metadata"]["deletionTimestamp"].is_null();
            self.until_followed(group, goes).await;
        }

        async fn left(&self, group: &str) -> usize {
            let row = find(group, "v1", "things").unwrap();
            self.objects.list(&row, &ListQuery::default()).await.unwrap().items.len()
        }

        /// Until the member serves it no more.
        async fn until_gone(&self, group: &str) {
            let mut changes = self.definitions.changes();
            let name = format!("things.{group}");
            let is = |one: &Followed| one.object["metadata"]["name"] == *name;
            while self.definitions.all().iter().any(is) {
                changes.next().await;
            }
            assert!(find(group, "v1", "things").is_none());
        }
    }

    fn said(definition: &Value, condition: &str) -> String {
        let all = definition["status"]["conditions"].as_array();
        let found = all.into_iter().flatten().find(|one| one["type"] == condition);
        found.map(|one| one["status"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_kind_is_established_where_it_is_served_and_goes_with_its_definition() {
        let (world, group) = (World::new(), "looked.example.com");
        world.define(group).await;
        let late = world.look(7, 1).look().await.unwrap_err();
        assert!(late.is_fenced(), "another member holds the shard: {late}");
        world.establish(group).await;
        world.create(group, "a", json!([])).await;
        world.delete(group).await;
        assert_eq!(world.look(1, 1).look().await.unwrap(), Next::WhenTold);
        world.until_gone(group).await;
    }

    #[tokio::test]
    async fn a_large_deletion_holds_no_other_definition_up_and_two_take_turns() {
        let world = World::new();
        let (large, also, new) =
            ("large.example.com", "larger.example.com", "meanwhile.example.com");
        for group in [large, also] {
            world.define(group).await;
            world.establish(group).await;
            for number in 0..1_100 {
                world.create(group, &format!("a-{number}"), json!([])).await;
            }
        }
        for group in [large, also] {
            world.delete(group).await;
        }
        world.define(new).await;
        let look = world.look(1, 1);
        assert!(matches!(look.look().await.unwrap(), Next::At(_)), "there is more to do");
        assert_eq!((world.left(large).await, world.left(also).await), (100, 1_100));
        world.until_followed(new, |one| said(one, "NamesAccepted") == "True").await;
        look.look().await.unwrap();
        assert_eq!((world.left(large).await, world.left(also).await), (100, 100));
        world.until_followed(new, |one| said(one, "Established") == "True").await;
        assert_eq!(look.look().await.unwrap(), Next::WhenTold);
        world.until_gone(large).await;
        world.until_gone(also).await;
    }

    #[tokio::test]
    async fn what_others_hold_is_not_looked_at_for_each_hint() {
        let (world, group) = (World::new(), "held.example.com");
        world.define(group).await;
        world.establish(group).await;
        world.create(group, "a", json!(["example.com/holds"])).await;
        world.delete(group).await;
        let look = world.look(1, 1);
        let again = look.look().await.unwrap();
        let waits = |one: &Value| one.to_string().contains("1 objects wait for their finalizers");
        world.until_followed(group, waits).await;
        let row = find(group, "v1", "things").unwrap();
        let free = |thing: &Value| {
            let mut thing = thing.clone();
            thing["metadata"]["finalizers"] = json!([]);
            Ok(thing)
        };
        let write = WriteOptions::default();
        world.objects.modify(&row, Door::Main, "", "a", &write, free).await.unwrap();
        assert_eq!(world.left(group).await, 0);
        let hinted = look.look().await.unwrap();
        let Next::At(at) = again else { panic!("it is looked at again") };
        if clock::timestamp() < at {
            assert_eq!(hinted, again);
        }
        // Another activation knows nothing of that, and comes to the same end at once.
        assert_eq!(world.look(1, 1).look().await.unwrap(), Next::WhenTold);
        world.until_gone(group).await;
    }

    #[tokio::test]
    async fn a_kind_whose_names_were_taken_from_it_goes_with_its_objects_all_the_same() {
        let (world, group) = (World::new(), "emptied.example.com");
        world.define(group).await;
        world.establish(group).await;
        world.create(group, "a", json!([])).await;
        let name = format!("things.{group}");
        let emptied = |one: &Value| {
            let mut one = one.clone();
            one["status"]["acceptedNames"] = json!({"plural": "", "kind": ""});
            Ok(one)
        };
        let write = WriteOptions::default();
        world.objects.modify(&world.kind, Door::Status, "", &name, &write, emptied).await.unwrap();
        world.delete(group).await;
        assert!(find(group, "v1", "things").is_none(), "it is served no more");
        let key = Selection::all(resource_key_of(group, "things"));
        let left = || world.objects.registry().list(ListRequest::of(key.clone()));
        assert_eq!(left().await.unwrap().entries.len(), 1);
        world.look(1, 1).look().await.unwrap();
        world.until_followed(group, |one| one["status"]["acceptedNames"]["kind"] == "Thing").await;
        assert_eq!(world.look(1, 1).look().await.unwrap(), Next::WhenTold);
        world.until_gone(group).await;
        assert_eq!(left().await.unwrap().entries.len(), 0);
    }

    #[tokio::test]
    async fn where_others_serve_it_too_a_kind_is_established_when_they_have_had_time_to_follow() {
        let (world, group) = (World::new(), "followed.example.com");
        world.define(group).await;
        world.look(1, 3).look().await.unwrap();
        world.until_followed(group, |one| said(one, "NamesAccepted") == "True").await;
        assert!(matches!(world.look(1, 3).look().await.unwrap(), Next::At(_)));
        let name = format!("things.{group}");
        let now = world.objects.get(&world.kind, "", &name).await.unwrap();
        assert_eq!(said(&now, "Established"), "");
        // One that is alone waits for nobody.
        world.establish(group).await;
    }
}
