//! Making pods leave for one of a higher priority: what a plan says is written, and the room is kept.
//!
//! The pod's object says for which node it is meant, so that another activation keeps the room too. Those that leave are
//! told why and end as they would if a user deleted them, with their time. Whoever does not end holds up nobody: after a
//! while the pod looks for another node.

use super::Scheduler;
use super::binding::{not_nominated, set_condition};
use super::parties::Pending;
use super::picture::OVERDUE;
use super::plan::Preemption;
use crate::change::{ChangeError, change, change_known, decode};
use crate::events::Recorder;
use actix::prelude::*;
use impresario_api::admission::DeleteOptions;
use impresario_api::catalog::find;
use impresario_api::status::{Reason, Status};
use impresario_objects::{Objects, WriteOptions};
use impresario_registry_api::{Fence, Key, RegistryHandle};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1;
use serde_json::{Value, json};
use std::sync::Arc;

/// So long the room is kept for a pod that was nominated before this activation began, in milliseconds.
const KEPT: i64 = 60_000;
const POD: &str = "pods";
/// The condition that says that a pod is made to leave, and the reason where it is for another.
const TARGET: &str = "DisruptionTarget";
const BY_SCHEDULER: &str = "PreemptionByScheduler";

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
        let earlier = self.picture.nominations.get(&uid).map(|earlier| earlier.node.clone());
        if let Some(earlier) = earlier.filter(|earlier| *earlier != node) {
            self.changes.room_on(earlier);
        }
        self.picture.nominations.add(pod, &node, until);
        for victim in &victims {
            self.leavers.told(&victim.uid);
        }
        let making = Making {
            registry: self.registry.clone(),
            fence: self.fence,
            events: self.events.clone(),
            scheduler: self.settings.name.clone(),
            key,
            uid,
            node,
        };
        let objects = Objects::new(self.registry.clone());
        let objects = self.fence.map_or_else(|| objects.clone(), |fence| objects.fenced(fence));
        let work = async move {
            let made =
                making.make(&victims, async |pod: &Pending| delete(&objects, pod).await).await;
            (making.uid, victims, made)
        };
        ctx.spawn(work.into_actor(self).map(|(uid, victims, made), scheduler, ctx| {
            scheduler.made(&uid, &victims, made, ctx);
        }));
    }

    /// What came of making room for a pod. Where it came to nothing the pod looks again, for others.
    fn made(
        &mut self,
        uid: &str,
        victims: &[Arc<Pending>],
        made: Result<Made, ChangeError>,
        ctx: &mut Context<Self>,
    ) {
        match made {
            Err(error) if error.is_fenced() => return ctx.stop(),
            Ok(Made::Room) => return,
            Err(error) => {
                tracing::warn!(%error, "a pod of a higher priority waits: others could not be told to leave");
            }
            Ok(Made::NotNeeded) => {}
            Ok(Made::Refused { victim, status }) => {
                tracing::warn!(pod = %victim, %status, "a pod could not be told to leave: others are looked for");
                self.leavers.refused(&victim);
            }
        }
        for victim in victims {
            self.leavers.not_told(&victim.uid);
        }
        self.picture.nominations.remove(uid);
        self.changes.hopeful = true;
        self.order_pass(ctx);
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

/// What came of making room.
#[derive(Debug, PartialEq)]
enum Made {
    /// Those that are to leave know it.
    Room,
    /// The pod needs no node any more: nobody was told anything.
    NotNeeded,
    /// One may not be deleted; those after it were told nothing.
    Refused {
        /// Its uid.
        victim: String,
        /// Why.
        status: Status,
    },
}

/// Making room on a node for a pod.
struct Making {
    registry: RegistryHandle,
    fence: Option<Fence>,
    events: Recorder,
    scheduler: String,
    key: Key,
    uid: String,
    node: String,
}

impl Making {
    /// Has the victims leave, once it is written on the pod for which node it is meant.
    async fn make(
        &self,
        victims: &[Arc<Pending>],
        delete: impl AsyncFn(&Pending) -> Result<(), Status>,
    ) -> Result<Made, ChangeError> {
        if !self.nominate().await? {
            return Ok(Made::NotNeeded);
        }
        let (pod, node) = (&self.key, &self.node);
        tracing::info!(pod = %pod.name, namespace = %pod.namespace, %node, victims = victims.len(), "pods leave for one of a higher priority");
        for victim in victims {
            if let Err(status) = self.evict(victim, &delete).await? {
                self.take_back(victim).await?;
                return Ok(Made::Refused { victim: victim.uid.clone(), status });
            }
        }
        Ok(Made::Room)
    }

    /// Writes for which node the pod is meant. Whether it still waits for one.
    async fn nominate(&self) -> Result<bool, ChangeError> {
        let waits = |pod: &Value| {
            let is_bound = pod["spec"]["nodeName"].as_str().is_some_and(|name| !name.is_empty());
            !is_bound && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let (registry, uid) = (&self.registry, Some(self.uid.as_str()));
        let written = change_known(registry, &self.key, uid, self.fence, None, |pod| {
            if waits(pod) {
                pod["status"]["nominatedNodeName"] = self.node.as_str().into();
            }
        });
        match written.await {
            Ok(entry) => decode(&entry).map(|pod| waits(&pod)),
            Err(ChangeError::Gone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells a pod why, and deletes it.
    async fn evict(
        &self,
        victim: &Pending,
        delete: impl AsyncFn(&Pending) -> Result<(), Status>,
    ) -> Result<Result<(), Status>, ChangeError> {
        let about = Key::new(POD, &victim.namespace, &victim.name);
        let told = change(&self.registry, &about, Some(&victim.uid), self.fence, |pod| {
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                return;
            }
            let message =
                format!("{}: preempting to accommodate a higher priority pod", self.scheduler);
            let condition = json!({"type": TARGET, "status": "True",
                "reason": BY_SCHEDULER, "message": message});
            set_condition(pod, condition, clock::timestamp());
        });
        match told.await {
            Err(ChangeError::Gone { .. }) => return Ok(Ok(())),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        match delete(victim).await {
            // Another pod may have its name by now.
            Err(status) if matches!(status.reason, Reason::NotFound | Reason::Conflict) => {}
            Err(status) => return Ok(Err(status)),
            Ok(()) => {
                let message = format!("Preempted by pod {} on node {}", self.uid, self.node);
                self.events.normal(&about, &victim.uid, "Preempted", &message);
            }
        }
        Ok(Ok(()))
    }

    /// One may not be deleted: it is told so, and the pod is not meant for the node.
    async fn take_back(&self, victim: &Pending) -> Result<(), ChangeError> {
        let about = Key::new(POD, &victim.namespace, &victim.name);
        let spared = change(&self.registry, &about, Some(&victim.uid), self.fence, |pod| {
            let goes = !pod["metadata"]["deletionTimestamp"].is_null();
            let conditions = pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
            if let Some(conditions) = conditions.filter(|_| !goes) {
                conditions.retain(|one| one["type"] != TARGET || one["reason"] != BY_SCHEDULER);
            }
        });
        let spared = spared.await;
        let pod = change(&self.registry, &self.key, Some(&self.uid), self.fence, |pod| {
            if pod["status"]["nominatedNodeName"] == self.node.as_str() {
                not_nominated(pod);
            }
        });
        for written in [spared, pod.await] {
            match written {
                Err(ChangeError::Gone { .. }) | Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Deletes a pod as a user would.
async fn delete(objects: &Objects, pod: &Pending) -> Result<(), Status> {
    let pods = find("", "v1", POD).ok_or_else(Status::no_such_path)?;
    let options = DeleteOptions { uid: Some(pod.uid.clone()), ..DeleteOptions::default() };
    let write = WriteOptions::default();
    objects.delete(&pods, &pod.namespace, &pod.name, &options, &write).await.map(drop)
}

#[cfg(test)]
mod tests;
