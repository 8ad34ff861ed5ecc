//! What an actor node is started with.

use crate::{
    arbiters::Threads,
    budget::Budget,
    gate::{Gate, PermitNone},
    net::join::JoinDoor,
    pki::{Credential, PeerRole},
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

/// The bounds of queues, windows and budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames that wait for one peer on one lane.
    pub lane_frames: usize,
    /// Bytes that wait for one node or control member on one lane; for others an eighth of it.
    pub lane_bytes: usize,
    /// Asks to one peer that are being waited for.
    pub outbound_asks: usize,
    /// What one control member may take up here.
    pub control: Budget,
    /// What one node may take up here.
    pub node: Budget,
    /// What one guest may take up here.
    pub guest: Budget,
    /// What one client or admin may take up here.
    pub client: Budget,
    /// Bytes that are held for all control members together, besides 64 KiB that each peer has for itself.
    pub control_pool_bytes: usize,
    /// Bytes that are held for all nodes together.
    pub node_pool_bytes: usize,
    /// Bytes that are held for all guests, clients and admins together.
    pub lesser_pool_bytes: usize,
    /// Bytes that one connection may have in flight in each direction; guests and clients get a quarter.
    pub connection_window_bytes: u32,
    /// Bytes that one stream may have in flight towards us.
    pub stream_window_bytes: u32,
    /// Connections that the node keeps at a time of each kind: with control members, with nodes, and with all others.
    pub connections: usize,
    /// Processes that may be connected at a time with one client's or admin's certificate. They share its budget.
    pub processes: usize,
    /// Connections that are being made at a time: handshakes, greetings, joins. Half of them are kept for addresses of
    /// nodes that are known, and from an eighth on an unknown address must show that it is one (QUIC's retry).
    pub handshakes: usize,
    /// Threads that actors run on, where the node has its own.
    pub arbiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = Duration::from_mins;
        Self {
            lane_frames: 8192,
            lane_bytes: 8 << 20,
            outbound_asks: 16384,
            control: Budget {
                bytes: 128 << 20,
                asks: 4096,
                streams: 256,
                watches: 16384,
                deadline: minutes(10),
            },
            node: Budget {
                bytes: 72 << 20,
                asks: 4096,
                streams: 256,
                watches: 16384,
                deadline: minutes(10),
            },
            guest: Budget {
                bytes: 72 << 20,
                asks: 512,
                streams: 64,
                watches: 1024,
                deadline: minutes(5),
            },
            client: Budget {
                bytes: 72 << 20,
                asks: 1024,
                streams: 64,
                watches: 4096,
                deadline: minutes(10),
            },
            control_pool_bytes: 256 << 20,
            node_pool_bytes: 128 << 20,
            lesser_pool_bytes: 128 << 20,
            connection_window_bytes: 16 << 20,
            stream_window_bytes: 2 << 20,
            connections: 8192,
            processes: 256,
            handshakes: 512,
            arbiters: 2,
        }
    }
}

impl Limits {
    /// What a peer of this role may take up.
    pub fn budget(&self, role: &PeerRole) -> &Budget {
        match role {
            PeerRole::Control => &self.control,
            PeerRole::Node => &self.node,
            PeerRole::Guest { .. } => &self.guest,
            PeerRole::Client | PeerRole::Admin => &self.client,
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
    /// Threads that it shares with other nodes of this process, instead of its own.
    pub threads: Option<Threads>,
    /// Sends messages between actors of this node through encode and decode too, so that tests cover it.
    pub force_wire: bool,
}

impl NodeConfig {
    /// A node on a free loopback port with default timing and limits, which takes no messages from others: a node that
    /// serves them sets a gate of its own.
    pub fn new(credential: Credential) -> Self {
        Self {
            credential,
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            gate: Arc::new(PermitNone),
            chaos: false,
            timing: Timing::default(),
            limits: Limits::default(),
            join: None,
            threads: None,
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
