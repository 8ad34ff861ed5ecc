//! What a Node actor (`node` on every machine) can be asked.
//!
//! A node alone decides what fits on it: [`Reserve`] is granted or refused pod by pod, a grant
//! lasts for its time to live or becomes the pod's once the pod is bound. Schedulers that
//! [`Follow`] a node are told when what is free there changes.

use super::{resources::Resources, scheduler::NodeSummary};
use impresario_runtime::{ActorPath, message, role};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

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
message!(Reserve => Vec<Grant>, "node.Reserve");

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
    use super::*;
    use crate::protocol::authority::{GuestCredential, IssueGuest, Join, JoinRole, Renew};
    use crate::protocol::authority::{JoinError, Joined, Peer};
    use crate::protocol::pod::{LogChunk, Logs, PodSummary};
    use crate::protocol::scheduler::{Explanation, SchedulerStatus, SummaryChanged};
    use impresario_runtime::{decode, encode};
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;

    fn travels<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: T) {
        let bytes = encode(&message).expect("encodes");
        assert_eq!(decode::<T>(&bytes).expect("decodes"), message);
    }

    fn some() -> Resources {
        let mut resources =
            Resources { cpu_milli: 1500, memory_bytes: 1 << 33, pods: 1, ..Resources::default() };
        resources.set("nvidia.com/gpu", 2);
        resources
    }

    fn summary() -> NodeSummary {
        NodeSummary {
            node: "n1".into(),
            incarnation: 7,
            serial: 9,
            allocatable: some(),
            free: Resources::default(),
            pods: 3,
            reserved: 1,
            draining: true,
        }
    }

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let ttl = Duration::from_secs(10);
        travels(Reserve { pods: vec![PodReservation { uid: "u".into(), resources: some() }], ttl });
        travels(vec![
            Grant::Reserved { uid: "u".into(), lease: Lease(3) },
            Grant::Refused { uid: "v".into(), free: some(), reason: "insufficient cpu".into() },
        ]);
        travels(Follow { subscriber: ActorPath::new("n1", "scheduler/default-scheduler") });
        travels(SummaryChanged { summary: summary() });
        travels(SchedulerStatus {
            name: "s".into(),
            policy: "random".into(),
            pending: 1,
            unschedulable: 1,
            nodes: [("n1".to_owned(), some())].into(),
            bound: 2,
            refused: 0,
        });
        travels(Explanation { requests: some(), attempts: 2, message: "no".into() });
        travels(Logs {
            container: Some("c".into()),
            since_unix_nanos: Some(-1),
            ..Logs::default()
        });
        travels(LogChunk { bytes: vec![0, 255] });
        travels(PodSummary {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            phase: "Running".into(),
            ready: true,
            address: None,
            containers: vec![],
        });
        travels(Join {
            secret: "s".into(),
            csr_pem: "c".into(),
            name: None,
            from: "127.0.0.1:1".into(),
        });
        let peer = Peer { name: "n".into(), address: "127.0.0.1:1".into(), control: true };
        let joined: Result<Joined, JoinError> = Ok(Joined {
            certificate_pem: "c".into(),
            authority_pem: "a".into(),
            name: "n".into(),
            role: JoinRole::Control,
            cluster: "x".into(),
            peers: vec![peer.clone()],
        });
        travels(joined);
        travels(Err::<Joined, _>(JoinError::NameTaken { name: "n".into() }));
        travels(Renew {
            name: "n".into(),
            role: JoinRole::Node,
            subjects: vec!["127.0.0.1".into()],
            csr_pem: "c".into(),
        });
        travels(IssueGuest {
            node: "n".into(),
            namespace: "ns".into(),
            pod: "p".into(),
            uid: "u".into(),
            job: "j".into(),
            subjects: vec![],
        });
        travels(GuestCredential {
            certificate_pem: "c".into(),
            key_pem: "k".into(),
            authority_pem: "a".into(),
            name: "g".into(),
            peers: vec![peer],
        });
    }

    #[test]
    fn the_bytes_of_a_reservation_never_change_by_accident() {
        let message = Reserve {
            pods: vec![PodReservation { uid: "ab".into(), resources: some() }],
            ttl: Duration::from_millis(2500),
        };
        let golden = [
            1, 2, 97, 98, 251, 220, 5, 253, 0, 0, 0, 0, 2, 0, 0, 0, 1, 1, 14, 110, 118, 105, 100,
            105, 97, 46, 99, 111, 109, 47, 103, 112, 117, 2, 2, 252, 0, 101, 205, 29,
        ];
        assert_eq!(encode(&message).expect("encodes"), golden);
    }

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
