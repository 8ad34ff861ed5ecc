//! Kinds that users define: accepts their names, says when they are served, and empties those that go.
//!
//! Every control member serves the kinds by itself (`impresario_objects::definitions`); what is written of them is
//! written by the one that holds the shard of this singleton.

use super::activation::Kind;
use super::control::{Look, LookError, Next};
use super::engine::sources::Source;
use super::looking;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::Objects;
use impresario_objects::definitions::{Definitions, settle};
use std::sync::Arc;

/// The singleton that looks after definitions of kinds.
pub const DEFINITIONS: &str = "kind-definitions";

struct DefinitionsLook {
    objects: Objects,
    definitions: Definitions,
}

impl Look for DefinitionsLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        async {
            let next = settle(&self.objects, &self.definitions).await?;
            Ok(next.map_or(Next::WhenTold, Next::At))
        }
        .boxed()
    }
}

/// The kind of this singleton's actor, over what the member serves.
#[must_use]
pub fn kind(objects: &Objects, definitions: &Definitions) -> Kind {
    let (objects, followed) = (objects.clone(), definitions.clone());
    let signals = definitions.clone();
    Kind::One {
        name: DEFINITIONS,
        sources: vec![Source::signals(DEFINITIONS, move || signals.changes())],
        start: looking(move |activation| {
            let objects = objects.fenced(activation.fence);
            Arc::new(DefinitionsLook { objects, definitions: followed.clone() })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use impresario_api::catalog::find;
    use impresario_objects::{DeleteOptions, Reader, WriteOptions};
    use impresario_registry::{Epoch, Fence, MemoryRegistry, Shard};
    use serde_json::json;

    #[tokio::test]
    async fn a_kind_is_established_where_it_is_served_and_goes_with_its_definition() {
        let registry = MemoryRegistry::default();
        let objects = Objects::new(Arc::new(registry.clone()));
        let definitions = Definitions::follow(Reader::new(Arc::new(registry.clone())));
        let mut changes = definitions.changes();
        registry.assign_shards(&["test".to_owned()]);
        let fence = |epoch| Fence { shard: Shard(0), epoch: Epoch(epoch) };
        let look = |epoch| DefinitionsLook {
            objects: objects.fenced(fence(epoch)),
            definitions: definitions.clone(),
        };
        let group = "looked.example.com";
        let definition = json!({
            "metadata": {"name": format!("things.{group}")},
            "spec": {
                "group": group, "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        });
        let kind = find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
        let (write, name) = (WriteOptions::default(), format!("things.{group}"));
        objects.create(&kind, "", definition, &write).await.unwrap();
        while definitions.all().is_empty() {
            changes.next().await;
        }
        let late = look(7).look().await.unwrap_err();
        assert!(late.is_fenced(), "another member holds the shard: {late}");
        while objects.get(&kind, "", &name).await.unwrap()["status"]["conditions"][1]["status"]
            != "True"
        {
            look(1).look().await.unwrap();
            changes.next().await;
        }
        let row = find(group, "v1", "things").unwrap();
        let thing = json!({"metadata": {"name": "a"}, "spec": {"any": 1}});
        objects.create(&row, "", thing, &write).await.unwrap();
        objects.delete(&kind, "", &name, &DeleteOptions::default(), &write).await.unwrap();
        while objects.get(&kind, "", &name).await.is_ok() {
            changes.next().await;
            assert_eq!(look(1).look().await.unwrap(), Next::WhenTold);
        }
        while find(group, "v1", "things").is_some() {
            changes.next().await;
        }
    }
}
