//! Writes down what was chosen for the claims of a pod, before the pod is bound: the volume that each takes, or the node on
//! which one is made for it. Who comes later leaves it so.

use super::{Scheduler, volume_needs::Choice, volumes::Kind};
use crate::change::{self, ChangeError};
use crate::follow::Followed;
use crate::scheduler::{fit, parties::Pending};
use actix::prelude::*;
use impresario_api::storage::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use impresario_registry_api::{Fence, Key, RegistryHandle};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a pod at most waits for its claims before they are looked at again: it is woken by what becomes of them.
const BOUND_WITHIN: Duration = Duration::from_secs(5);

impl Scheduler {
    /// Something was read of claims, volumes or classes: those pods that have claims are looked at by it.
    pub(super) fn storage_seen(&mut self, kind: Kind, followed: Followed) {
        match kind {
            Kind::Claims => self.volumes.claims_seen(followed),
            Kind::Volumes => self.volumes.volumes_seen(followed),
            Kind::Classes => self.volumes.classes_seen(followed),
        }
        self.look_at_claims();
    }

    /// What the claims of the pods that wait ask of their nodes may be something else now.
    pub(super) fn look_at_claims(&mut self) {
        for uid in self.queue.uids() {
            let Some(waiting) = self.queue.get(&uid).filter(|it| it.pod.volumes.is_some()) else {
                continue;
            };
            let Ok(pod) = serde_json::from_slice::<Pod>(&waiting.value) else { continue };
            let volumes = self.volumes.needs(&pod).map(Arc::new);
            if volumes == waiting.pod.volumes {
                continue;
            }
            let pending = Pending { volumes, ..waiting.pod.clone() };
            let (key, value, revision) =
                (waiting.key.clone(), waiting.value.clone(), waiting.revision);
            self.queue.seen(pending, key, value, revision, clock::now());
        }
    }

    /// Takes those pods out of a plan whose claims are not bound yet, and has them bound where the pods are to be. They
    /// wait; room is not kept for them meanwhile.
    pub(super) fn claims_first(
        &mut self,
        mut placements: BTreeMap<String, Vec<String>>,
        now: Instant,
        ctx: &mut Context<Self>,
    ) -> BTreeMap<String, Vec<String>> {
        for (node, uids) in &mut placements {
            uids.retain(|uid| {
                let Some(waiting) = self.queue.get(uid) else { return true };
                let Some(volumes) = waiting.pod.volumes.clone() else { return true };
                if volumes.are_settled() {
                    return true;
                }
                let namespace = waiting.key.namespace.clone();
                let labels = self.picture.nodes().find(|it| it.name == *node);
                let labels = labels.map(|it| it.labels.clone()).unwrap_or_default();
                let choices = volumes
                    .choices(|terms| fit::is_chosen(&BTreeMap::new(), Some(terms), node, &labels));
                self.queue.behind(uid, now + BOUND_WITHIN);
                if !choices.is_empty() && self.choosing.insert(uid.clone()) {
                    self.write_choices(uid.clone(), &namespace, node, choices, ctx);
                }
                false
            });
        }
        placements.retain(|_, uids| !uids.is_empty());
        placements
    }

    /// Gives a pod that a node is asked for those of its claims that one pod alone may have. One who comes second waits until
    /// it is known what came of the first.
    pub(super) fn takes_claims(&mut self, uid: &str) -> bool {
        let volumes = self.queue.get(uid).and_then(|waiting| waiting.pod.volumes.clone());
        let takes = volumes.is_none_or(|volumes| self.volumes.take(uid, &volumes.alone));
        if !takes {
            self.queue.behind(uid, clock::now() + BOUND_WITHIN);
        }
        takes
    }

    fn write_choices(
        &mut self,
        uid: String,
        namespace: &str,
        node: &str,
        choices: Vec<Choice>,
        ctx: &mut Context<Self>,
    ) {
        let (registry, fence) = (self.registry.clone(), self.fence);
        let mut writes = Vec::new();
        for choice in choices {
            let (Choice::Take { claim: name, .. } | Choice::Make { claim: name }) = &choice;
            let Some(claim) = self.volumes.claim(namespace, name) else { continue };
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            writes.push((choice, uid));
        }
        let (namespace, node) = (namespace.to_owned(), node.to_owned());
        let work = async move {
            for (choice, claim_uid) in writes {
                write(&registry, fence, &namespace, &node, choice, &claim_uid).await?;
            }
            Ok::<_, ChangeError>(())
        };
        ctx.spawn(work.into_actor(self).map(move |written, scheduler, ctx| {
            scheduler.choosing.remove(&uid);
            match written {
                Err(error) if error.is_fenced() => ctx.stop(),
                Err(error) => tracing::debug!(%error, %uid, "a claim's volume is not chosen yet"),
                Ok(()) => {}
            }
        }));
    }
}

/// Writes down one choice, where nobody was quicker.
async fn write(
    registry: &RegistryHandle,
    fence: Option<Fence>,
    namespace: &str,
    node: &str,
    choice: Choice,
    claim_uid: &str,
) -> Result<(), ChangeError> {
    match choice {
        Choice::Make { claim } => {
            let key = Key::new("persistentvolumeclaims", namespace, &claim);
            let select = |claim: &mut Value| {
                let is_chosen = !claim["metadata"]["annotations"][SELECTED_NODE].is_null()
                    || claim["spec"]["volumeName"].as_str().is_some_and(|name| !name.is_empty());
                if !is_chosen {
                    annotate(claim, SELECTED_NODE, node);
                }
            };
            change::change(registry, &key, Some(claim_uid), fence, select).await?;
        }
        Choice::Take { claim, volume } => {
            let key = Key::new("persistentvolumes", "", &volume);
            let take = |volume: &mut Value| {
                if volume["spec"]["claimRef"].is_null() {
                    volume["spec"]["claimRef"] = json!({
                        "apiVersion": "v1",
                        "kind": "PersistentVolumeClaim",
                        "namespace": namespace,
                        "name": claim,
                        "uid": claim_uid,
                    });
                    annotate(volume, BOUND_BY_CONTROLLER, "yes");
                }
            };
            change::change(registry, &key, None, fence, take).await?;
        }
    }
    Ok(())
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[key] = value.into();
}
