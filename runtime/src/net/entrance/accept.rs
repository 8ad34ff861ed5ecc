//! Lets those in who come, each to its peer's driver.

use super::{Place, Reception, Room, host, receive};
use crate::{
    cell::Cells,
    config::NodeConfig,
    error::StartError,
    fault::Direction,
    name::NodeName,
    net::{
        handshake::{self, Arrival, Unused, code},
        join,
        network::Network,
    },
    pki::{ALPN_JOIN, ALPN_NODE},
    refusals::Cause,
};
use quinn::{Connection, Incoming, crypto::rustls::HandshakeData};
use std::sync::Arc;
use tokio::time::timeout;

impl Network {
    /// Binds the endpoint and starts to accept.
    pub(crate) fn start(
        config: &NodeConfig,
        name: NodeName,
        incarnation: u64,
        cells: Arc<Cells>,
    ) -> Result<Arc<Self>, StartError> {
        let network = Self::bind(config, name, incarnation, cells)?;
        network.tasks.spawn(network.clone().accept());
        Ok(network)
    }

    async fn accept(self: Arc<Self>) {
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
        let name = arrival.identity.shown_name(arrival.hello.incarnation);
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
