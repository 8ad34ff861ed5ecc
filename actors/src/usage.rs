//! Knows on a control member what is used on each node: what the node said last, in memory, for as long as that is recent.
//!
//! Nothing is stored and nobody is asked: nodes tell every member ([`Report`]) each few seconds, so that a member that has
//! just begun knows everything after that long. docs/decisions says why.

use actix::prelude::*;
use impresario_client::protocol::usage::{Amounts, PodUsage, Report};
use impresario_runtime::clock;
use k8s_openapi::jiff::Timestamp;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a node said counts for so long: a few reports may be lost on the way.
const COUNTS_FOR: Duration = Duration::from_secs(30);
/// The longest time over which a node may have averaged: it says so itself, and times are counted on from there.
const LONGEST_MS: u64 = 60_000;
/// The most nodes of which anything is kept: twice what a cluster is meant to have.
const NODES: usize = 10_000;

/// What is known. Cheap to clone: all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Usage(Arc<RwLock<HashMap<String, Said>>>);

#[derive(Debug)]
struct Said {
    heard: Instant,
    taken: Timestamp,
    window: Duration,
    amounts: Amounts,
    pods: HashMap<String, Arc<PodUsage>>,
}

/// What is used of something, when that was found out, and over which time before that it is the average.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<T> {
    /// By the clock of the node.
    pub taken: Timestamp,
    /// Of the CPU.
    pub window: Duration,
    /// How much.
    pub of: T,
}

impl Usage {
    /// What a node said, heard now.
    pub fn put(&self, mut report: Report, now: Instant) {
        for pod in &mut report.pods {
            pod.window_ms = pod.window_ms.min(LONGEST_MS);
        }
        let mut known = self.0.write();
        if !known.contains_key(&report.node) && known.len() >= NODES {
            known.retain(|_, said| is_recent(said, now));
            if known.len() >= NODES {
                tracing::warn!(node = report.node, "more nodes tell what is used than are kept");
                return;
            }
        }
        let said = Said {
            heard: now,
            taken: Timestamp::from_millisecond(report.taken_ms).unwrap_or(Timestamp::UNIX_EPOCH),
            window: Duration::from_millis(report.window_ms.min(LONGEST_MS)),
            amounts: report.amounts,
            pods: report.pods.into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod))).collect(),
        };
        known.insert(report.node, said);
    }

    /// What is used on a node; nothing where it has not said so lately, or cannot say yet over which time.
    #[must_use]
    pub fn of_node(&self, node: &str, now: Instant) -> Option<Known<Amounts>> {
        let known = self.0.read();
        let said = known.get(node).filter(|said| is_recent(said, now) && !said.window.is_zero())?;
        Some(Known { taken: said.taken, window: said.window, of: said.amounts })
    }

    /// What a pod uses, by the node that it is bound to: of others nobody is believed.
    #[must_use]
    pub fn of_pod(&self, node: &str, uid: &str, now: Instant) -> Option<Known<Arc<PodUsage>>> {
        let known = self.0.read();
        let said = known.get(node).filter(|said| is_recent(said, now))?;
        let pod = said.pods.get(uid)?;
        let window = Duration::from_millis(pod.window_ms);
        Some(Known { taken: said.taken, window, of: pod.clone() })
    }

    /// When a node said last what is used there, if it was lately.
    #[must_use]
    pub fn heard(&self, node: &str, now: Instant) -> Option<Instant> {
        self.0.read().get(node).filter(|said| is_recent(said, now)).map(|said| said.heard)
    }
}

fn is_recent(said: &Said, now: Instant) -> bool {
    now.saturating_duration_since(said.heard) <= COUNTS_FOR
}

/// The actor to which nodes say it. Its restart forgets nothing.
pub struct UsageActor(pub Usage);

impl Actor for UsageActor {
    type Context = Context<Self>;
}

impl Handler<Report> for UsageActor {
    type Result = ();

    fn handle(&mut self, report: Report, _: &mut Self::Context) {
        self.0.put(report, clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::usage::ContainerUsage;

    fn report(node: &str, uid: &str) -> Report {
        let amounts = Amounts { cpu_nanos: 5, memory_bytes: 7 };
        let containers = vec![ContainerUsage { name: "c".into(), amounts }];
        let pods = vec![PodUsage { uid: uid.into(), window_ms: 5000, containers }];
        Report { node: node.into(), taken_ms: 9000, window_ms: 5000, amounts, pods }
    }

    #[test]
    fn what_a_node_says_counts_for_its_own_pods_and_for_a_while() {
        let (usage, now) = (Usage::default(), clock::now());
        usage.put(report("n1", "p"), now);
        let pod = usage.of_pod("n1", "p", now).unwrap();
        assert_eq!((pod.taken.as_second(), pod.of.total().cpu_nanos), (9, 5));
        assert_eq!(usage.of_node("n1", now).unwrap().of.memory_bytes, 7);
        assert!(usage.of_pod("n2", "p", now).is_none(), "it is bound to another node");
        let later = now + COUNTS_FOR;
        assert!(usage.of_pod("n1", "p", later).is_some());
        let later = later + Duration::from_millis(1);
        assert!(usage.of_pod("n1", "p", later).is_none() && usage.of_node("n1", later).is_none());
        assert!(usage.heard("n1", later).is_none());
        // The next report is the whole again: what is not in it is not known any more.
        usage.put(report("n1", "q"), later);
        assert!(usage.of_pod("n1", "p", later).is_none());
        assert!(usage.of_pod("n1", "q", later).is_some());
    }

    #[test]
    fn a_node_averages_over_no_more_than_a_minute_whatever_it_says() {
        let (usage, now) = (Usage::default(), clock::now());
        let mut endless = report("n1", "p");
        endless.window_ms = u64::MAX;
        endless.pods[0].window_ms = u64::MAX;
        usage.put(endless, now);
        let minute = Duration::from_mins(1);
        assert_eq!(usage.of_node("n1", now).unwrap().window, minute);
        let pod = usage.of_pod("n1", "p", now).unwrap();
        assert_eq!((pod.window, pod.of.window_ms), (minute, 60_000));
    }

    #[test]
    fn of_more_nodes_than_are_kept_those_make_room_that_have_been_silent() {
        let (usage, now) = (Usage::default(), clock::now());
        for number in 0..NODES {
            usage.put(report(&format!("n{number}"), "p"), now);
        }
        usage.put(report("one-more", "p"), now);
        assert!(usage.heard("one-more", now).is_none());
        let later = now + COUNTS_FOR + Duration::from_secs(1);
        usage.put(report("one-more", "p"), later);
        assert!(usage.heard("one-more", later).is_some());
        assert_eq!(usage.0.read().len(), 1);
    }
}
