//! How often who was refused what: a counter for each role and rule, to be read by operators.

use impresario_client::objects::protocol::Refused;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Different counters that are kept; what goes beyond is counted together.
const COUNTERS: usize = 256;
/// Under which name.
const REST: &str = "other";

/// The counters of one process.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<(String, String), u64>>);

impl Refusals {
    /// Counts one refusal.
    pub fn count(&self, role: &str, rule: &str) {
        let mut counters = self.0.lock();
        let mut key = (role.to_owned(), rule.to_owned());
        if counters.len() >= COUNTERS && !counters.contains_key(&key) {
            key = (REST.into(), REST.into());
        }
        *counters.entry(key).or_default() += 1;
    }

    /// All counters, in the order of role and rule.
    pub fn read(&self) -> Vec<Refused> {
        let counters = self.0.lock();
        let all = counters.iter().map(|((role, rule), count)| Refused {
            role: role.clone(),
            rule: rule.clone(),
            count: *count,
        });
        all.collect()
    }

    /// How many refusals there were.
    pub fn total(&self) -> u64 {
        self.0.lock().values().sum()
    }
}
