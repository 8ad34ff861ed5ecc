//! Containers behind one trait: what a driver is asked, what it answers, how it fails.
//!
//! - A container that was started is known to its driver until it is removed, also to a driver
//!   that was made anew over the same directory (or daemon): [`ContainerDriver::list`] finds what a
//!   predecessor left, with the exit codes of those that ended meanwhile.
//! - `stop` and `kill` end every process of the container, not its first one alone.
//! - `wait` wakes on the exit itself; no driver polls faster than every 50 ms.
//! - [`StartError::reason`] is what Kubernetes shows as the waiting or terminated reason.

pub mod cri_log;
mod error;
mod executed;
mod expansion;
mod folder_watch;
mod id;
pub(crate) mod last_lines;
mod output;
pub(crate) mod session;
mod spec;
pub(crate) mod used;
mod whole_lines;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

pub use error::{DriverError, StartError};
pub use executed::{Executed, Heard};
pub use expansion::{expand, expand_all};
pub use id::ContainerId;
pub use output::{LogLine, LogOptions, LogStream, Stream};
pub use session::{Attached, Size, Typed, Wanted, Written};
pub use spec::{
    ContainerSpec, LogLimit, Mount, PodSandbox, PullPolicy, Qos, Resources, Security, User,
};
pub use whole_lines::WholeLines;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; 128 plus the signal's number when one ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it started, where that is known.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// `Completed`, `Error`, `OOMKilled` or `ContainerStatusUnknown`.
    pub reason: String,
    /// More for people, when there is more to say.
    pub message: String,
}

impl Exit {
    /// The reason that Kubernetes shows for an exit code when nothing else is known.
    pub fn reason_for(code: i32, out_of_memory: bool) -> &'static str {
        match (code, out_of_memory) {
            (_, true) => "OOMKilled",
            (0, false) => "Completed",
            _ => "Error",
        }
    }
}

/// What a container is at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Known, not running yet.
    Created,
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
        /// Its first process on this machine; zero where the driver does not say.
        pid: u32,
    },
    /// Ended.
    Exited(Exit),
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its id from now on.
    pub id: ContainerId,
    /// When it started.
    pub started_at: Timestamp,
    /// What could not be given as asked, in words for a warning event.
    pub warnings: Vec<String>,
}

/// A container that the driver knows, of this process or of one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: ContainerId,
    /// Its pod's uid.
    pub pod_uid: String,
    /// Its name within the pod.
    pub container: String,
    /// Which start of that name it is.
    pub attempt: u32,
    /// What it is now.
    pub state: ContainerState,
}

/// What a container used so far and uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerStats {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Memory in use that the kernel cannot take back for nothing.
    pub memory_bytes: u64,
    /// Processes in it.
    pub processes: u64,
}

/// What one container that runs uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Which one.
    pub id: ContainerId,
    /// Its pod's uid.
    pub pod_uid: String,
    /// Its name within the pod.
    pub container: String,
    /// What it uses.
    pub stats: ContainerStats,
}

/// Shorthand for what a driver answers.
pub type Answer<'a, T, E = DriverError> = BoxFuture<'a, Result<T, E>>;

/// Runs containers on this machine.
pub trait ContainerDriver: Send + Sync + 'static {
    /// `process`, `docker` or `hollow`: the scheme of a container's id in a pod's status.
    fn name(&self) -> &'static str;

    /// Whether it starts nothing and only says so. Such containers need nothing of the machine, and whatever is asked of
    /// them over the network has nobody to answer it.
    fn is_hollow(&self) -> bool {
        false
    }

    /// The annotations of a pod that it wants to know of.
    fn annotations(&self) -> &'static [&'static str] {
        &[]
    }

    /// Prepares what the pod's containers share. Repeating it does no harm.
    fn prepare_pod(&self, pod: PodSandbox) -> Answer<'_, ()>;

    /// Ends what still runs of the pod, and removes every trace of it. Repeating it does no harm.
    fn remove_pod<'a>(&'a self, uid: &'a str) -> Answer<'a, ()>;

    /// Starts a container; once this returns its command is executing (or has ended).
    fn start(&self, spec: ContainerSpec) -> Answer<'_, Started, StartError>;

    /// Ends what may run of a pod although its start failed: the answer was lost. For a pod that starts nothing any
    /// more, but is not removed yet. Repeating it does no harm.
    fn settle<'a>(&'a self, _uid: &'a str) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// SIGTERM, then SIGKILL to all its processes when `grace` is over. Returns once it has ended.
    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> Answer<'a, Exit>;

    /// SIGKILL to all its processes. Returns once it has ended.
    fn kill<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Exit> {
        self.stop(id, Duration::ZERO)
    }

    /// What it is now.
    fn inspect<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerState>;

    /// Until it has ended, however long that takes; the caller sets the deadline.
    fn wait<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Exit>;

    /// Its output.
    fn logs<'a>(&'a self, id: &'a ContainerId, options: LogOptions) -> Answer<'a, LogStream>;

    /// Runs a command in a container that runs: in its mounts, its control groups, with its environment and
    /// user. Returns when it has ended; one that takes longer than `limit` is [`DriverError::TooLong`], and the
    /// driver ends it where it can (the engine of the `docker` driver cannot).
    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: Vec<String>,
        limit: Duration,
    ) -> Answer<'a, Executed>;

    /// Runs a command in a container that runs, as [`exec`](Self::exec) does, for somebody who writes to it and reads
    /// from it as long as it lasts. It is ended with all its processes once nobody reads its output any more.
    fn run<'a>(&'a self, id: &'a ContainerId, wanted: Wanted) -> Answer<'a, Attached>;

    /// What a container that runs writes from now on and, where the driver can, what it reads. `stdin` says that the
    /// latter is wanted; a driver that cannot refuses it.
    fn attach<'a>(&'a self, id: &'a ContainerId, stdin: bool) -> Answer<'a, Attached> {
        Box::pin(async move {
            if stdin {
                return Err(session::no_input(self.name()));
            }
            if !matches!(self.inspect(id).await?, ContainerState::Running { .. }) {
                return Err(DriverError::NotRunning { id: id.clone() });
            }
            let options = LogOptions { follow: true, tail: Some(0), ..LogOptions::default() };
            Ok(session::followed(self.logs(id, options).await?))
        })
    }

    /// Forgets a container that has ended, with its output.
    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()>;

    /// Every container of this node that there is, whoever started it.
    fn list(&self) -> Answer<'_, Vec<Found>>;

    /// The uids of all pods of which anything is left, be it without a container.
    fn pods(&self) -> Answer<'_, BTreeSet<String>>;

    /// The address that the driver gave the pod, when that is the driver's to give.
    fn pod_address<'a>(&'a self, _uid: &'a str) -> Answer<'a, Option<IpAddr>> {
        Box::pin(async { Ok(None) })
    }

    /// What it uses.
    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ContainerStats>;

    /// What each container that runs uses. One that ends meanwhile, or of which it cannot be told, is left out. For who
    /// asks about all of them every few seconds: starts no process.
    fn usage(&self) -> Answer<'_, Vec<Used>> {
        Box::pin(async move {
            let mut running = self.list().await?;
            running.retain(|found| matches!(found.state, ContainerState::Running { .. }));
            let ask = |Found { id, pod_uid, container, .. }| -> BoxFuture<'_, Option<Used>> {
                Box::pin(async move {
                    let stats = self.stats(&id).await.ok()?;
                    Some(Used { id, pod_uid, container, stats })
                })
            };
            let asked = running.into_iter().map(ask).collect();
            Ok(used::in_time(asked).await)
        })
    }
}

/// Whether `part` can be one component of a path without meaning anything else.
pub fn is_path_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 253 && part.chars().all(plain) && !part.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leaves_its_folder_is_no_path_component() {
        for bad in ["", "..", ".hidden", "a/b", "a\0b", "a b"] {
            assert!(!is_path_component(bad), "{bad:?}");
        }
        assert!(is_path_component("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"));
    }
}
