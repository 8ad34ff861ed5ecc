//! Roles that are put together of others: writes into them what they are made of.
//!
//! Every control member follows all roles and decides by itself (`impresario_objects::rbac`); what is written of them is
//! written by the one that holds the shard of this singleton.

use super::activation::Kind;
use super::control::{Look, LookError, Next};
use super::engine::sources::Source;
use super::looking;
use futures_util::future::BoxFuture;
use futures_util::stream::select;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_objects::Objects;
use impresario_objects::definitions::Definitions;
use impresario_objects::rbac::{Roles, settle};
use std::sync::Arc;

/// The singleton that looks after roles.
pub const ROLES: &str = "cluster-roles";

struct RolesLook {
    objects: Objects,
}

impl Look for RolesLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        async {
            settle(&self.objects).await?;
            Ok(Next::WhenTold)
        }
        .boxed()
    }
}

/// The kind of this singleton's actor, woken by what the member follows.
#[must_use]
pub fn kind(objects: &Objects, roles: &Roles, definitions: &Definitions) -> Kind {
    let (objects, roles, definitions) = (objects.clone(), roles.clone(), definitions.clone());
    Kind::One {
        name: ROLES,
        // When a kind comes there are some who may read it from then on.
        sources: vec![Source::signals(ROLES, move || {
            select(roles.changes(), definitions.changes()).boxed()
        })],
        start: looking(move |activation| {
            let objects = objects.fenced(activation.fence);
            Arc::new(RolesLook { objects })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_api::catalog::find;
    use impresario_objects::Reader;
    use impresario_registry::{Epoch, Fence, MemoryRegistry, Shard};

    #[tokio::test]
    async fn a_gathering_role_is_filled_by_who_holds_the_shard_and_by_nobody_else() {
        let registry = MemoryRegistry::default();
        let objects = Objects::new(Arc::new(registry.clone()));
        registry.assign_shards(&["test".to_owned()]);
        objects.lay_roles().await.unwrap();
        let fence = |epoch| Fence { shard: Shard(0), epoch: Epoch(epoch) };
        let look = |epoch| RolesLook { objects: objects.fenced(fence(epoch)) };
        let roles = find("rbac.authorization.k8s.io", "v1", "clusterroles").unwrap();
        let late = look(7).look().await.unwrap_err();
        assert!(late.is_fenced(), "another member holds the shard: {late}");
        let view = objects.get(&roles, "", "view").await.unwrap();
        assert!(view["rules"].is_null(), "{view}");
        assert_eq!(look(1).look().await.unwrap(), Next::WhenTold);
        let view = objects.get(&roles, "", "view").await.unwrap();
        assert!(view["rules"].as_array().is_some_and(|rules| !rules.is_empty()), "{view}");
        // What it wrote is told to who follows, which wakes it again until there is nothing to write.
        let followed = Roles::follow(&Reader::new(Arc::new(registry)));
        let mut changes = followed.changes();
        assert!(changes.next().await.is_some());
    }
}
