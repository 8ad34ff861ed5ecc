//! What a Pod actor (`pod/UID` on the node that the pod is bound to) can be asked.

use super::session::Session;
use impresario_runtime::{message, role, stream_message};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// The actor name of the pod with this uid.
pub fn actor_name(uid: &str) -> String {
    format!("pod/{uid}")
}

role! {
    /// The actor that runs the containers of a pod.
    pub PodRole = "pod" {
        asks: [Describe, Stop],
        streams: [Logs, Session]
    }
}

/// Asks how the pod does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Describe;
message!(Describe => PodSummary, "pod.Describe");

/// How a pod does, as its actor knows it (its status in the registry may be a moment older).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSummary {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: String,
    /// Whether all containers are ready.
    pub ready: bool,
    /// The pod's address, once it has one.
    pub address: Option<String>,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerSummary>,
}

/// How a container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSummary {
    /// The container's name.
    pub name: String,
    /// `waiting`, `running` or `terminated`, with the reason where there is one.
    pub state: String,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it is ready.
    pub ready: bool,
}

/// Asks the pod to end for good, as an eviction does: SIGTERM, the grace period, SIGKILL, phase
/// `Failed`. The object stays until someone deletes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// How long the containers have; the pod's own grace period when missing.
    pub grace: Option<Duration>,
    /// `status.reason` of the failed pod, such as `Evicted`.
    pub reason: String,
    /// `status.message` of the failed pod.
    pub message: String,
}
message!(Stop => (), "pod.Stop");

/// Asks for what a container wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Which container; may be missing where the pod has only one.
    pub container: Option<String>,
    /// Whether to go on with what it writes from now on, until it ends.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail_lines: Option<u64>,
    /// Only what was written at or after this moment, in nanoseconds since 1970.
    pub since_unix_nanos: Option<i64>,
    /// Whether each line starts with the moment at which it was written (RFC 3339).
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
    /// Whether to read the container's last life instead of the current one.
    pub previous: bool,
}
stream_message!(Logs => LogChunk, "pod.Logs");

/// Some of what a container wrote, in order, cut anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why there is no log. A stream that cannot start ends with one of these as its refusal, in the
/// words that Kubernetes uses for a 400 answer.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum LogsError {
    /// The pod has several containers and none was named.
    #[error("a container name must be specified for pod {pod}, choose one of: [{containers}]")]
    Ambiguous {
        /// The pod's name.
        pod: String,
        /// The names to choose from, separated by spaces.
        containers: String,
    },
    /// The pod has no container with that name.
    #[error("container {container} is not valid for pod {pod}")]
    NoSuchContainer {
        /// The pod's name.
        pod: String,
        /// The name that was asked for.
        container: String,
    },
    /// The container was never started.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    Waiting {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// What it waits for, such as `ContainerCreating`.
        reason: String,
    },
    /// There is no earlier life of the container.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
    },
}
