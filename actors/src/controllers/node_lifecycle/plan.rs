//! Which nodes are lost, and which of their pods must be replaced.
//!
//! Figures: a node is not ready after 10 s of silence, one that has yet to start after 60 s; its pods are evicted when their toleration of
//! `node.kubernetes.io/unreachable` is used up (300 s by default); when more than 55 % of the nodes
//! are silent, it is more likely that this side is cut off, and nobody is evicted (as the node
//! lifecycle controller of Kubernetes does).

use super::super::pod_view::PodView;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Silence after which a node is not ready.
pub const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long a node may take to be heard for the first time: its object can be there before it is.
pub const STARTING_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long a node has no object until its pods are removed, so that a node that joins anew can claim it.
pub const ORPHANED_AFTER: Duration = Duration::from_secs(40);
/// The share of silent nodes above which nobody is evicted.
pub const TOO_MANY: f64 = 0.55;
/// The taint of a node that is lost.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// What must be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say that a node is lost: conditions unknown, tainted.
    Lose {
        /// The node.
        node: String,
    },
    /// Take the taint off a node that is back.
    Welcome {
        /// The node.
        node: String,
    },
    /// Say that a pod of a lost node is not ready: nobody should be sent to it.
    Unready {
        /// Namespace, name and uid.
        pod: (String, String, String),
    },
    /// Ask for the end of a pod whose node has been lost for longer than it tolerates.
    Evict {
        /// Namespace, name and uid.
        pod: (String, String, String),
    },
    /// Remove a pod whose node has no object any more: nobody else can. That it has none must be made
    /// certain.
    Remove {
        /// The node.
        node: String,
        /// Namespace, name and uid.
        pod: (String, String, String),
    },
}

impl Action {
    /// A word that no other action has, and what it does in words.
    #[must_use]
    pub fn about(&self) -> (String, String) {
        let (what, node, pod) = match self {
            Self::Lose { node } => ("lose", node, None),
            Self::Welcome { node } => ("welcome", node, None),
            Self::Unready { pod } => ("make unready", &pod.1, Some(pod)),
            Self::Evict { pod } => ("evict", &pod.1, Some(pod)),
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

    /// Whether a node was last heard so long ago that it is lost.
    #[must_use]
    pub fn is_lost(&self, node: &Node, now: Timestamp) -> bool {
        self.silence(name(node)) >= LOST_AFTER && !is_starting(node, now)
    }
}

/// What must happen now. `missing` is for how long each node that
/// has pods has had no object; one that is not there has just been missed. Of the pods those matter
/// whose node is lost or has no object.
#[must_use]
pub fn reconcile(
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    heard: &Heard,
    missing: &HashMap<String, Duration>,
    now: Timestamp,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut lost: HashMap<&str, Option<Timestamp>> = HashMap::new();
    let mut present: HashMap<&str, bool> = HashMap::new();
    for node in nodes {
        let name = name(node);
        let is_silent = heard.is_lost(node, now);
        present.insert(name, is_silent);
        let tainted = taint(node);
        match (is_silent, tainted) {
            (true, None) => actions.push(Action::Lose { node: name.into() }),
            (false, Some(_)) if heard.has_heard(name) => {
                actions.push(Action::Welcome { node: name.into() });
            }
            _ => {}
        }
        if is_silent && let Some(taint) = tainted {
            lost.insert(name, taint.time_added.as_ref().map(|time| time.0));
        }
    }
    let cut_off = lost.len() as f64 > TOO_MANY * nodes.len() as f64 && nodes.len() > 1;

    for pod in pods.iter().filter(|pod| pod.bound()) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let id = || {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            (namespace, pod.name().to_owned(), pod.uid().to_owned())
        };
        if present.get(node) == Some(&true) && pod.ready() && !pod.finished() {
            actions.push(Action::Unready { pod: id() });
        }
        if !present.contains_key(node) {
            let is_removed =
                pod.terminating() && pod.metadata.deletion_grace_period_seconds == Some(0);
            let is_due = missing.get(node).is_some_and(|age| *age >= ORPHANED_AFTER);
            // One that still stands after that waits for its finalizers.
            if is_due && !is_removed {
                actions.push(Action::Remove { node: node.into(), pod: id() });
            }
        } else if let Some(Some(since)) = lost.get(node)
            && !cut_off
            && !pod.terminating()
            && let Some(tolerated) = tolerance(pod)
        {
            // A time that no calendar has never comes.
            let Ok(due) = since.checked_add(tolerated) else { continue };
            if due <= now {
                actions.push(Action::Evict { pod: id() });
            }
        }
    }
    actions
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

fn taint(node: &Node) -> Option<&Taint> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    taints.iter().find(|taint| taint.key == UNREACHABLE && taint.effect == "NoExecute")
}

/// How long the pod stays on a node that is lost; `None` is for ever.
fn tolerance(pod: &Pod) -> Option<SignedDuration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let matching = tolerations.unwrap_or_default().iter().filter(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or("NoExecute");
        let any = key.is_empty() && toleration.operator.as_deref() == Some("Exists");
        (key == UNREACHABLE || any) && (effect.is_empty() || effect == "NoExecute")
    });
    let mut longest = Some(SignedDuration::ZERO);
    for toleration in matching {
        let seconds = toleration.toleration_seconds?;
        let span = SignedDuration::from_secs(seconds.max(0));
        longest = longest.map(|other| other.max(span));
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::super::super::table::pod;
    use super::*;
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus, NodeSystemInfo, Toleration};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    const NOW: i64 = 10_000;

    fn node(name: &str, lost_for: Option<i64>) -> Arc<Node> {
        let taint = |ago: i64| Taint {
            key: UNREACHABLE.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(Timestamp::from_second(NOW - ago).unwrap())),
            value: None,
        };
        Arc::new(Node {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(NodeSpec {
                taints: lost_for.map(|ago| vec![taint(ago)]),
                ..NodeSpec::default()
            }),
            status: None,
        })
    }

    fn ages(ages: &[(&str, u64)]) -> HashMap<String, Duration> {
        ages.iter().map(|(name, age)| ((*name).into(), Duration::from_secs(*age))).collect()
    }

    /// By a leader that has been leading for long.
    fn heard(of: &[(&str, u64)]) -> Heard {
        Heard { leading_for: Duration::from_secs(5_000), ages: ages(of) }
    }

    fn reconcile(
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        heard: &Heard,
        now: Timestamp,
    ) -> Vec<Action> {
        super::reconcile(nodes, pods, heard, &HashMap::new(), now)
    }

    fn tolerating(seconds: Option<i64>) -> Arc<Pod> {
        let mut pod = pod("a:bound", 0, "rc", "web");
        pod.spec.as_mut().unwrap().tolerations = Some(vec![Toleration {
            key: Some(UNREACHABLE.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }]);
        Arc::new(pod)
    }

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    #[test]
    fn a_silent_node_is_lost_and_a_heard_one_is_welcome_again() {
        let nodes = [node("node-1", None), node("node-2", Some(20)), node("node-3", None)];
        let silence = heard(&[("node-1", 11), ("node-2", 1), ("node-3", 9)]);
        assert_eq!(
            reconcile(&nodes, &[], &silence, now()),
            [Action::Lose { node: "node-1".into() }, Action::Welcome { node: "node-2".into() }]
        );
    }

    #[test]
    fn a_node_that_is_still_to_start_has_longer_than_one_that_has_run() {
        let aged = |age: i64, version: &str| {
            let mut node = node("node-1", None).as_ref().clone();
            let created = Timestamp::from_second(NOW - age).unwrap();
            node.metadata.creation_timestamp = Some(Time(created));
            let info = NodeSystemInfo { kubelet_version: version.into(), ..Default::default() };
            node.status = Some(NodeStatus { node_info: Some(info), ..NodeStatus::default() });
            reconcile(&[Arc::new(node)], &[], &heard(&[("node-1", 900)]), now()).len()
        };
        assert_eq!((aged(59, ""), aged(61, "")), (0, 1));
        assert_eq!(aged(59, "v1.36.0"), 1, "it has run, so it is lost");
    }

    #[test]
    fn a_pod_is_evicted_when_its_toleration_is_used_up() {
        let nodes = [node("node-1", Some(100)), node("node-2", None)];
        let silence = heard(&[("node-1", 100), ("node-2", 0)]);
        let evicted = |pod: Arc<Pod>| reconcile(&nodes, &[pod], &silence, now());
        for used_up in [99, 100] {
            let actions = evicted(tolerating(Some(used_up)));
            assert!(matches!(&actions[..], [Action::Evict { .. }]), "{used_up}");
        }
        assert_eq!(evicted(tolerating(Some(101))), []);
        assert_eq!(evicted(tolerating(None)), []);
    }

    #[test]
    fn the_ready_pods_of_a_lost_node_are_unready_at_once_and_no_others() {
        let nodes = [node("node-1", None), node("node-2", None)];
        let pods = ["a:ready", "b:bound", "c:ready,node=2", "d:succeeded", "e:ready,terminating"];
        let pods: Vec<_> = pods.iter().map(|words| Arc::new(pod(words, 0, "rc", "web"))).collect();
        let unready = |silent: u64| -> Vec<String> {
            let silence = heard(&[("node-1", silent), ("node-2", 0)]);
            let name = |action| match action {
                Action::Unready { pod: (_, name, _) } => Some(name),
                _ => None,
            };
            reconcile(&nodes, &pods, &silence, now()).into_iter().filter_map(name).collect()
        };
        assert_eq!(unready(9), Vec::<String>::new());
        assert_eq!(unready(10), ["a", "e"]);
    }

    #[test]
    fn nobody_is_evicted_when_most_nodes_are_silent() {
        let nodes = [node("node-1", Some(900)), node("node-2", Some(900)), node("node-3", None)];
        let silence = heard(&[("node-1", 900), ("node-2", 900), ("node-3", 0)]);
        assert_eq!(reconcile(&nodes, &[tolerating(Some(300))], &silence, now()), []);
    }

    #[test]
    fn a_new_leader_neither_loses_nor_welcomes_a_node_that_it_has_not_heard() {
        let nodes = [node("node-1", None), node("node-2", Some(200)), node("node-3", None)];
        let led = |seconds: u64, of: &[(&str, u64)]| {
            let heard = Heard { leading_for: Duration::from_secs(seconds), ages: ages(of) };
            reconcile(&nodes, &[tolerating(Some(150))], &heard, now())
        };
        assert_eq!(led(3, &[("node-3", 1)]), [], "nothing is known yet of the first two");
        // After a pause of its own a leader has heard nobody since: ages are as its time.
        assert_eq!(led(3, &[("node-1", 3), ("node-2", 3), ("node-3", 1)]), []);
        let welcome = [Action::Welcome { node: "node-2".into() }];
        assert_eq!(led(3, &[("node-2", 1), ("node-3", 1)]), welcome);
        let lost = led(10, &[("node-3", 1)]);
        assert_eq!(lost[0], Action::Lose { node: "node-1".into() });
    }

    #[test]
    fn a_pod_of_a_lost_node_goes_by_the_time_of_the_taint_whoever_leads() {
        let nodes = [node("node-1", Some(301)), node("node-2", None), node("node-3", None)];
        let heard = Heard {
            leading_for: Duration::from_secs(10),
            ages: ages(&[("node-2", 1), ("node-3", 1)]),
        };
        let actions = reconcile(&nodes, &[tolerating(Some(300))], &heard, now());
        assert!(matches!(&actions[..], [Action::Evict { .. }]), "{actions:?}");
    }

    #[test]
    fn a_toleration_longer_than_the_calendar_is_for_ever() {
        let nodes = [node("node-1", Some(100)), node("node-2", None), node("node-3", None)];
        let heard = heard(&[("node-1", 100), ("node-2", 0), ("node-3", 0)]);
        for seconds in [i64::MAX, i64::MAX / 1_000, 1 << 40] {
            let pods = [tolerating(Some(seconds)), tolerating(Some(99))];
            let actions = reconcile(&nodes, &pods, &heard, now());
            assert!(matches!(&actions[..], [Action::Evict { .. }]), "{seconds}: {actions:?}");
        }
    }

    #[test]
    fn a_pod_is_removed_when_its_node_has_had_no_object_for_long() {
        // The pod is hours old: that says nothing of its node.
        let pods = [Arc::new(pod("a:ready", 0, "rc", "web"))];
        let removed = |missing: &[(&str, u64)]| {
            super::reconcile(&[], &pods, &Heard::default(), &ages(missing), now())
        };
        assert_eq!(removed(&[]), []);
        assert_eq!(removed(&[("node-1", 39), ("node-2", 900)]), []);
        let actions = removed(&[("node-1", 40)]);
        assert!(matches!(&actions[..], [Action::Remove { node, .. }] if node == "node-1"));
    }
}
