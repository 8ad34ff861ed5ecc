//! What an actor node is started with.

use crate::{
    gate::{Gate, PermitAll},
    net::join::JoinDoor,
    pki::Credential,
    supervise::Backoff,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// How long what takes. The defaults are those of `reliability.md`, section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often a heartbeat is sent to each connected peer.
    pub heartbeat: Duration,
    /// After how long a silence a peer is suspect.
    pub suspect_after: Duration,
    /// After how long a silence a peer is lost.
    pub lost_after: Duration,
    /// How long one attempt to connect may take.
    pub dial: Duration,
    /// The waits between attempts.
    pub redial: Backoff,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            suspect_after: Duration::from_secs(3),
            lost_after: Duration::from_secs(10),
            dial: Duration::from_secs(2),
            redial: Backoff { first: Duration::from_millis(50), most: Duration::from_secs(2) },
        }
    }
}

/// The bounds of queues and windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames that wait for one peer on one lane.
    pub lane_frames: usize,
    /// Bytes that wait for one peer on one lane.
    pub lane_bytes: usize,
    /// Asks of one peer that are being answered.
    pub inbound_asks: usize,
    /// Asks to one peer that are being waited for.
    pub outbound_asks: usize,
    /// Bulk streams that one node or control member may hold open here; guests and clients get a quarter.
    pub bulk_streams: u32,
    /// Bytes that one connection may have in flight towards us; guests and clients get a quarter.
    pub connection_window_bytes: u32,
    /// Bytes that one stream may have in flight towards us.
    pub stream_window_bytes: u32,
    /// Connections, handshakes included, that the node accepts at a time.
    pub connections: usize,
    /// Threads that actors run on.
    pub arbiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lane_frames: 8192,
            lane_bytes: 8 << 20,
            inbound_asks: 4096,
            outbound_asks: 16384,
            bulk_streams: 256,
            connection_window_bytes: 16 << 20,
            stream_window_bytes: 2 << 20,
            connections: 8192,
            arbiters: 2,
        }
    }
}

/// What an actor node is started with.
#[derive(Clone)]
pub struct NodeConfig {
    /// Who it is: name, role and cluster are in the certificate.
    pub credential: Credential,
    /// The UDP address to listen on; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Judges every message from another node.
    pub gate: Arc<dyn Gate>,
    /// Whether a message may set faults.
    pub chaos: bool,
    /// How long what takes.
    pub timing: Timing,
    /// The bounds of queues and windows.
    pub limits: Limits,
    /// Answers those who want to join; without one, nobody without a certificate completes a handshake.
    pub join: Option<Arc<dyn JoinDoor>>,
    /// Sends messages between actors of this node through encode and decode too, so that tests cover it.
    pub force_wire: bool,
}

impl NodeConfig {
    /// A node on a free loopback port with default timing and limits, whose gate permits everything.
    pub fn new(credential: Credential) -> Self {
        Self {
            credential,
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            gate: Arc::new(PermitAll),
            chaos: false,
            timing: Timing::default(),
            limits: Limits::default(),
            join: None,
            force_wire: false,
        }
    }
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("identity", self.credential.identity())
            .field("bind", &self.bind)
            .field("chaos", &self.chaos)
            .field("join", &self.join.is_some())
            .finish_non_exhaustive()
    }
}
