//! What schedulers and operators ask of the node.

use super::NodeActor;
use crate::change;
use actix::prelude::*;
use impresario_client::protocol::{
    node::{Describe, Drain, Follow, Grant, Release, Reserve},
    scheduler::NodeSummary,
};
use impresario_runtime::clock;
use std::time::Duration;

/// The longest time for which room is kept, whatever is asked.
const TTL_AT_MOST: Duration = Duration::from_mins(1);

impl Handler<Reserve> for NodeActor {
    type Result = MessageResult<Reserve>;

    fn handle(&mut self, reserve: Reserve, ctx: &mut Self::Context) -> Self::Result {
        let now = clock::now();
        self.reservations.expire(now);
        let refusal = if self.is_unschedulable {
            Some("the node takes no more pods")
        } else if self.pods_known {
            None
        } else {
            Some("the node does not know yet what runs on it")
        };
        let until = now + reserve.ttl.min(TTL_AT_MOST);
        let grants = reserve.pods.iter().map(|pod| match refusal {
            Some(reason) => Grant::Refused {
                uid: pod.uid.clone(),
                free: impresario_client::protocol::resources::Resources::default(),
                reason: reason.to_owned(),
            },
            None => self.reservations.reserve(pod, until),
        });
        let grants = grants.collect();
        self.changed(ctx);
        MessageResult(grants)
    }
}

impl Handler<Release> for NodeActor {
    type Result = ();

    fn handle(&mut self, release: Release, ctx: &mut Self::Context) {
        if self.reservations.release(&release.leases) {
            self.changed(ctx);
        }
    }
}

impl Handler<Describe> for NodeActor {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.summary())
    }
}

impl Handler<Follow> for NodeActor {
    type Result = MessageResult<Follow>;

    fn handle(&mut self, follow: Follow, _: &mut Self::Context) -> Self::Result {
        self.followers.insert(follow.subscriber.actor.as_str().to_owned(), follow.subscriber);
        self.serial += 1;
        MessageResult(self.summary())
    }
}

impl Handler<Drain> for NodeActor {
    type Result = ResponseActFuture<Self, NodeSummary>;

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) -> Self::Result {
        // Refuses from now on; the object says so as soon as it can be written.
        self.is_unschedulable = drain.draining;
        self.told = None;
        self.changed(ctx);
        let (registry, key) = (self.kit.registry.clone(), self.key.clone());
        let write = async move {
            change::change(&registry, &key, None, None, |node| {
                if drain.draining {
                    node["spec"]["unschedulable"] = true.into();
                } else if let Some(spec) =
                    node.get_mut("spec").and_then(|spec| spec.as_object_mut())
                {
                    spec.remove("unschedulable");
                }
            })
            .await
        };
        Box::pin(write.into_actor(self).map(|written, node, _| {
            if let Err(error) = written {
                tracing::warn!(node = %node.key.name, %error, "draining is not in the node's object");
            }
            node.summary()
        }))
    }
}
