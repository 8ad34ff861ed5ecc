//! Who holds what of a node. The node's only book-keeping, and free of IO.
//!
//! ```text
//!             reserve                admit (the pod was bound)
//!   nobody ───────────> Reserved ───────────────────────────────> Admitted ──forget──> nobody
//!      ^                   │ release, expire                          ^
//!      └───────────────────┘            admit without a reservation ──┘ where it fits
//! ```
//!
//! At any time the sum of what is held is within what is allocatable, unless that itself shrank
//! or pods of an earlier life of the node are [kept](Reservations::keep); nothing is then granted
//! until it fits again. A reservation is never older than its time to live.

use impresario_client::protocol::{
    node::{Grant, Lease, PodReservation},
    resources::Resources,
};
use std::{collections::BTreeMap, time::Instant};

/// One pod's hold on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hold {
    /// Kept for a pod that may be bound soon.
    Reserved { lease: Lease, resources: Resources, until: Instant },
    /// Held by a pod that is bound.
    Admitted { resources: Resources },
}

impl Hold {
    fn resources(&self) -> &Resources {
        match self {
            Self::Reserved { resources, .. } | Self::Admitted { resources } => resources,
        }
    }
}

/// A bound pod does not fit on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoesNotFit {
    /// The first resource that is short.
    pub resource: String,
    /// What the pod asks of it.
    pub requested: u64,
    /// What is held of it.
    pub used: u64,
    /// What the node has of it.
    pub capacity: u64,
}

/// Reservations and admitted pods of one node.
#[derive(Debug, Default)]
pub struct Reservations {
    allocatable: Resources,
    held: Resources,
    holds: BTreeMap<String, Hold>,
    last_lease: u64,
}

impl Reservations {
    /// A node with this much to give.
    pub fn new(allocatable: Resources) -> Self {
        Self { allocatable, ..Self::default() }
    }

    /// What the node has to give in all.
    pub fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    /// Changes what the node has to give, as when a GPU is lost.
    pub fn set_allocatable(&mut self, allocatable: Resources) {
        self.allocatable = allocatable;
    }

    /// What nobody holds.
    pub fn free(&self) -> Resources {
        if impresario_runtime::mutant!(Overcommit) {
            let mut all = self.allocatable.clone();
            all.add(&self.held);
            return all;
        }
        self.allocatable.without(&self.held)
    }

    /// How many pods are admitted.
    pub fn admitted(&self) -> usize {
        self.holds.values().filter(|hold| matches!(hold, Hold::Admitted { .. })).count()
    }

    /// How many reservations wait for their pod.
    pub fn reserved(&self) -> usize {
        self.holds.len() - self.admitted()
    }

    /// Keeps room for a pod until `until`, or says what there is instead. Asking again for the
    /// same pod replaces its reservation; a pod that is admitted already gets no second room.
    pub fn reserve(&mut self, pod: &PodReservation, until: Instant) -> Grant {
        let before = match self.holds.get(&pod.uid) {
            Some(Hold::Admitted { .. }) => return self.refused(pod, "the pod is here already"),
            Some(Hold::Reserved { .. }) => self.take(&pod.uid),
            None => None,
        };
        let free = self.free();
        if !free.covers(&pod.resources) {
            let reason = format!("insufficient {}", free.short_of(&pod.resources).join(", "));
            if let Some(before) = before {
                self.put(pod.uid.clone(), before);
            }
            return self.refused(pod, &reason);
        }
        self.last_lease += 1;
        let lease = Lease(self.last_lease);
        let resources = pod.resources.clone();
        self.put(pod.uid.clone(), Hold::Reserved { lease, resources, until });
        Grant::Reserved { uid: pod.uid.clone(), lease }
    }

    /// Gives reservations back. Whether any was still held.
    pub fn release(&mut self, leases: &[Lease]) -> bool {
        let named =
            |hold: &Hold| matches!(hold, Hold::Reserved { lease, .. } if leases.contains(lease));
        !self.give_back(named).is_empty()
    }

    /// Gives back the reservations whose time is up; their pods' uids.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        self.give_back(|hold| matches!(hold, Hold::Reserved { until, .. } if *until <= now))
    }

    /// When the next reservation ends.
    pub fn next_expiry(&self) -> Option<Instant> {
        let until = |hold: &Hold| match hold {
            Hold::Reserved { until, .. } => Some(*until),
            Hold::Admitted { .. } => None,
        };
        self.holds.values().filter_map(until).min()
    }

    /// A pod was bound here: its reservation becomes its own, or it takes what is free.
    pub fn admit(&mut self, uid: &str, resources: Resources) -> Result<(), DoesNotFit> {
        match self.holds.get(uid) {
            Some(Hold::Admitted { .. }) => return Ok(()),
            Some(Hold::Reserved { .. }) => {
                self.take(uid);
            }
            None => {}
        }
        let free = self.free();
        if let Some(resource) = free.short_of(&resources).first() {
            return Err(DoesNotFit {
                resource: (*resource).to_owned(),
                requested: resources.get(resource),
                used: self.held.get(resource),
                capacity: self.allocatable.get(resource),
            });
        }
        self.put(uid.to_owned(), Hold::Admitted { resources });
        Ok(())
    }

    /// A pod's containers run here since an earlier life of the node: it stays, fit or not.
    pub fn keep(&mut self, uid: &str, resources: Resources) {
        self.take(uid);
        self.put(uid.to_owned(), Hold::Admitted { resources });
    }

    /// The pod needs nothing any more. Whether it held anything.
    pub fn forget(&mut self, uid: &str) -> bool {
        if impresario_runtime::mutant!(ReservationKept) {
            return self.holds.contains_key(uid);
        }
        self.take(uid).is_some()
    }

    fn refused(&self, pod: &PodReservation, reason: &str) -> Grant {
        Grant::Refused { uid: pod.uid.clone(), free: self.free(), reason: reason.to_owned() }
    }

    fn put(&mut self, uid: String, hold: Hold) {
        self.held.add(hold.resources());
        self.holds.insert(uid, hold);
    }

    fn take(&mut self, uid: &str) -> Option<Hold> {
        let hold = self.holds.remove(uid)?;
        self.held.subtract(hold.resources());
        Some(hold)
    }

    fn give_back(&mut self, over: impl Fn(&Hold) -> bool) -> Vec<String> {
        let uids: Vec<_> =
            self.holds.iter().filter(|(_, hold)| over(hold)).map(|(uid, _)| uid.clone()).collect();
        for uid in &uids {
            self.take(uid);
        }
        uids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::clock;
    use proptest::prelude::*;
    use std::time::Duration;

    fn cpus(cpu_milli: u64) -> Resources {
        Resources { cpu_milli, pods: 1, ..Resources::default() }
    }

    fn node(cpu_milli: u64) -> Reservations {
        Reservations::new(Resources { cpu_milli, pods: 100, ..Resources::default() })
    }

    fn ask(uid: &str, cpu_milli: u64) -> PodReservation {
        PodReservation { uid: uid.to_owned(), resources: cpus(cpu_milli) }
    }

    #[test]
    fn a_reservation_that_nobody_binds_is_given_back_when_its_time_is_up() {
        let granted = clock::now();
        let until = granted + Duration::from_secs(10);
        let mut reservations = node(1000);
        assert!(matches!(reservations.reserve(&ask("a", 800), until), Grant::Reserved { .. }));
        assert_eq!(reservations.next_expiry(), Some(until));

        assert!(reservations.expire(granted).is_empty());
        assert_eq!(reservations.expire(until), ["a"]);
        assert_eq!(reservations.next_expiry(), None);
        assert_eq!(reservations.free().cpu_milli, 1000);
    }

    #[test]
    fn a_refusal_says_what_is_short_and_what_is_left() {
        let mut reservations = node(1000);
        let Grant::Refused { free, reason, .. } =
            reservations.reserve(&ask("a", 2000), clock::now())
        else {
            panic!("granted more than there is")
        };
        assert_eq!((free.cpu_milli, reason.as_str()), (1000, "insufficient cpu"));
    }

    #[test]
    fn a_bound_pod_takes_its_reservation_over_and_is_not_counted_twice() {
        let until = clock::now() + Duration::from_secs(10);
        let mut reservations = node(1000);
        reservations.reserve(&ask("a", 800), until);
        assert_eq!(reservations.admit("a", cpus(800)), Ok(()));
        assert_eq!(reservations.free().cpu_milli, 200);
        assert!(reservations.expire(until).is_empty());
        assert!(reservations.forget("a"));
        assert_eq!(reservations.free().cpu_milli, 1000);
    }

    #[test]
    fn a_pod_that_was_bound_past_the_node_is_refused_where_it_does_not_fit() {
        let mut reservations = node(1000);
        reservations.keep("old", cpus(900));
        let refused = reservations.admit("new", cpus(200)).unwrap_err();
        assert_eq!(
            refused,
            DoesNotFit { resource: "cpu".into(), requested: 200, used: 900, capacity: 1000 }
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(u8, u64, u64),
        Admit(u8, u64),
        Forget(u8),
        Release(u64),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..8u8, 0..700u64, 1..20u64).prop_map(|(pod, cpu, ttl)| Step::Reserve(pod, cpu, ttl)),
            (0..8u8, 0..700u64).prop_map(|(pod, cpu)| Step::Admit(pod, cpu)),
            (0..8u8).prop_map(Step::Forget),
            (0..40u64).prop_map(Step::Release),
            (0..10u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_over_committed_and_nothing_outlives_its_time(
            steps in proptest::collection::vec(step(), 0..120)
        ) {
            let mut now = clock::now();
            let mut reservations = node(1000);
            for step in steps {
                match step {
                    Step::Reserve(pod, cpu, ttl) => {
                        reservations.reserve(&ask(&pod.to_string(), cpu), now + Duration::from_secs(ttl));
                    }
                    Step::Admit(pod, cpu) => drop(reservations.admit(&pod.to_string(), cpus(cpu))),
                    Step::Forget(pod) => drop(reservations.forget(&pod.to_string())),
                    Step::Release(lease) => drop(reservations.release(&[Lease(lease)])),
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                reservations.expire(now);
                let held: u64 = reservations.holds.values().map(|hold| hold.resources().cpu_milli).sum();
                prop_assert!(held <= 1000);
                prop_assert_eq!(reservations.free().cpu_milli, 1000 - held);
                prop_assert!(reservations.next_expiry().is_none_or(|until| until > now));
            }
        }
    }
}
