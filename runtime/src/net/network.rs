//! The endpoint and the peers: what all connections of a node share.

use super::{
    entrance::Entrance,
    event::{LostTells, PeerEvent, PeerUsage},
    frame::{Hello, LANE_FRAME_LIMIT_BYTES},
    handshake::{self, Arrival, DialError, code},
    link::Link,
    peer::{LinkState, Peer},
    terms::Pools,
    urgent::Urgent,
};
use crate::{
    address::AddressBook,
    cell::Cells,
    config::{Limits, NodeConfig, Timing},
    error::StartError,
    fault::FaultTable,
    gate::Gate,
    name::NodeName,
    net::join::JoinDoor,
    pki::{Credential, PeerIdentity, PeerRole, PkiError, tls},
    refusals::Refusals,
};
use impresario_ambient::clock;
use parking_lot::{Mutex, RwLock};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, watch},
    time::timeout,
};

/// Peer events that a slow listener may be behind.
const EVENTS: usize = 1024;
/// Lanes in each direction, and one to spare for a connection that is being replaced.
const UNI_STREAMS: u32 = 3;
/// Streams of a peer that has not said who it is.
const STRANGER_STREAMS: u32 = 1;
/// The connection windows of a peer that has not said who it is.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// By how much narrower the windows of guests and clients are.
const LESSER_WINDOW: u32 = 4;
/// What is kept of a connection's bytes until they are acknowledged: bandwidth times delay of a fast network (10 Gbit/s and
/// 1.5 ms), and not on any account.
const SEND_WINDOW_BYTES: u32 = 2 << 20;
/// By how much less is kept of those of guests and clients.
const LESSER_SEND_WINDOW: u32 = 2;
/// By how much shorter their lanes are.
const LESSER_LANE: u32 = 8;
/// Connections that wait for our first word, and what their first packets may take.
const INCOMING: usize = 1024;
const INCOMING_BYTES_EACH: u64 = 64 << 10;
const INCOMING_BYTES: u64 = 4 << 20;

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
    pub(crate) refusals: Refusals,
    pub(crate) pools: Pools,
    pub(super) lost_tells: broadcast::Sender<LostTells>,
    pub(crate) join: Option<Arc<dyn JoinDoor>>,
    pub(crate) tasks: Handle,
    pub(super) identity: PeerIdentity,
    pub(super) endpoint: Endpoint,
    client: RwLock<ClientConfig>,
    peers: Mutex<HashMap<NodeName, Arc<Peer>>>,
    events: broadcast::Sender<PeerEvent>,
    stopping: watch::Sender<bool>,
    pub(super) entrance: Entrance,
    /// Fingerprints of certificates that count no more, though their time is not over.
    shut_out: RwLock<HashSet<String>>,
    next_id: AtomicU64,
}

impl Network {
    /// Binds the endpoint. Nobody accepts yet who comes.
    pub(super) fn bind(
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
        Ok(Arc::new(Self {
            name,
            incarnation,
            started: clock::now(),
            timing: config.timing,
            limits: config.limits,
            cells,
            addresses: AddressBook::default(),
            faults: Arc::default(),
            gate: config.gate.clone(),
            refusals: Refusals::default(),
            pools: Pools::new(&config.limits),
            lost_tells: broadcast::Sender::new(EVENTS),
            join: config.join.clone(),
            tasks: Handle::current(),
            identity: config.credential.identity().clone(),
            endpoint,
            client: RwLock::new(client),
            peers: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            stopping: watch::Sender::new(false),
            entrance: Entrance::new(&config.limits),
            shut_out: RwLock::default(),
            next_id: AtomicU64::new(1),
        }))
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

    /// From now on certificates with these fingerprints, and no others, are refused before their time; links that stand
    /// on them end with the next heartbeat.
    pub(crate) fn shut_out(&self, fingerprints: HashSet<String>) {
        *self.shut_out.write() = fingerprints;
    }

    /// Why a certificate that holds until then does not count any more.
    pub(crate) fn is_out(
        &self,
        identity: &PeerIdentity,
        until: SystemTime,
    ) -> Option<&'static str> {
        if clock::wall() > until {
            return Some("its certificate has run out");
        }
        let out = self.shut_out.read();
        out.contains(&identity.fingerprint).then_some("its certificate was withdrawn")
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    pub(crate) fn lost_tells(&self) -> broadcast::Receiver<LostTells> {
        self.lost_tells.subscribe()
    }

    /// What each peer takes up, by name.
    pub(crate) fn usage(&self) -> Vec<PeerUsage> {
        let mut usage: Vec<_> = self.peers.lock().values().map(|peer| peer.usage()).collect();
        usage.sort_by(|one, other| one.node.cmp(&other.node));
        usage
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

    /// The peer of this name, if there is anything to know of it.
    pub(crate) fn known_peer(&self, name: &NodeName) -> Option<Arc<Peer>> {
        self.peers.lock().get(name).cloned()
    }

    /// The peer of this name; for one that is new also the connections that come in, which somebody must take up.
    pub(super) fn peer_of(&self, name: &NodeName) -> (Arc<Peer>, Option<mpsc::Receiver<Arrival>>) {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(name) {
            return (peer.clone(), None);
        }
        let (peer, arrivals) = Peer::new(name.clone(), &self.limits, self.started.elapsed());
        if *self.stopping.borrow() {
            peer.close();
            return (peer, None);
        }
        peers.insert(name.clone(), peer.clone());
        (peer, Some(arrivals))
    }

    /// Forgets a peer, unless another has its name by now.
    pub(super) fn remove(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.lock();
        if peers.get(&peer.name).is_some_and(|held| Arc::ptr_eq(held, peer)) {
            peers.remove(&peer.name);
        }
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

    /// Where a peer is dialled.
    pub(crate) fn address_of(&self, peer: &Peer) -> Option<SocketAddr> {
        self.addresses.get(&peer.name).or_else(|| peer.from())
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends the link to a peer; a wanted one is made anew.
    pub(crate) fn end_link(&self, name: &NodeName) {
        let peer = self.known_peer(name);
        if let Some(peer) = peer
            && let LinkState::Up(link) = &*peer.link.borrow()
        {
            link.connection.close(code::REPLACED, b"to be judged anew");
        }
    }

    // --- connections

    /// Dials a node and says hello; gives the link and the generation that the node gave it.
    pub(crate) async fn dial(&self, peer: &Peer, hello: &Hello) -> Result<(Link, u64), DialError> {
        let name = &peer.name;
        if self.faults.is_severed(name) {
            return Err(DialError::Severed);
        }
        let address = self.address_of(peer).ok_or(DialError::NoAddress)?;
        let config = self.client.read().clone();
        let connection = self.endpoint.connect_with(config, address, tls::SERVER_NAME)?.await?;
        let greeted = async {
            let (identity, until) = handshake::identity_of(&connection)?
                .ok_or_else(|| PkiError::NotOurs { detail: "it showed none".to_owned() })?;
            if let Some(why) = self.is_out(&identity, until) {
                return Err(PkiError::NotOurs { detail: why.to_owned() }.into());
            }
            if identity.node != *name {
                return Err(DialError::Stranger { found: identity.node });
            }
            let (incarnation, generation) = handshake::greet(&connection, hello).await?;
            Ok((identity, until, incarnation, generation))
        };
        match greeted.await {
            Ok((identity, until, incarnation, generation)) => {
                let terms = peer.terms(&self.pools, &identity);
                let urgent = Urgent::default();
                let link = Link {
                    connection,
                    identity,
                    until,
                    incarnation,
                    generation,
                    dialled: true,
                    terms,
                    urgent,
                };
                Ok((link, generation))
            }
            Err(error) => {
                let code =
                    if matches!(error, DialError::Busy) { code::REPLACED } else { code::STRANGER };
                handshake::close(&connection, code, "not used");
                Err(error)
            }
        }
    }

    /// Opens the windows of a connection as wide as its peer's role deserves.
    pub(crate) fn set_windows(&self, link: &Link) {
        let role = &link.identity.role;
        let (streams, connection) = (self.limits.budget(role).streams, &link.connection);
        let window = self.limits.connection_window_bytes / lesser_share(role, LESSER_WINDOW);
        // quinn tells the peer of streams that are free again only when they are more than an eighth of all.
        let streams = streams.max(1).saturating_add(streams / 7 + 1);
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS));
        connection.set_receive_window(VarInt::from_u32(window));
        let unacknowledged = SEND_WINDOW_BYTES / lesser_share(role, LESSER_SEND_WINDOW);
        connection.set_send_window(window.min(unacknowledged).into());
    }

    /// How much may wait for a peer of this role on each lane.
    pub(crate) fn lane_bytes(&self, role: &PeerRole) -> usize {
        let share = self.limits.lane_bytes / lesser_share(role, LESSER_LANE) as usize;
        share.max(2 * LANE_FRAME_LIMIT_BYTES)
    }
}

/// 1, or `share` for those who get less.
fn lesser_share(role: &PeerRole, share: u32) -> u32 {
    match role {
        PeerRole::Control | PeerRole::Node => 1,
        PeerRole::Guest { .. } | PeerRole::Client | PeerRole::Admin => share,
    }
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
        .send_window(STRANGER_WINDOW_BYTES.into())
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
    config
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES_EACH)
        .incoming_buffer_size_total(INCOMING_BYTES);
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
