//! The pods that wait for a node, and when each is looked at next. No IO; `now` is a parameter.
//!
//! ```text
//!            plan finds a node            refused, lost a race, node silent
//!  Ready ────────────────────> Placing ──────────────────────────────────> Ready after a backoff
//!    │ fits nowhere                └── bound: leaves the queue
//!    └────────────> Stuck ──something changed that may help, or a minute passed──> Ready, not
//!                           before a backoff of its own: the more often in vain, the longer
//! ```

use super::picture::Pending;
use impresario_registry_api::Key;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The shortest wait after a failed attempt; doubled with each up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// After this long a stuck pod is looked at although nothing is known to have changed.
const ANYWAY: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Ready { not_before: Instant },
    Placing,
    Stuck { since: Instant },
}

/// A pod in the queue.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What placement needs to know.
    pub pod: Pending,
    /// The object's key.
    pub key: Key,
    /// The object as it was last read.
    pub value: bytes::Bytes,
    /// The revision at which it was.
    pub revision: u64,
    /// How often a node was looked for.
    pub attempts: u32,
    /// Why it fitted nowhere the last time.
    pub message: String,
    stage: Stage,
}

/// All pods that wait.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<String, Waiting>,
}

impl Queue {
    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many of them fitted nowhere the last time.
    pub fn stuck(&self) -> usize {
        self.waiting.values().filter(|waiting| matches!(waiting.stage, Stage::Stuck { .. })).count()
    }

    /// The pod with this uid.
    pub fn get(&self, uid: &str) -> Option<&Waiting> {
        self.waiting.get(uid)
    }

    /// The pod with this key.
    pub fn named(&self, key: &Key) -> Option<&Waiting> {
        self.waiting.values().find(|waiting| waiting.key == *key)
    }

    /// The uids of all that wait.
    pub fn uids(&self) -> Vec<String> {
        self.waiting.keys().cloned().collect()
    }

    /// An unbound pod was read. A change of what placement depends on makes a stuck one ready.
    pub fn seen(
        &mut self,
        pod: Pending,
        key: Key,
        value: bytes::Bytes,
        revision: u64,
        now: Instant,
    ) {
        if let Some(waiting) = self.waiting.get_mut(&pod.uid) {
            if waiting.pod != pod && matches!(waiting.stage, Stage::Stuck { .. }) {
                waiting.stage = Stage::Ready { not_before: now };
            }
            waiting.pod = pod;
            if revision > waiting.revision {
                (waiting.value, waiting.revision) = (value, revision);
            }
        } else {
            let stage = Stage::Ready { not_before: now };
            let waiting =
                Waiting { key, value, revision, attempts: 0, message: String::new(), stage, pod };
            self.waiting.insert(waiting.pod.uid.clone(), waiting);
        }
    }

    /// A pod needs no node any more.
    pub fn remove(&mut self, uid: &str) -> Option<Waiting> {
        self.waiting.remove(uid)
    }

    /// The pods to look at now.
    pub fn ready(&self, now: Instant) -> impl Iterator<Item = &Waiting> {
        self.waiting.values().filter(move |waiting| match waiting.stage {
            Stage::Ready { not_before } => not_before <= now,
            Stage::Stuck { since } => since + ANYWAY <= now,
            Stage::Placing => false,
        })
    }

    /// When a pod will be ready that is not ready now.
    pub fn next_ready(&self, now: Instant) -> Option<Instant> {
        let when = self.waiting.values().filter_map(|waiting| match waiting.stage {
            Stage::Ready { not_before } => Some(not_before),
            Stage::Stuck { since } => Some(since + ANYWAY),
            Stage::Placing => None,
        });
        when.filter(|when| *when > now).min()
    }

    /// A node was found and is being asked.
    pub fn placing(&mut self, uid: &str) {
        if let Some(waiting) = self.waiting.get_mut(uid) {
            waiting.attempts = waiting.attempts.saturating_add(1);
            waiting.stage = Stage::Placing;
        }
    }

    /// The placement came to nothing; another attempt after a backoff.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        if let Some(waiting) = self.waiting.get_mut(uid) {
            waiting.stage = Stage::Ready { not_before: now + backoff(waiting.attempts) };
        }
    }

    /// The pod fits only where nobody can be asked before `until`.
    pub fn held(&mut self, uid: &str, until: Instant) {
        if let Some(waiting) = self.waiting.get_mut(uid) {
            waiting.stage = Stage::Ready { not_before: until };
        }
    }

    /// The pod fits nowhere. Whether that is told in other words than before.
    pub fn stuck_with(&mut self, uid: &str, message: &str, now: Instant) -> bool {
        let Some(waiting) = self.waiting.get_mut(uid) else { return false };
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.stage = Stage::Stuck { since: now };
        let is_news = waiting.message != message;
        message.clone_into(&mut waiting.message);
        is_news
    }

    /// Something changed that may help those that are stuck: each is looked at when its own backoff
    /// since it got stuck is over.
    pub fn hope(&mut self, now: Instant) {
        for waiting in self.waiting.values_mut() {
            if let Stage::Stuck { since } = waiting.stage {
                let not_before = (since + backoff(waiting.attempts)).max(now);
                waiting.stage = Stage::Ready { not_before };
            }
        }
    }
}

/// How long a pod waits after so many attempts.
fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::picture::tests::pod;

    fn queue(now: Instant) -> Queue {
        let mut queue = Queue::default();
        queue.seen(pod("a", 1), Key::new("pods", "ns", "a"), bytes::Bytes::new(), 1, now);
        queue
    }

    fn ready(queue: &Queue, now: Instant) -> usize {
        queue.ready(now).count()
    }

    #[test]
    fn a_pod_that_is_being_placed_is_not_looked_at_and_one_that_failed_waits() {
        let now = Instant::now();
        let mut queue = queue(now);
        assert_eq!(ready(&queue, now), 1);
        queue.placing("a");
        assert_eq!((ready(&queue, now), queue.next_ready(now)), (0, None));
        queue.failed("a", now);
        assert_eq!(queue.next_ready(now), Some(now + FIRST));
        for _ in 0..20 {
            queue.placing("a");
            queue.failed("a", now);
        }
        assert_eq!(queue.next_ready(now), Some(now + LONGEST));
    }

    #[test]
    fn a_stuck_pod_is_looked_at_when_something_changed_or_after_a_minute() {
        let now = Instant::now();
        let mut queue = queue(now);
        assert!(queue.stuck_with("a", "no", now));
        assert!(!queue.stuck_with("a", "no", now));
        assert_eq!((ready(&queue, now), ready(&queue, now + ANYWAY), queue.stuck()), (0, 1, 1));
        let later = now + LONGEST;
        queue.hope(later);
        assert_eq!((ready(&queue, later), queue.stuck()), (1, 0));
    }

    #[test]
    fn a_pod_that_was_tried_in_vain_more_often_waits_longer_when_there_is_hope() {
        let now = Instant::now();
        let mut queue = queue(now);
        queue.seen(pod("b", 1), Key::new("pods", "ns", "b"), bytes::Bytes::new(), 1, now);
        for _ in 0..5 {
            queue.stuck_with("a", "no", now);
        }
        queue.stuck_with("b", "no", now);
        queue.hope(now);
        let ready = |at| queue.ready(at).map(|w| w.pod.uid.clone()).collect::<Vec<_>>();
        assert_eq!(ready(now), Vec::<String>::new());
        assert_eq!(ready(now + FIRST), ["b"]);
        assert_eq!(ready(now + FIRST * 16), ["a", "b"]);
        assert_eq!(queue.next_ready(now), Some(now + FIRST));
    }

    #[test]
    fn a_pod_that_is_held_is_looked_at_when_somebody_can_be_asked() {
        let now = Instant::now();
        let mut queue = queue(now);
        queue.held("a", now + FIRST);
        assert_eq!((ready(&queue, now), ready(&queue, now + FIRST)), (0, 1));
    }

    #[test]
    fn the_scheduler_s_own_writes_do_not_wake_a_stuck_pod() {
        let now = Instant::now();
        let mut queue = queue(now);
        queue.stuck_with("a", "no", now);
        queue.seen(pod("a", 1), Key::new("pods", "ns", "a"), bytes::Bytes::new(), 2, now);
        assert_eq!((ready(&queue, now), queue.get("a").map(|w| w.revision)), (0, Some(2)));
        queue.seen(pod("a", 5), Key::new("pods", "ns", "a"), bytes::Bytes::new(), 3, now);
        assert_eq!(ready(&queue, now), 1);
    }
}
