//! Lifecycle hooks: what a container is told right after its start and before its end.
//!
//! As the kubelet does it: a container whose `postStart` fails is started anew; one whose `preStop` fails
//! ends all the same. `preStop` takes its time out of the grace period. (API reference, Lifecycle v1.)

use super::{
    PodActor,
    life::Life,
    question::{Place, Question, http_get},
};
use actix::prelude::*;
use impresario_host::{ContainerId, Exit, container::DriverError};
use impresario_objects::events::Severity;
use k8s_openapi::api::core::v1;
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// How long `postStart` may take; Kubernetes sets no limit, and a container would hang for ever.
const POST_START_LIMIT: Duration = Duration::from_mins(10);
/// What is left of the grace period when `preStop` has used it up, as in the kubelet.
const GRACE_AT_LEAST: Duration = Duration::from_secs(2);

/// A hook, and what it needs to be run.
pub(super) struct Hook {
    handler: v1::LifecycleHandler,
    container: v1::Container,
    address: IpAddr,
    place: Place,
}

impl Hook {
    /// Runs it; why it failed.
    async fn run(&self, limit: Duration) -> Result<(), String> {
        if let Some(exec) = &self.handler.exec {
            let answer = Question::of_exec(exec).ask(&self.place, limit).await;
            return answer.unwrap_or_else(|| Err("the container has ended".to_owned()));
        }
        if let Some(http) = &self.handler.http_get {
            let get = http_get(http, &self.container, self.address)?;
            // Any answer will do: the hook tells, it does not ask.
            return match timeout(limit, get.send()).await {
                Ok(sent) => sent.map(drop).map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {limit:?}")),
            };
        }
        if let Some(sleep) = &self.handler.sleep {
            let time = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep(time.min(limit)).await;
            return Ok(());
        }
        Err("a tcpSocket hook does nothing: use exec, httpGet or sleep".to_owned())
    }
}

/// Stops a container, its hook first; gives the hook's failure too.
pub(super) async fn stop(
    place: Place,
    hook: Option<Hook>,
    grace: Duration,
) -> (Result<Exit, DriverError>, Option<String>) {
    let began = Instant::now();
    let (mut left, mut failed) = (grace, None);
    if let Some(hook) = hook {
        failed = hook.run(grace).await.err();
        left = grace.saturating_sub(began.elapsed()).max(GRACE_AT_LEAST.min(grace));
    }
    (place.driver.stop(&place.id, left).await, failed)
}

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
