//! How a container ends: by itself, because it is asked to, or because its keeper was killed.

use super::Inner;
use super::identity::ProcessKey;
use super::orphans::end_orphans;
use super::record;
use super::start::START_LIMIT;
use crate::container::{ContainerId, ContainerState, DriverError, Exit};
use crate::descriptor;
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::timeout;

/// How long SIGKILL may take.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked where the kernel has no pidfd.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Inner {
    pub(super) async fn wait(&self, id: &ContainerId) -> Result<Exit, DriverError> {
        let folder = self.folder(id)?;
        loop {
            if let ContainerState::Exited(exit) = self.state(id)? {
                return Ok(exit);
            }
            let keeper: Option<ProcessKey> = record::read_or_put_aside(&folder, "keeper.json");
            let pidfd = keeper.as_ref().map(ProcessKey::open).transpose();
            match pidfd {
                Ok(Some(Some(fd))) => {
                    let fd =
                        descriptor::readable(fd).map_err(DriverError::io("watching a process"))?;
                    let gone = fd.readable().await;
                    gone.map_err(DriverError::io("watching a process"))?.retain_ready();
                }
                // Gone since: the next look sees its exit, unless something of the container outlives it. Or not
                // begun yet, or no pidfds here.
                Ok(Some(None) | None) | Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    pub(super) async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<Exit, DriverError> {
        let begun = timeout(START_LIMIT, self.begun(id)).await;
        let Ok(keeper) = begun else {
            return Err(DriverError::Unkillable { id: id.clone(), waited: START_LIMIT });
        };
        let Some(keeper) = keeper? else { return self.wait(id).await };
        let send = |signal| {
            keeper.signal(signal).map_err(DriverError::io(format!("signalling the keeper of {id}")))
        };
        if !grace.is_zero() {
            send(Signal::TERM)?;
            if let Ok(exit) = timeout(grace, self.wait(id)).await {
                return exit;
            }
        }
        send(Signal::USR1)?;
        if let Ok(exit) = timeout(KILL_LIMIT, self.wait(id)).await {
            return exit;
        }
        let unkillable = |waited| Err(DriverError::Unkillable { id: id.clone(), waited });
        // What hangs in the kernel keeps its keeper, and with it what it has of the machine.
        let folder = self.folder(id)?;
        let all = tokio::task::spawn_blocking(move || end_orphans(&folder, super::KILL_LIMIT));
        if !all.await.unwrap_or(false) {
            return unkillable(KILL_LIMIT);
        }
        // Nothing is left to keep: it is the keeper that hangs.
        send(Signal::KILL)?;
        let Ok(exit) = timeout(KILL_LIMIT, self.wait(id)).await else {
            return unkillable(2 * KILL_LIMIT);
        };
        exit
    }

    /// The keeper of a container whose command executes; `None` when it has ended.
    async fn begun(&self, id: &ContainerId) -> Result<Option<ProcessKey>, DriverError> {
        let folder = self.folder(id)?;
        loop {
            match self.state(id)? {
                ContainerState::Exited(_) => return Ok(None),
                ContainerState::Running { .. } => {
                    return Ok(record::read_or_put_aside(&folder, "keeper.json"));
                }
                ContainerState::Created => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }
}
