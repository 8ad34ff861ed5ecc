//! What each node can be asked about the actors that live on it: who they are, what waits for them, how often they
//! were started again.

use impresario_runtime::{message, role};
use serde::{Deserialize, Serialize};

/// The name under which each node answers.
pub const ACTORS: &str = "actors";

role! {
    /// Tells of the actors of a node. For admins and control members.
    pub ActorsRole = "actors" { asks: [List], streams: [] }
}

/// So many actors are told of at a time at most.
pub const PAGE: u32 = 500;

/// Asks for some of the node's actors, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Those after the one of this name; from the first on without.
    pub after: Option<String>,
    /// So many, [`PAGE`] at most.
    pub most: u32,
}
message!(List => Page, "actors.List");

/// Some of a node's actors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Those that were asked for, by name.
    pub actors: Vec<Actor>,
    /// How many the node has in all.
    pub all: u64,
    /// Whether more come after these.
    pub more: bool,
}

/// An actor that lives on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its name, such as `pod/UID` or `scheduler/default-scheduler`.
    pub name: String,
    /// The role that it serves.
    pub role: String,
    /// How often its supervisor started it again.
    pub restarts: u64,
    /// For how many milliseconds it has been there since it was last started.
    pub up_millis: u64,
    /// What waits for it; nothing of one that the node does not supervise.
    pub mailbox: Option<Mailbox>,
}

/// What waits for an actor, and how much may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Messages that wait or are being handled.
    pub messages: u64,
    /// Their bytes: as they came from other nodes; of the node's own, those of their types.
    pub bytes: u64,
    /// With so many messages, senders are told `Overloaded`.
    pub limit_messages: u64,
    /// What so many of the largest messages have that other nodes may send.
    pub limit_bytes: u64,
}
