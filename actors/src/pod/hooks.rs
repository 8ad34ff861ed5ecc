//! Lifecycle hooks: what a container is told right after its start and before its end.
//!
//! As the kubelet does it: a container whose `postStart` fails is started anew; one whose `preStop` fails
//! ends all the same. `preStop` takes its time out of the grace period. (API reference, Lifecycle v1.)

use super::{PodActor, hook::Hook, life::Life, question::Place};
use actix::prelude::*;
use impresario_host::ContainerId;
use impresario_objects::events::Severity;
use k8s_openapi::api::core::v1;
use std::time::Duration;

/// How long `postStart` may take; Kubernetes sets no limit, and a container would hang for ever.
const POST_START_LIMIT: Duration = Duration::from_mins(10);
impl PodActor {
    pub(super) fn place(&self, id: &ContainerId) -> Place {
        Place { driver: self.kit.driver.clone(), id: id.clone() }
    }

    /// A hook of the container, where it has that one.
    pub(super) fn hook(
        &self,
        name: &str,
        id: &ContainerId,
        which: impl FnOnce(&v1::Lifecycle) -> &Option<v1::LifecycleHandler>,
    ) -> Option<Hook> {
        let container = self.container_spec(name)?.clone();
        let handler = which(container.lifecycle.as_ref()?).clone()?;
        Some(Hook { handler, container, address: self.address()?, place: self.place(id) })
    }

    /// Runs the container's `postStart` hook, if it has one; until it has passed it counts as not started.
    pub(super) fn post_start(&mut self, name: &str, id: &ContainerId, ctx: &mut Context<Self>) {
        let hook = self.hook(name, id, |lifecycle| &lifecycle.post_start);
        let Some(container) = self.life.container_mut(name) else { return };
        let Some(hook) = hook else {
            container.greeted();
            return;
        };
        let (name, id) = (name.to_owned(), id.clone());
        let work = async move { hook.run(POST_START_LIMIT).await };
        ctx.spawn(work.into_actor(self).map(move |outcome, pod, ctx| {
            let Some(container) = pod.life.container_mut(&name) else { return };
            let is_current =
                matches!(&container.life, Life::Running { id: running, .. } if *running == id);
            if !is_current {
                return; // ended meanwhile
            }
            match outcome {
                Ok(()) => {
                    container.greeted();
                    pod.watch_probes(&name, ctx);
                }
                Err(why) => {
                    container.given_up = Some("failed postStart hook".to_owned());
                    let message = format!("PostStartHook failed: {why}");
                    pod.tell(&name, Severity::Warning, "FailedPostStartHook", &message);
                }
            }
            pod.step(ctx);
        }));
    }
}
