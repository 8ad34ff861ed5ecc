//! What a node tells of its peers: who came, who is suspect, who is lost, what was not delivered, what they take up.

use crate::{
    error::AskError,
    name::{ActorPath, NodeName},
    pki::PeerIdentity,
};

/// Tells of this node's that another node took and could not deliver, or that could not be brought to it.
///
/// Reported about once per heartbeat, or when an attempt to reach the node has failed. Tells that were under way when a connection broke are not among them: nobody knows
/// of those ([`PeerEvent::Lost`] and `Unreachable` say what is known).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostTells {
    /// Whom they were for.
    pub to: ActorPath,
    /// The message's name.
    pub message: String,
    /// How many.
    pub count: u64,
    /// Why, for the last of them.
    pub why: AskError,
}

/// What one peer takes up of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerUsage {
    /// Who.
    pub node: NodeName,
    /// Its role in a word, once it has been met.
    pub role: Option<&'static str>,
    /// Bytes that are held for it: requests being put together, replies and items that it has not taken, tells that wait
    /// for a mailbox, and frames on its lanes.
    pub held_bytes: usize,
    /// Its asks, tells and openings of streams that are being worked on.
    pub asks: usize,
    /// Its death watches.
    pub watches: usize,
}

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
