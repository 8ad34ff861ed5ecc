//! What the network end of each node can be asked: what it refused or lost, and what its peers take up of it.

use impresario_runtime::{message, role};
use serde::{Deserialize, Serialize};

/// The name under which each node answers.
pub const TRAFFIC: &str = "traffic";

role! {
    /// Tells of a node's network end. For admins and control members.
    pub TrafficRole = "traffic" { asks: [Describe], streams: [] }
}

/// Asks for what was refused since the node started, and for what is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Describe;
message!(Describe => Traffic, "traffic.Describe");

/// A node's network end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// What was refused, and what was told and not delivered, in order of role and cause.
    pub refused: Vec<Refused>,
    /// The peers for which most bytes are held, [`PEERS`] of them at most.
    pub peers: Vec<PeerUsage>,
    /// How many peers there are.
    pub peers_in_all: u64,
    /// Bytes that are held for all of them.
    pub held_bytes: u64,
}

/// So many peers are told of at most.
pub const PEERS: usize = 64;

/// How often one kind of thing was refused or lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The role of those refused, or to whom something was told: `control`, `node`, `guest`, `client`, `admin`, `stranger`.
    pub role: String,
    /// Why, in words.
    pub cause: String,
    /// The name of the message, or what of the runtime's own it was.
    pub message: String,
    /// How often.
    pub count: u64,
}

/// What one peer takes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerUsage {
    /// Who.
    pub node: String,
    /// Its role, once it has been met.
    pub role: Option<String>,
    /// Bytes that are held for it.
    pub held_bytes: u64,
    /// Its asks, tells and openings of streams that are being worked on.
    pub asks: u64,
    /// Its death watches.
    pub watches: u64,
}
