//! Which faults happen when: a function of the seed and the duration, and of nothing else.
//!
//! About one fault begins every five seconds, and faults overlap. The leader is named as such: who
//! it is when the time comes is found out then. No fault outlasts the duration, and a node that was
//! killed is started again.

use rand::rngs::StdRng;
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
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// kill -9, and a new start when the fault is over.
    Kill,
    /// SIGSTOP, and SIGCONT when the fault is over.
    Pause,
    /// The node is cut off from all others, both ways.
    Isolate,
    /// The node hears nobody, but is heard.
    Deafen,
    /// The node loses a third of what it sends and gets.
    Lose,
    /// Everything that the node sends is late by up to 150 ms.
    Delay,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// What happens.
    pub kind: Kind,
    /// To whom.
    pub target: Target,
}

/// The mean time between the beginnings of two faults.
const INTERVAL: Duration = Duration::from_secs(5);
/// The first fault comes when there is something to break.
const QUIET: Duration = Duration::from_secs(2);

/// The faults of a run on `nodes` nodes, in the order in which they begin.
#[must_use]
pub fn schedule(seed: u64, duration: Duration, nodes: usize) -> Vec<Fault> {
    // StdRng's algorithm may change with the crate; the lock file pins it, so a seed means the same
    // for one version of the program.
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    let mut at = QUIET;
    while at + Duration::from_secs(2) < duration {
        let kind = match random.random_range(0..10) {
            0..=3 => Kind::Kill,
            4..=5 => Kind::Pause,
            6 => Kind::Isolate,
            7 => Kind::Deafen,
            8 => Kind::Lose,
            _ => Kind::Delay,
        };
        let target = if random.random_bool(0.4) {
            Target::Leader
        } else {
            Target::Node(random.random_range(0..nodes))
        };
        let longest = if kind == Kind::Kill { 4_000 } else { 8_000 };
        let length = Duration::from_millis(random.random_range(500..longest));
        faults.push(Fault { at, length: length.min(duration.saturating_sub(at)), kind, target });
        at += INTERVAL.mul_f64(random.random_range(0.5..1.5));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_gives_another() {
        let minute = Duration::from_secs(60);
        assert_eq!(schedule(7, minute, 3), schedule(7, minute, 3));
        assert_ne!(schedule(7, minute, 3), schedule(8, minute, 3));
    }

    #[test]
    fn faults_come_in_order_and_are_over_when_the_run_is() {
        let minute = Duration::from_secs(60);
        for seed in 0..50 {
            let faults = schedule(seed, minute, 3);
            assert!(faults.len() >= 8, "{} faults", faults.len());
            assert!(faults.is_sorted_by_key(|fault| fault.at));
            assert!(faults.iter().all(|fault| fault.at + fault.length <= minute));
        }
    }

    #[test]
    fn ten_seeds_kill_the_leader_and_cut_links() {
        let minute = Duration::from_secs(60);
        let all: Vec<_> = (0..10).flat_map(|seed| schedule(seed, minute, 3)).collect();
        let has = |kind, target| all.iter().any(|f| f.kind == kind && f.target == target);
        assert!(has(Kind::Kill, Target::Leader));
        assert!(has(Kind::Pause, Target::Leader));
        assert!(all.iter().any(|f| f.kind == Kind::Isolate));
    }
}
