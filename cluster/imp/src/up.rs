//! `imp up`: a local cluster, one process a node.
//!
//! The first time it decides who is who and writes it down (`layout`); every time it starts the
//! processes that are not running and leaves the others alone. It is done when every node answers
//! and its object says Ready.

mod apart;
mod away;
mod begun;
mod certificates;
mod error;
mod hollow;
mod nodes;
mod others;
mod ready;
mod start;

pub use begun::Started;
pub use certificates::issue_for;
pub use error::UpError;
pub use hollow::Pretending;
pub use others::others;
pub use start::start;

use crate::cli::{Driver, Up};
use crate::down::end_process;
use crate::layout::{
    ClusterDir, ClusterFile, ControlFile, LayoutError, NodeDir, NodeFile, Peer,
    certificate_lifetime, loopback, make_private_dir,
};
use crate::node::{drivers, pod_range};
use certificates::{equip_users, renew_certificates};
use impresario_actors::node::machine::Share;
use impresario_runtime::{ClusterAuthority, PeerRole, random};
use indicatif::{ProgressBar, ProgressStyle};
use ready::{await_ready, name_of};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How many nodes a new cluster has, unless it was said otherwise.
const NODES: usize = 3;
/// The port of the API, unless it was said otherwise: that of Kubernetes.
const API_PORT: u16 = 6443;

/// What runs after `up`.
#[derive(Debug, Clone)]
pub struct Running {
    /// The folder.
    pub dir: ClusterDir,
    /// The nodes' names.
    pub nodes: Vec<String>,
    /// The nodes that only pretend.
    pub hollow: Pretending,
    /// Where the API is served.
    pub api: SocketAddr,
    /// The address that it listens on.
    pub listen: IpAddr,
}

/// Brings the cluster up and returns when all its nodes are Ready. What it starts is noted in `begun`, also when it is
/// dropped before it is done.
pub async fn up(args: &Up, quiet: bool, begun: &Started) -> Result<Running, UpError> {
    let dir = ClusterDir::new(args.dir.path());
    let is_new = !dir.path().exists();
    make_private_dir(dir.path())?;
    begun.hold(dir.lock().await?);
    let running = up_alone(dir, is_new, args, quiet, begun).await;
    begun.release();
    running
}

async fn up_alone(
    dir: ClusterDir,
    is_new: bool,
    args: &Up,
    quiet: bool,
    begun: &Started,
) -> Result<Running, UpError> {
    let cluster = match found_or_make(&dir, args, begun).await {
        Ok(cluster) => cluster,
        Err(error) => {
            if is_new {
                // Goes only if it is empty.
                let _ = std::fs::remove_dir(dir.path());
            }
            return Err(error);
        }
    };
    let nodes = dir.nodes()?;
    let names: Vec<String> = nodes.iter().map(name_of).collect();
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(names.len() as u64) };
    bar.set_style(style());
    bar.set_message("starting nodes");
    await_ready(&dir, &nodes, &bar, begun).await?;
    let hollow = hollow::start(&dir, &cluster, &args.hollow, &bar, begun).await?;
    bar.finish_and_clear();
    Ok(Running { dir, nodes: names, hollow, api: cluster.api, listen: cluster.listen })
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {pos}/{len} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The cluster of the folder; one as asked for, if there is none.
async fn found_or_make(
    dir: &ClusterDir,
    args: &Up,
    begun: &Started,
) -> Result<ClusterFile, UpError> {
    let asked = args.control.as_deref().and_then(|n| n.parse().ok());
    let cluster = match dir.cluster() {
        Ok(cluster) => {
            refuse_changes(dir, &cluster, args)?;
            hollow::refuse_changes(dir, &args.hollow)?;
            cluster
        }
        Err(LayoutError::NoCluster { .. }) => make(dir, args).await?,
        Err(error) => return Err(error.into()),
    };
    let present = dir.nodes()?;
    let mut members = Vec::new();
    for node in &present {
        members.push(node.load()?);
    }
    let control = members.iter().filter(|node| node.control.is_some()).count();
    if let Some(asked) = asked
        && !members.is_empty()
        && asked != control
    {
        return Err(UpError::Control { path: dir.path().to_owned(), found: control, asked });
    }
    let mut control_nodes = present.iter().zip(&members).filter(|(_, file)| file.control.is_some());
    if !members.is_empty() && !control_nodes.any(|(node, _)| node.is_running()) {
        refuse_taken(&cluster)?;
    }
    // A node that runs has these addresses already, and its cluster comes up with it.
    if !members.is_empty() && !present.iter().any(NodeDir::is_running) {
        apart::refuse_shared(&cluster.name, &apart::neighbours(dir.path()))?;
    }
    renew_certificates(dir, &cluster)?;
    add_nodes(dir, &cluster, args, asked, &members)?;
    divide(dir, &cluster, begun).await?;
    Ok(cluster)
}

/// What was said when the cluster was made holds: to say something else now would do nothing.
fn refuse_changes(dir: &ClusterDir, cluster: &ClusterFile, args: &Up) -> Result<(), UpError> {
    let differs = |flag, made: String, asked: Option<String>| match asked {
        Some(asked) if asked != made => {
            Err(UpError::Made { path: dir.path().to_owned(), flag, made, asked })
        }
        _ => Ok(()),
    };
    let port = args.api_port.filter(|port| *port != 0);
    differs("--api-port", cluster.api.port().to_string(), port.map(|port| port.to_string()))?;
    differs("--listen", cluster.listen.to_string(), args.listen.map(|ip| ip.to_string()))?;
    differs("--address", cluster.address.to_string(), args.address.map(|ip| ip.to_string()))?;
    let word = |driver: Driver| format!("{driver:?}").to_lowercase();
    differs("--driver", word(cluster.driver), args.driver.map(word))?;
    let lifetime = |lifetime: Duration| format!("{} s", lifetime.as_secs());
    let made = lifetime(cluster.certificate_lifetime);
    differs("--certificate-lifetime", made, args.certificate_lifetime.map(lifetime))?;
    let asked = |given: bool| given.then(|| given.to_string());
    differs("--whole-machine", cluster.whole_machine.to_string(), asked(args.whole_machine))?;
    differs("--chaos", cluster.chaos.to_string(), asked(args.chaos))
}

/// Gives each node of the machine its part. One that runs with another part ends, and is started
/// again with the others; its containers go on meanwhile.
async fn divide(dir: &ClusterDir, cluster: &ClusterFile, begun: &Started) -> Result<(), UpError> {
    let nodes = dir.nodes()?;
    let of = u16::try_from(nodes.len()).unwrap_or(u16::MAX);
    for (part, node) in (0..of).zip(&nodes) {
        let file = node.load()?;
        let share = if cluster.whole_machine { Share::default() } else { Share { part, of } };
        if file.share != share {
            node.save(&NodeFile { share, ..file })?;
            if node.is_running() {
                begun.note_end(node);
                end_process(node).await?;
            }
        }
    }
    Ok(())
}

async fn make(dir: &ClusterDir, args: &Up) -> Result<ClusterFile, UpError> {
    let listen = args.listen.unwrap_or_else(loopback);
    let address = match args.address {
        Some(address) => address,
        None if listen.is_unspecified() => outward(listen).map_err(UpError::NoAddress)?,
        None => listen,
    };
    let api = api_address(listen, args.api_port.unwrap_or(API_PORT))?;
    dir.take()?;
    drivers::hide_from_pods(dir.path()).await;
    let name = apart::free_name(&apart::neighbours(dir.path()));
    let authority = ClusterAuthority::create(&name)?;
    authority.save(&dir.pki())?;
    let cluster = ClusterFile {
        name,
        api: SocketAddr::new(address, api.port()),
        driver: args.driver.unwrap_or(Driver::Process),
        address,
        listen,
        whole_machine: args.whole_machine,
        chaos: args.chaos,
        certificate_lifetime: args.certificate_lifetime.unwrap_or_else(certificate_lifetime),
    };
    equip_users(dir, &cluster, &authority)?;
    // With it the cluster exists.
    dir.save_cluster(&cluster)?;
    dir.made()?;
    Ok(cluster)
}

/// Adds the nodes that are asked for and not there yet.
fn add_nodes(
    dir: &ClusterDir,
    cluster: &ClusterFile,
    args: &Up,
    asked: Option<usize>,
    members: &[NodeFile],
) -> Result<(), UpError> {
    let wanted = match args.nodes {
        Some(nodes) => usize::from(nodes).max(members.len()),
        None if members.is_empty() => NODES,
        None => members.len(),
    };
    let control = if members.is_empty() {
        asked.unwrap_or(if wanted >= 3 { 3 } else { 1 })
    } else {
        0 // those that were made with the cluster
    };
    if members.is_empty() && control > wanted {
        let path = dir.path().to_owned();
        return Err(UpError::Control { path, found: wanted, asked: control });
    }
    let taken: BTreeSet<&str> = members.iter().map(|node| node.name.as_str()).collect();
    let names = (1..=u8::MAX)
        .map(|number| (number, format!("node-{number}")))
        .filter(|(_, name)| !taken.contains(name.as_str()));
    let (mut new, mut held) = (Vec::new(), Vec::new());
    for (place, (number, name)) in names.take(wanted - members.len()).enumerate() {
        let socket = bind_lasting(|port| UdpSocket::bind((cluster.listen, port)));
        let socket = socket.map_err(UpError::Port)?;
        let port = socket.local_addr().map_err(UpError::Port)?.port();
        // Held until all are found, so that no two have the same.
        held.push(socket);
        let address = SocketAddr::new(cluster.address, port);
        new.push((name, number, address, place < control, place == 0));
    }
    drop(held);
    let peers: Vec<Peer> = members
        .iter()
        .map(|node| Peer {
            name: node.name.clone(),
            address: node.advertise,
            control: node.control.is_some(),
        })
        .chain(new.iter().map(|(name, _, address, control, _)| Peer {
            name: name.clone(),
            address: *address,
            control: *control,
        }))
        .collect();
    let authority = ClusterAuthority::load(&dir.pki())?;
    for (name, number, advertise, control, first) in new {
        let node = dir.node(&name);
        let role = if control { PeerRole::Control } else { PeerRole::Node };
        issue_for(&authority, &name, role, advertise.ip(), cluster)?.save(&node.credential())?;
        node.save(&NodeFile {
            name: name.clone(),
            cluster: cluster.name.clone(),
            bind: SocketAddr::new(cluster.listen, advertise.port()),
            advertise,
            control: control.then(|| control_file(dir, cluster, first && members.is_empty())),
            peers: peers.iter().filter(|peer| peer.name != name).cloned().collect(),
            driver: cluster.driver,
            docker_host: drivers::docker_host(cluster.driver),
            share: Share::default(), // divided when all nodes are there
            pod_range: pod_range(&cluster.name, number.into()),
            joined_through: None,
            chaos: cluster.chaos,
        })?;
    }
    Ok(())
}

/// What a control member of this machine needs besides a node.
pub fn control_file(dir: &ClusterDir, cluster: &ClusterFile, founder: bool) -> ControlFile {
    ControlFile {
        api: SocketAddr::new(cluster.listen, cluster.api.port()),
        pki: dir.pki(),
        founder,
        certificate_lifetime: cluster.certificate_lifetime,
    }
}

/// Binds a port that is kept in a file and bound again by each life of a process. It is below those that Linux gives to
/// outgoing connections (`ip_local_port_range`, from 32768 on), which could have it while the process is down.
fn bind_lasting<S>(bind: impl Fn(u16) -> io::Result<S>) -> io::Result<S> {
    let found = (0..100).find_map(|_| bind(random::random_range(20_000..30_000)).ok());
    found.map_or_else(|| bind(0), Ok)
}

fn api_address(listen: IpAddr, port: u16) -> Result<SocketAddr, UpError> {
    let bind = |port| std::net::TcpListener::bind((listen, port));
    let bound = if port == 0 { bind_lasting(bind) } else { bind(port) };
    let address = SocketAddr::from((listen, port));
    let socket = bound.map_err(|source| UpError::ApiPort { address, source })?;
    socket.local_addr().map_err(UpError::Port)
}

/// Where no member of a cluster runs, nobody may listen at its API's address.
fn refuse_taken(cluster: &ClusterFile) -> Result<(), UpError> {
    let address = SocketAddr::new(cluster.listen, cluster.api.port());
    match std::net::TcpListener::bind(address) {
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(UpError::ApiTaken { address, source })
        }
        _ => Ok(()), // what else is wrong is told by the members
    }
}

/// The address from which this machine reaches others. No packet is sent to find out: a UDP socket
/// that is connected to an address of RFC 5737 or RFC 3849 only looks at the routes.
fn outward(family: IpAddr) -> io::Result<IpAddr> {
    let far: IpAddr = match family {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let socket = UdpSocket::bind((family, 0))?;
    socket.connect((far, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::node::service_network;
    use clap::Parser as _;

    #[tokio::test]
    async fn a_cluster_that_exists_comes_up_only_where_no_other_has_its_addresses() {
        // A name whose part of 127/8 no other test uses, and no cluster that runs here.
        let part = |name: &str| service_network(name).octets()[1] - 96;
        let mut names = (0..1000).map(|number| format!("imp-up-{number}"));
        let is_free = |name: &String| {
            [11, 13, 15, 17, 19].contains(&part(name)) && !crate::node::is_slot_taken(name)
        };
        let name = &names.find(is_free).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path().join("c"));
        let cluster = ClusterFile {
            name: name.to_owned(),
            api: SocketAddr::new(loopback(), 0),
            driver: Driver::Process,
            address: loopback(),
            listen: loopback(),
            whole_machine: false,
            chaos: false,
            certificate_lifetime: certificate_lifetime(),
        };
        make_private_dir(dir.path()).unwrap();
        dir.save_cluster(&cluster).unwrap();
        let file = NodeFile {
            name: "node-1".to_owned(),
            cluster: name.to_owned(),
            bind: cluster.api,
            advertise: cluster.api,
            control: Some(control_file(&dir, &cluster, true)),
            peers: Vec::new(),
            driver: Driver::Process,
            docker_host: None,
            share: Share::default(),
            pod_range: pod_range(name, 1),
            joined_through: None,
            chaos: false,
        };
        make_private_dir(dir.node("node-1").path()).unwrap();
        dir.node("node-1").save(&file).unwrap();
        let path = dir.path().to_str().unwrap();
        let Command::Up(args) = Cli::parse_from(["imp", "up", "--data-dir", path]).command else {
            panic!("another command")
        };
        let refused = async || up(&args, true, &Started::default()).await.unwrap_err();
        let held = std::net::TcpListener::bind((service_network(name), 0)).unwrap();
        let error = refused().await;
        assert!(matches!(error, UpError::AddressesTaken { .. }), "{error}");
        drop(held);
        // It comes further, to the authority that is not there.
        let error = refused().await;
        assert!(!matches!(error, UpError::AddressesTaken { .. }), "{error}");
        assert!(!dir.node("node-1").is_running());
    }
}
