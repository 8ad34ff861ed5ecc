//! A process that is many nodes, none of which runs anything.
//!
//! Each has what every node has: a certificate and a network end of its own, a Node actor with its reservations, Pod actors,
//! watches, heartbeats, status writes, a renewal. So the control plane has the work that it has with so many machines.
//! What a machine does for itself is left out: containers and volumes (the `hollow` driver), service proxies and DNS with
//! what they watch, and the address book of all nodes, since nothing here dials another node but the control members.
//!
//! Nothing of a pod is on the disk. To the cluster the end of this process is a restart of all its machines.

mod members;

use crate::cli;
use crate::layout::{HollowDir, HollowFile, HollowNode, HollowSize, LayoutError};
use crate::node::gate::ClusterGate;
use crate::node::renewal::{OwnCertificate, Renewal};
use crate::node::revoked::{self, Following, Known};
use crate::node::{actors, traffic};
use futures_util::future::join_all;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use impresario_actors::node::object::{NodeFacts, System};
use impresario_actors::node::{GpuDriver, NodeParts, NodeSeed, machine};
use impresario_actors::pod::backoff::BackoffScale;
use impresario_client::protocol::node::{NODE, NodeRole};
use impresario_client::protocol::resources::Resources;
use impresario_host::address::AddressPool;
use impresario_host::devices::{Gpu, GpuPool};
use impresario_host::hollow::{HollowDriver, pod_range};
use impresario_objects::RemoteDoor;
use impresario_registry::{RegistryHandle, RemoteRegistry};
use impresario_runtime::pki::PkiError;
use impresario_runtime::{
    ActorNode, Credential, NodeConfig, NodeName, PeerEvent, SpawnError, SpawnOptions, StartError,
    Threads,
};
use k8s_openapi::api::core::v1::Taint;
use members::MembersKeeper;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// The label by which a Node object says that it is hollow; its taint has the same key.
pub const HOLLOW: &str = "impresario.dev/hollow";
/// Threads that the actors of all nodes of this process share.
const ACTOR_THREADS: usize = 2;
/// How many nodes connect at a time: few beside the 512 handshakes that a member has under way (`Limits::handshakes`).
const CONNECTING: usize = 16;
/// How long the next one waits for a node that does not get through. Longer than a peer is looked for (10 s): to start more
/// nodes against members that cannot keep up with those that are there would cost these their links.
const CONNECT_LIMIT: Duration = Duration::from_mins(1);
/// How long the nodes have to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Descriptors that the process needs besides one socket a node.
const FILES: u64 = 512;

/// Why hollow nodes do not run.
#[derive(Debug, Error)]
pub enum HollowError {
    /// A file of the group is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A certificate is unusable.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A network end did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An actor did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The process may not have so many sockets.
    #[error(
        "{nodes} hollow nodes need {needed} open files, and this user may have {limit}: raise the limit (`ulimit -Hn`), \
         then `imp up` again"
    )]
    Files {
        /// How many nodes there are.
        nodes: usize,
        /// What they need.
        needed: u64,
        /// What there may be.
        limit: u64,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signal(std::io::Error),
}

/// Runs a group until it is told to stop.
pub async fn run(args: &cli::HollowGroup) -> Result<(), HollowError> {
    let dir = HollowDir::new(args.data_dir.clone());
    let file = dir.load()?;
    let _claim = dir.process().claim()?;
    allow_sockets(file.nodes.len())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(HollowError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(HollowError::Signal)?;
    // It outlives the terminal that it was started from.
    let mut hangup = signal(SignalKind::hangup()).map_err(HollowError::Signal)?;
    let mut starting = std::pin::pin!(Group::start(&dir, &file));
    let mut group = None;
    loop {
        tokio::select! {
            started = &mut starting, if group.is_none() => {
                group = Some(started?);
                tracing::info!(group = dir.name(), nodes = file.nodes.len(), "hollow nodes are up");
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
        }
    }
    if let Some(group) = group {
        group.stop().await;
    }
    tracing::info!(group = dir.name(), "hollow nodes have stopped");
    Ok(())
}

/// Raises the limit of open files, as far as this user may.
fn allow_sockets(nodes: usize) -> Result<(), HollowError> {
    let needed = nodes as u64 + FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((needed, needed));
    if soft >= needed {
        return Ok(());
    }
    let raised = needed.min(hard);
    let outcome = setrlimit(Resource::RLIMIT_NOFILE, raised, hard);
    if raised < needed || outcome.is_err() {
        return Err(HollowError::Files { nodes, needed, limit: raised.min(hard) });
    }
    Ok(())
}

/// All nodes of this process.
struct Group {
    nodes: Vec<Node>,
    _members: MembersKeeper,
}

/// What they share.
struct Shared {
    file: HollowFile,
    threads: Threads,
    /// The control members with their addresses, as this machine knows them.
    peers: Vec<(NodeName, SocketAddr)>,
    members: watch::Receiver<Vec<NodeName>>,
    system: System,
    /// Where pods would have their folders.
    pods: PathBuf,
}

/// One of them.
struct Node {
    end: ActorNode,
    registry: RegistryHandle,
    _renewal: Renewal,
    _revocations: Following,
}

impl Group {
    async fn start(dir: &HollowDir, file: &HollowFile) -> Result<Self, HollowError> {
        let mut peers = Vec::new();
        for node in dir.cluster().nodes()? {
            let node = node.load()?;
            if node.control.is_some() {
                peers.push((NodeName::from(node.name.as_str()), node.advertise));
            }
        }
        let (tell, members) =
            watch::channel(peers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        let threads = Threads::start(ACTOR_THREADS)?;
        let system = machine::system();
        let pods = dir.process().pods();
        let shared = Shared { file: file.clone(), threads, peers, members, system, pods };
        let started = iter(&file.nodes).map(|node| Node::start(&shared, node));
        let nodes: Vec<Node> = started.buffer_unordered(CONNECTING).try_collect().await?;
        let known = nodes.iter().map(|node| (node.end.clone(), node.registry.clone()));
        let members = MembersKeeper::start(known.collect(), tell);
        Ok(Self { nodes, _members: members })
    }

    async fn stop(self) {
        join_all(self.nodes.iter().map(|node| node.end.stop(STOP_LIMIT))).await;
    }
}

impl Node {
    /// Starts one, and waits until it is connected: all at a time would be refused.
    async fn start(shared: &Shared, own: &HollowNode) -> Result<Self, HollowError> {
        let file = &shared.file;
        let credential = Credential::from_pem(&own.certificate, &own.key, &file.authority)?;
        let gate = ClusterGate::default();
        let node = ActorNode::start(NodeConfig {
            bind: SocketAddr::new(file.listen, 0),
            gate: Arc::new(gate.clone()),
            chaos: file.chaos,
            threads: Some(shared.threads.clone()),
            ..NodeConfig::new(credential.clone())
        })
        .await?;
        let mut peers = node.peers();
        traffic::serve(&node)?;
        actors::serve(&node)?;
        for (name, address) in &shared.peers {
            node.addresses().set(name.clone(), *address);
        }
        let registry: RegistryHandle =
            Arc::new(RemoteDoor::new(node.clone(), shared.members.clone()));
        let revocations =
            revoked::follow(Known::default(), registry.clone(), node.clone(), &gate, drop);
        let renewal = Renewal::of_node(OwnCertificate {
            node: node.clone(),
            credential: credential.clone(),
            folder: None, // `imp up` has a young one written down whenever it starts the process
            subjects: Vec::new(),
            members: shared.members.clone(),
        });
        let range = pod_range(own.number);
        let seed = NodeSeed::new(NodeParts {
            node: node.clone(),
            driver: Arc::new(HollowDriver::new()),
            registry: registry.clone(),
            members: shared.members.clone(),
            heart: Arc::new(RemoteRegistry::new(node.clone(), shared.members.clone())),
            addresses: AddressPool::forgetful(range),
            gpus: GpuPool::none(),
            gpu_driver: Arc::new(NoGpus),
            pods_folder: shared.pods.clone(), // nothing of a hollow pod is put there
            facts: facts(shared, own, &node, &credential, range.to_string()),
            scale: BackoffScale::default(),
            dns: None,
        });
        node.spawn::<NodeRole, _>(NODE, SpawnOptions::default(), move |_| seed.actor())?;
        let connected = async {
            while let Ok(event) = peers.recv().await {
                if matches!(event, PeerEvent::Up { .. }) {
                    return;
                }
            }
        };
        if timeout(CONNECT_LIMIT, connected).await.is_err() {
            tracing::warn!(node = own.name, "not connected yet, it goes on trying");
        }
        Ok(Self { end: node, registry, _renewal: renewal, _revocations: revocations })
    }
}

fn facts(
    shared: &Shared,
    own: &HollowNode,
    node: &ActorNode,
    credential: &Credential,
    pod_range: String,
) -> NodeFacts {
    let capacity = resources(shared.file.size);
    let taint = Taint {
        key: HOLLOW.to_owned(),
        value: Some("true".to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    };
    NodeFacts {
        address: shared.file.address,
        hostname: own.name.clone(),
        is_control: false,
        api_address: None,
        quic_address: SocketAddr::new(shared.file.address, node.local_addr().port()),
        fingerprint: credential.identity().fingerprint.clone(),
        incarnation: node.incarnation(),
        process: std::process::id(),
        allocatable: capacity.clone(),
        capacity,
        first_port: 0,
        pod_range,
        runtime: format!("hollow://{}", env!("CARGO_PKG_VERSION")),
        labels: vec![(HOLLOW.to_owned(), "true".to_owned())],
        taints: vec![taint],
        system: shared.system.clone(),
    }
}

fn resources(size: HollowSize) -> Resources {
    Resources {
        cpu_milli: size.cpu_milli,
        memory_bytes: size.memory_bytes,
        pods: size.pods,
        ..Resources::default()
    }
}

/// A hollow node has none.
struct NoGpus;

impl GpuDriver for NoGpus {
    fn list(&self) -> Vec<Gpu> {
        Vec::new()
    }
}
