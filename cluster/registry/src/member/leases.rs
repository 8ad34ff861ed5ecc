//! Who is alive, as far as the leader has heard. Plain functions of (state, event, now).
//!
//! A new leader has heard nobody, so it counts everyone as heard when its term began: a change of leader
//! takes no shard from a member that lives.

use crate::{
    protocol::{Heartbeat, Heartbeats, NodeBeat},
    shard::{ShardMove, ShardTable, assign},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// A control member that is silent for this long loses its shards.
pub const LEASE: Duration = Duration::from_secs(3);
/// A node that is silent for this long is forgotten; whoever judges nodes has judged long before.
const FORGET: Duration = Duration::from_hours(1);

/// What the leader of a term has heard.
#[derive(Debug)]
pub struct Leases {
    term: u64,
    since: Instant,
    members: BTreeMap<String, Instant>,
    nodes: BTreeMap<String, (Heartbeat, Instant)>,
}

impl Leases {
    /// A leadership that begins.
    pub fn new(term: u64, now: Instant) -> Self {
        Self { term, since: now, members: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    /// The term that it is about.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// A control member was heard.
    pub fn member_alive(&mut self, node: String, now: Instant) {
        self.members.insert(node, now);
    }

    /// A node was heard. An older life of it is not listened to.
    pub fn node_beat(&mut self, beat: Heartbeat, now: Instant) {
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
        now: Instant,
    ) -> Vec<ShardMove> {
        self.members.retain(|name, _| voters.contains(name));
        self.nodes.retain(|_, (_, heard)| now.duration_since(*heard) < FORGET);
        let heard = |name: &&String| {
            now.duration_since(*self.members.get(*name).unwrap_or(&self.since)) < LEASE
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
    pub fn heartbeats(&self, now: Instant) -> Heartbeats {
        let beat = |(beat, heard): &(Heartbeat, Instant)| NodeBeat {
            beat: beat.clone(),
            age: now - *heard,
        };
        Heartbeats { leading_for: now - self.since, nodes: self.nodes.values().map(beat).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn owners(table: &ShardTable) -> BTreeSet<String> {
        table.shards.iter().filter_map(|lease| lease.owner.clone()).collect()
    }

    #[test]
    fn shards_follow_the_living_and_a_new_leader_gives_grace() {
        let start = Instant::now();
        let all = voters(&["a", "b", "c"]);
        let mut table = ShardTable::default();
        let mut leases = Leases::new(1, start);
        for name in &all {
            leases.member_alive(name.clone(), start);
        }
        table.apply(&leases.moves(&table, &all, start));
        assert_eq!(owners(&table), all);

        let mut next = Leases::new(2, start + LEASE * 10);
        let grace = start + LEASE * 10 + LEASE / 2;
        assert!(
            next.moves(&table, &all, grace).is_empty(),
            "nobody was heard, and nobody loses a shard"
        );
        next.member_alive("a".to_owned(), grace);
        next.member_alive("b".to_owned(), grace);
        let late = start + LEASE * 11 + LEASE / 4;
        table.apply(&next.moves(&table, &all, late));
        assert_eq!(owners(&table), voters(&["a", "b"]));
    }

    #[test]
    fn a_voter_that_never_spoke_gets_no_shard() {
        let now = Instant::now();
        let mut leases = Leases::new(1, now);
        leases.member_alive("a".to_owned(), now);
        let mut table = ShardTable::default();
        table.apply(&leases.moves(&table, &voters(&["a", "b"]), now));
        assert_eq!(owners(&table), voters(&["a"]));
    }

    #[test]
    fn an_older_life_of_a_node_is_not_listened_to() {
        let now = Instant::now();
        let mut leases = Leases::new(1, now);
        let beat = |incarnation, ready| Heartbeat { node: "n".to_owned(), incarnation, ready };
        leases.node_beat(beat(2, true), now);
        leases.node_beat(beat(1, false), now + LEASE);
        let seen = leases.heartbeats(now + LEASE);
        assert_eq!(seen.nodes, [NodeBeat { beat: beat(2, true), age: LEASE }]);
    }
}
