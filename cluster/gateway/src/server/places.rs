//! Places for connections: so many in all, so many in their handshake, so many of strangers, so many
//! of one user.
//!
//! A newcomer always gets one of the places for handshakes, and a stranger one of those for strangers:
//! when there is none left, one of those from the address with most of them makes room, the one that
//! has been idle longest, or else busy longest. So strangers keep each other out, and nobody else.
//! Whoever showed a credential is never closed for another user.

use super::connection::{Connection, Stage};
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
#[error("all connections are in use by clients with a credential")]
pub struct Full;

impl Places {
    /// No place is taken yet.
    pub fn of(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from there, whose handshake begins.
    pub fn take(
        self: &Arc<Self>,
        from: IpAddr,
        connection: &Arc<Connection>,
    ) -> Result<Place, Full> {
        let from = network(from);
        let mut taken = self.taken();
        taken.keep_below(self.limits.handshakes, u64::MAX, |stage| *stage == Stage::Greeting);
        if taken.connections.len() >= self.limits.connections {
            let unknown = |stage: &Stage| !matches!(stage, Stage::Known(_));
            taken.make_room(u64::MAX, unknown).ok_or(Full)?;
        }
        let number = taken.next;
        taken.next += 1;
        taken.connections.insert(number, (from, Arc::clone(connection)));
        drop(taken);
        Ok(Place { number, places: Arc::clone(self) })
    }
}

impl Place {
    /// The connection has come to this stage, where others of its kind make room for it.
    pub fn reached(&self, stage: &Stage) {
        let limits = &self.places.limits;
        let most = match stage {
            Stage::Greeting => return,
            Stage::Stranger => limits.strangers,
            Stage::Known(_) => limits.per_user,
        };
        // It is counted itself.
        let most = most.saturating_add(1);
        self.places.taken().keep_below(most, self.number, |other| other == stage);
    }
}

impl Taken {
    /// Makes room until fewer than so many are of a kind, for the one of this number.
    fn keep_below(&mut self, most: usize, spared: u64, kind: impl Fn(&Stage) -> bool + Copy) {
        let count = self.connections.values().filter(|(_, one)| one.is(kind)).count();
        for _ in most..=count {
            if self.make_room(spared, kind).is_none() {
                return;
            }
        }
    }

    /// Ends a connection of a kind, from the address with most of them: the one that has been idle
    /// longest, else the one that has been busy longest.
    fn make_room(&mut self, spared: u64, kind: impl Fn(&Stage) -> bool) -> Option<()> {
        let mut spare: HashMap<IpAddr, Vec<_>> = HashMap::new();
        for (number, (from, one)) in &self.connections {
            if *number != spared && one.is(&kind) {
                spare.entry(*from).or_default().push((one.since(), *number));
            }
        }
        let crowd = spare.into_values().max_by_key(Vec::len)?;
        let (_, number) = crowd.into_iter().min()?;
        let (from, connection) = self.connections.remove(&number)?;
        tracing::debug!(%from, "a connection made room for another");
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

    fn limits(connections: usize, handshakes: usize, strangers: usize, per_user: usize) -> Limits {
        Limits { connections, per_user, strangers, handshakes, ..Limits::default() }
    }

    fn connection(start: Instant, second: u64) -> Arc<Connection> {
        Arc::new(Connection::begin(start + Duration::from_secs(second)))
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn is_evicted(connection: &Connection) -> bool {
        connection.evicted().now_or_never().is_some()
    }

    /// A stranger in its place.
    fn stranger(places: &Arc<Places>, address: u8, one: &Arc<Connection>, at: Instant) -> Place {
        let place = places.take(from(address), one).unwrap();
        one.greeted(None, false, at);
        place.reached(&Stage::Stranger);
        place
    }

    #[test]
    fn the_stranger_that_was_idle_longest_makes_room_and_then_the_one_busy_longest() {
        let start = Instant::now();
        let places = Places::of(limits(9, 9, 2, 9));
        let all: Vec<_> = (0..4).map(|second| connection(start, second)).collect();
        let at = |second| start + Duration::from_secs(second);
        let _first = stranger(&places, 1, &all[0], at(0));
        let _second = stranger(&places, 1, &all[1], at(1));
        all[0].ask(at(2));
        let _third = stranger(&places, 1, &all[2], at(3));
        assert_eq!([0, 1, 2].map(|n| is_evicted(&all[n])), [false, true, false]);
        all[2].ask(at(3));
        let _fourth = stranger(&places, 1, &all[3], at(4));
        assert!(is_evicted(&all[0]), "busy for longest");
        assert!(!is_evicted(&all[3]), "whoever comes gets a place");
    }

    #[test]
    fn who_has_most_places_makes_room_for_who_has_few() {
        let start = Instant::now();
        let places = Places::of(limits(99, 4, 4, 9));
        let honest = connection(start, 0);
        let _honest = places.take(from(1), &honest).unwrap();
        let crowd: Vec<_> = (1..40).map(|second| connection(start, second)).collect();
        let _crowd: Vec<_> = crowd.iter().map(|one| places.take(from(2), one).unwrap()).collect();
        assert!(!is_evicted(&honest), "in its handshake, while others begin and begin");
        assert_eq!(crowd.iter().filter(|one| is_evicted(one)).count(), 36);
    }

    #[test]
    fn who_is_known_is_not_closed_for_others_but_for_its_own_user() {
        let start = Instant::now();
        let places = Places::of(limits(3, 9, 1, 2));
        let known = |second, name: &str| {
            let one = connection(start, second);
            let place = places.take(from(1), &one)?;
            one.greeted(None, false, start);
            one.recognise(name);
            place.reached(&one.stage());
            Ok::<_, Full>((one, place))
        };
        let (first, second, other) =
            (known(0, "ann").unwrap(), known(1, "ann").unwrap(), known(2, "bob").unwrap());
        assert_eq!(known(3, "ann").unwrap_err(), Full, "the server is full of known ones");
        drop(other);
        let third = known(4, "ann").unwrap();
        assert_eq!([&first, &second, &third].map(|it| is_evicted(&it.0)), [true, false, false]);
        let passes = connection(start, 5);
        let _passes = stranger(&places, 1, &passes, start);
        let _next = stranger(&places, 1, &connection(start, 6), start);
        assert!(is_evicted(&passes) && !is_evicted(&second.0));
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
