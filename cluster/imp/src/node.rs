//! `imp node`: one actor node. Wires runtime, registry, host, actors and gateway together.
//!
//! ```text
//!   every node:       ActorNode, Node actor (pods), services, address book
//!   control member:   registry member, shard keeper (control actors), scheduler, authority, gateway
//! ```
//!
//! SIGTERM ends the process and leaves the containers running: the next process takes them over.

pub mod actors;
pub mod addresses;
pub mod control;
pub mod drivers;
pub mod gate;
pub mod join;
pub mod ranges;
pub mod renewal;
pub mod revoked;
pub mod traffic;
pub mod usage;

pub use ranges::{is_slot_served, is_slot_taken, pod_range, service_network, share_slot};

use crate::cli;
use crate::layout::{LayoutError, NodeDir, NodeFile, replace};
use addresses::AddressKeeper;
use control::{Begun, Control, ControlError, api_address};
use drivers::DriverSetupError;
use impresario_actors::node::machine::{self, Share};
use impresario_actors::node::{GpuDriver, Heart, NodeParts, NodeSeed, object::NodeFacts};
use impresario_actors::pod::backoff::BackoffScale;
use impresario_actors::service_network::ServiceNetwork;
use impresario_client::protocol::node::{NODE, NodeRole};
use impresario_client::protocol::resources::Resources;
use impresario_host::address::{AddressError, AddressPool, Cidr};
use impresario_host::devices::{Gpu, GpuPool, GpuPoolError, Gpus};
use impresario_host::dns::DnsServer;
use impresario_host::process::oom;
use impresario_host::proxy::{Neighbourhood, ProxyLimits, ServiceProxy};
use impresario_objects::RemoteDoor;
use impresario_registry::{RegistryHandle, RemoteRegistry};
use impresario_runtime::pki::PkiError;
use impresario_runtime::{
    ActorNode, Credential, NodeConfig, NodeName, SpawnError, SpawnOptions, StartError,
};
use renewal::{OwnCertificate, Renewal};
use revoked::Known;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long the parts of a node have to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Where resolvers ask for names.
const DNS_PORT: u16 = 53;

/// Why a node does not run.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A file of the node is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its certificate is unusable.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The folder was not set up and no token was given.
    #[error("{0} holds no node yet: join a cluster with --join ADDRESS --token TOKEN")]
    NotSetUp(std::path::PathBuf),
    /// The cluster did not take it.
    #[error(transparent)]
    Join(#[from] join::JoinError),
    /// The network end did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An actor did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Containers cannot be run.
    #[error(transparent)]
    Driver(#[from] DriverSetupError),
    /// Pods would have no addresses.
    #[error(transparent)]
    Addresses(#[from] AddressError),
    /// Who has which GPU is not known.
    #[error(transparent)]
    Gpus(#[from] GpuPoolError),
    /// What a control member serves did not start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The machine's capacity cannot be read.
    #[error("cannot read what this machine has: {0}")]
    Capacity(std::io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signal(std::io::Error),
    /// The registry of this member has failed.
    #[error("the registry of this member has stopped: {0}")]
    Registry(String),
}

/// Runs a node until it is told to stop.
pub async fn run(args: &cli::Node) -> Result<(), NodeError> {
    let dir = NodeDir::new(args.data_dir.clone());
    dir.refuse_foreign()?;
    let claim = dir.claim()?;
    let is_new = !dir.exists();
    if is_new {
        let joined = match (&args.join, &args.token) {
            (Some(address), Some(token)) => {
                join::join(&dir, args, address, token).await.map_err(NodeError::from)
            }
            _ => Err(NodeError::NotSetUp(dir.path().to_owned())),
        };
        if let Err(error) = joined {
            dir.leave(claim);
            return Err(error);
        }
    }
    if let Err(error) = oom::set(oom::NODE)
        && nix::unistd::Uid::effective().is_root()
    {
        tracing::warn!(%error, "when memory runs out this node may go before its pods");
    }
    let file = dir.load()?;
    let credential = Credential::load(&dir.credential())?;
    if !is_new {
        join::refuse_changes(&dir, &file, &credential.authority_fingerprint(), args)?;
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Signal)?;
    // A node outlives the terminal that it was started from.
    let mut hangup = signal(SignalKind::hangup()).map_err(NodeError::Signal)?;

    let mut running = Running::start(&dir, &file, credential).await?;
    tracing::info!(node = file.name, address = %file.advertise, "node is up");
    let outcome = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hangup.recv() => {}
            reason = running.failed() => break Err(NodeError::Registry(reason)),
        }
    };
    running.stop().await;
    tracing::info!(node = file.name, "node has stopped");
    outcome
}

/// Everything that a node runs.
struct Running {
    node: ActorNode,
    control: Option<Control>,
    _services: ServiceNetwork,
    _addresses: AddressKeeper,
    _renewal: Renewal,
    /// Of a node that is no control member.
    _revocations: Option<revoked::Following>,
}

impl Running {
    async fn start(
        dir: &NodeDir,
        file: &NodeFile,
        credential: Credential,
    ) -> Result<Self, NodeError> {
        let driver = drivers::open(dir, file).await?;
        let door = Arc::new(control::Door::default());
        let distrusted = Known::of(dir)?;
        let gate = distrusted.gate();
        // What a founder's registry does not say yet nobody has said.
        let reads_first = file.control.as_ref().is_some_and(|settings| !settings.founder);
        gate.is_unread.store(reads_first, Ordering::Relaxed);
        let node = ActorNode::start(NodeConfig {
            bind: file.bind,
            gate: Arc::new(gate.clone()),
            chaos: file.chaos,
            join: file.control.is_some().then(|| door.clone() as _),
            ..NodeConfig::new(credential.clone())
        })
        .await?;
        traffic::serve(&node)?;
        actors::serve(&node)?;
        for peer in &file.peers {
            node.addresses().set(NodeName::from(peer.name.as_str()), peer.address);
        }
        let known = file.peers.iter().filter(|peer| peer.control);
        let mut known: Vec<_> = known.map(|peer| NodeName::from(peer.name.as_str())).collect();
        if file.control.is_some() && !known.contains(node.name()) {
            known.push(node.name().clone());
        }
        let (members, member_names) = watch::channel(known);
        let members_for_renewal = member_names.clone();

        let mut revocations = None;
        let (control, registry, heart): (_, RegistryHandle, Arc<dyn Heart>) = match &file.control {
            Some(settings) => {
                let node = &node;
                let begun =
                    Begun { dir, file, node, credential: &credential, door: &door, gate: &gate };
                let control = Control::start(settings, begun, distrusted).await?;
                let (registry, heart) = (control.registry(), control.heart());
                (Some(control), registry, heart)
            }
            None => {
                // The registry is for control members alone: objects are asked for at their door.
                let objects: RegistryHandle =
                    Arc::new(RemoteDoor::new(node.clone(), member_names.clone()));
                revocations =
                    Some(revoked::follow(distrusted, objects.clone(), node.clone(), &gate, drop));
                let heart = RemoteRegistry::new(node.clone(), member_names.clone());
                (None, objects, Arc::new(heart))
            }
        };
        let renewal = Renewal::of_node(OwnCertificate {
            node: node.clone(),
            credential: credential.clone(),
            folder: Some(dir.credential()),
            // Others are servers to nobody but actors.
            subjects: match &file.control {
                Some(_) => vec![file.name.clone(), file.advertise.ip().to_string()],
                None => Vec::new(),
            },
            members: members_for_renewal,
        });
        let machine = file.machine();
        let addresses = AddressKeeper::start(node.clone(), registry.clone(), machine, members);

        let dns = serve_names(file.dns()).await;
        let where_names_are =
            dns.as_ref().map(|dns| format!("{}\n", dns.address())).unwrap_or_default();
        replace(&dir.dns(), where_names_are.as_bytes())?;
        // Resolvers know no other port, and containers of Docker do not reach this machine's 127/8.
        let for_pods = dns.as_ref().map(DnsServer::address);
        let for_pods = for_pods
            .filter(|dns| dns.port() == DNS_PORT && driver.name() == "process")
            .map(|dns| dns.ip());
        let neighbourhood = Neighbourhood {
            cluster: file.cluster.clone(),
            folder: dir.path().to_owned(),
            // Without them what others have is not served here, which is said.
            nodes: Box::new(|| impresario_host::nodes_of_this_machine().unwrap_or_default()),
        };
        let proxy = ServiceProxy::among(ProxyLimits::default(), neighbourhood);
        let proxy = proxy.unwrap_or_else(|error| {
            tracing::warn!(%error, "services are not shared with other nodes of this machine");
            ServiceProxy::new(ProxyLimits::default())
        });
        let first_port = machine_ports(&file.name);
        let services = ServiceNetwork::start(&registry, proxy, dns, (&file.name, first_port));

        let range: Cidr = file.pod_range.parse()?;
        let gpus = Gpus::discover(std::env::var_os("IMPRESARIO_NVML").as_deref());
        let gpus = OwnGpus::new(gpus, file.share);
        let devices = gpus.list();
        let (capacity, allocatable) =
            machine::capacity(file.share, &devices, &Resources::default())
                .map_err(NodeError::Capacity)?;
        let pods_folder = dir.pods();
        let seed = NodeSeed::new(NodeParts {
            node: node.clone(),
            driver: driver.clone(),
            registry,
            members: member_names,
            heart,
            addresses: AddressPool::open(dir.path(), range)?,
            gpus: GpuPool::open(dir.path(), &devices)?,
            gpu_driver: Arc::new(gpus),
            pods_folder,
            facts: NodeFacts {
                address: file.advertise.ip(),
                hostname: file.name.clone(),
                is_control: file.control.is_some(),
                api_address: file.control.as_ref().map(|settings| api_address(file, settings)),
                quic_address: file.advertise,
                fingerprint: credential.identity().fingerprint.clone(),
                incarnation: node.incarnation(),
                process: std::process::id(),
                capacity,
                allocatable,
                first_port,
                pod_range: file.pod_range.clone(),
                runtime: format!("{}://{}", driver.name(), env!("CARGO_PKG_VERSION")),
                labels: Vec::new(),
                taints: Vec::new(),
                system: machine::system(),
            },
            scale: BackoffScale::default(),
            dns: for_pods,
        });
        node.spawn::<NodeRole, _>(NODE, SpawnOptions::default(), move |_| seed.actor())?;
        Ok(Self {
            node,
            control,
            _services: services,
            _addresses: addresses,
            _renewal: renewal,
            _revocations: revocations,
        })
    }

    /// Resolves when the node cannot go on.
    async fn failed(&mut self) -> String {
        match &mut self.control {
            Some(control) => control.failed().await,
            None => std::future::pending().await,
        }
    }

    async fn stop(self) {
        if let Some(control) = self.control {
            control.stop(STOP_LIMIT).await;
        }
        self.node.stop(STOP_LIMIT).await;
    }
}

/// The GPUs of this node among those of the machine.
struct OwnGpus {
    machine: Gpus,
    /// By the driver's index, which stays while the driver is loaded.
    own: BTreeSet<u32>,
}

impl OwnGpus {
    fn new(machine: Gpus, share: Share) -> Self {
        let own = share.slice(machine.list()).into_iter().map(|gpu| gpu.index).collect();
        Self { machine, own }
    }
}

impl GpuDriver for OwnGpus {
    fn list(&self) -> Vec<Gpu> {
        let all = self.machine.list();
        all.into_iter().filter(|gpu| self.own.contains(&gpu.index)).collect()
    }
}

/// Answers for names at this address: at port 53, where resolvers look, or where that may not be
/// had, at any.
async fn serve_names(ip: IpAddr) -> Option<DnsServer> {
    let mut served = DnsServer::bind(SocketAddr::new(ip, DNS_PORT), "cluster.local").await;
    if let Err(error) = &served {
        tracing::info!(%error, "names are served at another port: see the file `dns`");
        served = DnsServer::bind(SocketAddr::new(ip, 0), "cluster.local").await;
    }
    served.inspect_err(|error| tracing::warn!(%error, "no names for services")).ok()
}

/// The first port that this node may open.
fn machine_ports(node: &str) -> u16 {
    let first = impresario_host::proxy::first_port();
    if first > 0 {
        tracing::info!(node, first, "services of lower ports answer 8000 higher here");
    }
    first
}

impl NodeFile {
    /// The machine through which the node joined, if it is another one.
    fn machine(&self) -> Option<IpAddr> {
        self.joined_through.filter(|address| !address.is_loopback())
    }

    /// Where this node answers for names.
    fn dns(&self) -> IpAddr {
        IpAddr::V4(ranges::names_at(&self.pod_range))
    }
}
