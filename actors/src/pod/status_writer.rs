//! Writes the pod's status: one write at a time, always of the newest state.
//!
//! A pod that is still coming up is not written at once: most containers run within a moment, and
//! one write tells the whole story.

use super::{
    PodActor,
    kit::Kit,
    life::Pod,
    status::{self, Facts},
};
use crate::change::{self, ChangeError};
use actix::prelude::*;
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use serde_json::Value;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a pod that is coming up is left unwritten.
const COMING_UP: Duration = Duration::from_millis(150);
const AGAIN: Duration = Duration::from_secs(1);

/// What a status says besides the containers, owned, so that it can be written from a task.
#[derive(Clone)]
pub(super) struct OwnFacts {
    kit: Arc<Kit>,
    object: v1::Pod,
    uid: String,
    address: Option<IpAddr>,
    taken_on: Timestamp,
}

impl OwnFacts {
    /// Puts the status of `life` into the object.
    pub(super) fn write(&self, object: &mut Value, life: &Pod, now: (Instant, Timestamp)) {
        let before = object.get("status").cloned().unwrap_or_default();
        let before: v1::PodStatus = serde_json::from_value(before).unwrap_or_default();
        let no_spec = v1::PodSpec::default();
        let facts = Facts {
            name: self.object.metadata.name.as_deref().unwrap_or_default(),
            namespace: self.object.metadata.namespace.as_deref().unwrap_or_default(),
            uid: &self.uid,
            generation: object.pointer("/metadata/generation").and_then(Value::as_i64),
            spec: self.object.spec.as_ref().unwrap_or(&no_spec),
            driver: self.kit.driver.name(),
            address: self.address,
            host: self.kit.host,
            start_time: self.taken_on,
        };
        let after = status::status(life, &facts, &before, now);
        // Compared as types: a difference in spelling alone is no reason to write.
        if after != before
            && let Ok(after) = serde_json::to_value(after)
        {
            object["status"] = after;
        }
    }
}

impl PodActor {
    pub(super) fn facts(&self) -> OwnFacts {
        OwnFacts {
            kit: self.kit.clone(),
            object: self.object.clone(),
            uid: self.uid.clone(),
            address: self.address(),
            taken_on: self.taken_on,
        }
    }

    /// The pod's address, once it has one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let told = || {
            self.object.status.as_ref().and_then(|status| status.pod_ip.as_deref()?.parse().ok())
        };
        self.prepared.as_ref().map(|prepared| prepared.address).or_else(told)
    }

    /// Writes the status now, or soon, or after the write that is under way.
    pub(super) fn write_status(&mut self, ctx: &mut Context<Self>) {
        // What was over before this activation is told already, by one who knew more.
        if self.is_gone || self.life.over.is_some() {
            return;
        }
        self.report.is_due = true;
        if self.report.is_writing {
            return;
        }
        let is_coming_up = status::phase(&self.life, self.life.outcome()) == "Pending";
        if is_coming_up && !self.report.has_written {
            if self.report.delayed.is_none() {
                self.report.delayed = Some(ctx.run_later(COMING_UP, |pod, ctx| {
                    pod.report.has_written = true;
                    pod.write_status(ctx);
                }));
            }
            return;
        }
        if let Some(delayed) = self.report.delayed.take() {
            ctx.cancel_future(delayed);
        }
        self.report.is_writing = true;
        self.report.is_due = false;
        self.report.has_written = true;
        let (life, facts) = (self.life.clone(), self.facts());
        let (registry, entry, uid) =
            (self.kit.registry.clone(), self.entry.clone(), self.uid.clone());
        let now = (Instant::now(), Timestamp::now());
        let work = async move {
            let key = entry.key.clone();
            change::change_known(&registry, &key, Some(&uid), None, Some(entry), |object| {
                facts.write(object, &life, now);
            })
            .await
        };
        ctx.spawn(work.into_actor(self).map(|written, pod, ctx| {
            pod.report.is_writing = false;
            match written {
                Ok(entry) => {
                    if entry.mod_revision > pod.entry.mod_revision {
                        if let Ok(object) = change::decode(&entry) {
                            pod.object = object;
                        }
                        pod.kit.owners.tell(&entry, &pod.object.metadata);
                        pod.entry = entry;
                    }
                    pod.remove_outdated(ctx);
                }
                // The Node actor's watch tells what became of it.
                Err(ChangeError::Gone { .. }) => return,
                Err(error) => {
                    tracing::warn!(pod = %pod.key(), %error, "status not written, trying again");
                    ctx.run_later(AGAIN, super::PodActor::write_status);
                    return;
                }
            }
            if std::mem::take(&mut pod.report.is_due) {
                pod.write_status(ctx);
            }
        }));
    }

    fn remove_outdated(&mut self, ctx: &mut Context<Self>) {
        let outdated = std::mem::take(&mut self.report.outdated);
        for (name, id) in outdated {
            // The last life before the current one is what `logs --previous` shows.
            let is_needed = self.life.container(&name).is_some_and(|container| {
                container.last.as_ref().is_some_and(|last| last.id.as_ref() == Some(&id))
            });
            if is_needed {
                self.report.outdated.insert(name, id);
                continue;
            }
            let driver = self.kit.driver.clone();
            let work = async move {
                if let Err(error) = driver.remove(&id).await {
                    tracing::debug!(%id, %error, "an earlier life is not removed");
                }
            };
            ctx.spawn(work.into_actor(self));
        }
    }
}
