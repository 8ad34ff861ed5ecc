//! What is written in the files of a cluster.

use crate::cli::Driver;
use impresario_actors::node::machine::Share;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What `imp up` was asked for when the cluster was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The cluster's name, unique among the clusters of a machine.
    pub name: String,
    /// Where the API is served.
    pub api: SocketAddr,
    /// How containers run on nodes that `imp up` makes.
    pub driver: Driver,
    /// The address at which others reach this machine.
    pub address: IpAddr,
    /// The address that the API and the nodes listen on; that of loopback lets nobody else in.
    #[serde(default = "loopback")]
    pub listen: IpAddr,
    /// Whether each node offers all that the machine has.
    #[serde(default)]
    pub whole_machine: bool,
    /// Whether faults may be injected.
    #[serde(default)]
    pub chaos: bool,
    /// How long certificates of nodes are good for.
    #[serde(default = "certificate_lifetime")]
    pub certificate_lifetime: Duration,
}

/// Where a cluster listens, unless it was said otherwise.
#[must_use]
pub fn loopback() -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)
}

/// How long certificates of nodes are good for, unless it was said otherwise: 30 days.
#[must_use]
pub fn certificate_lifetime() -> Duration {
    Duration::from_hours(30 * 24)
}

/// Another node, as a node knows it when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its QUIC address.
    pub address: SocketAddr,
    /// Whether it is a control member.
    pub control: bool,
}

/// Who a node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeFile {
    /// Its name.
    pub name: String,
    /// The name of its cluster.
    pub cluster: String,
    /// Where it listens (UDP).
    pub bind: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// What a control member serves besides.
    pub control: Option<ControlFile>,
    /// The nodes that it knows when it starts; the registry knows better later.
    pub peers: Vec<Peer>,
    /// How containers run.
    pub driver: Driver,
    /// Where Docker Engine listens, such as `unix:///run/docker.sock`, if it was said.
    #[serde(default)]
    pub docker_host: Option<String>,
    /// Its part of the machine, where several nodes run on one.
    #[serde(default)]
    pub share: Share,
    /// The range of its pods' addresses, such as `127.128.1.0/24`.
    pub pod_range: String,
    /// The address of the member through which it joined.
    #[serde(default)]
    pub joined_through: Option<IpAddr>,
    /// Whether faults may be injected.
    #[serde(default)]
    pub chaos: bool,
}

/// What a control member needs besides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlFile {
    /// Where it serves the REST API (shared with the other members of the machine).
    pub api: SocketAddr,
    /// The folder of the cluster's authority.
    pub pki: PathBuf,
    /// The member that starts the registry; it takes this back once it has. The others wait to be added.
    pub founder: bool,
    /// How long the certificates are good for that its authority gives to nodes.
    #[serde(default = "certificate_lifetime")]
    pub certificate_lifetime: Duration,
}
