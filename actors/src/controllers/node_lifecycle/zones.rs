//! At which pace nodes that are in trouble have their pods driven out, zone by zone.
//!
//! One node in ten seconds. Where more than 55 % of a zone are in trouble, it is more likely that the way to them is:
//! then one in a hundred seconds in a large zone, and none in a small one; and none anywhere when all nodes are
//! (Kubernetes documentation, "Nodes", "Rate limits on eviction"). A zone that is gone altogether, while another is
//! well, goes at the usual pace. When a node was the last can be read off the taints, so that a new leader goes on at
//! the same pace.

use super::taints::troubled_since;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// The share of nodes in trouble above which the way to them is more likely to be.
pub const TOO_MANY: f64 = 0.55;
/// Nodes of a zone that is small.
pub const SMALL: usize = 50;
/// From one node to the next.
pub const USUAL: SignedDuration = SignedDuration::from_secs(10);
/// The same in a large zone of which too many are in trouble.
pub const SLOW: SignedDuration = SignedDuration::from_secs(100);

/// A region and a zone of it.
pub type Zone = (String, String);

/// How fast it goes in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A node each time that so long has passed.
    Every(SignedDuration),
    /// No node at all.
    Stopped,
}

/// In which zone a node is.
#[must_use]
pub fn of(node: &Node) -> Zone {
    let label = |name: &str| {
        let labels = node.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
    };
    (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// The paces of all zones.
#[derive(Debug, Default)]
pub struct Zones {
    /// Of each, how many nodes there are and how many of these are in trouble.
    counts: HashMap<Zone, (usize, usize)>,
}

impl Zones {
    /// Of the zones of these nodes, each with whether it is in trouble.
    #[must_use]
    pub fn of(nodes: impl Iterator<Item = (Zone, bool)>) -> Self {
        let mut counts: HashMap<Zone, (usize, usize)> = HashMap::new();
        for (zone, is_in_trouble) in nodes {
            let (all, troubled) = counts.entry(zone).or_default();
            *all += 1;
            *troubled += usize::from(is_in_trouble);
        }
        Self { counts }
    }

    /// Whether no node is well.
    #[must_use]
    pub fn all_down(&self) -> bool {
        self.counts.values().all(|(all, troubled)| all == troubled)
    }

    /// How fast it goes in a zone.
    #[must_use]
    pub fn pace(&self, zone: &Zone) -> Pace {
        let (all, troubled) = self.counts.get(zone).copied().unwrap_or_default();
        match () {
            () if self.all_down() => Pace::Stopped,
            () if all == troubled || troubled as f64 <= TOO_MANY * all as f64 => Pace::Every(USUAL),
            () if all > SMALL => Pace::Every(SLOW),
            () => Pace::Stopped,
        }
    }
}

/// When the last node of each zone had its turn, also where it has come back since.
#[derive(Debug, Clone, Default)]
pub struct Turns(HashMap<Zone, Timestamp>);

impl Turns {
    /// Takes note of the turns that can be read off these nodes.
    pub fn read(&mut self, nodes: impl Iterator<Item = impl AsRef<Node>>, now: Timestamp) {
        for node in nodes {
            // One that lies ahead, by another's clock, hides no turn that was.
            let since = troubled_since(node.as_ref()).filter(|since| *since <= now);
            let Some(since) = since else { continue };
            self.take(of(node.as_ref()), since);
        }
        // A clock that was set back must not stop a zone.
        self.0.retain(|_, at| *at <= now);
    }

    /// A node of the zone has its turn.
    pub fn take(&mut self, zone: Zone, at: Timestamp) {
        let last = self.0.entry(zone).or_insert(at);
        *last = at.max(*last);
    }

    /// Whether another node of the zone may have its turn.
    #[must_use]
    pub fn may(&self, zone: &Zone, pace: Pace, now: Timestamp) -> bool {
        let Pace::Every(pause) = pace else { return false };
        self.0.get(zone).is_none_or(|last| now.duration_since(*last) >= pause)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::cells;
    use super::*;

    fn zone(name: &str) -> Zone {
        (String::new(), name.into())
    }

    #[test]
    fn the_fewer_nodes_of_a_zone_are_well_the_slower_it_goes_there() {
        let table = "
            a, in trouble of all | b      | a's pace
            0 of 3               | 0 of 0 | usual
            1 of 3               | 0 of 0 | usual
            2 of 3               | 0 of 0 | stopped
            3 of 3               | 0 of 0 | stopped
            1 of 1               | 0 of 0 | stopped
            1 of 2               | 0 of 0 | usual
            3 of 3               | 0 of 1 | usual
            3 of 3               | 2 of 2 | stopped
            2 of 3               | 2 of 2 | stopped
            27 of 50             | 0 of 0 | usual
            28 of 50             | 0 of 9 | stopped
            28 of 51             | 0 of 9 | usual
            29 of 51             | 0 of 9 | slow
            50 of 51             | 9 of 9 | slow
            51 of 51             | 9 of 9 | stopped
            51 of 51             | 8 of 9 | usual";
        for row in table.lines().skip(2) {
            let [a, b, pace] = cells(row);
            let nodes = |name: &'static str, words: &str| {
                let (troubled, all) = words.split_once(" of ").unwrap();
                let (troubled, all): (usize, usize) =
                    (troubled.parse().unwrap(), all.parse().unwrap());
                (0..all).map(move |n| (zone(name), n < troubled))
            };
            let zones = Zones::of(nodes("a", a).chain(nodes("b", b)));
            let expected = match pace {
                "usual" => Pace::Every(USUAL),
                "slow" => Pace::Every(SLOW),
                _ => Pace::Stopped,
            };
            assert_eq!(zones.pace(&zone("a")), expected, "in row {row}");
        }
    }

    #[test]
    fn each_zone_has_its_own_turns() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut turns = Turns::default();
        let may = |turns: &Turns, name: &str, second| {
            turns.may(&zone(name), Pace::Every(USUAL), at(second))
        };
        assert!(may(&turns, "a", 100));
        turns.take(zone("a"), at(100));
        turns.take(zone("a"), at(90));
        assert_eq!([may(&turns, "a", 109), may(&turns, "a", 110)], [false, true]);
        assert!(may(&turns, "b", 101));
        assert!(!turns.may(&zone("a"), Pace::Every(SLOW), at(199)));
        assert!(!turns.may(&zone("b"), Pace::Stopped, at(999)));
        // The clock was set back.
        turns.read(std::iter::empty::<std::sync::Arc<Node>>(), at(50));
        assert!(may(&turns, "a", 50));
    }

    #[test]
    fn a_taint_whose_time_lies_ahead_does_not_take_the_pace_from_a_zone() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ahead: Node = serde_json::from_value(serde_json::json!({"spec": {"taints": [{
            "key": "node.kubernetes.io/unreachable",
            "effect": "NoExecute",
            "timeAdded": at(400).to_string(),
        }]}}))
        .unwrap();
        let ahead = std::sync::Arc::new(ahead);
        let mut turns = Turns::default();
        turns.take(of(&ahead), at(100));
        for (second, may) in [(101, false), (109, false), (110, true)] {
            turns.read(std::iter::once(&ahead), at(second));
            assert_eq!(turns.may(&of(&ahead), Pace::Every(USUAL), at(second)), may, "{second}");
        }
    }
}
