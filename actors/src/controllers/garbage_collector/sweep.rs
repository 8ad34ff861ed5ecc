//! Deletes what is in no namespace, if the registry agrees.

use super::super::any_mirror::AnyObject;
use super::super::control::LookError;
use super::super::mirror::Seen;
use super::super::partial::Partial;
use super::strays::{Space, is_stray};
use super::{Done, FEW, GarbageCollectorLook, Trial, plan};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use impresario_api::resource::Row;
use impresario_registry_api::{Consistency, Key};
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

impl GarbageCollectorLook {
    /// Tries to delete each; whether anything was written, and the first failure that is not one object's own.
    pub(super) async fn sweep(&self, now: Instant) -> Result<bool, LookError> {
        let uid =
            |object: &Seen<dyn AnyObject>| object.object.meta().uid.clone().unwrap_or_default();
        let mut strays = self.graph.strays();
        strays.retain(|(_, object)| {
            object.object.meta().deletion_timestamp.is_none()
                && self.retries.may_try(&uid(object), now)
        });
        let names: BTreeSet<&str> =
            strays.iter().map(|(_, object)| object.entry.key.namespace.as_str()).collect();
        // A mirror may not show a namespace yet. What is there while there is none is of none that comes.
        let spaces = names
            .into_iter()
            .map(|name| async move { Ok((name, self.space(name).await?)) }.boxed());
        let spaces: Vec<_> = spaces.collect();
        let spaces = futures_util::stream::iter(spaces).buffer_unordered(FEW).try_collect().await;
        let spaces: Result<HashMap<&str, Option<Space>>, LookError> = spaces;
        let spaces = spaces?;
        let each: Vec<Trial<'_>> = strays
            .iter()
            .map(|(resource, object)| {
                let uid = object.object.meta().uid.as_deref().unwrap_or_default();
                let key = &object.entry.key;
                let space = spaces.get(key.namespace.as_str()).and_then(Option::as_ref);
                async move { (uid, key, self.sweep_one(resource, object, space).await) }.boxed()
            })
            .collect();
        self.tried(each, now).await
    }

    async fn sweep_one(
        &self,
        resource: &Row,
        object: &Seen<dyn AnyObject>,
        space: Option<&Space>,
    ) -> Result<Done, LookError> {
        if !is_stray(&object.entry, object.object.meta(), space) {
            return Ok(Done::NotYet);
        }
        let done = self.delete_as_seen(resource, object, plan::Propagation::Background).await?;
        if done == Done::Written {
            let key = &object.entry.key;
            tracing::warn!(%key, "deleted: its namespace is not there, or was made after it");
        }
        Ok(done)
    }

    /// The namespace of this name, as the registry has it.
    async fn space(&self, name: &str) -> Result<Option<Space>, LookError> {
        let key = Key::new("namespaces", "", name);
        let found = self.objects.registry().get(key, Consistency::Linearizable).await?.0;
        Ok(found.map(|entry| {
            // Of one that cannot be read it is not known when it was made: it keeps what is in it.
            let namespace = serde_json::from_slice::<Partial>(&entry.value).unwrap_or_default();
            Space::of(&entry, namespace.meta())
        }))
    }
}
