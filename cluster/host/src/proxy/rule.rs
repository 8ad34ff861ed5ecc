//! What is to be served, and within which bounds.

use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};

/// Who gets the next session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Who has the fewest open; among those, one after the other.
    LeastConnections,
}

/// How a port's data is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams; those of one client within the idle limit go to one endpoint.
    Udp,
}

/// One port of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRule {
    /// `namespace/name:port`, for people.
    pub name: String,
    /// The virtual address.
    pub address: SocketAddr,
    /// How it is carried.
    pub protocol: Protocol,
    /// Who gets the next session.
    pub policy: Policy,
    /// For how long sessions of one client address go to one endpoint, if they do.
    pub affinity: Option<Duration>,
    /// The ready endpoints.
    pub endpoints: Vec<SocketAddr>,
}

/// Bounds of one service's port.
#[derive(Debug, Clone, Copy)]
pub struct ProxyLimits {
    /// Sessions at a time.
    pub sessions: usize,
    /// How long one endpoint may take to accept.
    pub connect: Duration,
    /// How long a client's datagrams are remembered.
    pub udp_idle: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self { sessions: 4096, connect: Duration::from_secs(2), udp_idle: Duration::from_secs(30) }
    }
}
