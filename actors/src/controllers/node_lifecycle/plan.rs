//! Which nodes are lost, which taints nodes have, and which pods must go.
//!
//! Figures: a node is not ready after 10 s of silence, one that has yet to start after 60 s; its pods are driven out when their toleration of
//! `node.kubernetes.io/unreachable` is used up (300 s by default), counted from the taint, which nodes get one
//! after another ([`zones`]). When more than 55 % of the nodes of a zone
//! are silent, it is more likely that this side is cut off, and nobody is driven out there (as the node
//! lifecycle controller of Kubernetes does).

use super::super::pod_view::PodView;
use super::taints::{self, Standing};
use super::toleration;
use super::zones::{self, Pace, Turns, Zone, Zones};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Silence after which a node is not ready.
pub const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long a node may take to be heard for the first time: its object can be there before it is.
pub const STARTING_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long a node has no object until its pods are removed, so that a node that joins anew can claim it.
pub const ORPHANED_AFTER: Duration = Duration::from_secs(40);

/// Namespace, name and uid of a pod.
pub type PodId = (String, String, String);

/// What must be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Say that a node is lost: conditions unknown, tainted.
    Lose {
        /// The node.
        node: String,
        /// All its taints from now on.
        taints: Vec<Taint>,
    },
    /// Change the taints of a node.
    Taint {
        /// The node.
        node: String,
        /// All its taints from now on.
        taints: Vec<Taint>,
    },
    /// Say that a pod of a lost node is not ready: nobody should be sent to it.
    Unready {
        /// The pod.
        pod: PodId,
    },
    /// Ask for the end of a pod that tolerates the taints of its node no longer.
    Evict {
        /// The pod.
        pod: PodId,
    },
    /// Remove a pod that was asked to end and cannot say that it has: its node is certified to be off.
    Release {
        /// The pod.
        pod: PodId,
    },
    /// Remove a pod whose node has no object any more: nobody else can. That it has none must be made
    /// certain.
    Remove {
        /// The node.
        node: String,
        /// The pod.
        pod: PodId,
    },
}

impl Action {
    /// A word that no other action has, and what it does in words.
    #[must_use]
    pub fn about(&self) -> (String, String) {
        let (what, node, pod) = match self {
            Self::Lose { node, .. } => ("lose", node, None),
            Self::Taint { node, .. } => ("taint", node, None),
            Self::Unready { pod } => ("make unready", &pod.1, Some(pod)),
            Self::Evict { pod } => ("evict", &pod.1, Some(pod)),
            Self::Release { pod } => ("release", &pod.1, Some(pod)),
            Self::Remove { pod, .. } => ("remove", &pod.1, Some(pod)),
        };
        match pod {
            Some((namespace, name, uid)) => {
                (format!("{what}/{uid}"), format!("{what} pod {namespace}/{name}"))
            }
            None => (format!("{what}/node/{node}"), format!("{what} node {node}")),
        }
    }
}

/// When the leader last heard the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// How long it has been leading, and listening: who is missing below has been silent for this long
    /// at most.
    pub leading_for: Duration,
    /// How long ago each node was heard; as long as `leading_for` where that was another leader.
    pub ages: HashMap<String, Duration>,
}

impl Heard {
    /// For how long a node has been silent, as far as this leader can tell: it gives everyone the time
    /// that it has been leading, as grace.
    fn silence(&self, node: &str) -> Duration {
        self.ages.get(node).copied().unwrap_or(self.leading_for)
    }

    /// Whether this leader has heard the node itself. That it has not been leading for long is no
    /// heartbeat.
    fn has_heard(&self, node: &str) -> bool {
        self.ages.get(node).is_some_and(|age| *age < self.leading_for)
    }

    /// What is known of a node by its heartbeats: it is lost if it was last heard too long ago.
    #[must_use]
    pub fn standing(&self, node: &Node, now: Timestamp) -> Standing {
        match () {
            () if self.silence(name(node)) >= LOST_AFTER && !is_starting(node, now) => {
                Standing::Lost
            }
            () if self.has_heard(name(node)) => Standing::Heard,
            () => Standing::Unknown,
        }
    }

    /// Whether something may have to be done to the pods of a node.
    #[must_use]
    pub fn concerns_pods(&self, node: &Node, now: Timestamp) -> bool {
        self.standing(node, now) == Standing::Lost || taints::of(node).iter().any(taints::evicts)
    }
}

/// What is to be done to nodes and their pods.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// The pods that matter: of nodes that are lost, drive pods out or have no object.
    pub pods: &'a [Arc<Pod>],
    /// When nodes were heard.
    pub heard: &'a Heard,
    /// For how long each node that has pods has had no object; one that is not there has just been missed.
    pub missing: &'a HashMap<String, Duration>,
    /// When the last node of each zone had its turn.
    pub turns: &'a Turns,
}

/// What must happen now.
#[must_use]
pub fn reconcile(seen: Seen<'_>, now: Timestamp) -> Vec<Action> {
    let Seen { nodes, pods, heard, missing, turns } = seen;
    let standings: Vec<(&Node, Standing)> =
        nodes.iter().map(|node| (node.as_ref(), heard.standing(node, now))).collect();
    let zones = Zones::of(standings.iter().map(|(node, standing)| {
        let is_in_trouble = taints::is_in_trouble(node, *standing);
        (zones::of(node), is_in_trouble || is_still_missed(node, *standing))
    }));
    let mut turns = turns.clone();
    turns.read(nodes.iter(), now);
    let mut actions = about_nodes(&standings, &zones, &turns, heard, now);
    let by_name: HashMap<&str, (&Node, Standing)> =
        standings.iter().map(|(node, standing)| (name(node), (*node, *standing))).collect();
    for pod in pods.iter().filter(|pod| pod.bound()) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        match by_name.get(node) {
            Some((node, standing)) => about_pod(pod, (node, *standing), &zones, now, &mut actions),
            None => {
                let is_due = missing.get(node).is_some_and(|age| *age >= ORPHANED_AFTER);
                // One that still stands after that waits for its finalizers.
                if is_due && !is_removed(pod) {
                    actions.push(Action::Remove { node: node.into(), pod: id(pod) });
                }
            }
        }
    }
    actions
}

/// A node that the leader before gave up, and that this one has not heard: it does not count as well.
fn is_still_missed(node: &Node, standing: Standing) -> bool {
    standing == Standing::Unknown && taints::condition(node, "Ready") == Some("Unknown")
}

fn about_nodes(
    standings: &[(&Node, Standing)],
    zones: &Zones,
    turns: &Turns,
    heard: &Heard,
    now: Timestamp,
) -> Vec<Action> {
    // Who has its turn next, in each zone: who has been silent the longest.
    let mut next: HashMap<Zone, (Reverse<Duration>, &str)> = HashMap::new();
    for (node, standing) in standings {
        let is_waiting = taints::troubled_since(node).is_none();
        if is_waiting && taints::is_in_trouble(node, *standing) {
            let zone = zones::of(node);
            if turns.may(&zone, zones.pace(&zone), now) {
                let place = (Reverse(heard.silence(name(node))), name(node));
                next.entry(zone).and_modify(|first| *first = place.min(*first)).or_insert(place);
            }
        }
    }
    let mut actions = Vec::new();
    for (node, standing) in standings {
        let has_turn = next.get(&zones::of(node)).is_some_and(|(_, next)| *next == name(node));
        // Where nobody is well, those who had their turn get it back: their pods begin anew when somebody is.
        let had_turn = taints::troubled_since(node).is_some() && !zones.all_down();
        let wanted = taints::wanted(node, *standing, has_turn || had_turn, now);
        let is_news = taints::condition(node, "Ready") != Some("Unknown");
        if *standing == Standing::Lost && is_news {
            actions.push(Action::Lose { node: name(node).into(), taints: wanted });
        } else if wanted != taints::of(node) {
            actions.push(Action::Taint { node: name(node).into(), taints: wanted });
        }
    }
    actions
}

fn about_pod(
    pod: &Pod,
    (node, standing): (&Node, Standing),
    zones: &Zones,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let is_lost = standing == Standing::Lost;
    if is_lost && pod.ready() && !pod.finished() {
        actions.push(Action::Unready { pod: id(pod) });
    }
    let taints = taints::of(node);
    if pod.terminating() {
        let is_certified = taints.iter().any(|taint| taint.key == taints::OUT_OF_SERVICE);
        if is_lost && is_certified && !is_removed(pod) {
            actions.push(Action::Release { pod: id(pod) });
        }
        return;
    }
    // Of a node that was lost, by one who does not know whether it is, nobody is driven out; nor where it is more
    // likely that this side is cut off.
    let is_in_trouble =
        taints::is_in_trouble(node, standing) && zones.pace(&zones::of(node)) != Pace::Stopped;
    let counts = |taint: &&Taint| is_in_trouble || !taints::is_trouble(taint);
    let due = toleration::due(pod, taints.iter().filter(counts), now);
    if due.is_some_and(|due| due <= now) {
        actions.push(Action::Evict { pod: id(pod) });
    }
}

fn id(pod: &Pod) -> PodId {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    (namespace, pod.name().to_owned(), pod.uid().to_owned())
}

/// Whether nobody waits for its end any more, and it says that it has ended: its finalizers may wait for that.
fn is_removed(pod: &Pod) -> bool {
    pod.finished() && pod.terminating() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Whether a node that has never said what it is still has time to.
fn is_starting(node: &Node, now: Timestamp) -> bool {
    let told = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let created = node.metadata.creation_timestamp.as_ref().map(|created| created.0);
    told.is_none_or(|info| info.kubelet_version.is_empty())
        && created.is_some_and(|created| now.duration_since(created) < STARTING_FOR)
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
