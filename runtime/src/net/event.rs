//! What the failure detector tells: who came, who is suspect, who is lost.

use crate::{name::NodeName, pki::PeerIdentity};

/// A change in what is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// A connection stands, to this life of the peer's process.
    Up {
        /// Who.
        node: NodeName,
        /// Which life of its process.
        incarnation: u64,
        /// Who it is by its certificate.
        identity: PeerIdentity,
    },
    /// Nothing has been heard for `Timing::suspect_after`. Followed by `Up` (heard again) or `Lost`.
    Suspect {
        /// Who.
        node: NodeName,
    },
    /// Said goodbye, was replaced by a new life, or was silent for `Timing::lost_after`.
    Lost {
        /// Who.
        node: NodeName,
        /// Which life of its process.
        incarnation: u64,
    },
}
