//! How often who was refused what: a counter for each role and rule, to be read by operators, and few log lines.

use impresario_client::objects::protocol::Refused;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Different counters that are kept; what goes beyond is counted together.
const COUNTERS: usize = 256;
/// Under which name.
const REST: &str = "other";
/// A peer's refusals are logged so often at most; those in between are only counted.
const QUIET: Duration = Duration::from_secs(10);
/// Peers of which it is known when they were logged.
const PEERS: usize = 1024;

/// The counters of one process.
#[derive(Debug, Default)]
pub struct Refusals {
    counters: Mutex<BTreeMap<(String, String), u64>>,
    logged: Mutex<HashMap<String, Logged>>,
}

/// When a peer's refusal was logged last, and how many have gone unsaid since.
#[derive(Debug)]
struct Logged {
    at: Instant,
    unsaid: u64,
}

impl Refusals {
    /// Counts one refusal.
    pub fn count(&self, role: &str, rule: &str) {
        let mut counters = self.counters.lock();
        let mut key = (role.to_owned(), rule.to_owned());
        if counters.len() >= COUNTERS && !counters.contains_key(&key) {
            key = (REST.into(), REST.into());
        }
        *counters.entry(key).or_default() += 1;
    }

    /// Whether a refusal of this peer is to be logged now, and then how many went unsaid before it: a flood of
    /// refusals is no flood of lines.
    pub fn is_to_be_logged(&self, peer: &str, now: Instant) -> Option<u64> {
        let mut logged = self.logged.lock();
        if let Some(known) = logged.get_mut(peer) {
            if now.saturating_duration_since(known.at) < QUIET {
                known.unsaid += 1;
                return None;
            }
            known.at = now;
            return Some(std::mem::take(&mut known.unsaid));
        }
        if logged.len() >= PEERS {
            logged.retain(|_, known| now.saturating_duration_since(known.at) < QUIET);
            if logged.len() >= PEERS {
                return None;
            }
        }
        logged.insert(peer.to_owned(), Logged { at: now, unsaid: 0 });
        Some(0)
    }

    /// All counters, in the order of role and rule.
    pub fn read(&self) -> Vec<Refused> {
        let counters = self.counters.lock();
        let all = counters.iter().map(|((role, rule), count)| Refused {
            role: role.clone(),
            rule: rule.clone(),
            count: *count,
        });
        all.collect()
    }

    /// How many refusals there were.
    pub fn total(&self) -> u64 {
        self.counters.lock().values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::clock;

    #[test]
    fn a_flood_of_refusals_is_a_line_now_and_then_that_says_how_many() {
        let (refusals, start) = (Refusals::default(), clock::now());
        assert_eq!(refusals.is_to_be_logged("n1", start), Some(0));
        for _ in 0..500 {
            assert_eq!(refusals.is_to_be_logged("n1", start), None);
        }
        assert_eq!(refusals.is_to_be_logged("n2", start), Some(0), "another peer's are its own");
        assert_eq!(refusals.is_to_be_logged("n1", start + QUIET), Some(500));
        for peer in 0..2 * PEERS {
            refusals.is_to_be_logged(&format!("p{peer}"), start + QUIET);
        }
        assert!(refusals.logged.lock().len() <= PEERS, "bounded whoever comes");
    }
}
