//! Who comes in: connections that are being made, until their peer's driver has them.
//!
//! ```text
//! room, few strangers       the handshake begins
//! many are being made       an address that nobody knows must first show that it is one (QUIC's retry, RFC 9000 §8.1)
//! no room for strangers     they are refused; half of the room is kept for the addresses of nodes that are known
//! ```
//!
//! One who has said who it is leaves this room for a place among the connections.

use super::{
    handshake::{self, Arrival, code},
    join,
    network::Network,
};
use crate::{
    config::Limits,
    fault::Direction,
    pki::{ALPN_JOIN, ALPN_NODE},
    refusals::Cause,
};
use quinn::{Connection, Incoming, crypto::rustls::HandshakeData};
use std::sync::Arc;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Connections that are being made, and those that stand.
pub(crate) struct Entrance {
    /// For addresses of nodes that are known.
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    most: usize,
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
            connections: Arc::new(Semaphore::new(limits.connections)),
            most,
        }
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
    fn admit(&self, incoming: Incoming) -> Option<(Incoming, OwnedSemaphorePermit)> {
        let from = incoming.remote_address();
        let entrance = &self.entrance;
        let room = if self.addresses.knows(from) { &entrance.known } else { &entrance.strangers };
        let making = entrance.most - room.available_permits();
        let validated = incoming.remote_address_validated();
        match receive(making, entrance.most, validated) {
            Reception::Accept => {
                if let Ok(permit) = room.clone().try_acquire_owned() {
                    return Some((incoming, permit));
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
    async fn receive(self: &Arc<Self>, incoming: Incoming, permit: OwnedSemaphorePermit) {
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
        let name = crate::node::shown_name(&arrival.identity, arrival.hello.incarnation);
        let Ok(_stands) = self.entrance.connections.clone().try_acquire_owned() else {
            self.refusals.count(role.word(), Cause::Connections, "runtime.Connect", &name);
            return handshake::close(&connection, code::FULL, "too many connections: try later");
        };
        drop(permit);
        // The socket that a node dials from is the one it listens on; a client is never dialled.
        if !role.is_shared() {
            self.addresses.set(name.clone(), from);
        }
        if self.faults.is_cut(&name, role.is_shared(), Direction::Receive) {
            handshake::close(&connection, code::REPLACED, "");
            return;
        }
        if self.peer(&name).arrivals.send(arrival).await.is_ok() {
            connection.closed().await;
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
