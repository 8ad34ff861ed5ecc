//! Who is alive, as far as the leader has heard. Plain functions of (state, event, now).
//!
//! A new leader has heard nobody, so it counts everyone as heard when its term began: a change of leader
//! takes no shard from a member that lives. So has one that was paused, or whose machine slept: its own looks came
//! late, and the silence was its own.

use crate::{
    Life,
    clock::BootTime,
    protocol::{Heartbeat, Heartbeats, LeadAlive, NodeBeat},
    raft::heard::EARLIER_LIFE,
    shard::{ShardMove, ShardTable, assign},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A control member that is silent for this long loses its shards.
pub const LEASE: Duration = Duration::from_secs(3);
/// How long the leader is given to hear.
pub const BEAT_LIMIT: Duration = Duration::from_secs(1);
/// A leader that has not looked for this long was paused; it looks every half second.
const PAUSED: Duration = Duration::from_millis(1500);
/// A node that is silent for this long is forgotten; whoever judges nodes has judged long before.
const FORGET: Duration = Duration::from_hours(1);

/// What a control member said last.
#[derive(Debug, Clone, Copy)]
struct Alive {
    generation: Life,
    heard: BootTime,
    /// The latest life before that one, and when it was heard last. A copy and its original may speak by turns.
    earlier: Option<(Life, BootTime)>,
    /// Whether its disk takes writes.
    room: bool,
}

/// What the leader of a term has heard.
#[derive(Debug)]
pub struct Leases {
    term: u64,
    /// Silence counts from here at the earliest.
    since: BootTime,
    looked: BootTime,
    members: BTreeMap<String, Alive>,
    nodes: BTreeMap<String, (Heartbeat, BootTime)>,
}

impl Leases {
    /// A leadership that begins.
    pub fn new(term: u64, now: BootTime) -> Self {
        let (members, nodes) = (BTreeMap::new(), BTreeMap::new());
        Self { term, since: now, looked: now, members, nodes }
    }

    /// The term that it is about.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The leader looks. If it has not for long, everyone gets a fresh start.
    fn look(&mut self, now: BootTime) {
        if now.since(self.looked) >= PAUSED {
            self.since = now;
        }
        self.looked = now;
    }

    /// A control member was heard.
    pub fn member_alive(&mut self, alive: LeadAlive, now: BootTime) {
        let LeadAlive { node, generation, room } = alive;
        let (generation, earlier) = match self.members.get(&node) {
            Some(known) if known.generation.number() < generation.number() => {
                (generation, Some((known.generation, known.heard)))
            }
            Some(known) if known.generation.number() > generation.number() => {
                (known.generation, Some((generation, now)))
            }
            Some(known) => (generation, known.earlier),
            None => (generation, None),
        };
        self.members.insert(node, Alive { generation, heard: now, earlier, room });
    }

    /// Whether the term is so young that who is alive may not have been heard in it.
    pub fn is_new(&self, now: BootTime) -> bool {
        now.since(self.since) < EARLIER_LIFE
    }

    /// When a control member was last heard in a life before this one, if it was within the lease.
    pub fn earlier_life(&self, node: &str, generation: Life, now: BootTime) -> Option<BootTime> {
        let alive = self.members.get(node)?;
        let lives = [Some((alive.generation, alive.heard)), alive.earlier].into_iter().flatten();
        let earlier = lives.filter(|(life, _)| life.number() < generation.number());
        earlier.map(|(_, heard)| heard).find(|heard| now.since(*heard) < LEASE)
    }

    /// Those of the voters that have not been heard within the lease. A leader that is new to it has heard nobody yet.
    pub fn silent(&self, voters: &BTreeSet<String>, now: BootTime) -> BTreeSet<String> {
        let is_heard = |name: &&String| {
            self.members.get(*name).is_some_and(|alive| now.since(alive.heard) < LEASE)
        };
        voters.iter().filter(|name| !is_heard(name)).cloned().collect()
    }

    /// The members whose disks had no room when they were last heard.
    pub fn without_room(&self) -> BTreeSet<String> {
        let without = self.members.iter().filter(|(_, alive)| !alive.room);
        without.map(|(name, _)| name.clone()).collect()
    }

    /// A node was heard. An older life of it is not listened to.
    pub fn node_beat(&mut self, beat: Heartbeat, now: BootTime) {
        match self.nodes.get(&beat.node) {
            Some((known, _)) if known.incarnation > beat.incarnation => {}
            _ => {
                self.nodes.insert(beat.node.clone(), (beat, now));
            }
        }
    }

    /// The shards that must move so that the living voters hold them all.
    pub fn moves(
        &mut self,
        table: &ShardTable,
        voters: &BTreeSet<String>,
        now: BootTime,
    ) -> Vec<ShardMove> {
        self.look(now);
        self.members.retain(|name, _| voters.contains(name));
        self.nodes.retain(|_, (_, heard)| now.since(*heard) < FORGET);
        let heard = |name: &&String| {
            let heard = self.members.get(*name).map_or(self.since, |alive| alive.heard);
            now.since(heard.max(self.since)) < LEASE
        };
        let live: Vec<String> = voters.iter().filter(heard).cloned().collect();
        // A member that owns nothing yet and was never heard may not run at all: it gets shards once it speaks.
        let settled = |name: &&String| {
            self.members.contains_key(*name) || table.held_by(name).next().is_some()
        };
        let live: Vec<String> = live.iter().filter(settled).cloned().collect();
        assign(table, &live)
    }

    /// The heartbeats of nodes.
    pub fn heartbeats(&mut self, now: BootTime) -> Heartbeats {
        self.look(now);
        let beat = |(beat, heard): &(Heartbeat, BootTime)| NodeBeat {
            beat: beat.clone(),
            age: now.since((*heard).max(self.since)),
        };
        let nodes = self.nodes.values().map(beat).collect();
        Heartbeats { leading_for: now.since(self.since), nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn alive(name: &str) -> LeadAlive {
        LeadAlive { node: name.to_owned(), generation: Life::numbered(1), room: true }
    }

    fn owners(table: &ShardTable) -> BTreeSet<String> {
        table.shards.iter().filter_map(|lease| lease.owner.clone()).collect()
    }

    #[test]
    fn shards_follow_the_living_and_a_new_leader_gives_grace() {
        let start = BootTime::now();
        let all = voters(&["a", "b", "c"]);
        let mut table = ShardTable::default();
        let mut leases = Leases::new(1, start);
        for name in &all {
            leases.member_alive(alive(name), start);
        }
        table.apply(&leases.moves(&table, &all, start));
        assert_eq!(owners(&table), all);

        let mut next = Leases::new(2, start + LEASE * 10);
        let grace = start + LEASE * 10 + LEASE / 3;
        assert!(
            next.moves(&table, &all, grace).is_empty(),
            "nobody was heard, and nobody loses a shard"
        );
        next.member_alive(alive("a"), grace);
        next.member_alive(alive("b"), grace);
        assert!(next.moves(&table, &all, grace + LEASE / 3).is_empty());
        let late = start + LEASE * 11 + LEASE / 12;
        table.apply(&next.moves(&table, &all, late));
        assert_eq!(owners(&table), voters(&["a", "b"]));
    }

    #[test]
    fn a_voter_that_never_spoke_gets_no_shard() {
        let now = BootTime::now();
        let mut leases = Leases::new(1, now);
        leases.member_alive(alive("a"), now);
        let mut table = ShardTable::default();
        table.apply(&leases.moves(&table, &voters(&["a", "b"]), now));
        assert_eq!(owners(&table), voters(&["a"]));
    }

    #[test]
    fn an_older_life_of_a_node_is_not_listened_to() {
        let now = BootTime::now();
        let mut leases = Leases::new(1, now);
        let beat = |incarnation, ready| Heartbeat { node: "n".to_owned(), incarnation, ready };
        leases.node_beat(beat(2, true), now);
        leases.node_beat(beat(1, false), now + PAUSED / 2);
        let seen = leases.heartbeats(now + PAUSED / 2);
        assert_eq!(seen.nodes, [NodeBeat { beat: beat(2, true), age: PAUSED / 2 }]);
    }

    #[test]
    fn a_leader_that_slept_or_was_paused_blames_nobody_for_its_own_silence() {
        let start = BootTime::now();
        let all = voters(&["a", "b"]);
        let (mut table, mut leases) = (ShardTable::default(), Leases::new(1, start));
        for name in &all {
            leases.member_alive(alive(name), start);
        }
        let node = Heartbeat { node: "n".to_owned(), incarnation: 1, ready: true };
        leases.node_beat(node, start);
        table.apply(&leases.moves(&table, &all, start));
        let woke = start + LEASE * 1000;
        assert!(leases.moves(&table, &all, woke).is_empty(), "nobody could be heard");
        let seen = leases.heartbeats(woke);
        assert_eq!((seen.nodes[0].age, seen.leading_for), (Duration::ZERO, Duration::ZERO));
        leases.member_alive(alive("a"), woke + LEASE / 3);
        for thirds in 1..=3 {
            let moves = leases.moves(&table, &all, woke + LEASE / 3 * thirds);
            assert_eq!(moves.is_empty(), thirds < 3, "silence counts from the awakening");
            table.apply(&moves);
        }
        assert_eq!(owners(&table), voters(&["a"]));
    }

    #[test]
    fn an_earlier_life_is_one_that_was_heard_within_the_lease() {
        let now = BootTime::now();
        let mut leases = Leases::new(1, now);
        leases.member_alive(LeadAlive { generation: Life::numbered(4), ..alive("a") }, now);
        assert_eq!(leases.earlier_life("a", Life::numbered(5), now + LEASE / 2), Some(now));
        assert_eq!(leases.earlier_life("a", Life::numbered(4), now + LEASE / 2), None);
        assert_eq!(leases.earlier_life("a", Life::numbered(5), now + LEASE), None);
    }

    #[test]
    fn an_earlier_life_is_heard_though_the_later_one_speaks_as_well() {
        let now = BootTime::now();
        let mut leases = Leases::new(1, now);
        let says = |life| LeadAlive { generation: Life::numbered(life), ..alive("a") };
        let mut last = now;
        for half_seconds in 0..10 {
            last = now + Duration::from_millis(500) * half_seconds;
            leases.member_alive(says(4), last);
            leases.member_alive(says(5), last);
            assert_eq!(leases.earlier_life("a", Life::numbered(5), last), Some(last));
        }
        leases.member_alive(says(5), last + LEASE);
        assert_eq!(leases.earlier_life("a", Life::numbered(5), last + LEASE), None);
    }
}
