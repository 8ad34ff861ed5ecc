//! How a lifecycle hook is run, and how a container is stopped after its own.

use super::question::{Place, Question, http_get};
use impresario_host::{Exit, container::DriverError};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1;
use std::{net::IpAddr, time::Duration};
use tokio::time::timeout;

/// What is left of the grace period when `preStop` has used it up, as in the kubelet.
const GRACE_AT_LEAST: Duration = Duration::from_secs(2);

/// A hook, and what it needs to be run.
pub(super) struct Hook {
    pub(super) handler: v1::LifecycleHandler,
    pub(super) container: v1::Container,
    pub(super) address: IpAddr,
    pub(super) place: Place,
}

impl Hook {
    /// Runs it; why it failed.
    pub(super) async fn run(&self, limit: Duration) -> Result<(), String> {
        if let Some(exec) = &self.handler.exec {
            let answer = Question::of_exec(exec).ask(&self.place, limit).await;
            return answer.unwrap_or_else(|| Err("the container has ended".to_owned()));
        }
        if let Some(http) = &self.handler.http_get {
            let get = http_get(http, &self.container, self.address)?;
            if self.place.is_hollow() {
                return Ok(());
            }
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
    let began = clock::now();
    let (mut left, mut failed) = (grace, None);
    if let Some(hook) = hook {
        failed = hook.run(grace).await.err();
        left = grace.saturating_sub(began.elapsed()).max(GRACE_AT_LEAST.min(grace));
    }
    (place.driver.stop(&place.id, left).await, failed)
}
