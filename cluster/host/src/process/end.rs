//! How a container ends: by itself, because it is asked to, or because its keeper was killed.

use super::Inner;
use super::identity::{self, ProcessKey};
use super::record::{self, Born};
use super::start::START_LIMIT;
use crate::container::{ContainerId, ContainerState, DriverError, Exit};
use crate::descriptor;
use jiff::Timestamp;
use rustix::process::Signal;
use std::path::Path;
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
                // Gone since: the next look sees its exit. Or not begun yet, or no pidfds here.
                Ok(Some(None)) => tokio::task::yield_now().await,
                Ok(None) | Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
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
        // The keeper itself hangs: without it the container's first process dies, and what else
        // there is of it is found by its groups.
        send(Signal::KILL)?;
        let Ok(exit) = timeout(KILL_LIMIT, self.wait(id)).await else {
            return Err(DriverError::Unkillable { id: id.clone(), waited: 2 * KILL_LIMIT });
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

/// Ends what a keeper left that was killed itself.
pub(super) fn end_orphans(folder: &Path) {
    let Ok(Some(born)) = record::read::<Born>(folder, "born.json") else { return };
    if !born.process.is_of_this_boot() {
        // The machine was restarted: nothing of it is left, and its numbers are strangers'.
        if let Some(cgroup) = &born.cgroup {
            cgroup.remove();
        }
        return;
    }
    // It may be gone already, which is what is wanted.
    let _ = born.process.signal(Signal::KILL);
    let leader = born.process.pid;
    let reused = identity::stat(leader).is_some_and(|s| s.start_ticks != born.process.start_ticks);
    if !reused {
        // While a process of the session lives, its number is given to no other session.
        for pid in identity::all() {
            if identity::stat(pid).is_some_and(|s| s.session == leader) {
                let key = ProcessKey::of(pid);
                let _ = key.map(|key| key.signal(Signal::KILL));
            }
        }
    }
    if let Some(cgroup) = &born.cgroup {
        cgroup.kill_all(Duration::from_secs(2));
        cgroup.remove();
    }
}

/// The end of a container that nobody saw.
pub(super) fn lost(born: Option<&Born>) -> Exit {
    Exit {
        code: 137,
        signal: Some(9),
        started_at: born.map(|born| born.started_at),
        finished_at: Timestamp::now(),
        reason: "ContainerStatusUnknown".into(),
        message: "its keeper ended without saying how the container did: killed, or the machine \
                  was restarted"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn after_a_restart_of_the_machine_no_stranger_is_ended_for_having_the_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut stranger = Command::new("setsid").args(["sleep", "600"]).spawn().unwrap();
        // `setsid` makes a session of itself before it becomes `sleep`.
        let pid = stranger.id();
        let begin = std::time::Instant::now();
        while identity::stat(pid).is_none_or(|s| s.session != pid) {
            assert!(begin.elapsed() < Duration::from_secs(30), "no session of its own");
            std::thread::yield_now();
        }
        // A process that ended, whose number a session has that is older than the machine's restart tells.
        let process = ProcessKey { boot: "before".into(), ..ProcessKey::of(pid).unwrap() };
        let born =
            Born { process, started_at: Timestamp::now(), warnings: Vec::new(), cgroup: None };
        record::write(folder.path(), "born.json", &born).unwrap();
        end_orphans(folder.path());
        let ended = stranger.try_wait().unwrap();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(ended.is_none(), "{ended:?}");
    }
}
