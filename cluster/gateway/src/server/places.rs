//! Places for connections: so many in all, so many of one address, so many of strangers.
//!
//! When there is no place, the stranger that has been idle longest makes room, so that whoever opens
//! connections and does nothing keeps nobody out; one that does something is never closed for another.

use super::connection::Connection;
use crate::limits::Limits;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The places of one server.
#[derive(Debug)]
pub struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    connections: HashMap<u64, (IpAddr, Arc<Connection>)>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub struct Place {
    number: u64,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().connections.remove(&self.number);
    }
}

/// No place can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// The server is full.
    #[error("all connections are in use")]
    Server,
    /// So many are open from this address.
    #[error("all connections of this address are in use")]
    Address,
    /// So many strangers are there.
    #[error("all connections of clients without a credential are in use")]
    Strangers,
}

impl Places {
    /// No place is taken yet.
    pub fn of(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from there.
    pub fn take(
        self: &Arc<Self>,
        from: IpAddr,
        connection: &Arc<Connection>,
    ) -> Result<Place, Full> {
        let from = network(from);
        let mut taken = self.taken();
        if taken.connections.len() >= self.limits.connections {
            taken.make_room(|_| true).ok_or(Full::Server)?;
        }
        if taken.count(|(of, _)| *of == from) >= self.limits.per_address {
            taken.make_room(|of| of == from).ok_or(Full::Address)?;
        }
        if taken.count(|(_, connection)| connection.is_strangers()) >= self.limits.strangers {
            taken.make_room(|_| true).ok_or(Full::Strangers)?;
        }
        let number = taken.next;
        taken.next += 1;
        taken.connections.insert(number, (from, Arc::clone(connection)));
        drop(taken);
        Ok(Place { number, places: Arc::clone(self) })
    }
}

impl Taken {
    fn count(&self, which: impl Fn(&(IpAddr, Arc<Connection>)) -> bool) -> usize {
        self.connections.values().filter(|entry| which(entry)).count()
    }

    /// Ends the stranger's connection that has been idle longest, of those addresses.
    fn make_room(&mut self, of: impl Fn(IpAddr) -> bool) -> Option<()> {
        let spare = self.connections.iter().filter(|(_, (from, _))| of(*from));
        let spare = spare.filter_map(|(number, (_, one))| Some((one.spare_since()?, *number)));
        let (_, number) = spare.min()?;
        let (from, connection) = self.connections.remove(&number)?;
        tracing::debug!(%from, "an idle connection made room for another");
        connection.evict();
        Some(())
    }
}

/// The addresses that one client can have at will count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::time::{Duration, Instant};

    fn limits(connections: usize, per_address: usize, strangers: usize) -> Limits {
        Limits { connections, per_address, strangers, ..Limits::default() }
    }

    fn connection(start: Instant, second: u64) -> Arc<Connection> {
        Arc::new(Connection::begin(start + Duration::from_secs(second)))
    }

    #[test]
    fn the_stranger_that_was_idle_longest_makes_room() {
        let start = Instant::now();
        let places = Places::of(limits(9, 9, 2));
        let all: Vec<_> = (0..3).map(|second| connection(start, second)).collect();
        let from = |last: u8| IpAddr::from([127, 0, 0, last]);
        let _first = places.take(from(1), &all[0]).unwrap();
        let _second = places.take(from(2), &all[1]).unwrap();
        let third = places.take(from(3), &all[2]).unwrap();
        let evicted: Vec<bool> =
            all.iter().map(|one| one.evicted().now_or_never().is_some()).collect();
        assert_eq!(evicted, [true, false, false]);
        // A place that is given back is there again, and the one taken away stays taken away.
        drop(third);
        let next = connection(start, 9);
        let _next = places.take(from(4), &next).unwrap();
        assert!(all[1].evicted().now_or_never().is_none());
    }

    #[test]
    fn whoever_does_something_or_is_known_is_not_closed_for_another() {
        let start = Instant::now();
        let (busy, known) = (connection(start, 0), connection(start, 1));
        busy.ask();
        known.recognise();
        let from = IpAddr::from([10, 0, 0, 1]);
        for (limits, full) in [
            (limits(2, 9, 9), Full::Server),
            (limits(9, 2, 9), Full::Address),
            (limits(9, 9, 1), Full::Strangers),
        ] {
            let places = Places::of(limits);
            let _places = [&known, &busy]
                .map(|one| places.take(from, one).unwrap_or_else(|_| panic!("{full}")));
            assert_eq!(places.take(from, &connection(start, 2)).unwrap_err(), full);
        }
    }

    #[test]
    fn addresses_that_one_client_has_at_will_count_as_one() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("fd00::1", "fd00::ffff:1"));
        assert!(!same("fd00::1", "fd00:0:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
