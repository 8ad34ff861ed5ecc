//! A member of a training job in a pod's own process: joins the cluster as a guest actor node and
//! works until the job needs it no more.
//!
//! Everything that it must know comes from the pod's environment ([`GuestConfig::from_environment`]).
//! A guest answers control members and guests of its own job, nobody else.

use super::link::Link;
use super::model::Model;
use crate::parameter_server::ParameterServer;
use crate::trainer::{Trainer, TrainerError};
use impresario_client::protocol::training::{
    Member, ModelFacts, OptimizerKind, ParameterServerRole, Place, TrainerRole, is_between_guests,
    parameter_server_actor, trainer_actor,
};
use impresario_runtime::pki::PkiError;
use impresario_runtime::{
    ActorName, ActorNode, ActorPath, Credential, Gate, Limits, NodeConfig, NodeName, PeerIdentity,
    PeerRole, Refusal, RestartPolicy, SpawnError, SpawnOptions, StartError, clock, tasks,
};
use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::watch;

/// How long a guest that has finished waits for its last messages.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a guest must know to find its job.
#[derive(Clone)]
pub struct GuestConfig {
    /// Who it is.
    pub credential: Credential,
    /// The nodes that it can dial.
    pub addresses: Vec<(NodeName, SocketAddr)>,
    /// The control members among them.
    pub control: Vec<NodeName>,
    /// The address that it listens on.
    pub address: IpAddr,
    /// Its pod.
    pub pod_uid: String,
    /// Its job.
    pub job: String,
    /// What it does.
    pub member: Member,
}

/// How a program is trained: what the job must know beside the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Method {
    /// Samples in one batch.
    pub batch: u64,
    /// How gradients are applied.
    pub optimizer: OptimizerKind,
    /// Decides all chance.
    pub seed: u64,
}

/// Why a guest could not work, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The environment is not that of a guest.
    #[error(
        "{variable} is missing or not understood: this command runs in pods of training jobs only"
    )]
    Environment {
        /// Which variable.
        variable: &'static str,
    },
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] PkiError),
    /// The actor node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The actor did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The trainer stopped.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// The actor was stopped from outside.
    #[error("the member was stopped before its job needed it no more")]
    Stopped,
}

impl GuestConfig {
    /// Reads the variables that a node gives to a guest's pod.
    pub fn from_environment() -> Result<Self, GuestError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(read: impl Fn(&'static str) -> Option<String>) -> Result<Self, GuestError> {
        let need = |variable: &'static str| {
            read(variable)
                .filter(|value| !value.is_empty())
                .ok_or(GuestError::Environment { variable })
        };
        let addresses = parse_addresses(&need("IMPRESARIO_ADDRESSES")?)
            .ok_or(GuestError::Environment { variable: "IMPRESARIO_ADDRESSES" })?;
        let control: Vec<NodeName> =
            match read("IMPRESARIO_CONTROL").filter(|names| !names.is_empty()) {
                Some(names) => names.split(',').map(NodeName::from).collect(),
                None => addresses.iter().map(|(name, _)| name.clone()).collect(),
            };
        let address = match read("IMPRESARIO_POD_IP") {
            Some(text) => text
                .parse()
                .map_err(|_| GuestError::Environment { variable: "IMPRESARIO_POD_IP" })?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let member = match need("IMPRESARIO_ROLE")?.as_str() {
            "parameterServer" => Member::ParameterServer,
            "trainer" => Member::Trainer,
            _ => return Err(GuestError::Environment { variable: "IMPRESARIO_ROLE" }),
        };
        let (pod_uid, job) = (need("IMPRESARIO_POD_UID")?, need("IMPRESARIO_JOB")?);
        // Where mounts cannot be made, the volume's own variable says where it is.
        let folder =
            match read("IMPRESARIO_VOLUME_IMPRESARIO_GUEST").filter(|path| !path.is_empty()) {
                Some(folder) => folder,
                None => need("IMPRESARIO_CREDENTIAL")?,
            };
        let credential = Credential::load(Path::new(&folder))?;
        Ok(Self { credential, addresses, control, address, pod_uid, job, member })
    }
}

/// `name=address,name=address`
fn parse_addresses(text: &str) -> Option<Vec<(NodeName, SocketAddr)>> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, address) = part.split_once('=')?;
            Some((NodeName::from(name), address.parse().ok()?))
        })
        .collect()
}

/// Works for the job until it needs this member no more. Must run inside an actix `System`.
///
/// `model` is made in a trainer only: a parameter server needs neither program nor data.
pub async fn run<E>(
    config: GuestConfig,
    method: Method,
    model: impl FnOnce() -> Result<Box<dyn Model>, E>,
) -> Result<Result<(), E>, GuestError> {
    let node = start_node(&config).await?;
    let outcome = match config.member {
        Member::ParameterServer => serve(&node, &config).await.map(Ok),
        Member::Trainer => match model() {
            Ok(model) => train(&node, &config, method, model).await.map(Ok),
            Err(error) => Ok(Err(error)),
        },
    };
    node.stop(GOODBYE).await;
    outcome
}

async fn start_node(config: &GuestConfig) -> Result<ActorNode, GuestError> {
    let gate = Arc::new(GuestGate { own: config.credential.identity().role.clone() });
    let bind = SocketAddr::new(config.address, 0);
    // Guests of a job bring one another whole models, and the pod's own memory bounds them.
    let mut limits = Limits { lesser_pool_bytes: 4 << 30, ..Limits::default() };
    limits.guest.bytes = 1 << 30;
    let settings = NodeConfig { bind, gate, limits, ..NodeConfig::new(config.credential.clone()) };
    let node = ActorNode::start(settings).await?;
    for (name, address) in &config.addresses {
        node.addresses().set(name.clone(), *address);
    }
    Ok(node)
}

fn place(node: &ActorNode, actor: &str) -> Place {
    Place { path: ActorPath::new(node.name().clone(), actor), address: node.local_addr() }
}

async fn serve(node: &ActorNode, config: &GuestConfig) -> Result<(), GuestError> {
    let name = parameter_server_actor(&config.pod_uid);
    let (ended, mut end) = watch::channel(false);
    let link = Link::new(node.clone(), &config.job, config.control.clone());
    let (uid, place) = (config.pod_uid.clone(), place(node, &name));
    let stopping = stop_asked();
    // A server that failed has lost its shards: its pod is replaced, not its actor.
    let options = SpawnOptions { restart: RestartPolicy::never(), ..SpawnOptions::default() };
    let server = node.spawn::<ParameterServerRole, _>(name, options, move |_| {
        ParameterServer::new(&uid, place.clone(), link.clone(), ended.clone(), stopping.clone())
    })?;
    let death = node.watch(server.path().clone());
    tokio::select! {
        over = end.wait_for(|over| *over) => over.map(|_| ()).map_err(|_| GuestError::Stopped),
        _ = death.terminated() => Err(GuestError::Stopped),
    }
}

/// Since when the node asks this process to stop (SIGTERM). A server does not stop at once: what it holds is
/// handed on first. The node ends it when its grace is over.
fn stop_asked() -> watch::Receiver<Option<Instant>> {
    let (asked, receiver) = watch::channel(None);
    #[cfg(unix)]
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminate) => {
            tasks::spawn(async move {
                while terminate.recv().await.is_some() {
                    tracing::info!("asked to stop: the shards are handed on first");
                    asked.send_if_modified(|since| {
                        since.is_none() && since.replace(clock::now()).is_none()
                    });
                }
            });
        }
        Err(error) => tracing::warn!(%error, "a stop will be at once: shards are not handed on"),
    }
    receiver
}

async fn train(
    node: &ActorNode,
    config: &GuestConfig,
    method: Method,
    model: Box<dyn Model>,
) -> Result<(), GuestError> {
    let name = trainer_actor(&config.pod_uid);
    let facts = ModelFacts {
        blocks: model.blocks().into_iter().map(|block| (block.name, block.length as u64)).collect(),
        samples: model.samples(),
        batch: method.batch,
        optimizer: method.optimizer,
        seed: method.seed,
    };
    let (ended, mut end) = watch::channel(None);
    let link = Link::new(node.clone(), &config.job, config.control.clone());
    let mut trainer =
        Some(Trainer::new(&config.pod_uid, place(node, &name), link, model, facts, ended.clone()));
    let options = SpawnOptions { restart: RestartPolicy::never(), ..SpawnOptions::default() };
    let actor = node.spawn::<TrainerRole, _>(name, options, move |_| match trainer.take() {
        Some(trainer) => trainer,
        None => unreachable!("an actor that is never restarted is made once"),
    })?;
    let death = node.watch(actor.path().clone());
    let finished = tokio::select! {
        over = end.wait_for(Option::is_some) => over.is_ok(),
        _ = death.terminated() => false,
    };
    drop(end);
    if !finished {
        return Err(GuestError::Stopped);
    }
    ended.send_replace(None).unwrap_or(Ok(())).map_err(GuestError::from)
}

/// Control members, and guests of the same job: a guest's scope is its job's uid.
struct GuestGate {
    own: PeerRole,
}

impl Gate for GuestGate {
    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        _: &dyn Any,
    ) -> Result<(), Refusal> {
        self.admit(peer, to, message)
    }

    fn admit(
        &self,
        peer: &PeerIdentity,
        _: &ActorName,
        message: &'static str,
    ) -> Result<(), Refusal> {
        let allowed = match (&peer.role, &self.own) {
            (PeerRole::Control, _) => true,
            // Orders are the job's: a member gives none to another.
            (PeerRole::Guest { scope }, PeerRole::Guest { scope: own }) => {
                scope == own && is_between_guests(message)
            }
            _ => false,
        };
        if allowed {
            return Ok(());
        }
        Err(Refusal::new(format!(
            "{message} is for control members; members of the same job exchange parameters and gradients"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_pairs_and_a_broken_pair_is_refused() {
        let parsed = parse_addresses("a=127.0.0.1:70,b=[::1]:80").unwrap();
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[1].1, "[::1]:80".parse().unwrap());
        for broken in ["a", "a=", "a=host:1", "=,"] {
            assert_eq!(parse_addresses(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_missing_variable_is_named() {
        let Err(error) = GuestConfig::from_variables(|_| None) else { panic!("accepted nothing") };
        assert!(error.to_string().contains("IMPRESARIO_ADDRESSES"));
    }
}
