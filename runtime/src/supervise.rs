//! Supervision: what happens when an actor fails.
//!
//! [`History::failed`] decides (restart after a wait, or give up) from the policy, past failures and `now`; the runner
//! obeys. In a [`Group`] with [`Strategy::RestForOne`] the failure of one restarts those spawned after it too, and one
//! that gives up ends the group (escalation): all members end as `Failed` and the group's owner hears of it.

use crate::{cell::Cell, gate::Gate, watch::Reason};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Waits that double from `first` to `most`, each shortened by up to half at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Backoff {
    /// The wait before attempt number `attempt` (from 0); `jitter` is within 0..1.
    #[must_use]
    pub fn wait(&self, attempt: u32, jitter: f64) -> Duration {
        let full = self.first.saturating_mul(2_u32.saturating_pow(attempt.min(30))).min(self.most);
        full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// How many failures within how long are borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// The number of restarts that are borne.
    pub restarts: usize,
    /// The span that they are counted in.
    pub within: Duration,
}

/// Whether, when, and how often a failed actor is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The waits between restarts.
    pub backoff: Backoff,
    /// When to give up.
    pub intensity: Intensity,
}

impl Default for RestartPolicy {
    /// From 100 ms to 10 s, giving up at the eleventh failure within a minute.
    fn default() -> Self {
        Self {
            backoff: Backoff { first: Duration::from_millis(100), most: Duration::from_secs(10) },
            intensity: Intensity { restarts: 10, within: Duration::from_mins(1) },
        }
    }
}

impl RestartPolicy {
    /// The first failure is the end.
    #[must_use]
    pub fn never() -> Self {
        let intensity = Intensity { restarts: 0, within: Duration::from_secs(1) };
        Self { intensity, ..Self::default() }
    }
}

/// How an actor is spawned.
#[derive(Clone)]
pub struct SpawnOptions {
    /// How many messages wait in its mailbox before senders get `Overloaded`.
    pub mailbox: usize,
    /// What happens when it fails.
    pub restart: RestartPolicy,
    /// Whose fate it shares.
    pub group: Option<Group>,
    /// The thread it runs on; by default one of the node's own.
    pub arbiter: Option<actix::ArbiterHandle>,
    /// Judges every message from another node once more, after the node's gate: what the actor guards does not
    /// depend on that gate alone.
    pub guard: Option<Arc<dyn Gate>>,
}

impl fmt::Debug for SpawnOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnOptions")
            .field("mailbox", &self.mailbox)
            .field("restart", &self.restart)
            .field("guarded", &self.guard.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for SpawnOptions {
    fn default() -> Self {
        Self {
            mailbox: 1024,
            restart: RestartPolicy::default(),
            group: None,
            arbiter: None,
            guard: None,
        }
    }
}

/// What a supervisor does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    RestartAfter(Duration),
    GiveUp,
}

/// The failures of one actor.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Instant>);

impl History {
    /// Counts a failure and decides.
    pub(crate) fn failed(&mut self, policy: &RestartPolicy, now: Instant, jitter: f64) -> Verdict {
        let Intensity { restarts, within } = policy.intensity;
        self.0.retain(|&earlier| now.duration_since(earlier) < within);
        if self.0.len() >= restarts {
            return Verdict::GiveUp;
        }
        let attempt = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        Verdict::RestartAfter(policy.backoff.wait(attempt, jitter))
    }
}

/// Who is restarted with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The failed one alone.
    OneForOne,
    /// The failed one and those spawned after it.
    RestForOne,
}

/// Actors that share a fate. Cheap to clone.
#[derive(Clone)]
pub struct Group(Arc<Shared>);

struct Shared {
    strategy: Strategy,
    members: Mutex<Vec<Weak<Cell>>>,
    failed: watch::Sender<bool>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("strategy", &self.0.strategy)
            .field("failed", &self.has_failed())
            .finish()
    }
}

impl Group {
    /// An empty group.
    pub fn new(strategy: Strategy) -> Self {
        let members = Mutex::default();
        Self(Arc::new(Shared { strategy, members, failed: watch::Sender::new(false) }))
    }

    /// Waits until a member has given up, and the group with it: the owner decides what follows.
    pub async fn failed(&self) {
        // The sender lives as long as this group does.
        let _ = self.0.failed.subscribe().wait_for(|failed| *failed).await;
    }

    /// Whether the group has given up.
    pub fn has_failed(&self) -> bool {
        *self.0.failed.borrow()
    }

    pub(crate) fn join(&self, cell: &Arc<Cell>) {
        let mut members = self.0.members.lock();
        members.retain(|member| member.upgrade().is_some_and(|cell| !cell.has_ended()));
        members.push(Arc::downgrade(cell));
    }

    /// A member failed and will be restarted.
    pub(crate) fn member_failed(&self, failed: &Arc<Cell>) {
        if self.0.strategy == Strategy::OneForOne {
            return;
        }
        let members = self.members();
        for later in members.iter().skip_while(|cell| !Arc::ptr_eq(cell, failed)).skip(1) {
            later.orders.restart.notify_one();
        }
    }

    /// A member gave up: so does the group.
    pub(crate) fn escalate(&self, from: &Arc<Cell>, reason: Reason) {
        if reason != Reason::Failed {
            return;
        }
        for cell in self.members() {
            if !Arc::ptr_eq(&cell, from) {
                cell.orders.fail.notify_one();
            }
        }
        self.0.failed.send_replace(true);
    }

    fn members(&self) -> Vec<Arc<Cell>> {
        self.0.members.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_ambient::clock;

    #[test]
    fn waits_double_up_to_the_longest_and_are_cut_by_at_most_half() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
        let waits: Vec<_> = (0..6).map(|attempt| backoff.wait(attempt, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.wait(40, 1.0), Duration::from_millis(500));
    }

    #[test]
    fn failures_beyond_the_intensity_end_the_actor_and_old_ones_are_forgiven() {
        let within = Duration::from_secs(10);
        let policy = RestartPolicy {
            intensity: Intensity { restarts: 2, within },
            ..RestartPolicy::default()
        };
        let start = clock::now();
        let mut history = History::default();

        assert!(matches!(history.failed(&policy, start, 0.0), Verdict::RestartAfter(_)));
        assert!(matches!(history.failed(&policy, start, 0.0), Verdict::RestartAfter(_)));
        assert_eq!(history.failed(&policy, start, 0.0), Verdict::GiveUp);
        assert!(matches!(history.failed(&policy, start + within, 0.0), Verdict::RestartAfter(_)));
    }

    #[test]
    fn an_actor_that_is_never_restarted_ends_with_its_first_failure() {
        let verdict = History::default().failed(&RestartPolicy::never(), clock::now(), 0.0);
        assert_eq!(verdict, Verdict::GiveUp);
    }
}
