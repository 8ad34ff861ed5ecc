//! What a driver is asked to start: a pod's sandbox, and containers in it.
//!
//! Plain data, resolved to the last path and id: no driver looks anything up.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

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
    /// Thousandths of a CPU that all its containers together are entitled to under contention.
    #[serde(default)]
    pub cpu_request_milli: u64,
    /// The pod's annotations that the driver reads
    /// ([`ContainerDriver::annotations`](super::ContainerDriver::annotations)).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How much a pod has asked for: Kubernetes' quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Qos {
    /// All that it may use.
    Guaranteed,
    /// Some.
    Burstable,
    /// Nothing.
    #[default]
    BestEffort,
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
    /// Bytes of memory that it may use, swap included.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes of memory that it has asked for.
    #[serde(default)]
    pub memory_request_bytes: u64,
    /// Its pod's quality of service.
    #[serde(default)]
    pub qos: Qos,
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
    /// Whether it is not started at all where it would be root.
    #[serde(default)]
    pub must_not_be_root: bool,
}

/// What a container may do besides what everybody may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    /// All that root may, on all devices.
    pub privileged: bool,
    /// Capabilities beyond the usual ones, such as `NET_ADMIN`.
    pub add: Vec<String>,
    /// Capabilities that are taken away, or `ALL`.
    pub drop: Vec<String>,
    /// Whether a program may give more rights than its caller had (`set-user-id`); absent where the pod does not say.
    pub allow_escalation: Option<bool>,
}

impl Security {
    /// Whether programs in the container may gain rights.
    #[must_use]
    pub fn may_gain(&self) -> bool {
        self.privileged || self.allow_escalation == Some(true)
    }
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
    /// Its pod, known to the driver by [`prepare_pod`](super::ContainerDriver::prepare_pod).
    pub pod: PodSandbox,
    /// Its name within the pod: one path component.
    pub name: String,
    /// How often it was started before; a new attempt is a new container.
    pub attempt: u32,
    /// Whether the pod goes on only when it has ended well: an init container that is no sidecar.
    #[serde(default)]
    pub is_init: bool,
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
    /// What it may do.
    #[serde(default)]
    pub security: Security,
    /// The UUIDs of the GPUs that it is given; it is to see no others.
    pub gpus: Vec<String>,
    /// How much output is kept.
    pub log: LogLimit,
}
