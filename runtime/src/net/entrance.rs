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

mod accept;

use crate::{
    config::Limits,
    name::NodeName,
    pki::{PeerIdentity, PeerRole},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
