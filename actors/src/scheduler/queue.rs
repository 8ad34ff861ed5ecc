//! The pods that wait for a node, and when each is looked at next. No IO; `now` is a parameter.
//!
//! ```text
//!            plan finds a node            refused, lost a race, node silent
//!  Ready ────────────────────> Placing ──────────────────────────────────> Ready after a backoff
//!    │ fits nowhere                └── bound: leaves the queue
//!    └────────────> Stuck ──something changed that may help, or a minute passed──> Ready, not
//!                           before a backoff of its own: the more often in vain, the longer
//!  Ready ──fits only where nobody can be asked now──> Held ──an answer, or the time for it──> Ready
//! ```

use super::{fit::Why, parties::Pending};
use impresario_registry_api::Key;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// The shortest wait after a failed attempt; doubled with each up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// After this long a stuck pod is looked at although nothing is known to have changed.
const ANYWAY: Duration = Duration::from_mins(1);
/// The same reasons are told in other numbers after so long, at the earliest.
const TOLD_AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Ready {
        not_before: Instant,
    },
    Placing,
    /// It fits only where nobody can be asked before `until`: nodes that are `busy`, or silent ones.
    Held {
        until: Instant,
        busy: bool,
    },
    Stuck {
        since: Instant,
    },
}

impl Stage {
    /// When a pod in it is looked at, if nothing happens before.
    fn look(self) -> Option<Instant> {
        match self {
            Self::Ready { not_before } => Some(not_before),
            Self::Held { until, .. } => Some(until),
            Self::Stuck { since } => Some(since + ANYWAY),
            Self::Placing => None,
        }
    }
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
    /// Why it had no node the last time.
    pub why: Option<Arc<Why>>,
    /// What its object says of that, and since when.
    told: Option<(Arc<Why>, Instant)>,
    /// Since when it fits only on nodes that do not answer.
    held_since: Option<Instant>,
    stage: Stage,
}

impl Waiting {
    /// Whether its object is to say now why it waits, which is noted: for other reasons than it says,
    /// or, after a while, in other numbers.
    fn is_news(&mut self, why: &Arc<Why>, now: Instant) -> bool {
        let is_told = self.told.as_ref().is_some_and(|(told, at)| {
            let is_fresh = now.saturating_duration_since(*at) < TOLD_AGAIN;
            told == why || (is_fresh && told.is_like(why))
        });
        if !is_told {
            self.told = Some((why.clone(), now));
        }
        !is_told
    }
}

/// All pods that wait. A pass costs what it looks at, however many wait beside.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<String, Waiting>,
    /// When each of them is looked at ([`Stage::look`]).
    looks: BTreeSet<(Instant, String)>,
    /// Those that are held.
    held: BTreeSet<String>,
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

    /// Whether some fit only where nobody can be asked, or nowhere.
    pub fn waits_in_vain(&self) -> bool {
        !self.held.is_empty() || self.stuck() > 0
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

    /// An unbound pod was read. A change of what placement depends on makes one ready that is stuck or held.
    pub fn seen(
        &mut self,
        pod: Pending,
        key: Key,
        value: bytes::Bytes,
        revision: u64,
        now: Instant,
    ) {
        if let Some(waiting) = self.waiting.get_mut(&pod.uid) {
            let is_put_off = matches!(waiting.stage, Stage::Stuck { .. } | Stage::Held { .. });
            let is_changed = waiting.pod != pod;
            let uid = is_changed.then(|| pod.uid.clone());
            waiting.pod = pod;
            if revision > waiting.revision {
                (waiting.value, waiting.revision) = (value, revision);
            }
            if let Some(uid) = uid.filter(|_| is_put_off) {
                self.enter(&uid, Stage::Ready { not_before: now });
            }
        } else {
            let stage = Stage::Ready { not_before: now };
            self.looks.insert((now, pod.uid.clone()));
            let waiting = Waiting {
                key,
                value,
                revision,
                attempts: 0,
                why: None,
                told: None,
                held_since: None,
                stage,
                pod,
            };
            self.waiting.insert(waiting.pod.uid.clone(), waiting);
        }
    }

    /// A pod needs no node any more.
    pub fn remove(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.waiting.remove(uid)?;
        self.leave(uid, waiting.stage);
        Some(waiting)
    }

    fn leave(&mut self, uid: &str, stage: Stage) {
        if let Some(at) = stage.look() {
            self.looks.remove(&(at, uid.to_owned()));
        }
        self.held.remove(uid);
    }

    /// Moves a pod to a stage.
    fn enter(&mut self, uid: &str, stage: Stage) {
        let Some(waiting) = self.waiting.get_mut(uid) else { return };
        let before = std::mem::replace(&mut waiting.stage, stage);
        self.leave(uid, before);
        if let Some(at) = stage.look() {
            self.looks.insert((at, uid.to_owned()));
        }
        if matches!(stage, Stage::Held { .. }) {
            self.held.insert(uid.to_owned());
        }
    }

    /// The pods to look at now, first those that have been due the longest.
    pub fn ready(&self, now: Instant) -> impl Iterator<Item = &Waiting> {
        let due = self.looks.iter().take_while(move |(at, _)| *at <= now);
        due.filter_map(|(_, uid)| self.waiting.get(uid))
    }

    /// When a pod will be ready that is not ready now.
    pub fn next_ready(&self, now: Instant) -> Option<Instant> {
        // The least that is later: no time is between the two.
        let later = (now + Duration::from_nanos(1), String::new());
        self.looks.range(later..).next().map(|(at, _)| *at)
    }

    /// A node was found and is being asked.
    pub fn placing(&mut self, uid: &str) {
        if let Some(waiting) = self.waiting.get_mut(uid) {
            waiting.attempts = waiting.attempts.saturating_add(1);
        }
        self.enter(uid, Stage::Placing);
    }

    /// The placement came to nothing; another attempt after a backoff.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        if let Some(waiting) = self.waiting.get(uid) {
            let not_before = now + backoff(waiting.attempts);
            self.enter(uid, Stage::Ready { not_before });
        }
    }

    /// It is not known what came of the placement: nothing is tried before `until`, unless it is told.
    pub fn unknown(&mut self, uid: &str, until: Instant) {
        self.enter(uid, Stage::Ready { not_before: until });
    }

    /// The pod fits only on nodes that are busy with other pods, until `until` at the latest.
    pub fn behind(&mut self, uid: &str, until: Instant) {
        self.enter(uid, Stage::Held { until, busy: true });
    }

    /// The pod fits only on nodes that do not answer and are not asked before `until`. Whether that is to
    /// be told, as with [`Queue::stuck_with`]: not before it has gone on for `patience`.
    pub fn held(
        &mut self,
        uid: &str,
        why: &Arc<Why>,
        until: Instant,
        patience: Duration,
        now: Instant,
    ) -> bool {
        let Some(waiting) = self.waiting.get_mut(uid) else { return false };
        let tell_at = *waiting.held_since.get_or_insert(now) + patience;
        waiting.why = Some(why.clone());
        let until = if tell_at > now { until.min(tell_at) } else { until };
        let is_news = tell_at <= now && waiting.is_news(why, now);
        self.enter(uid, Stage::Held { until, busy: false });
        is_news
    }

    /// The pod fits nowhere. Whether that is to be told.
    pub fn stuck_with(&mut self, uid: &str, why: &Arc<Why>, now: Instant) -> bool {
        let Some(waiting) = self.waiting.get_mut(uid) else { return false };
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.held_since = None;
        waiting.why = Some(why.clone());
        let is_news = waiting.is_news(why, now);
        self.enter(uid, Stage::Stuck { since: now });
        is_news
    }

    /// A node that was busy can be asked again, or is silent now: those behind it look for a node now.
    pub fn answered(&mut self, now: Instant) {
        self.wake(now, |busy| busy);
    }

    /// A node that was silent was heard: whoever is held looks for a node now.
    pub fn heard(&mut self, now: Instant) {
        self.wake(now, |_| true);
    }

    fn wake(&mut self, now: Instant, concerns: impl Fn(bool) -> bool) {
        for uid in std::mem::take(&mut self.held) {
            match self.waiting.get(&uid).map(|waiting| waiting.stage) {
                Some(Stage::Held { busy, .. }) if !concerns(busy) => {
                    self.held.insert(uid);
                }
                _ => self.enter(&uid, Stage::Ready { not_before: now }),
            }
        }
    }

    /// Something changed that may help those that fit nowhere, or nowhere now: each of whom `helps` says so is looked at
    /// when its own backoff since it got stuck is over, or a moment later.
    pub fn hope(&mut self, now: Instant, helps: impl Fn(&Pending, Option<&Why>) -> bool) {
        let looked_at = |waiting: &Waiting| match waiting.stage {
            Stage::Stuck { since } => helps(&waiting.pod, waiting.why.as_deref())
                .then(|| (since + backoff(waiting.attempts)).max(now)),
            Stage::Held { until, .. } => Some(until.min(now + FIRST)),
            Stage::Ready { .. } | Stage::Placing => None,
        };
        let hopeful: Vec<_> = self
            .waiting
            .iter()
            .filter_map(|(uid, waiting)| Some((uid.clone(), looked_at(waiting)?)))
            .collect();
        for (uid, not_before) in hopeful {
            self.enter(&uid, Stage::Ready { not_before });
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
    use crate::scheduler::{
        fit::{Unfit, tests::why},
        picture::tests::pod,
    };
    use impresario_runtime::clock;

    fn queue(now: Instant) -> Queue {
        let mut queue = Queue::default();
        queue.seen(pod("a", 1), Key::new("pods", "ns", "a"), bytes::Bytes::new(), 1, now);
        queue
    }

    /// So many nodes are full and so many do not answer.
    fn because(full: usize, silent: usize) -> Arc<Why> {
        let reasons = [(Unfit::HostPort, full), (Unfit::Silent, silent)];
        Arc::new(why(reasons.into_iter().flat_map(|(reason, n)| std::iter::repeat_n(reason, n))))
    }

    fn ready(queue: &Queue, now: Instant) -> usize {
        queue.ready(now).count()
    }

    #[test]
    fn a_pod_that_is_being_placed_is_not_looked_at_and_one_that_failed_waits() {
        let now = clock::now();
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
        let now = clock::now();
        let mut queue = queue(now);
        assert!(queue.stuck_with("a", &because(1, 0), now));
        assert!(!queue.stuck_with("a", &because(1, 0), now));
        assert_eq!((ready(&queue, now), ready(&queue, now + ANYWAY), queue.stuck()), (0, 1, 1));
        let later = now + LONGEST;
        queue.hope(later, |_, _| true);
        assert_eq!((ready(&queue, later), queue.stuck()), (1, 0));
    }

    #[test]
    fn a_pod_that_was_tried_in_vain_more_often_waits_longer_when_there_is_hope() {
        let now = clock::now();
        let mut queue = queue(now);
        queue.seen(pod("b", 1), Key::new("pods", "ns", "b"), bytes::Bytes::new(), 1, now);
        for _ in 0..5 {
            queue.stuck_with("a", &because(1, 0), now);
        }
        queue.stuck_with("b", &because(1, 0), now);
        queue.hope(now, |_, _| true);
        let ready = |at| queue.ready(at).map(|w| w.pod.uid.clone()).collect::<Vec<_>>();
        assert_eq!(ready(now), Vec::<String>::new());
        assert_eq!(ready(now + FIRST), ["b"]);
        assert_eq!(ready(now + FIRST * 16), ["b", "a"]);
        assert_eq!(queue.next_ready(now), Some(now + FIRST));
    }

    #[test]
    fn a_pod_behind_busy_nodes_is_looked_at_as_soon_as_one_of_them_answers() {
        let now = clock::now();
        let mut queue = queue(now);
        queue.behind("a", now + FIRST);
        assert_eq!((ready(&queue, now), ready(&queue, now + FIRST)), (0, 1));
        queue.answered(now);
        assert_eq!(ready(&queue, now), 1);
    }

    #[test]
    fn a_pod_that_is_held_is_looked_at_when_its_node_may_be_asked_and_told_why_if_that_goes_on() {
        let now = clock::now();
        let (mut queue, long) = (queue(now), FIRST * 10);
        let held = |queue: &mut Queue, at| queue.held("a", &because(1, 1), at + long * 4, long, at);
        assert!(!held(&mut queue, now));
        // It is looked at once more to be told.
        assert_eq!((ready(&queue, now), queue.next_ready(now)), (0, Some(now + long)));
        let later = now + long;
        assert!(held(&mut queue, later));
        assert_eq!(queue.next_ready(later), Some(later + long * 4));
        // Answers of others do not help it; room elsewhere may, and that its node is heard does.
        queue.answered(later);
        assert_eq!(ready(&queue, later), 0);
        queue.hope(later, |_, _| true);
        assert_eq!((ready(&queue, later), ready(&queue, later + FIRST)), (0, 1));
        assert!(!held(&mut queue, later));
        queue.heard(later);
        assert_eq!(ready(&queue, later), 1);
        // A silence that goes on while it is asked again and again goes on.
        queue.placing("a");
        queue.failed("a", later);
        assert!(!held(&mut queue, later));
        assert_eq!(queue.next_ready(later), Some(later + long * 4));
    }

    #[test]
    fn a_stuck_pod_is_not_written_for_each_number_that_changes() {
        let now = clock::now();
        let mut queue = queue(now);
        assert!(queue.stuck_with("a", &because(8, 1), now));
        assert!(!queue.stuck_with("a", &because(7, 2), now + FIRST));
        assert_eq!(queue.get("a").unwrap().why, Some(because(7, 2)));
        assert!(queue.stuck_with("a", &because(9, 0), now + FIRST));
        assert!(queue.stuck_with("a", &because(7, 2), now + FIRST));
        assert!(queue.stuck_with("a", &because(6, 3), now + FIRST + TOLD_AGAIN));
    }

    #[test]
    fn a_placement_of_which_the_end_is_unknown_is_left_to_the_watch_for_a_while() {
        let now = clock::now();
        let mut queue = queue(now);
        queue.placing("a");
        queue.unknown("a", now + LONGEST);
        queue.answered(now);
        queue.heard(now);
        queue.hope(now, |_, _| true);
        assert_eq!((ready(&queue, now), queue.next_ready(now)), (0, Some(now + LONGEST)));
    }

    proptest::proptest! {
        #[test]
        fn what_is_due_is_what_looking_at_all_that_wait_would_find(
            steps in proptest::collection::vec((0..9_u8, 0..4_usize, 0..2_000_u64), 1..60)
        ) {
            let (start, mut queue) = (clock::now(), Queue::default());
            let mut now = start;
            for (step, pod_of, wait) in steps {
                now += Duration::from_millis(wait / 4);
                let until = now + Duration::from_millis(wait);
                let uid = ["a", "b", "c", "d"][pod_of];
                match step {
                    0 => drop(queue.remove(uid)),
                    1 => queue.placing(uid),
                    2 => queue.failed(uid, now),
                    3 => queue.behind(uid, until),
                    4 => drop(queue.held(uid, &because(1, 1), until, FIRST, now)),
                    5 => drop(queue.stuck_with(uid, &because(1, 0), now)),
                    6 => queue.answered(now),
                    7 => queue.hope(now, |pod, _| pod.uid != "d"),
                    _ => queue.seen(pod(uid, wait), Key::new("pods", "ns", uid), bytes::Bytes::new(), wait, now),
                }
                let looks = || queue.waiting.values().filter_map(|waiting| waiting.stage.look());
                proptest::prop_assert_eq!(ready(&queue, now), looks().filter(|at| *at <= now).count());
                proptest::prop_assert_eq!(queue.next_ready(now), looks().filter(|at| *at > now).min());
                let held = queue.waiting.values().filter(|w| matches!(w.stage, Stage::Held { .. }));
                proptest::prop_assert!(held.map(|w| &w.pod.uid).eq(&queue.held));
            }
        }
    }

    #[test]
    fn the_scheduler_s_own_writes_do_not_wake_a_stuck_pod() {
        let now = clock::now();
        let mut queue = queue(now);
        queue.stuck_with("a", &because(1, 0), now);
        queue.seen(pod("a", 1), Key::new("pods", "ns", "a"), bytes::Bytes::new(), 2, now);
        assert_eq!((ready(&queue, now), queue.get("a").map(|w| w.revision)), (0, Some(2)));
        queue.seen(pod("a", 5), Key::new("pods", "ns", "a"), bytes::Bytes::new(), 3, now);
        assert_eq!(ready(&queue, now), 1);
    }
}
