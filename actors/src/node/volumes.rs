//! The volumes that are folders of this node: each is removed when its object is deleted and nothing else holds that.
//!
//! The object waits for its node by a finalizer, so that a node that is away does it when it is back. Only what is to be
//! deleted is removed: a volume that is retained leaves its folder where it is.

use super::{NodeActor, Seen};
use crate::{
    change,
    follow::{Followed, follow},
};
use actix::prelude::*;
use futures_util::StreamExt;
use impresario_api::storage::{FOLDER_FINALIZER, LOCAL_DRIVER, NODE_POINTER};
use impresario_host::volumes;
use impresario_registry_api::{Entry, Selection, WatchEvent};
use impresario_runtime::tasks;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::Value;
use std::time::Duration;

/// After so long it is tried again to remove one.
const RETRY: Duration = Duration::from_secs(10);

/// What is to be done with the folder of a volume that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing yet.
    Wait,
    /// It is left where it is.
    Leave,
    /// It is removed.
    Remove,
}

/// What is to be done with the folder of a volume, on the node of this name.
fn end_of(volume: &PersistentVolume, node: &str) -> End {
    let Some(spec) = &volume.spec else { return End::Wait };
    let csi = spec.csi.as_ref().filter(|csi| csi.driver == LOCAL_DRIVER);
    let is_here = csi.is_some_and(|csi| {
        let on = csi.volume_attributes.as_ref().and_then(|all| all.get("node"));
        on.is_some_and(|on| on == node)
    });
    let finalizers = volume.metadata.finalizers.as_deref().unwrap_or_default();
    // Whatever else holds it comes first: it may be bound.
    let is_next = volume.metadata.deletion_timestamp.is_some() && finalizers == [FOLDER_FINALIZER];
    if !is_here || !is_next {
        return End::Wait;
    }
    let is_its =
        csi.is_some_and(|csi| Some(csi.volume_handle.as_str()) == volume.metadata.name.as_deref());
    match spec.persistent_volume_reclaim_policy.as_deref() {
        Some("Delete") if is_its => End::Remove,
        _ => End::Leave,
    }
}

impl NodeActor {
    /// Follows the volumes that are folders of this node.
    pub(super) fn follow_volumes(&self, ctx: &mut Context<Self>) {
        let mine = Selection::all("persistentvolumes").with_field(NODE_POINTER, &self.key.name);
        ctx.add_stream(follow(self.kit.registry.clone(), mine).map(Seen::Volumes));
    }

    pub(super) fn volumes_seen(&mut self, volumes: Followed, ctx: &mut Context<Self>) {
        match volumes {
            Followed::All(entries) => {
                for entry in entries {
                    self.volume_seen(entry, ctx);
                }
            }
            Followed::Changes(events) => {
                for event in events {
                    if let WatchEvent::Put { entry, .. } = event {
                        self.volume_seen(entry, ctx);
                    }
                }
            }
        }
    }

    fn volume_seen(&mut self, entry: Entry, ctx: &mut Context<Self>) {
        let volume: PersistentVolume = match change::decode(&entry) {
            Ok(volume) => volume,
            Err(error) => return tracing::warn!(%error, "volume skipped"),
        };
        let end = end_of(&volume, &self.key.name);
        let name = entry.key.name.clone();
        if end == End::Wait || !self.ending_volumes.insert(name.clone()) {
            return;
        }
        let uid = volume.metadata.uid.unwrap_or_default();
        let (kit, key, node) = (self.kit.clone(), entry.key.clone(), self.key.name.clone());
        let work = async move {
            if end == End::Remove && !kit.driver.is_hollow() {
                let (folders, name) = (kit.volumes_folder(), key.name.clone());
                let removed =
                    tasks::spawn_blocking(move || volumes::remove_folder(&folders, &name));
                removed
                    .await
                    .map_err(|lost| lost.to_string())?
                    .map_err(|error| error.to_string())?;
            }
            let is_over = |value: &Value| {
                let read = serde_json::from_value(value.clone());
                read.is_ok_and(|volume: PersistentVolume| end_of(&volume, &node) == end)
            };
            let gone = change::remove(&kit.registry, &key, &uid, is_over).await;
            gone.map(|_| ()).map_err(|error| error.to_string())
        };
        ctx.spawn(work.into_actor(self).map(move |ended, node, ctx| {
            node.ending_volumes.remove(&name);
            if let Err(error) = ended {
                tracing::warn!(volume = %name, %error, "a volume is not removed yet, trying again");
                ctx.run_later(RETRY, move |node, ctx| node.volume_seen(entry, ctx));
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_goes_with_its_volume_when_nothing_else_holds_that_and_it_is_to_be_deleted() {
        let table = [
            (json!({}), End::Remove),
            (json!({"/metadata/deletionTimestamp": null}), End::Wait),
            (json!({"/metadata/finalizers": [FOLDER_FINALIZER, "a/b"]}), End::Wait),
            (json!({"/metadata/finalizers": []}), End::Wait),
            (json!({"/spec/csi/driver": "else.example"}), End::Wait),
            (json!({"/spec/csi/volumeAttributes/node": "n2"}), End::Wait),
            (json!({"/spec/csi/volumeHandle": "w"}), End::Leave),
            (json!({"/spec/persistentVolumeReclaimPolicy": "Retain"}), End::Leave),
        ];
        for (change, expected) in table {
            let mut volume = json!({"metadata": {"name": "v", "finalizers": [FOLDER_FINALIZER],
                    "deletionTimestamp": "2026-03-01T00:00:00Z"},
                "spec": {"persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": LOCAL_DRIVER,
                    "volumeHandle": "v", "volumeAttributes": {"node": "n1"}}}});
            for (pointer, value) in change.as_object().unwrap() {
                *volume.pointer_mut(pointer).unwrap() = value.clone();
            }
            let typed = serde_json::from_value(volume).unwrap();
            assert_eq!(end_of(&typed, "n1"), expected, "{change}");
        }
    }
}
