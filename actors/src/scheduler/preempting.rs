//! Making pods leave for one of a higher priority: what a plan says is written, and the room is kept.
//!
//! The pod's object says for which node it is meant, so that another activation keeps the room too. Those that leave are
//! told why and end as they would if a user deleted them, with their time. Whoever does not end holds up nobody: after a
//! while the pod looks for another node.

use super::Scheduler;
use super::binding::set_condition;
use super::parties::Pending;
use super::picture::OVERDUE;
use super::plan::Preemption;
use crate::change::{ChangeError, change};
use actix::prelude::*;
use impresario_api::admission::DeleteOptions;
use impresario_api::catalog::find;
use impresario_objects::{Objects, WriteOptions};
use impresario_registry_api::{Fence, Key, RegistryHandle};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1;
use serde_json::json;
use std::sync::Arc;

/// So long the room is kept for a pod that was nominated before this activation began, in milliseconds.
const KEPT: i64 = 60_000;
const POD: &str = "pods";

impl Scheduler {
    /// Has the pods leave, and keeps their room.
    pub(super) fn preempt(&mut self, preemption: Preemption, ctx: &mut Context<Self>) {
        let Preemption { uid, node, victims } = preemption;
        let Some(waiting) = self.queue.get(&uid) else { return };
        let (pod, key) = (waiting.pod.clone(), waiting.key.clone());
        let victims: Vec<_> =
            victims.iter().filter_map(|uid| self.picture.resident(uid).cloned()).collect();
        let grace = victims.iter().map(|victim| victim.grace.clamp(0, 3600)).max().unwrap_or(0);
        let until = clock::timestamp().as_millisecond() + grace * 1000 + OVERDUE;
        self.picture.nominations.add(pod, &node, until);
        tracing::info!(pod = %key.name, namespace = %key.namespace, %node, victims = victims.len(), "pods leave for one of a higher priority");
        for victim in &victims {
            let about = Key::new(POD, &victim.namespace, &victim.name);
            let message = format!("Preempted by pod {uid} on node {node}");
            self.events.normal(&about, &victim.uid, "Preempted", &message);
        }
        let (registry, fence) = (self.registry.clone(), self.fence);
        let scheduler = self.settings.name.clone();
        let work = async move {
            nominate(&registry, &key, &uid, &node, fence).await?;
            for victim in victims {
                evict(&registry, &scheduler, &victim, fence).await?;
            }
            Ok(())
        };
        ctx.spawn(work.into_actor(self).map(|done: Result<(), ChangeError>, _, ctx| match done {
            Err(error) if error.is_fenced() => ctx.stop(),
            Err(error) => tracing::warn!(%error, "a pod of a higher priority waits: others could not be told to leave"),
            Ok(()) => {}
        }));
    }

    /// A pod was read that may have been nominated before this activation began.
    pub(super) fn nominated_before(&mut self, pod: &v1::Pod, pending: &Pending) {
        let status = pod.status.as_ref();
        let node = status.and_then(|status| status.nominated_node_name.as_deref());
        let Some(node) = node.filter(|node| !node.is_empty()) else { return };
        if self.queue.get(&pending.uid).is_none() {
            let until = clock::timestamp().as_millisecond() + KEPT;
            self.picture.nominations.add(pending.clone(), node, until);
        }
    }

    /// Ends nominations for which it took too long.
    pub(super) fn lapse(&mut self) {
        let lapsed = self.picture.nominations.lapse(clock::timestamp().as_millisecond());
        for uid in lapsed {
            self.changes.hopeful = true;
            let Some(key) = self.queue.get(&uid).map(|waiting| &waiting.key) else { continue };
            tracing::info!(pod = %key.name, namespace = %key.namespace, "those that were to leave for it did not: it looks for another node");
        }
    }
}

/// Writes for which node a pod is meant.
async fn nominate(
    registry: &RegistryHandle,
    key: &Key,
    uid: &str,
    node: &str,
    fence: Option<Fence>,
) -> Result<(), ChangeError> {
    let written = change(registry, key, Some(uid), fence, |pod| {
        let is_bound = pod["spec"]["nodeName"].as_str().is_some_and(|name| !name.is_empty());
        if !is_bound {
            pod["status"]["nominatedNodeName"] = node.into();
        }
    });
    match written.await {
        // It needs no room any more; those that leave are on their way then.
        Err(ChangeError::Gone { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn evict(
    registry: &RegistryHandle,
    scheduler: &str,
    victim: &Arc<Pending>,
    fence: Option<Fence>,
) -> Result<(), ChangeError> {
    let key = Key::new(POD, &victim.namespace, &victim.name);
    let told = change(registry, &key, Some(&victim.uid), fence, |pod| {
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        let message = format!("{scheduler}: preempting to accommodate a higher priority pod");
        let condition = json!({"type": "DisruptionTarget", "status": "True",
            "reason": "PreemptionByScheduler", "message": message});
        set_condition(pod, condition, clock::timestamp());
    });
    match told.await {
        Err(ChangeError::Gone { .. }) => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let Some(pods) = find("", "v1", POD) else { return Ok(()) };
    let objects = Objects::new(registry.clone());
    let objects = fence.map_or_else(|| objects.clone(), |fence| objects.fenced(fence));
    let options = DeleteOptions { uid: Some(victim.uid.clone()), ..DeleteOptions::default() };
    let write = WriteOptions::default();
    let deleted = objects.delete(&pods, &victim.namespace, &victim.name, &options, &write).await;
    if let Err(status) = deleted {
        // The room is looked for anew when it has not come.
        tracing::warn!(pod = %victim.name, namespace = %victim.namespace, %status, "a pod could not be told to leave");
    }
    Ok(())
}
