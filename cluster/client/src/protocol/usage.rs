//! What nodes tell control members of what is used on them (`usage` on every control member).
//!
//! A [`Report`] is the whole of what a node knows, taken every few seconds and sent to each control member. It is a hint in that
//! losing one does no harm: the next one has everything again. Nothing of it is stored. A node speaks for itself alone, which
//! the receiver's gate holds against the certificate, and what it says of a pod counts only where that pod is bound to it.

use impresario_runtime::{Lane, message, role};
use serde::{Deserialize, Serialize};

/// The name under which each control member's actor is registered.
pub const USAGE: &str = "usage";

/// The most bytes of a [`Report`]: some thousand containers.
pub const REPORT_BYTES: usize = 512 << 10;

/// The most containers of which a node tells: more of them would not fit into a report.
pub const CONTAINERS: usize = 2_000;

role! {
    /// The actor that knows what is used on each node.
    pub UsageRole = "usage" {
        asks: [Report],
        streams: []
    }
}

/// So much at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amounts {
    /// CPU, in billionths of one: the average over the window.
    pub cpu_nanos: u64,
    /// Memory that is in use and cannot be taken back for nothing.
    pub memory_bytes: u64,
}

impl Amounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_nanos: self.cpu_nanos.saturating_add(other.cpu_nanos),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
}

/// What a container uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// Its name within the pod.
    pub name: String,
    /// What it uses.
    pub amounts: Amounts,
}

/// What the containers of a pod use that run and of which there is a rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUsage {
    /// The pod's uid.
    pub uid: String,
    /// Over how many thousandths of a second the CPU of its containers was averaged, the longest of them.
    pub window_ms: u64,
    /// Its containers, by name.
    pub containers: Vec<ContainerUsage>,
}

impl PodUsage {
    /// What all of them use.
    #[must_use]
    pub fn total(&self) -> Amounts {
        self.containers.iter().fold(Amounts::default(), |sum, one| sum.plus(one.amounts))
    }
}

/// What is used on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The node that says so: the receiver's gate holds it against the certificate.
    pub node: String,
    /// When it was taken, by the node's clock, in thousandths of a second since 1970.
    pub taken_ms: i64,
    /// Over how many thousandths of a second the CPU of the node was averaged.
    pub window_ms: u64,
    /// What its containers and its own process use together.
    pub amounts: Amounts,
    /// Its pods of which anything is known.
    pub pods: Vec<PodUsage>,
}
message!(Report => (), "usage.Report", Lane::Work, REPORT_BYTES);
