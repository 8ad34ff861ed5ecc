//! What the scheduler believes of nodes and pods. No IO.
//!
//! Two sources are joined, and the lower word counts: the registry (what a node has to give, less
//! what bound pods and placements under way ask for) and the node itself (what it said it has
//! free). Either may be old; the node corrects what comes of that when it refuses.

use super::volume_needs::VolumeNeeds;
use crate::requests;
use impresario_client::protocol::{resources::Resources, scheduler::NodeSummary};
use k8s_openapi::api::core::v1::{self, NodeSelectorTerm, Taint, Toleration};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A protocol and a port on the node's own address.
pub type HostPort = (String, i32);

/// A node as far as placement depends on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether its object says that it takes no pods.
    pub cordoned: bool,
    /// Whether its object or the node itself says so.
    pub unschedulable: bool,
    /// Whether it was heard of lately.
    pub ready: bool,
    /// What it has to give.
    pub allocatable: Resources,
    /// What is believed to be free.
    pub free: Resources,
    /// Ports that its pods occupy.
    pub host_ports: BTreeSet<HostPort>,
}

/// A pod that waits for a node, as far as placement depends on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pending {
    /// Its uid.
    pub uid: String,
    /// What it asks for.
    pub requests: Resources,
    /// Labels that its node must have.
    pub selector: BTreeMap<String, String>,
    /// Required node affinity: one of the terms must match.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
    /// Taints that it bears with.
    pub tolerations: Vec<Toleration>,
    /// Ports of the node that it wants for itself.
    pub host_ports: Vec<HostPort>,
    /// What its claims ask of the node, where it has any.
    pub volumes: Option<Arc<VolumeNeeds>>,
    /// Higher ones go first.
    pub priority: i32,
    /// When it was created, in milliseconds since 1970.
    pub since: i64,
}

impl Pending {
    /// Whether each node is to both what it is to the other: they differ in name, age and priority alone.
    pub fn is_like(&self, other: &Self) -> bool {
        self.requests == other.requests
            && self.selector == other.selector
            && self.affinity == other.affinity
            && self.tolerations == other.tolerations
            && self.host_ports == other.host_ports
            && self.volumes == other.volumes
    }

    /// What placement needs to know of a pod object.
    pub fn of(pod: &v1::Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity
            .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        let created = pod.metadata.creation_timestamp.as_ref();
        Some(Self {
            uid: pod.metadata.uid.clone()?,
            requests: requests::of_pod(spec),
            selector: spec.node_selector.clone().unwrap_or_default(),
            affinity: required.map(|required| required.node_selector_terms.clone()),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            host_ports: host_ports(spec),
            volumes: None,
            priority: spec.priority.unwrap_or(0),
            since: created.map_or(0, |time| time.0.as_millisecond()),
        })
    }
}

fn host_ports(spec: &v1::PodSpec) -> Vec<HostPort> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
    });
    taken.collect()
}

/// What a pod holds, or is about to hold, of a node.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    node: String,
    resources: Resources,
    host_ports: Vec<HostPort>,
    bound: bool,
}

/// All nodes, and who holds what of them.
#[derive(Debug, Default)]
pub struct Picture {
    nodes: BTreeMap<String, Node>,
    claims: HashMap<String, Claim>,
    held: HashMap<String, Resources>,
    /// How many pods hold each port of a node, whether or not its object was read yet.
    ports: HashMap<String, BTreeMap<HostPort, usize>>,
    told: HashMap<String, NodeSummary>,
}

impl Picture {
    /// The nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node was read. Whether it may now take pods that it could not take before.
    pub fn node_seen(&mut self, object: &v1::Node) -> bool {
        let Some(name) = object.metadata.name.clone() else { return false };
        let spec = object.spec.as_ref();
        let status = object.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let mut node = Node {
            labels: object.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            ready: ready && object.metadata.deletion_timestamp.is_none(),
            allocatable: status
                .and_then(|s| s.allocatable.as_ref())
                .map(requests::amounts)
                .unwrap_or_default(),
            ..Node { name: name.clone(), ..Node::default() }
        };
        let before = self.nodes.get(&name);
        // What a picture derives is not the object's to change.
        if let Some(before) = before {
            node.free = before.free.clone();
            node.unschedulable = before.unschedulable;
            node.host_ports.clone_from(&before.host_ports);
        }
        let changed = before != Some(&node);
        self.nodes.insert(name.clone(), node);
        if changed {
            self.derive(&name);
        }
        changed
    }

    /// A node is no more.
    pub fn node_gone(&mut self, name: &str) {
        self.nodes.remove(name);
        self.told.remove(name);
    }

    /// Whether this node is known.
    pub fn knows(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// The names of the nodes that are known.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// A node said what it has. Whether that is news, and more than was believed.
    /// One that is not known yet is asked once it is.
    pub fn told(&mut self, summary: NodeSummary) -> bool {
        if !self.nodes.contains_key(&summary.node) {
            return false;
        }
        let order = |summary: &NodeSummary| (summary.incarnation, summary.serial);
        let before = self.told.get(&summary.node);
        if before.is_some_and(|before| order(before) >= order(&summary)) {
            return false;
        }
        let more =
            before.is_none_or(|before| !before.free.covers(&summary.free) || before.draining);
        let name = summary.node.clone();
        self.told.insert(name.clone(), summary);
        self.derive(&name);
        more
    }

    /// A node refused, and said what it has left.
    pub fn corrected(&mut self, name: &str, free: Resources) {
        if !self.nodes.contains_key(name) {
            return;
        }
        if let Some(told) = self.told.get_mut(name) {
            told.free = free;
        } else {
            let summary = NodeSummary {
                node: name.to_owned(),
                incarnation: 0,
                serial: 0,
                allocatable: Resources::default(),
                free,
                pods: 0,
                reserved: 0,
                draining: false,
            };
            self.told.insert(name.to_owned(), summary);
        }
        self.derive(name);
    }

    /// The ready nodes that are said to have less than the registry shows: either something is there
    /// that the registry does not know, or the node's latest word was lost.
    pub fn doubtful(&self) -> Vec<String> {
        let is_doubtful = |node: &&Node| {
            let held = self.held.get(&node.name);
            let free =
                held.map_or_else(|| node.allocatable.clone(), |h| node.allocatable.without(h));
            node.ready && !node.free.covers(&free)
        };
        self.nodes.values().filter(is_doubtful).map(|node| node.name.clone()).collect()
    }

    /// A pod is being placed: it counts although it is not bound yet.
    pub fn assume(&mut self, pod: &Pending, node: &str) {
        self.claim(&pod.uid, node, pod.requests.clone(), pod.host_ports.clone(), false);
    }

    /// A placement came to nothing. A bound pod stays where it is.
    pub fn unassume(&mut self, uid: &str) {
        if self.claims.get(uid).is_some_and(|claim| !claim.bound) {
            self.pod_gone(uid);
        }
    }

    /// A bound pod was read. Whether room became free by it.
    pub fn pod_bound(&mut self, uid: &str, node: &str, spec: &v1::PodSpec, is_over: bool) -> bool {
        if is_over {
            return self.pod_gone(uid);
        }
        if self.claims.get(uid).is_none_or(|claim| !claim.bound || claim.node != node) {
            self.claim(uid, node, requests::of_pod(spec), host_ports(spec), true);
        }
        false
    }

    /// A pod is no more, or needs nothing any more. Whether room became free by it.
    pub fn pod_gone(&mut self, uid: &str) -> bool {
        let Some(claim) = self.claims.remove(uid) else { return false };
        if let Some(held) = self.held.get_mut(&claim.node) {
            held.subtract(&claim.resources);
        }
        if let Some(ports) = self.ports.get_mut(&claim.node) {
            for port in &claim.host_ports {
                let count = ports.get_mut(port).map(|count| {
                    *count = count.saturating_sub(1);
                    *count
                });
                if count == Some(0) {
                    ports.remove(port);
                }
            }
        }
        self.derive(&claim.node);
        true
    }

    /// Whether a pod holds anything of a node: it is bound, or being placed.
    pub fn holds(&self, uid: &str) -> bool {
        self.claims.contains_key(uid)
    }

    /// The uids of pods that are believed to be bound.
    pub fn bound(&self) -> Vec<String> {
        self.claims.iter().filter(|(_, claim)| claim.bound).map(|(uid, _)| uid.clone()).collect()
    }

    fn claim(
        &mut self,
        uid: &str,
        node: &str,
        resources: Resources,
        host_ports: Vec<HostPort>,
        bound: bool,
    ) {
        self.pod_gone(uid);
        self.held.entry(node.to_owned()).or_default().add(&resources);
        let ports = self.ports.entry(node.to_owned()).or_default();
        for port in &host_ports {
            *ports.entry(port.clone()).or_default() += 1;
        }
        let claim = Claim { node: node.to_owned(), resources, host_ports, bound };
        self.claims.insert(uid.to_owned(), claim);
        self.derive(node);
    }

    fn derive(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.free = node.allocatable.clone();
        node.unschedulable = node.cordoned;
        let ports = self.ports.get(name).into_iter().flatten();
        node.host_ports = ports.map(|(port, _)| port.clone()).collect();
        if let Some(held) = self.held.get(name) {
            node.free.subtract(held);
        }
        if let Some(told) = self.told.get(name) {
            node.free.lower_to(&told.free);
            node.unschedulable |= told.draining;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A ready node with nothing on it.
    pub(crate) fn node(name: &str, cpu_milli: u64) -> Node {
        let all =
            Resources { cpu_milli, memory_bytes: 1 << 40, pods: 1000, ..Resources::default() };
        Node {
            name: name.to_owned(),
            ready: true,
            allocatable: all.clone(),
            free: all,
            ..Node::default()
        }
    }

    /// A pod whose uid is its name.
    pub(crate) fn pod(uid: &str, cpu_milli: u64) -> Pending {
        let requests = Resources { cpu_milli, pods: 1, ..Resources::default() };
        Pending { uid: uid.to_owned(), requests, ..Pending::default() }
    }

    /// A picture of these nodes alone.
    pub(crate) fn picture(nodes: impl IntoIterator<Item = Node>) -> Picture {
        let nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        Picture { nodes, ..Picture::default() }
    }

    fn seen(picture: &mut Picture, cpu: &str) -> bool {
        picture.node_seen(
            &serde_json::from_value(json!({
                "metadata": {"name": "n"},
                "status": {
                    "allocatable": {"cpu": cpu, "pods": "10"},
                    "conditions": [{"type": "Ready", "status": "True"}]
                }
            }))
            .unwrap(),
        )
    }

    fn free(picture: &Picture) -> u64 {
        picture.nodes["n"].free.cpu_milli
    }

    fn summary(serial: u64, cpu_milli: u64) -> NodeSummary {
        let free = Resources { cpu_milli, pods: 10, ..Resources::default() };
        NodeSummary {
            node: "n".into(),
            incarnation: 1,
            serial,
            allocatable: free.clone(),
            free,
            pods: 0,
            reserved: 0,
            draining: false,
        }
    }

    #[test]
    fn a_placement_counts_until_it_is_bound_or_comes_to_nothing() {
        let mut picture = Picture::default();
        assert!(seen(&mut picture, "1"));
        picture.assume(&pod("a", 400), "n");
        picture.assume(&pod("b", 100), "n");
        assert_eq!(free(&picture), 500);
        picture.unassume("b");
        assert_eq!(free(&picture), 600);
        let spec =
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "400m"}}}]});
        let spec = serde_json::from_value(spec).unwrap();
        assert!(!picture.pod_bound("a", "n", &spec, false));
        assert_eq!(free(&picture), 600);
        picture.unassume("a");
        assert_eq!(free(&picture), 600);
        assert!(picture.pod_bound("a", "n", &spec, true));
        assert_eq!(free(&picture), 1000);
    }

    #[test]
    fn the_lower_word_of_registry_and_node_counts_and_old_words_do_not() {
        let mut picture = Picture::default();
        seen(&mut picture, "1");
        picture.told(summary(2, 300));
        assert_eq!(free(&picture), 300);
        assert!(!picture.told(summary(1, 900)));
        assert_eq!(free(&picture), 300);
        assert!(picture.told(summary(3, 900)));
        assert_eq!(free(&picture), 900);
        picture.corrected("n", Resources::default());
        assert_eq!(free(&picture), 0);
    }

    #[test]
    fn a_port_of_a_node_is_taken_as_long_as_one_pod_has_it_whatever_was_read_first() {
        let ports = json!([{"hostPort": 80, "containerPort": 80}]);
        let spec: v1::PodSpec =
            serde_json::from_value(json!({"containers": [{"name": "c", "ports": ports}]})).unwrap();
        let mut picture = Picture::default();
        picture.pod_bound("a", "n", &spec, false);
        seen(&mut picture, "1");
        let taken = |picture: &Picture| picture.nodes["n"].host_ports.len();
        assert_eq!(taken(&picture), 1);
        picture.pod_bound("b", "n", &spec, false);
        picture.pod_gone("a");
        assert_eq!(taken(&picture), 1, "the second pod has it still");
        picture.node_gone("n");
        seen(&mut picture, "1");
        assert_eq!(taken(&picture), 1);
        picture.pod_gone("b");
        assert_eq!(taken(&picture), 0);
    }

    #[test]
    fn a_node_is_doubted_while_its_word_is_lower_than_what_the_registry_shows() {
        let mut picture = Picture::default();
        seen(&mut picture, "1");
        assert!(picture.doubtful().is_empty());
        picture.told(summary(1, 1000));
        picture.assume(&pod("a", 400), "n");
        assert!(picture.doubtful().is_empty(), "what is held in the registry is no reason");
        picture.corrected("n", Resources::default());
        assert_eq!(picture.doubtful(), ["n"]);
        picture.told(summary(2, 600));
        assert!(picture.doubtful().is_empty());
    }

    #[test]
    fn a_node_takes_pods_again_when_both_its_object_and_itself_say_so() {
        let mut picture = Picture::default();
        seen(&mut picture, "1");
        picture.told(NodeSummary { draining: true, ..summary(1, 900) });
        assert!(picture.nodes["n"].unschedulable);
        seen(&mut picture, "2");
        assert!(picture.nodes["n"].unschedulable);
        assert!(picture.told(summary(2, 900)));
        assert!(!picture.nodes["n"].unschedulable);
    }

    #[test]
    fn a_node_that_is_seen_again_unchanged_is_no_news() {
        let mut picture = Picture::default();
        assert!(seen(&mut picture, "1"));
        picture.assume(&pod("a", 400), "n");
        assert!(!seen(&mut picture, "1"));
        assert!(seen(&mut picture, "2"));
        assert_eq!(free(&picture), 1600);
    }
}
