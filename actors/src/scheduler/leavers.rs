//! Pods that were told to leave for others, and those that are not let go. No IO, no clock.
//!
//! What is written is seen again a moment later. Till then whoever was told to leave counts as leaving, so that no budget
//! is spent twice. Who may not be deleted (a webhook or a policy says no) is no victim for a while, the longer the more
//! often that was so: another one is looked for, on whatever node.

use std::collections::BTreeMap;

/// So long it is expected that one that was told to leave is seen to, in milliseconds.
const TOLD: i64 = 5_000;
/// So long one that was not let go is left alone, doubled with each time up to [`LONGEST`], in milliseconds.
const FIRST: i64 = 60_000;
const LONGEST: i64 = 1_800_000;

#[derive(Debug, Clone, Copy)]
struct Refusal {
    until: i64,
    times: u32,
}

/// All of them, by uid. Times are in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Leavers {
    told: BTreeMap<String, i64>,
    refused: BTreeMap<String, Refusal>,
    now: i64,
}

impl Leavers {
    /// Nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self { told: BTreeMap::new(), refused: BTreeMap::new(), now: 0 }
    }

    /// It is so late.
    pub fn at(&mut self, now: i64) {
        self.now = now;
        self.told.retain(|_, until| *until > now);
    }

    /// A pod is being told to leave.
    pub fn told(&mut self, uid: &str) {
        self.told.insert(uid.to_owned(), self.now + TOLD);
    }

    /// A pod was not told to leave after all.
    pub fn not_told(&mut self, uid: &str) {
        self.told.remove(uid);
    }

    /// A pod may not be deleted.
    pub fn refused(&mut self, uid: &str) {
        self.told.remove(uid);
        let times = self.refused.get(uid).map_or(0, |refusal| refusal.times);
        let wait = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        let refusal = Refusal { until: self.now + wait, times: times.saturating_add(1) };
        self.refused.insert(uid.to_owned(), refusal);
    }

    /// A pod is no more.
    pub fn gone(&mut self, uid: &str) {
        self.told.remove(uid);
        self.refused.remove(uid);
    }

    /// Whether it is no use to tell the pod to leave.
    #[must_use]
    pub fn stays(&self, uid: &str) -> bool {
        self.refused.get(uid).is_some_and(|refusal| refusal.until > self.now)
    }

    /// Those that were told to leave a moment ago.
    pub fn leaving(&self) -> impl Iterator<Item = &str> {
        self.told.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_let_go_is_left_alone_longer_each_time_until_it_is_gone() {
        let mut leavers = Leavers::new();
        leavers.at(1_000);
        leavers.told("a");
        assert_eq!(leavers.leaving().collect::<Vec<_>>(), ["a"]);
        leavers.refused("a");
        assert_eq!((leavers.stays("a"), leavers.leaving().count()), (true, 0));
        leavers.at(1_000 + FIRST);
        assert!(!leavers.stays("a"), "it is tried again");
        leavers.refused("a");
        leavers.at(1_000 + FIRST + FIRST);
        assert!(leavers.stays("a"));
        for _ in 0..40 {
            leavers.refused("a");
        }
        leavers.at(1_000 + FIRST + FIRST + LONGEST);
        assert!(!leavers.stays("a"));
        leavers.refused("a");
        leavers.gone("a");
        assert!(!leavers.stays("a"));
    }

    #[test]
    fn who_was_told_to_leave_counts_as_leaving_for_a_moment() {
        let mut leavers = Leavers::new();
        leavers.told("a");
        leavers.told("b");
        leavers.not_told("b");
        assert_eq!(leavers.leaving().collect::<Vec<_>>(), ["a"]);
        leavers.at(TOLD);
        assert_eq!(leavers.leaving().count(), 0);
    }
}
