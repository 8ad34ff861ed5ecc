//! GPUs that are lost while the node runs, and those that come back.
//!
//! A lost GPU is not given to pods any more; a pod that has it keeps it, as with the kubelet's device manager.

use super::{NodeActor, gpu_driver::GpuDriver};
use actix::prelude::*;
use impresario_client::protocol::resources::GPU;
use impresario_host::devices::Gpu;
use impresario_objects::events::Severity;
use impresario_runtime::tasks;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How often the driver is asked.
const LOOK_AT_GPUS: Duration = Duration::from_secs(5);
/// A driver that has not answered after this long is complained of.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

impl NodeActor {
    /// Asks the driver again and again, on a machine that had GPUs when the node started.
    pub(super) fn watch_gpus(&mut self, ctx: &mut Context<Self>) {
        if self.facts.capacity.gpus() == 0 {
            return;
        }
        ctx.run_later(LOOK_AT_GPUS, |node, ctx| {
            let look = look(node.gpu_driver.clone());
            ctx.spawn(look.into_actor(node).map(|found, node, ctx| {
                if let Some(found) = found {
                    node.gpus_seen(&found, ctx);
                }
                node.watch_gpus(ctx);
            }));
        });
    }

    fn gpus_seen(&mut self, found: &[Gpu], ctx: &mut Context<Self>) {
        let (changed, healthy) = {
            let mut pool = self.kit.gpus.lock();
            (pool.seen(found), pool.healthy() as u64)
        };
        for (uuid, why) in changed {
            let (severity, reason, message) = match why {
                Some(why) => (Severity::Warning, "GPUUnhealthy", format!("{uuid}: {why}")),
                None => (Severity::Normal, "GPUHealthy", format!("{uuid} is well again")),
            };
            tracing::warn!(node = %self.key.name, reason, message, "a GPU changed");
            self.kit.events.about_node(&self.key.name, severity, reason, &message);
        }
        let mut allocatable = self.facts.allocatable.clone();
        allocatable.set(GPU, healthy.min(self.facts.capacity.gpus()));
        if allocatable == self.facts.allocatable {
            return;
        }
        self.facts.allocatable = allocatable.clone();
        self.reservations.set_allocatable(allocatable);
        self.changed(ctx);
        self.say_what_there_is(ctx);
    }
}

/// What the driver says; nothing when the task that asks it was lost.
async fn look(driver: Arc<dyn GpuDriver>) -> Option<Vec<Gpu>> {
    let mut asked = tasks::spawn_blocking(move || driver.list());
    // One that hangs is not asked again beside itself.
    loop {
        match timeout(ANSWER_LIMIT, &mut asked).await {
            Ok(found) => return found.ok(),
            Err(_) => tracing::warn!("the GPU driver has not answered for {ANSWER_LIMIT:?}"),
        }
    }
}
