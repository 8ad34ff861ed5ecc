//! Pods for which others are leaving a node: its room is theirs until they have it, or it took too long.

use super::super::parties::Pending;
use std::collections::HashMap;
use std::sync::Arc;

/// A pod that waits for room that others are leaving.
#[derive(Debug, Clone)]
pub struct Nomination {
    /// The pod.
    pub pod: Arc<Pending>,
    /// The node.
    pub node: String,
    /// So long it is waited for the others to leave, in milliseconds since 1970.
    pub until: i64,
}

/// All of them, by uid.
#[derive(Debug, Default)]
pub struct Nominations(HashMap<String, Nomination>);

impl Nominations {
    /// Others are made to leave a node for the pod.
    pub fn add(&mut self, pod: Pending, node: &str, until: i64) {
        let (uid, node) = (pod.uid.clone(), node.to_owned());
        self.0.insert(uid, Nomination { pod: Arc::new(pod), node, until });
    }

    /// The pod has a node, or needs none any more.
    pub fn remove(&mut self, uid: &str) -> Option<Nomination> {
        self.0.remove(uid)
    }

    /// The nomination of this pod.
    pub fn get(&self, uid: &str) -> Option<&Nomination> {
        self.0.get(uid)
    }

    /// All of them, those of the highest priority first.
    pub fn by_priority(&self) -> Vec<&Nomination> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by_key(|one| (std::cmp::Reverse(one.pod.priority), one.pod.since, &one.pod.uid));
        all
    }

    /// Those for a node that is no more are for nothing.
    pub fn node_gone(&mut self, node: &str) {
        self.0.retain(|_, nomination| nomination.node != node);
    }

    /// Ends those that have waited for too long: others would not leave.
    pub fn lapse(&mut self, now: i64) -> Vec<String> {
        let over = self.0.iter().filter(|(_, one)| one.until < now);
        let over: Vec<_> = over.map(|(uid, _)| uid.clone()).collect();
        for uid in &over {
            self.0.remove(uid);
        }
        over
    }
}
