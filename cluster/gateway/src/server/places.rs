//! Places for connections: so many in all, so many in their handshake, so many of strangers, so many
//! of one user.
//!
//! A newcomer always gets one of the places for handshakes, and a stranger one of those for strangers:
//! when there is none left, one of those from the address with most of them makes room, the one that
//! has been idle longest, or else busy longest. So strangers keep each other out, and nobody else.
//! Whoever showed a credential makes room for others only where known users have all the places that are for them:
//! then one connection of the user that has most of them does, the system's own users aside, for which and for
//! newcomers an eighth of all places is kept. So however many credentials somebody has, who has few connections
//! keeps them, and gets one.

use super::connection::{Connection, Stage};
use crate::budget::Holder;
use crate::limits::Limits;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// One in so many places is not for users without rights that are known.
const KEPT: usize = 8;

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
#[error("all connections are in use, each by another user that runs the cluster")]
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
            let made = taken.make_room(u64::MAX, unknown);
            let made = made.or_else(|| taken.crowd_makes_room(u64::MAX, 0, false));
            made.or_else(|| taken.crowd_makes_room(u64::MAX, 1, true)).ok_or(Full)?;
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
        let mut taken = self.places.taken();
        taken.keep_below(most, self.number, |other| other == stage);
        if is_common(stage) {
            let most = limits.connections - limits.connections / KEPT;
            let count = taken.connections.values().filter(|(_, one)| one.is(is_common)).count();
            for _ in most..count {
                if taken.crowd_makes_room(self.number, 0, false).is_none() {
                    return;
                }
            }
        }
    }
}

/// Whether it is of a known user that is not the system's own.
fn is_common(stage: &Stage) -> bool {
    matches!(stage, Stage::Known(user) if !user.is_system())
}

impl Taken {
    /// Ends a connection of the user that has most of them, and more than `least`: of those that are the system's
    /// own, or of the others.
    fn crowd_makes_room(&mut self, spared: u64, least: usize, system: bool) -> Option<()> {
        let mut counts: HashMap<Holder, usize> = HashMap::new();
        for (number, (_, one)) in &self.connections {
            if let Stage::Known(user) = one.stage()
                && user.is_system() == system
            {
                // The one that is spared counts, but cannot be the one that goes.
                let count = counts.entry(user).or_default();
                *count += usize::from(*number != spared);
            }
        }
        let crowd = counts.into_iter().filter(|(_, count)| *count > least);
        let (user, _) = crowd.max_by_key(|(_, count)| *count)?;
        let crowd = Stage::Known(user);
        self.make_room(spared, |stage| *stage == crowd)
    }

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
    use impresario_runtime::clock;
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
        let start = clock::now();
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
        let start = clock::now();
        let places = Places::of(limits(99, 4, 4, 9));
        let honest = connection(start, 0);
        let _honest = places.take(from(1), &honest).unwrap();
        let crowd: Vec<_> = (1..40).map(|second| connection(start, second)).collect();
        let _crowd: Vec<_> = crowd.iter().map(|one| places.take(from(2), one).unwrap()).collect();
        assert!(!is_evicted(&honest), "in its handshake, while others begin and begin");
        assert_eq!(crowd.iter().filter(|one| is_evicted(one)).count(), 36);
    }

    fn known(
        places: &Arc<Places>,
        start: Instant,
        second: u64,
        user: &Holder,
    ) -> Result<(Arc<Connection>, Place), Full> {
        let one = connection(start, second);
        let place = places.take(from(1), &one)?;
        one.greeted(None, false, start + Duration::from_secs(second));
        one.recognise(user);
        place.reached(&one.stage());
        Ok((one, place))
    }

    #[test]
    fn users_that_take_all_they_can_make_room_for_those_with_few() {
        let start = clock::now();
        let places = Places::of(limits(16, 9, 9, 9));
        let (first, second) = (Holder::named("first"), Holder::named("second"));
        let (admin, late) = (Holder::master("admin"), Holder::named("late"));
        let early = known(&places, start, 0, &Holder::named("early")).unwrap();
        let rules = known(&places, start, 0, &admin).unwrap();
        let crowd: Vec<_> = (1..50)
            .map(|n| known(&places, start, n, if n % 2 == 0 { &first } else { &second }).unwrap())
            .collect();
        let stays = |some: &[(Arc<Connection>, Place)]| {
            some.iter().filter(|one| !is_evicted(&one.0)).count()
        };
        let left: Vec<_> = crowd.into_iter().filter(|one| !is_evicted(&one.0)).collect();
        assert_eq!(left.len(), 13, "an eighth is kept, and early has one");
        let late = known(&places, start, 60, &late).unwrap();
        let more: Vec<_> =
            (61..63).map(|second| known(&places, start, second, &admin).unwrap()).collect();
        assert!(![&early, &rules, &late].into_iter().any(|one| is_evicted(&one.0)));
        assert_eq!((stays(&left), stays(&more)), (11, 2));
    }

    #[test]
    fn where_the_system_has_all_places_the_one_with_most_makes_room_and_one_each_stays() {
        let start = clock::now();
        let places = Places::of(limits(3, 9, 1, 2));
        let (ann, bob, cat) = (Holder::master("ann"), Holder::master("bob"), Holder::master("cat"));
        let first = known(&places, start, 0, &ann).unwrap();
        let _second = known(&places, start, 1, &ann).unwrap();
        let other = known(&places, start, 2, &bob).unwrap();
        let third = known(&places, start, 3, &cat).unwrap();
        assert_eq!([&first, &other, &third].map(|it| is_evicted(&it.0)), [true, false, false]);
        assert_eq!(known(&places, start, 4, &ann).unwrap_err(), Full, "each has one");
        drop((other, third));
        let passes = connection(start, 5);
        let _passes = stranger(&places, 1, &passes, start);
        let _next = stranger(&places, 1, &connection(start, 6), start);
        assert!(is_evicted(&passes), "strangers keep each other out alone");
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
