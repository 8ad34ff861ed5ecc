//! The volumes that are folders of this node: each is removed when its object is deleted and nothing else holds that.
//!
//! The object waits for its node by a finalizer, so that a node that is away does it when it is back. Only what is to be
//! deleted is removed: a volume that is retained leaves its folder where it is.

use super::{NodeActor, Seen, hosted::Hosted};
use crate::{
    change::{self, ChangeError},
    follow::{Followed, follow},
    pod::kit::Kit,
    storage::claimed,
};
use actix::prelude::*;
use futures_util::StreamExt;
use impresario_api::storage::{FOLDER_FINALIZER, LOCAL_DRIVER, NODE_POINTER};
use impresario_host::volumes;
use impresario_registry_api::{Entry, Key, Selection, WatchEvent};
use impresario_runtime::tasks;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::Value;
use std::time::Duration;

/// After so long it is tried again to remove one.
const RETRY: Duration = Duration::from_secs(10);

/// Why one is not removed yet.
const IN_USE: &str = "a pod of this node may use it: it is removed when that pod is gone";

/// A volume that is to be ended.
#[derive(Debug, Clone)]
struct Ending {
    key: Key,
    uid: String,
    /// Whose it was.
    claim: ObjectReference,
}

/// Whether a pod of this machine may have a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Used {
    /// None has.
    No,
    /// One has, if the volume's claim is there still.
    Perhaps,
    /// One may have, or it is not known.
    Yes,
}

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
        if end_of(&volume, &self.key.name) != End::Wait {
            let claim = volume.spec.and_then(|spec| spec.claim_ref).unwrap_or_default();
            let uid = volume.metadata.uid.unwrap_or_default();
            self.end_volume(Ending { key: entry.key, uid, claim }, ctx);
        }
    }

    /// Whether a pod of this machine may have the volume of this claim.
    fn used(&self, claim: &ObjectReference) -> Used {
        if !self.pods_known {
            return Used::Yes;
        }
        self.hosted.values().map(|hosted| uses(hosted, claim)).max().unwrap_or(Used::No)
    }

    /// Removes the folder of a volume, and lets the volume go. Tried again until the volume, as it is in the registry by then,
    /// is gone or to be kept.
    fn end_volume(&mut self, ending: Ending, ctx: &mut Context<Self>) {
        let name = ending.key.name.clone();
        if !self.ending_volumes.insert(name.clone()) {
            return;
        }
        // Whoever comes later reads that it goes, and does not mount it.
        let used = self.used(&ending.claim);
        let (kit, node, wanted) = (self.kit.clone(), self.key.name.clone(), ending.clone());
        let work = async move {
            if used == Used::Perhaps && is_there(&kit, &wanted.claim).await? || used == Used::Yes {
                return Err(IN_USE.to_owned());
            }
            end(&kit, &wanted, &node).await
        };
        ctx.spawn(work.into_actor(self).map(move |ended, node, ctx| {
            node.ending_volumes.remove(&name);
            if let Err(error) = ended {
                tracing::warn!(volume = %name, %error, "a volume is not removed yet, trying again");
                ctx.run_later(RETRY, move |node, ctx| node.end_volume(ending, ctx));
            }
        }));
    }
}

/// Whether a pod that was not removed from the machine yet has a claim of this name, or had it.
fn uses(hosted: &Hosted, claim: &ObjectReference) -> Used {
    let desired = hosted.desired.borrow();
    match change::decode::<Pod>(&desired.entry) {
        Ok(pod) if !names(&pod, claim) => Used::No,
        // It was removed by force, and its claim with it.
        Ok(_) if desired.gone => Used::Yes,
        // Of one that is there the claim is there too: it may be another one of the same name.
        Ok(_) => Used::Perhaps,
        Err(_) => Used::Yes,
    }
}

/// Whether this very claim is there.
async fn is_there(kit: &Kit, claim: &ObjectReference) -> Result<bool, String> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let key = Key::new("persistentvolumeclaims", text(&claim.namespace), text(&claim.name));
    let found: Option<PersistentVolumeClaim> =
        change::get(&kit.registry, key).await.map_err(|error| error.to_string())?;
    Ok(found.is_some_and(|found| found.metadata.uid == claim.uid))
}

fn names(pod: &Pod, claim: &ObjectReference) -> bool {
    let name = claim.name.as_deref();
    pod.metadata.namespace == claim.namespace
        && claimed(pod).any(|it| Some(it.claim.as_str()) == name)
}

/// Ends a volume as it is to be ended now, which may be otherwise than when it was seen.
async fn end(kit: &Kit, ending: &Ending, node: &str) -> Result<(), String> {
    let Ending { key, uid, .. } = ending;
    let said = |error: ChangeError| error.to_string();
    let now: Option<PersistentVolume> =
        change::get(&kit.registry, key.clone()).await.map_err(said)?;
    let now = now.filter(|now| now.metadata.uid.as_ref() == Some(uid));
    let end = now.map_or(End::Wait, |now| end_of(&now, node));
    if end == End::Wait {
        return Ok(()); // it is another one, or kept after all: what becomes of it is seen
    }
    if end == End::Remove && !kit.driver.is_hollow() {
        let (folders, name, uid) = (kit.volumes_folder(), key.name.clone(), uid.clone());
        let removed = tasks::spawn_blocking(move || volumes::remove_folder(&folders, &name, &uid));
        let removed = removed.await.map_err(|lost| lost.to_string())?;
        removed.map_err(|error| error.to_string())?;
    }
    let is_over = |value: &Value| {
        let read = serde_json::from_value(value.clone());
        read.is_ok_and(|volume: PersistentVolume| end_of(&volume, node) == end)
    };
    let gone = change::remove(&kit.registry, key, uid, is_over).await;
    gone.map(|_| ()).map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::kit::Desired;
    use serde_json::json;

    #[test]
    fn a_folder_stays_for_as_long_as_a_pod_of_the_machine_may_have_its_claim() {
        let pod = json!({"metadata": {"namespace": "ns", "name": "p"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}});
        let hosted = |value: String, gone: bool| {
            let key = Key::new("pods", "ns", "p");
            let entry = Entry { key, value: value.into(), create_revision: 1, mod_revision: 1 };
            let (desired, _) = tokio::sync::watch::channel(Desired { entry, gone, refused: None });
            Hosted { desired }
        };
        let table = [
            ("ns", "data", Used::Perhaps, Used::Yes),
            ("ns", "p-b", Used::Perhaps, Used::Yes),
            ("ns", "else", Used::No, Used::No),
            ("x", "data", Used::No, Used::No),
        ];
        for (namespace, name, there, gone) in table {
            let claim = json!({"namespace": namespace, "name": name, "uid": "u"});
            let claim = serde_json::from_value(claim).unwrap();
            let told = [false, true].map(|gone| uses(&hosted(pod.to_string(), gone), &claim));
            assert_eq!(told, [there, gone], "{namespace} {name}");
            assert_eq!(uses(&hosted("?".into(), false), &claim), Used::Yes);
        }
    }

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
