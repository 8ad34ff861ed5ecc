//! The endpoint and the peers: what all connections of a node share.

use super::{
    driver::Driver,
    event::PeerEvent,
    frame::Hello,
    handshake::{self, Arrival, DialError, code},
    join,
    link::Link,
    peer::Peer,
};
use crate::{
    address::AddressBook,
    cell::Cells,
    config::{Limits, NodeConfig, Timing},
    error::StartError,
    fault::{Direction, FaultTable},
    gate::Gate,
    name::NodeName,
    net::join::JoinDoor,
    pki::{ALPN_JOIN, ALPN_NODE, Credential, PeerIdentity, PeerRole, PkiError, tls},
};
use parking_lot::{Mutex, RwLock};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, broadcast, watch},
    time::timeout,
};

/// Peer events that a slow listener may be behind.
const EVENTS: usize = 1024;
/// Lanes in each direction, and one to spare for a connection that is being replaced.
const UNI_STREAMS: u32 = 3;
/// Streams of a peer that has not said who it is.
const STRANGER_STREAMS: u32 = 1;
/// The connection window of a peer that has not said who it is.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// By how much guests and clients get less.
const LESSER_SHARE: u32 = 4;

pub(crate) struct Network {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) started: Instant,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) cells: Arc<Cells>,
    pub(crate) addresses: AddressBook,
    pub(crate) faults: Arc<FaultTable>,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) join: Option<Arc<dyn JoinDoor>>,
    pub(crate) tasks: Handle,
    identity: PeerIdentity,
    endpoint: Endpoint,
    client: RwLock<ClientConfig>,
    peers: Mutex<HashMap<NodeName, Arc<Peer>>>,
    events: broadcast::Sender<PeerEvent>,
    stopping: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    next_id: AtomicU64,
}

impl Network {
    /// Binds the endpoint and starts to accept.
    pub(crate) fn start(
        config: &NodeConfig,
        name: NodeName,
        incarnation: u64,
        cells: Arc<Cells>,
    ) -> Result<Arc<Self>, StartError> {
        let transport = transport(&config.timing, &config.limits);
        let server = server_config(&config.credential, config.join.is_some(), &transport)?;
        let client = client_config(&config.credential, &transport)?;
        let bind = |source| StartError::Bind { address: config.bind, source };
        let socket = UdpSocket::bind(config.bind).map_err(bind)?;
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime))
                .map_err(bind)?;
        let network = Arc::new(Self {
            name,
            incarnation,
            started: Instant::now(),
            timing: config.timing,
            limits: config.limits,
            cells,
            addresses: AddressBook::default(),
            faults: Arc::default(),
            gate: config.gate.clone(),
            join: config.join.clone(),
            tasks: Handle::current(),
            identity: config.credential.identity().clone(),
            endpoint,
            client: RwLock::new(client),
            peers: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            stopping: watch::Sender::new(false),
            connections: Arc::new(Semaphore::new(config.limits.connections)),
            next_id: AtomicU64::new(1),
        });
        network.tasks.spawn(network.clone().accept());
        Ok(network)
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr, std::io::Error> {
        self.endpoint.local_addr()
    }

    /// Handshakes from now on use this credential; connections that stand are not touched.
    pub(crate) fn replace_credential(&self, credential: &Credential) -> Result<(), PkiError> {
        let identity = credential.identity();
        let same = identity.node == self.identity.node
            && identity.role == self.identity.role
            && identity.cluster == self.identity.cluster;
        if !same {
            return Err(PkiError::NotOurs {
                detail: format!("it is for {}, not {}", identity.node, self.identity.node),
            });
        }
        let transport = transport(&self.timing, &self.limits);
        let server = server_config(credential, self.join.is_some(), &transport)?;
        let client = client_config(credential, &transport)?;
        self.endpoint.set_server_config(Some(server));
        *self.client.write() = client;
        Ok(())
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    pub(crate) fn tell(&self, event: PeerEvent) {
        // Fails only while nobody listens.
        let _ = self.events.send(event);
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Ends all tasks without waiting for them.
    pub(crate) fn abandon(&self) {
        self.stopping.send_replace(true);
        self.endpoint.close(code::GOODBYE, b"stopping");
    }

    /// Says goodbye to all peers and waits until that is sent.
    pub(crate) async fn stop(&self, deadline: Duration) {
        self.stopping.send_replace(true);
        for peer in self.peers.lock().drain().map(|(_, peer)| peer) {
            peer.close();
        }
        self.endpoint.close(code::GOODBYE, b"stopping");
        if timeout(deadline, self.endpoint.wait_idle()).await.is_err() {
            tracing::debug!(node = %self.name, "some connections did not end in time");
        }
    }

    // --- peers

    /// The peer of this name, with a driver.
    pub(crate) fn peer(self: &Arc<Self>, name: &NodeName) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(name) {
            return peer.clone();
        }
        let (peer, arrivals) = Peer::new(name.clone(), self);
        if *self.stopping.borrow() {
            peer.close();
            return peer;
        }
        peers.insert(name.clone(), peer.clone());
        self.tasks.spawn(Driver::new(self.clone(), peer.clone(), arrivals).run());
        peer
    }

    /// Lets an idle peer go; `false` when something is under way after all.
    pub(crate) fn forget(&self, peer: &Arc<Peer>) -> bool {
        let mut peers = self.peers.lock();
        let idle = peer.close_if_idle();
        if idle && peers.get(&peer.name).is_some_and(|held| Arc::ptr_eq(held, peer)) {
            peers.remove(&peer.name);
        }
        idle
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    // --- connections

    /// Dials a node and says hello; gives the link and the generation that the node gave it.
    pub(crate) async fn dial(
        &self,
        name: &NodeName,
        hello: &Hello,
    ) -> Result<(Link, u64), DialError> {
        if self.faults.is_severed(name) {
            return Err(DialError::Severed);
        }
        let address = self.addresses.get(name).ok_or(DialError::NoAddress)?;
        let config = self.client.read().clone();
        let connection = self.endpoint.connect_with(config, address, tls::SERVER_NAME)?.await?;
        let greeted = async {
            let identity = handshake::identity_of(&connection)?
                .ok_or_else(|| PkiError::NotOurs { detail: "it showed none".to_owned() })?;
            if identity.node != *name {
                return Err(DialError::Stranger { found: identity.node });
            }
            let (incarnation, generation) = handshake::greet(&connection, hello).await?;
            Ok((identity, incarnation, generation))
        };
        match greeted.await {
            Ok((identity, incarnation, generation)) => Ok((
                Link { connection, identity, incarnation, generation, dialled: true },
                generation,
            )),
            Err(error) => {
                let code =
                    if matches!(error, DialError::Busy) { code::REPLACED } else { code::STRANGER };
                handshake::close(&connection, code, "not used");
                Err(error)
            }
        }
    }

    async fn accept(self: Arc<Self>) {
        let mut stopping = self.stopping();
        loop {
            let incoming = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            let Ok(permit) = self.connections.clone().try_acquire_owned() else {
                tracing::warn!(from = %incoming.remote_address(), "too many connections: refused");
                incoming.refuse();
                continue;
            };
            let network = self.clone();
            self.tasks.spawn(async move {
                network.receive(incoming).await;
                drop(permit);
            });
        }
    }

    /// Brings one incoming connection to its peer's driver, and waits for its end.
    async fn receive(self: &Arc<Self>, incoming: Incoming) {
        let from = incoming.remote_address();
        let connection = match timeout(self.timing.dial, incoming).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                tracing::debug!(%from, %error, "handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!(%from, "handshake took too long");
                return;
            }
        };
        if protocol(&connection).as_deref() == Some(ALPN_JOIN) {
            if let Some(door) = self.join.clone() {
                join::serve(&*door, &connection, self.timing.lost_after).await;
            }
            return;
        }
        match timeout(self.timing.dial, self.introduce(&connection)).await {
            Ok(Ok(arrival)) => {
                let name = crate::node::shown_name(&arrival.identity, arrival.hello.incarnation);
                // The socket that a node dials from is the one it listens on; a client is never dialled.
                if !arrival.identity.role.is_shared() {
                    self.addresses.set(name.clone(), from);
                }
                if self.faults.is_cut(&name, arrival.identity.role.is_shared(), Direction::Receive)
                {
                    handshake::close(&connection, code::REPLACED, "");
                    return;
                }
                if self.peer(&name).arrivals.send(arrival).await.is_ok() {
                    connection.closed().await;
                }
            }
            Ok(Err(detail)) => {
                tracing::warn!(%from, detail, "connection refused");
                handshake::close(&connection, code::STRANGER, &detail);
            }
            Err(_) => handshake::close(&connection, code::PROTOCOL, "no hello in time"),
        }
    }

    /// Who is there, and its hello.
    async fn introduce(&self, connection: &Connection) -> Result<Arrival, String> {
        if protocol(connection).as_deref() != Some(ALPN_NODE) {
            return Err("it does not speak our protocol".to_owned());
        }
        let identity = handshake::identity_of(connection)
            .map_err(|error| error.to_string())?
            .ok_or("it has no certificate: join the cluster first")?;
        if identity.cluster != self.identity.cluster {
            return Err(format!("it is of the cluster {}", identity.cluster));
        }
        let (hello, reply) =
            handshake::hear(connection).await.map_err(|error| error.to_string())?;
        if identity.node == self.name {
            return Err("it has this node's own name".to_owned());
        }
        Ok(Arrival { connection: connection.clone(), identity, hello, reply })
    }

    /// Opens the windows of a connection as wide as its peer's role deserves.
    pub(crate) fn set_windows(&self, link: &Link) {
        let share = match link.identity.role {
            PeerRole::Control | PeerRole::Node => 1,
            PeerRole::Guest { .. } | PeerRole::Client | PeerRole::Admin => LESSER_SHARE,
        };
        let connection = &link.connection;
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(
            (self.limits.bulk_streams / share).max(1),
        ));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS));
        connection
            .set_receive_window(VarInt::from_u32(self.limits.connection_window_bytes / share));
    }
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Windows and streams for a connection of which the peer is not yet known; [`Network::set_windows`] opens them.
fn transport(timing: &Timing, limits: &Limits) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(timing.lost_after)
        .unwrap_or(IdleTimeout::from(VarInt::from_u32(10_000)));
    transport
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(VarInt::from_u32(STRANGER_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(limits.stream_window_bytes))
        .send_window(u64::from(limits.connection_window_bytes))
        .datagram_receive_buffer_size(None);
    Arc::new(transport)
}

fn server_config(
    credential: &Credential,
    join: bool,
    transport: &Arc<TransportConfig>,
) -> Result<ServerConfig, PkiError> {
    let crypto = QuicServerConfig::try_from(tls::node_server_config(credential, join)?).map_err(
        |error| PkiError::Unusable { what: "the credential", detail: error.to_string() },
    )?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport.clone());
    Ok(config)
}

fn client_config(
    credential: &Credential,
    transport: &Arc<TransportConfig>,
) -> Result<ClientConfig, PkiError> {
    let crypto =
        QuicClientConfig::try_from(tls::node_client_config(credential)?).map_err(|error| {
            PkiError::Unusable { what: "the credential", detail: error.to_string() }
        })?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport.clone());
    Ok(config)
}
