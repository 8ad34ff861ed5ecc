//! An actor node: a process's end of the network, and the names that live in it.
//!
//! One per process, cheap to clone. It owns the threads that its actors run on, the QUIC endpoint and all tasks of both;
//! [`ActorNode::stop`] ends them.

mod actors;

use crate::{
    address::AddressBook,
    arbiters::Arbiters,
    cell::{Cell, Cells},
    chaos::{CHAOS_ACTOR, Chaos, ChaosRole},
    codec::weigh::Scale,
    config::NodeConfig,
    door::{Entry, Failure, Undelivered},
    error::{StartError, TellError},
    fault::FaultTable,
    message::{Lane, tag_of},
    name::{ActorName, ActorPath, NodeName},
    net::{
        event::{LostTells, PeerEvent, PeerUsage},
        network::Network,
    },
    pki::{Credential, PeerIdentity, PkiError},
    refusals::RefusalCount,
    stream::{Items, Piece},
    supervise::SpawnOptions,
    watch::{DeathWatch, Reason, WatchError},
};
use actix::System;
use impresario_ambient::{clock, random, tasks};
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::{broadcast, oneshot};

/// A process's end of the network. Cheap to clone.
#[derive(Clone)]
pub struct ActorNode(Arc<Inner>);

struct Inner {
    name: NodeName,
    identity: PeerIdentity,
    incarnation: u64,
    force_wire: bool,
    cells: Arc<Cells>,
    arbiters: Arc<Arbiters>,
    /// Whether the threads are this node's alone, and end with it.
    has_own_threads: bool,
    network: Arc<Network>,
    local_addr: SocketAddr,
}

impl Drop for Inner {
    /// A node that is let go without `stop` ends its tasks and threads as well; it waits for none of them.
    fn drop(&mut self) {
        self.network.abandon();
        if self.has_own_threads {
            self.arbiters.release();
        }
    }
}

impl std::fmt::Debug for ActorNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActorNode")
            .field("name", &self.0.name)
            .field("incarnation", &self.0.incarnation)
            .finish()
    }
}

impl ActorNode {
    /// Starts the node. Must run inside an actix `System`.
    #[allow(clippy::unused_async)] // Starting may come to wait; callers are ready for it.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        if System::try_current().is_none() {
            return Err(StartError::NoSystem);
        }
        let identity = config.credential.identity().clone();
        let incarnation = new_incarnation();
        let name = identity.shown_name(incarnation);
        let cells = Arc::<Cells>::default();
        let network = Network::start(&config, name.clone(), incarnation, cells.clone())?;
        let local_addr = network
            .local_addr()
            .map_err(|source| StartError::Bind { address: config.bind, source })?;
        let has_own_threads = config.threads.is_none();
        let arbiters = config.threads.clone().map(|threads| threads.0);
        let node = Self(Arc::new(Inner {
            has_own_threads,
            arbiters: arbiters.unwrap_or_else(|| Arc::new(Arbiters::start(config.limits.arbiters))),
            name,
            identity,
            incarnation,
            force_wire: config.force_wire,
            cells,
            network,
            local_addr,
        }));
        if config.chaos {
            let faults = node.0.network.faults.clone();
            node.spawn::<ChaosRole, _>(CHAOS_ACTOR, SpawnOptions::default(), move |_| {
                Chaos(faults.clone())
            })?;
        }
        Ok(node)
    }

    /// The node's name, as its peers see it.
    pub fn name(&self) -> &NodeName {
        &self.0.name
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.0.identity.cluster
    }

    /// Who it is by its certificate.
    pub fn identity(&self) -> &PeerIdentity {
        &self.0.identity
    }

    /// Which life of this process it is: greater than that of any earlier one.
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// The UDP address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// What is known of its peers, as it changes. A listener that falls behind misses events and is told so.
    pub fn peers(&self) -> broadcast::Receiver<PeerEvent> {
        self.0.network.events()
    }

    /// Tells of ours that another node could not deliver, as they are reported. A listener that falls behind misses some
    /// and is told so; they are counted in [`Self::refusals`] as well.
    pub fn lost_tells(&self) -> broadcast::Receiver<LostTells> {
        self.0.network.lost_tells()
    }

    /// What was refused since the node started, by role, cause and message.
    pub fn refusals(&self) -> Vec<RefusalCount> {
        self.0.network.refusals.all()
    }

    /// What each peer takes up of this node, in order of their names. [`Limits`](crate::Limits) bounds it.
    pub fn usage(&self) -> Vec<PeerUsage> {
        self.0.network.usage()
    }

    /// Takes a new certificate for the same name, role and cluster. Connections that stand are not touched.
    pub fn replace_credential(&self, credential: &Credential) -> Result<(), PkiError> {
        self.0.network.replace_credential(credential)
    }

    /// Refuses certificates by their fingerprints ([`PeerIdentity::fingerprint`]) before their time is over: those of nodes
    /// and members that were taken out, or whose key was lost. The set replaces the one before. Links that stand on such a
    /// certificate end with the next heartbeat.
    pub fn shut_out(&self, fingerprints: HashSet<String>) {
        self.0.network.shut_out(fingerprints);
    }

    /// Ends the link to a peer, if there is one, with all that is open over it in either direction: streams, and asks that
    /// wait. A link that is wanted is made anew, and what is opened over it is judged anew by both gates.
    pub fn end_link(&self, peer: &NodeName) {
        self.0.network.end_link(peer);
    }

    /// Whether a node turned our last dial away since it hears another process of our name: of two processes of one
    /// name the later one is kept out for as long as the earlier one lives.
    pub fn is_turned_away_by(&self, peer: &NodeName) -> bool {
        self.0.network.known_peer(peer).is_some_and(|peer| peer.is_turned_away())
    }

    /// The addresses that it dials.
    pub fn addresses(&self) -> &AddressBook {
        &self.0.network.addresses
    }

    /// Its fault rules.
    pub fn faults(&self) -> &FaultTable {
        &self.0.network.faults
    }

    /// Watches for the end of an actor anywhere.
    pub fn watch(&self, path: ActorPath) -> DeathWatch {
        let (tell, answer) = oneshot::channel();
        if path.node == self.0.name {
            match self.cell(&path.actor) {
                Some(cell) => self.watch_cell(cell, tell),
                None => drop(tell.send(Ok(Reason::NoSuchActor))),
            }
        } else {
            self.0.network.watch_at_peer(&path, tell);
        }
        DeathWatch::new(path, answer)
    }

    fn watch_cell(&self, cell: Arc<Cell>, mut tell: oneshot::Sender<Result<Reason, WatchError>>) {
        self.0.network.tasks.spawn(async move {
            tokio::select! {
                reason = cell.ended() => drop(tell.send(Ok(reason))),
                () = tell.closed() => {}
            }
        });
    }

    /// Stops all actors, then the network; waits at most `deadline` for each actor to end.
    pub async fn stop(&self, deadline: Duration) {
        let cells = self.0.cells.all();
        for cell in &cells {
            self.0.cells.stop(cell);
        }
        let all = async {
            for cell in &cells {
                cell.ended().await;
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!(node = %self.0.name, "some actors did not stop in time");
        }
        self.0.network.stop(deadline).await;
        if !self.0.has_own_threads {
            return;
        }
        let node = self.clone();
        let threads = tasks::spawn_blocking(move || node.0.arbiters.stop());
        match tokio::time::timeout(deadline, threads).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(node = %self.0.name, %error, "stopping the actor threads failed");
            }
            Err(_) => {
                tracing::warn!(node = %self.0.name, "an actor blocks its thread: it is left behind");
            }
        }
    }

    pub(crate) fn cell(&self, name: &ActorName) -> Option<Arc<Cell>> {
        self.0.cells.get(name)
    }

    pub(crate) fn forces_wire(&self) -> bool {
        self.0.force_wire
    }

    pub(crate) fn tell_encoded(
        &self,
        path: &ActorPath,
        message: &'static str,
        lane: Lane,
        body: Vec<u8>,
    ) -> Result<(), TellError> {
        let actor = path.actor.clone();
        if path.node == self.0.name {
            let cell = self.cell(&actor).ok_or(TellError::NoSuchActor { actor: actor.clone() })?;
            let told = match cell.doors.get(tag_of(message)) {
                Some(door) => own(|entry| door.tell(&body, entry)).map(drop),
                None => Err(Failure::UnknownMessage),
            };
            return told.map_err(|failure| match failure {
                Failure::Overloaded => TellError::Overloaded { actor },
                Failure::Decode { detail } => {
                    TellError::Encode { message: message.to_owned(), detail }
                }
                Failure::UnknownMessage => {
                    TellError::UnknownMessage { actor, message: message.to_owned() }
                }
                _ => TellError::Stopped { actor },
            });
        }
        self.0.network.tell_peer(path, message, lane, body)
    }

    pub(crate) async fn ask_encoded(
        &self,
        path: &ActorPath,
        message: &'static str,
        lane: Lane,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Piece, Undelivered> {
        if path.node == self.0.name {
            let cell = self.cell(&path.actor).ok_or(Failure::NoSuchActor)?;
            let door = cell.doors.get(tag_of(message)).ok_or(Failure::UnknownMessage)?;
            let reply = own(|entry| door.ask(&body, entry))?;
            return Ok(Piece::new(reply.await?, None));
        }
        self.0.network.ask_peer(path, message, lane, body, deadline).await
    }

    pub(crate) async fn open_encoded(
        &self,
        path: &ActorPath,
        message: &'static str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Items<Piece>, Undelivered> {
        if path.node == self.0.name {
            let cell = self.cell(&path.actor).ok_or(Failure::NoSuchActor)?;
            let door = cell.doors.get(tag_of(message)).ok_or(Failure::UnknownMessage)?;
            let opened = own(|entry| door.open(&body, entry, None))?;
            opened.verdict.await?;
            return Ok(opened.items);
        }
        self.0.network.open_at_peer(path, message, body, deadline).await
    }
}

/// A message of this node's own comes in: it is permitted, and of any weight.
fn own<T>(enter: impl FnOnce(&Entry<'_>) -> T) -> T {
    enter(&Entry { permit: &|_, _| Ok(()), scale: &Scale::new(None) })
}

/// Milliseconds since 1970 above 20 random bits: later lives are greater, and two of one moment differ.
fn new_incarnation() -> u64 {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> 20);
    (millis << 20) | u64::from(random::random::<u32>() >> 12)
}
