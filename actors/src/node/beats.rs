//! Heartbeats: a message each second that says that the node lives.

use super::{AGAIN, HEARTBEAT, NodeActor, object};
use crate::{
    change::{self, ChangeError},
    follow::Followed,
};
use actix::prelude::*;
use impresario_registry_api::{Heartbeat, WatchEvent};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1;

impl NodeActor {
    /// Beats now, and again a second after the last beat was answered or given up.
    pub(super) fn beat(&mut self, ctx: &mut Context<Self>) {
        let beat = Heartbeat {
            node: self.key.name.clone(),
            incarnation: self.kit.node.incarnation(),
            ready: !self.is_unschedulable,
        };
        let heart = self.heart.clone();
        let work = async move { tokio::time::timeout(HEARTBEAT, heart.beat(beat)).await };
        ctx.spawn(work.into_actor(self).map(|answer, node, ctx| {
            if answer != Ok(true) {
                tracing::debug!(node = %node.key.name, "heartbeat not taken");
            }
            ctx.run_later(HEARTBEAT, Self::beat);
        }));
    }

    /// The node's own object changed: an operator cordons it, or someone thinks that it is dead.
    pub(super) fn me_seen(&mut self, me: Followed, ctx: &mut Context<Self>) {
        let newest = match me {
            Followed::All(entries) => entries.into_iter().next_back(),
            Followed::Changes(events) => {
                events.into_iter().next_back().and_then(|event| match event {
                    WatchEvent::Put { entry, .. } => Some(entry),
                    WatchEvent::Delete { .. } => None,
                })
            }
        };
        let Some(entry) = newest else {
            // Deleted: the operator does not want it. It comes back with its next process.
            tracing::warn!(node = %self.key.name, "the node's object was deleted");
            return;
        };
        let object: v1::Node = match change::decode(&entry) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(node = %self.key.name, %error, "the node's object is none of a Node");
                return;
            }
        };
        let is_unschedulable =
            object.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if is_unschedulable != self.is_unschedulable {
            self.is_unschedulable = is_unschedulable;
            self.told = None;
            self.changed(ctx);
        }
        if !object::is_ready(&object) {
            self.say_what_there_is(ctx);
        }
    }

    /// Brings the node's object up to date, if it is there: one that was deleted stays so.
    pub(super) fn say_what_there_is(&mut self, ctx: &mut Context<Self>) {
        let (registry, key) = (self.kit.registry.clone(), self.key.clone());
        let facts = self.facts.clone();
        let work = async move {
            let now = clock::timestamp();
            change::change(&registry, &key, None, None, |node| object::describe(node, &facts, now))
                .await
        };
        ctx.spawn(work.into_actor(self).map(|written, node, ctx| match written {
            Ok(_) | Err(ChangeError::Gone { .. }) => {}
            Err(error) => {
                tracing::warn!(node = %node.key.name, %error, "the object is not up to date, trying again");
                ctx.run_later(AGAIN, Self::say_what_there_is);
            }
        }));
    }
}
