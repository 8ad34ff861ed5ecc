//! What a Node actor (`node` on every machine) can be asked.
//!
//! A node alone decides what fits on it: [`Reserve`] is granted or refused pod by pod, a grant
//! lasts for its time to live or becomes the pod's once the pod is bound. Schedulers that
//! [`Follow`] a node are told when what is free there changes.

use super::{resources::Resources, scheduler::NodeSummary};
use impresario_runtime::{ActorPath, Lane, message, role};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The most that a [`Reserve`] may have: some thousand pods.
const RESERVE_BYTES: usize = 1 << 20;

/// The name under which each machine's Node actor is registered.
pub const NODE: &str = "node";

role! {
    /// The actor that stands for a machine.
    pub NodeRole = "node" {
        asks: [Reserve, Release, Describe, Follow, Drain],
        streams: []
    }
}

/// Names one grant of a node. A later grant never has the same number while the node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease(pub u64);

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}", self.0)
    }
}

/// What one pod needs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReservation {
    /// The pod's uid; reserving again for the same uid renews the grant.
    pub uid: String,
    /// The pod's effective requests, itself counted as one pod.
    pub resources: Resources,
}

/// Asks a node to keep room for pods that are about to be bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// The pods, in the order in which they should be granted.
    pub pods: Vec<PodReservation>,
    /// How long the room is kept for a pod that is not bound.
    pub ttl: Duration,
}

/// A node's word on one pod of a [`Reserve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    /// There is room, and it is kept.
    Reserved {
        /// The pod that it is kept for.
        uid: String,
        /// What to name in a [`Release`].
        lease: Lease,
    },
    /// There is no room; nothing is kept.
    Refused {
        /// The pod that must go elsewhere.
        uid: String,
        /// What the node has left: the asker's picture was wrong.
        free: Resources,
        /// Why, in words for an event.
        reason: String,
    },
}
message!(Reserve => Vec<Grant>, "node.Reserve", Lane::Work, RESERVE_BYTES);

/// Gives grants back before their time is up. Unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The grants.
    pub leases: Vec<Lease>,
}
message!(Release => (), "node.Release");

/// Asks for what the node has and has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Describe;
message!(Describe => NodeSummary, "node.Describe");

/// Asks for what the node has left now, and to be told at `subscriber` whenever that changes.
///
/// Follows until the subscriber's node is lost or another scheduler takes its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// The scheduler that wants to know.
    pub subscriber: ActorPath,
}
message!(Follow => NodeSummary, "node.Follow");

/// Asks the node to take no more pods, or to take them again.
///
/// The node marks its own object unschedulable and from then on refuses every [`Reserve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Whether pods are refused from now on.
    pub draining: bool,
}
message!(Drain => NodeSummary, "node.Drain");

#[cfg(test)]
mod tests {
    use crate::protocol::authority::Join;

    #[test]
    fn what_is_secret_is_not_printed() {
        let join = Join {
            secret: "s3cret".into(),
            csr_pem: String::new(),
            name: None,
            from: String::new(),
        };
        assert!(!format!("{join:?}").contains("s3cret"));
    }
}
