//! Containers behind one trait: what a driver is asked, what it answers, how it fails.
//!
//! - A container that was started is known to its driver until it is removed, also to a driver
//!   that was made anew over the same directory (or daemon): [`ContainerDriver::list`] finds what a
//!   predecessor left, with the exit codes of those that ended meanwhile.
//! - `stop` and `kill` end every process of the container, not its first one alone.
//! - `wait` wakes on the exit itself; no driver polls faster than every 50 ms.
//! - [`StartError::reason`] is what Kubernetes shows as the waiting or terminated reason.

pub mod cri_log;

use futures_util::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};
use thiserror::Error;

/// What one driver calls a container. Unique within the driver, stable over its restarts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pod that containers belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandbox {
    /// The pod's uid: one path component, letters, digits, `-`, `_` and `.` only.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What `hostname` says in a container that has a host name of its own.
    pub hostname: String,
    /// The pod's address, when it was given one.
    pub address: Option<IpAddr>,
    /// Whether the pod uses the node's network.
    pub host_network: bool,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Every time a container starts.
    Always,
    /// When the machine does not have it.
    #[default]
    IfNotPresent,
    /// Never; a missing image is an error.
    Never,
}

/// One thing that a container sees at a path of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The volume's name in the pod.
    pub volume: String,
    /// Where it is on this machine.
    pub source: PathBuf,
    /// The part of it that is mounted: resolved beneath `source`, following no link out of it.
    pub sub_path: Option<PathBuf>,
    /// Where the container sees it.
    pub target: PathBuf,
    /// Whether writes through the mount are refused.
    pub read_only: bool,
}

/// What a container asks of the machine, and what it may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU that it is entitled to under contention.
    pub cpu_request_milli: u64,
    /// Thousandths of a CPU that it may use.
    pub cpu_limit_milli: Option<u64>,
    /// Bytes of memory that it may use.
    pub memory_limit_bytes: Option<u64>,
}

/// Who a container runs as; what is absent stays as the image or the node has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: Option<u32>,
    /// Primary group id.
    pub gid: Option<u32>,
    /// Further group ids.
    pub groups: Vec<u32>,
}

/// How many bytes of output are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimit {
    /// A file is turned over when it would grow past this.
    pub file_bytes: u64,
    /// Files kept, the current one included; at least one.
    pub files: u32,
}

impl Default for LogLimit {
    /// As the kubelet has it: five files of 10 MiB.
    fn default() -> Self {
        Self { file_bytes: 10 << 20, files: 5 }
    }
}

/// One container to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its pod, known to the driver by [`ContainerDriver::prepare_pod`].
    pub pod: PodSandbox,
    /// Its name within the pod: one path component.
    pub name: String,
    /// How often it was started before; a new attempt is a new container.
    pub attempt: u32,
    /// The image; the `process` driver ignores it.
    pub image: String,
    /// When the image is fetched.
    pub pull: PullPolicy,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Arguments to it.
    pub args: Vec<String>,
    /// Where it starts.
    pub working_dir: Option<PathBuf>,
    /// The whole environment but `PATH`, in order; a later entry wins.
    pub env: Vec<(String, String)>,
    /// What it sees at paths of its own.
    pub mounts: Vec<Mount>,
    /// What it asks and may use.
    pub resources: Resources,
    /// Who it runs as.
    pub user: User,
    /// The UUIDs of the GPUs that it is given; it is to see no others.
    pub gpus: Vec<String>,
    /// How much output is kept.
    pub log: LogLimit,
}

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

/// One of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or one piece of a line that was longer than the log's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub time: Timestamp,
    /// On which output.
    pub stream: Stream,
    /// Its bytes, without the line feed.
    pub bytes: bytes::Bytes,
    /// Whether the line goes on in the next one.
    pub partial: bool,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only that many of the last lines that there are.
    pub tail: Option<usize>,
    /// Only lines of this time or later.
    pub since: Option<Timestamp>,
    /// End when this many bytes were given; the last line is cut there.
    pub limit_bytes: Option<u64>,
}

/// Lines in order; dropping it ends the reading.
pub type LogStream = BoxStream<'static, Result<LogLine, DriverError>>;

/// Why a container was not started. Nothing of it is running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The command is not there.
    #[error("{command}: no such file: correct the container's command or its image")]
    NotFound {
        /// What was to be run.
        command: String,
    },
    /// The command may not be run.
    #[error("{command}: permission denied: make it executable for the container's user")]
    PermissionDenied {
        /// What was to be run.
        command: String,
    },
    /// Neither the pod nor, for this driver, the image says what to run.
    #[error("no command: the process driver runs what spec.containers[].command says")]
    NoCommand,
    /// The image is not on this machine and must not be fetched.
    #[error("container image {image} is not present with pull policy of Never")]
    ImageNeverPull {
        /// The image.
        image: String,
    },
    /// The image could not be fetched; try again later.
    #[error("failed to pull image {image}: {cause}")]
    ImagePull {
        /// The image.
        image: String,
        /// What the registry or the daemon said.
        cause: String,
    },
    /// The image's name cannot be one.
    #[error("invalid image name {image:?}: {cause}")]
    ImageName {
        /// The image.
        image: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A mount could not be made.
    #[error("cannot mount volume {volume} at {}: {cause}", target.display())]
    Mount {
        /// The volume.
        volume: String,
        /// Where it was to be seen.
        target: PathBuf,
        /// What failed.
        cause: String,
    },
    /// The pod, the name, a path or an id cannot be used as it is.
    #[error("{what}: correct the pod's specification")]
    Config {
        /// What is wrong.
        what: String,
    },
    /// A container of this pod, name and attempt is there already.
    #[error("{id} exists: ask for the next attempt, or remove it first")]
    Exists {
        /// Its id.
        id: ContainerId,
    },
    /// The machine or the daemon failed; nothing is wrong with the container.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl StartError {
    /// The reason that Kubernetes shows.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::PermissionDenied { .. } => "StartError",
            Self::NoCommand | Self::Mount { .. } | Self::Exists { .. } => "CreateContainerError",
            Self::Config { .. } => "CreateContainerConfigError",
            Self::ImageNeverPull { .. } => "ErrImageNeverPull",
            Self::ImagePull { .. } => "ErrImagePull",
            Self::ImageName { .. } => "InvalidImageName",
            Self::Driver(_) => "RunContainerError",
        }
    }

    /// The exit code that stands for it, where a shell has one.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } => 127,
            Self::PermissionDenied { .. } => 126,
            _ => 128,
        }
    }
}

/// Why a driver could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriverError {
    /// There is no such container (any more).
    #[error("no container {id}: list them again")]
    NoContainer {
        /// What was asked for.
        id: ContainerId,
    },
    /// It still runs.
    #[error("{id} is running: stop it first")]
    Running {
        /// Which one.
        id: ContainerId,
    },
    /// A file or a system call of this machine failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The daemon did not answer, or not in time; it may have done what it was asked.
    #[error("the container engine did not {what}: {cause}; it may have been done, look again")]
    Engine {
        /// What was attempted.
        what: String,
        /// What it said.
        cause: String,
    },
    /// A process outlived SIGKILL: it hangs in the kernel.
    #[error("{id} outlived SIGKILL for {waited:?}: the machine needs a look")]
    Unkillable {
        /// Which one.
        id: ContainerId,
        /// For how long it was waited.
        waited: Duration,
    },
}

impl DriverError {
    /// Wraps an IO error with what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }
}

/// Shorthand for what a driver answers.
pub type Answer<'a, T, E = DriverError> = BoxFuture<'a, Result<T, E>>;

/// Runs containers on this machine.
pub trait ContainerDriver: Send + Sync + 'static {
    /// `process` or `docker`: the scheme of a container's id in a pod's status.
    fn name(&self) -> &'static str;

    /// Prepares what the pod's containers share. Repeating it does no harm.
    fn prepare_pod(&self, pod: PodSandbox) -> Answer<'_, ()>;

    /// Ends what still runs of the pod, and removes every trace of it. Repeating it does no harm.
    fn remove_pod<'a>(&'a self, uid: &'a str) -> Answer<'a, ()>;

    /// Starts a container; once this returns its command is executing (or has ended).
    fn start(&self, spec: ContainerSpec) -> Answer<'_, Started, StartError>;

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
}

/// Whether `part` can be one component of a path without meaning anything else.
pub fn is_path_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 253 && part.chars().all(plain) && !part.starts_with('.')
}

/// Replaces `$(NAME)` by its value, as Kubernetes does in commands, arguments and environment:
/// `$$(NAME)` stays `$(NAME)`, and so does a name that is not known.
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_known_names_are_replaced_and_all_else_stays() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let table = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("cost: 5$", "cost: 5$"),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text, &values), expected, "{text}");
        }
    }

    #[test]
    fn a_name_that_leaves_its_folder_is_no_path_component() {
        for bad in ["", "..", ".hidden", "a/b", "a\0b", "a b"] {
            assert!(!is_path_component(bad), "{bad:?}");
        }
        assert!(is_path_component("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"));
    }
}
