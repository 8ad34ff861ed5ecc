//! Who comes in: connections that are being made, until their peer's driver has them.
//!
//! ```text
//! room, few strangers       the handshake begins
//! many are being made       an address that nobody knows must first show that it is one (QUIC's retry, RFC 9000 §8.1)
//! no room for strangers     they are refused; half of the room is kept for the addresses of nodes that are known
//! one address, much room    a stranger's address has a quarter of the room at most
//! ```
//!
//! One who has said who it is leaves this room for a place among the connections of its kind, of which each certificate
//! has a few: one for its link, others for what takes that link's place.

use super::{
    handshake::{self, Arrival, Unused, code},
    join,
    network::Network,
};
use crate::{
    config::Limits,
    fault::Direction,
    name::NodeName,
    pki::{ALPN_JOIN, ALPN_NODE, PeerIdentity, PeerRole},
    refusals::Cause,
};
use parking_lot::Mutex;
use quinn::{Connection, Incoming, crypto::rustls::HandshakeData};
use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The least that one address may have of the room for strangers, who are many behind one address now and then.
const SHARE: usize = 8;
/// Connections with the certificate of one node, guest or control member: its link, and some that are being judged.
const OF_ONE: usize = 4;

/// Connections that are being made, and those that stand.
pub(crate) struct Entrance {
    /// For addresses of nodes that are known.
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// Those of control members, of nodes, and of all others: none takes the places of another kind.
    control: Arc<Semaphore>,
    nodes: Arc<Semaphore>,
    others: Arc<Semaphore>,
    most: usize,
    /// How many of one address there may be.
    share: usize,
    /// How many of one certificate that processes share there may be.
    processes: usize,
    /// Strangers that are being let in, by address.
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Connections that stand, by the role and name of their certificate.
    by_certificate: Arc<Mutex<HashMap<(&'static str, NodeName), usize>>>,
}

/// One of so many of a kind, until it is dropped.
pub(super) struct Place<K: Hash + Eq> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Place<K> {
    fn take(counts: &Arc<Mutex<HashMap<K, usize>>>, key: K, most: usize) -> Option<Self> {
        let mut all = counts.lock();
        let count = all.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self { counts: counts.clone(), key })
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut all = self.counts.lock();
        if let Some(count) = all.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

/// Room for one who comes in.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
    _place: Option<Place<IpAddr>>,
}

/// What counts as one address: a host, or a network of IPv6 that one host is given.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// What to do with one who knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reception {
    Accept,
    /// Let it show that its address is its own.
    Validate,
    Refuse,
}

/// Decides about one who knocks, while `making` of at most `most` connections are being made for those like it.
fn receive(making: usize, most: usize, validated: bool) -> Reception {
    if making >= most {
        Reception::Refuse
    } else if validated || making < most / 4 {
        Reception::Accept
    } else {
        Reception::Validate
    }
}

impl Entrance {
    pub(crate) fn new(limits: &Limits) -> Self {
        let most = (limits.handshakes / 2).max(1);
        Self {
            known: Arc::new(Semaphore::new(most)),
            strangers: Arc::new(Semaphore::new(most)),
            control: Arc::new(Semaphore::new(limits.connections)),
            nodes: Arc::new(Semaphore::new(limits.connections)),
            others: Arc::new(Semaphore::new(limits.connections)),
            most,
            share: (most / 4).max(SHARE),
            processes: limits.processes,
            by_address: Arc::default(),
            by_certificate: Arc::default(),
        }
    }
}

/// What a connection that stands holds: a place of its kind, and one of its certificate.
type Standing = (OwnedSemaphorePermit, Place<(&'static str, NodeName)>);

impl Entrance {
    /// A place for a connection that stands.
    fn stand(&self, identity: &PeerIdentity) -> Option<Standing> {
        let kind = match identity.role {
            PeerRole::Control => &self.control,
            PeerRole::Node => &self.nodes,
            PeerRole::Guest { .. } | PeerRole::Client | PeerRole::Admin => &self.others,
        };
        let most = if identity.role.is_shared() { self.processes } else { OF_ONE };
        let key = (identity.role.word(), identity.node.clone());
        let place = Place::take(&self.by_certificate, key, most)?;
        Some((kind.clone().try_acquire_owned().ok()?, place))
    }
}

impl Network {
    pub(super) async fn accept(self: Arc<Self>) {
        let mut stopping = self.stopping();
        loop {
            let incoming = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            if let Some((incoming, permit)) = self.admit(incoming) {
                let network = self.clone();
                self.tasks.spawn(async move { network.receive(incoming, permit).await });
            }
        }
    }

    /// Lets one who knocks begin its handshake, if there is room.
    fn admit(&self, incoming: Incoming) -> Option<(Incoming, Room)> {
        let from = incoming.remote_address();
        let entrance = &self.entrance;
        let known = self.addresses.knows(from);
        let room = if known { &entrance.known } else { &entrance.strangers };
        let making = entrance.most - room.available_permits();
        let validated = incoming.remote_address_validated();
        match receive(making, entrance.most, validated) {
            Reception::Accept => {
                let host = host(from.ip());
                let place = || Place::take(&entrance.by_address, host, entrance.share);
                // An address that is not validated may be another's: it is not counted against it.
                let place = if known || !validated { Some(None) } else { place().map(Some) };
                if let (Some(place), Ok(permit)) = (place, room.clone().try_acquire_owned()) {
                    return Some((incoming, Room { _permit: permit, _place: place }));
                }
                incoming.refuse();
            }
            Reception::Validate => {
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%from, %error, "address not validated");
                }
                return None;
            }
            Reception::Refuse => incoming.refuse(),
        }
        self.refusals.count_stranger(Cause::Handshakes, "runtime.Connect", from);
        None
    }

    /// Brings one incoming connection to its peer's driver, and waits for its end.
    async fn receive(self: &Arc<Self>, incoming: Incoming, room: Room) {
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
                join::serve(self, &*door, &connection).await;
            }
            return;
        }
        let arrival = match timeout(self.timing.dial, self.introduce(&connection)).await {
            Ok(Ok(arrival)) => arrival,
            Ok(Err(detail)) => {
                self.refusals.count_stranger(Cause::Stranger, "runtime.Connect", from);
                tracing::debug!(%from, detail, "connection refused");
                handshake::close(&connection, code::STRANGER, &detail);
                return;
            }
            Err(_) => return handshake::close(&connection, code::PROTOCOL, "no hello in time"),
        };
        let role = &arrival.identity.role;
        let word = role.word();
        let name = crate::node::shown_name(&arrival.identity, arrival.hello.incarnation);
        let Some(_stands) = self.entrance.stand(&arrival.identity) else {
            self.refusals.count(word, Cause::Connections, "runtime.Connect", &name);
            return handshake::close(&connection, code::FULL, "too many connections: try later");
        };
        drop(room);
        if self.faults.is_cut(&name, role.is_shared(), Direction::Receive) {
            handshake::close(&connection, code::REPLACED, "");
            return;
        }
        let peer = self.peer(&name);
        // Its driver answers one at a time, and each may be slow to take the answer. What does not come to it is closed.
        match timeout(self.timing.dial, peer.arrivals.send(arrival)).await {
            Ok(Ok(())) => drop(connection.closed().await),
            Ok(Err(_)) => {}
            Err(_) => self.refusals.count(word, Cause::Connections, "runtime.Connect", &name),
        }
    }

    /// Who is there, and its hello.
    async fn introduce(&self, connection: &Connection) -> Result<Arrival, String> {
        if protocol(connection).as_deref() != Some(ALPN_NODE) {
            return Err("it does not speak our protocol".to_owned());
        }
        let (identity, until) = handshake::identity_of(connection)
            .map_err(|error| error.to_string())?
            .ok_or("it has no certificate: join the cluster first")?;
        if let Some(why) = self.is_out(&identity, until) {
            return Err(why.to_owned());
        }
        if identity.cluster != self.identity.cluster {
            return Err(format!("it is of the cluster {}", identity.cluster));
        }
        let (hello, reply) =
            handshake::hear(connection).await.map_err(|error| error.to_string())?;
        if identity.node == self.name {
            return Err("it has this node's own name".to_owned());
        }
        let connection = Unused::new(connection.clone());
        Ok(Arrival { connection, identity, until, hello, reply })
    }
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_more_knocking_addresses_are_validated_and_then_refused() {
        assert_eq!(receive(0, 100, false), Reception::Accept);
        assert_eq!(receive(25, 100, false), Reception::Validate);
        assert_eq!(receive(25, 100, true), Reception::Accept);
        assert_eq!(receive(100, 100, true), Reception::Refuse);
        assert_eq!(receive(0, 1, false), Reception::Validate);
    }
}
