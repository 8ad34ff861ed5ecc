//! Joining a cluster by hand: a token becomes a certificate and a node's folder.

use super::pod_range;
use crate::cli;
use crate::layout::{JOINING, LayoutError, NodeDir, NodeFile, Peer, make_private_dir};
use crate::node::drivers;
use crate::node::gate::role_name;
use impresario_actors::node::machine::Share;
use impresario_client::reachable;
use impresario_host::machine::has_address;
use impresario_runtime::pki::{PkiError, TokenError};
use impresario_runtime::{JoinToken, PeerRole};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;
use thiserror::Error;

/// More than certificate, key and description of a node take, in bytes.
const ROOM: usize = 64 * 1024;
/// How long the cluster has to answer.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

/// Why the machine did not join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The address is none.
    #[error("{0} is not an address such as 10.0.0.1:7000: copy it from `imp token create`")]
    Address(String),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The cluster refused, or did not answer.
    #[error(transparent)]
    Refused(#[from] impresario_runtime::JoinError),
    /// The token was made for something else.
    #[error("the token makes a {0}, not a node: make one with `imp token create --role node`")]
    Role(&'static str),
    /// The cluster runs on this machine.
    #[error(
        "the cluster at {0} runs on this machine, and its nodes offer all of it already: `imp up --nodes N` gives one \
         more its part; --whole-machine offers all of it once more"
    )]
    SameMachine(SocketAddr),
    /// The certificate could not be kept.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The folder could not be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No port is free.
    #[error("cannot listen on {address}: {source}; choose another with --bind")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Joins, and writes the node's folder.
pub async fn join(
    dir: &NodeDir,
    args: &cli::Node,
    address: &str,
    token: &str,
) -> Result<(), JoinError> {
    let bad = || JoinError::Address(address.to_owned());
    let target = address.to_socket_addrs().map_err(|_| bad())?.next().ok_or_else(bad)?;
    if !args.whole_machine && (target.ip().is_loopback() || has_address(target.ip())) {
        return Err(JoinError::SameMachine(target));
    }
    let token: JoinToken = token.trim().parse()?;
    if token.is_for_client() {
        return Err(JoinError::Role(role_name(&PeerRole::Client)));
    }
    let failed = |address| move |source| JoinError::Bind { address, source };
    let seen = own_address(target).map_err(failed(target))?;
    let wanted = args.bind.unwrap_or(SocketAddr::new(seen, 0));
    let socket = UdpSocket::bind(wanted).map_err(failed(wanted))?;
    let port = socket.local_addr().map_err(failed(wanted))?.port();
    drop(socket);

    let name = args.name.clone().or_else(host_name);
    // Better now than when the token is used up.
    make_private_dir(dir.path())?;
    try_room(dir)?;
    let (credential, answer) = impresario_runtime::join(target, &token, name, JOIN_LIMIT).await?;
    if answer.role != PeerRole::Node {
        return Err(JoinError::Role(role_name(&answer.role)));
    }
    credential.save(&dir.credential())?;
    let through = target.ip();
    dir.save(&NodeFile {
        name: answer.name.to_string(),
        cluster: answer.cluster.clone(),
        bind: SocketAddr::new(wanted.ip(), port),
        advertise: SocketAddr::new(args.address.unwrap_or(seen), port),
        control: None,
        peers: answer
            .peers
            .iter()
            .map(|(name, address, control)| Peer {
                name: name.to_string(),
                address: reachable(*address, Some(through).filter(|ip| !ip.is_loopback())),
                control: *control,
            })
            .collect(),
        driver: args.driver,
        docker_host: drivers::docker_host(args.driver),
        share: Share::default(),
        pod_range: pod_range(&answer.cluster, answer.number),
        joined_through: Some(through),
        chaos: false,
    })?;
    Ok(())
}

/// Whether the disk takes what is to be kept.
fn try_room(dir: &NodeDir) -> Result<(), LayoutError> {
    let path = dir.path().join(JOINING);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0; ROOM])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(|source| LayoutError::Io { path, source })
}

/// The address from which this machine reaches `target`: no packet is sent to find out.
fn own_address(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

/// The machine's name, as far as it can be a node's.
fn host_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name: String = text
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    Some(name.trim_matches(['-', '.']).to_owned()).filter(|name| !name.is_empty())
}
