//! Which faults happen when: a function of the seed and the duration, and of nothing else.
//!
//! About one fault begins every five seconds, and faults overlap. The first three kill the leader,
//! pause a node and cut one off, in an order of the seed, so that even a short run breaks
//! something that matters; then all kinds come, shuffled, before any comes again. The leader is named as
//! such: who it is when the time comes is found out then. No fault outlasts the duration, and a node that was killed is started again.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use std::time::Duration;

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The leader of the registry at that time.
    Leader,
    /// The node of this number, from 0.
    Node(usize),
    /// All nodes at once.
    All,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// kill -9, and a new start when the fault is over.
    Kill,
    /// kill -9 of all nodes at once, as when the power fails, and a new start of all.
    Blackout,
    /// SIGSTOP, and SIGCONT when the fault is over.
    Pause,
    /// The node is cut off from all others, both ways.
    Isolate,
    /// The node hears nobody, but is heard.
    Deafen,
    /// The node loses some of what it sends and gets, and says some of it twice.
    Lose,
    /// Everything that the node sends is late by 150 ms, some of it overtaken or sent twice.
    Delay,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Kill,
        Self::Blackout,
        Self::Pause,
        Self::Isolate,
        Self::Deafen,
        Self::Lose,
        Self::Delay,
    ];

    /// Whether it is the node's links that are broken, and not the node.
    #[must_use]
    pub fn is_of_links(self) -> bool {
        match self {
            Self::Isolate | Self::Deafen | Self::Lose | Self::Delay => true,
            Self::Kill | Self::Blackout | Self::Pause => false,
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fault {
    /// When it begins, since the start.
    #[serde(rename = "at_s", serialize_with = "seconds")]
    pub at: Duration,
    /// How long it lasts.
    #[serde(rename = "length_s", serialize_with = "seconds")]
    pub length: Duration,
    /// What happens.
    pub kind: Kind,
    /// To whom.
    pub target: Target,
}

fn seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(in_seconds(*span))
}

/// Whole milliseconds, as seconds.
pub(crate) fn in_seconds(span: Duration) -> f64 {
    f64::from(u32::try_from(span.as_millis()).unwrap_or(u32::MAX)) / 1_000.0
}

/// The mean time between the beginnings of two faults.
const INTERVAL: Duration = Duration::from_secs(5);
/// The first fault comes when there is something to break.
const QUIET: Duration = Duration::from_secs(2);
/// How long most faults last, in milliseconds.
const SHORT: std::ops::Range<u64> = 500..8_000;
/// One in this many lasts longer, so that the node is taken for lost and its pods are replaced.
const LONG_ONE_IN: f64 = 6.0;
const LONG: std::ops::Range<u64> = 13_000..20_000;

/// The faults of a run on `nodes` nodes, in the order in which they begin.
#[must_use]
pub fn schedule(seed: u64, duration: Duration, nodes: usize) -> Vec<Fault> {
    // StdRng's algorithm may change with the crate; the lock file pins it, so a seed means the same
    // for one version of the program.
    let mut random = StdRng::seed_from_u64(seed);
    let mut first = [Kind::Kill, Kind::Pause, Kind::Isolate];
    first.shuffle(&mut random);
    let mut faults = Vec::new();
    let mut deck: Vec<Kind> = Vec::new();
    let mut at = QUIET;
    while at + Duration::from_secs(1) < duration {
        let given = first.get(faults.len()).copied();
        let kind = given.unwrap_or_else(|| {
            if deck.is_empty() {
                deck.extend(Kind::ALL);
                deck.shuffle(&mut random);
            }
            deck.pop().unwrap_or(Kind::Kill)
        });
        let of_leader = random.random_bool(0.4);
        let number = random.random_range(0..nodes);
        let target = if kind == Kind::Blackout {
            Target::All
        } else if of_leader || given == Some(Kind::Kill) {
            Target::Leader
        } else {
            Target::Node(number)
        };
        let is_long =
            given.is_none() && kind != Kind::Blackout && random.random_bool(1.0 / LONG_ONE_IN);
        let length = random.random_range(if is_long { LONG } else { SHORT });
        let length = Duration::from_millis(length).min(duration.saturating_sub(at));
        faults.push(Fault { at, length, kind, target });
        at += Duration::from_millis(
            u64::try_from(INTERVAL.as_millis()).unwrap_or(5_000) * random.random_range(50..150)
                / 100,
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_gives_another() {
        assert_eq!(schedule(7, MINUTE, 3), schedule(7, MINUTE, 3));
        assert_ne!(schedule(7, MINUTE, 3), schedule(8, MINUTE, 3));
    }

    #[test]
    fn faults_come_in_order_and_are_over_when_the_run_is() {
        for seed in 0..50 {
            let faults = schedule(seed, MINUTE, 3);
            assert!(faults.len() >= 8, "{} faults", faults.len());
            assert!(faults.is_sorted_by_key(|fault| fault.at));
            assert!(faults.iter().all(|fault| fault.at + fault.length <= MINUTE));
        }
    }

    #[test]
    fn every_run_kills_the_leader_pauses_a_node_and_cuts_one_off() {
        for seed in 0..50 {
            let faults = schedule(seed, MINUTE, 3);
            let has = |kind| faults.iter().any(|fault| fault.kind == kind);
            assert!(has(Kind::Pause) && has(Kind::Isolate), "seed {seed}");
            let kill = faults.iter().find(|fault| fault.kind == Kind::Kill);
            assert!(kill.is_some_and(|fault| fault.target == Target::Leader), "seed {seed}");
        }
    }

    #[test]
    fn a_minute_has_every_kind_of_fault() {
        for seed in 0..50 {
            let faults = schedule(seed, MINUTE, 3);
            let missing: Vec<_> =
                Kind::ALL.iter().filter(|kind| faults.iter().all(|f| f.kind != **kind)).collect();
            // Faults come faster or slower; one or two kinds may not fit in.
            assert!(missing.len() <= 2, "seed {seed}: {missing:?} of {} faults", faults.len());
            let black: Vec<_> = faults.iter().filter(|f| f.kind == Kind::Blackout).collect();
            assert!(black.iter().all(|fault| fault.target == Target::All));
        }
    }

    #[test]
    fn ten_seeds_keep_a_node_away_for_so_long_that_it_is_taken_for_lost() {
        let all = (1..=10).flat_map(|seed| schedule(seed, MINUTE, 3));
        let long = all.filter(|fault| fault.length > Duration::from_secs(13)).count();
        assert!(long >= 5, "{long} long faults");
    }
}
