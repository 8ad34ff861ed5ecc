//! What the scheduler believes of nodes and pods. No IO.
//!
//! Two sources are joined, and the lower word counts: the registry (what a node has to give, less
//! what bound pods and placements under way ask for) and the node itself (what it said it has
//! free). Either may be old; the node corrects what comes of that when it refuses.

mod budgets;
mod nominations;

use super::crowd::Crowd;
use super::demands::Labels;
use super::parties::{HostPort, Node, Pending};
use crate::requests;
pub use budgets::{BUDGETS, Budgets, Spent};
use impresario_client::protocol::{resources::Resources, scheduler::NodeSummary};
use k8s_openapi::api::core::v1;
pub use nominations::{Nomination, Nominations};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a pod holds, or is about to hold, of a node.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    node: String,
    pod: Arc<Pending>,
    bound: bool,
    /// When it is to have left, in milliseconds since 1970, where it is on its way out.
    leaves_by: Option<i64>,
}

/// A pod that has left room on a node.
#[derive(Debug, Clone)]
pub struct Left {
    /// The node.
    pub node: String,
    /// The pod.
    pub pod: Arc<Pending>,
}

/// So long after its time a pod that was to leave is still expected to, in milliseconds.
pub const OVERDUE: i64 = 30_000;

/// All nodes, and who holds what of them.
#[derive(Debug, Default)]
pub struct Picture {
    nodes: BTreeMap<String, Node>,
    claims: HashMap<String, Claim>,
    held: HashMap<String, Resources>,
    /// How many pods hold each port of a node, whether or not its object was read yet.
    ports: HashMap<String, BTreeMap<HostPort, usize>>,
    told: HashMap<String, NodeSummary>,
    crowd: Crowd,
    residents: HashMap<String, BTreeSet<String>>,
    /// How many pods on nodes, of those who may be made to leave, have each priority.
    priorities: BTreeMap<i32, usize>,
    /// The labels of namespaces.
    namespaces: HashMap<String, Labels>,
    no_labels: Labels,
    /// What may be made to miss.
    pub budgets: Budgets,
    /// Who waits for room that others are leaving.
    pub nominations: Nominations,
}

impl Picture {
    /// The nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node with this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
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
            images: Arc::new(images(status)),
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
        self.nominations.node_gone(name);
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
        let doubtful = self.nodes.values().filter(|node| self.is_doubtful(node));
        doubtful.map(|node| node.name.clone()).collect()
    }

    /// Whether the node is one of [`Picture::doubtful`].
    pub fn is_doubtful(&self, node: &Node) -> bool {
        node.ready && !node.free.covers(&self.left_by_pods(node))
    }

    /// How much more its pods leave of the node than it says it has free.
    pub fn unsaid(&self, node: &Node) -> Resources {
        self.left_by_pods(node).without(&node.free)
    }

    /// How much more the pods of the node hold than it has to give.
    pub fn owed(&self, node: &Node) -> Resources {
        self.held.get(&node.name).map(|held| held.without(&node.allocatable)).unwrap_or_default()
    }

    fn left_by_pods(&self, node: &Node) -> Resources {
        let held = self.held.get(&node.name);
        held.map_or_else(|| node.allocatable.clone(), |held| node.allocatable.without(held))
    }

    /// A pod is being placed: it counts although it is not bound yet.
    pub fn assume(&mut self, pod: &Pending, node: &str) {
        self.claim(Arc::new(pod.clone()), node, false, None);
    }

    /// A placement came to nothing. A bound pod stays where it is.
    pub fn unassume(&mut self, uid: &str) {
        if self.claims.get(uid).is_some_and(|claim| !claim.bound) {
            self.pod_gone(uid);
        }
    }

    /// A bound pod was read; `leaves_by` is when it is to have left, where it is on its way out. What it has left, where
    /// it needs nothing any more.
    pub fn pod_bound(
        &mut self,
        pod: Pending,
        node: &str,
        is_over: bool,
        leaves_by: Option<i64>,
    ) -> Option<Left> {
        self.nominations.remove(&pod.uid);
        if is_over {
            return self.pod_gone(&pod.uid);
        }
        let is_as_known = self.claims.get(&pod.uid).is_some_and(|claim| {
            claim.bound && claim.node == node && claim.leaves_by == leaves_by && *claim.pod == pod
        });
        if !is_as_known {
            self.claim(Arc::new(pod), node, true, leaves_by);
        }
        None
    }

    /// A pod is no more, or needs nothing any more. What it has left.
    pub fn pod_gone(&mut self, uid: &str) -> Option<Left> {
        let claim = self.claims.remove(uid)?;
        self.crowd.remove(&claim.pod, &claim.node);
        if let Some(held) = self.held.get_mut(&claim.node) {
            held.subtract(&claim.pod.requests);
        }
        if let Some(ports) = self.ports.get_mut(&claim.node) {
            for port in &claim.pod.host_ports {
                let count = ports.get_mut(port).map(|count| {
                    *count = count.saturating_sub(1);
                    *count
                });
                if count == Some(0) {
                    ports.remove(port);
                }
            }
        }
        if let Some(residents) = self.residents.get_mut(&claim.node) {
            residents.remove(uid);
            if residents.is_empty() {
                self.residents.remove(&claim.node);
            }
        }
        if may_leave(&claim)
            && let Some(count) = self.priorities.get_mut(&claim.pod.priority)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.priorities.remove(&claim.pod.priority);
            }
        }
        self.derive(&claim.node);
        Some(Left { node: claim.node, pod: claim.pod })
    }

    /// Whether a pod holds anything of a node: it is bound, or being placed.
    pub fn holds(&self, uid: &str) -> bool {
        self.claims.contains_key(uid)
    }

    /// The uids of pods that are believed to be bound.
    pub fn bound(&self) -> Vec<String> {
        self.claims.iter().filter(|(_, claim)| claim.bound).map(|(uid, _)| uid.clone()).collect()
    }

    /// Who is where.
    pub fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// The labels of a namespace; none where they are not known.
    pub fn namespace(&self, name: &str) -> &Labels {
        self.namespaces.get(name).unwrap_or(&self.no_labels)
    }

    /// A namespace was read, or (`None`) is gone. Whether it has other labels now.
    pub fn namespace_seen(&mut self, name: &str, labels: Option<Labels>) -> bool {
        match labels {
            Some(labels) => {
                self.namespaces.get(name) != Some(&labels) && {
                    self.namespaces.insert(name.to_owned(), labels);
                    true
                }
            }
            None => self.namespaces.remove(name).is_some(),
        }
    }

    /// The namespaces that are known and not among these.
    pub fn namespaces_beside(&self, present: &BTreeSet<&str>) -> Vec<String> {
        self.namespaces.keys().filter(|name| !present.contains(name.as_str())).cloned().collect()
    }

    /// Whether a pod has a node that could be made to leave for one of this priority.
    pub fn has_lower(&self, priority: i32) -> bool {
        self.priorities.first_key_value().is_some_and(|(lowest, _)| *lowest < priority)
    }

    /// The pods that are bound to a node, and by when each of them is to have left.
    pub fn residents(&self, node: &str) -> impl Iterator<Item = (&Arc<Pending>, Option<i64>)> {
        let uids = self.residents.get(node).into_iter().flatten();
        let claims = uids.filter_map(|uid| self.claims.get(uid)).filter(|claim| claim.bound);
        claims.map(|claim| (&claim.pod, claim.leaves_by))
    }

    /// The pod with this uid, where it is bound.
    pub fn resident(&self, uid: &str) -> Option<&Arc<Pending>> {
        self.claims.get(uid).filter(|claim| claim.bound).map(|claim| &claim.pod)
    }

    fn claim(&mut self, pod: Arc<Pending>, node: &str, bound: bool, leaves_by: Option<i64>) {
        self.pod_gone(&pod.uid);
        self.crowd.add(&pod, node);
        self.held.entry(node.to_owned()).or_default().add(&pod.requests);
        let ports = self.ports.entry(node.to_owned()).or_default();
        for port in &pod.host_ports {
            *ports.entry(port.clone()).or_default() += 1;
        }
        self.residents.entry(node.to_owned()).or_default().insert(pod.uid.clone());
        let claim = Claim { node: node.to_owned(), pod, bound, leaves_by };
        if may_leave(&claim) {
            *self.priorities.entry(claim.pod.priority).or_default() += 1;
        }
        self.claims.insert(claim.pod.uid.clone(), claim);
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

/// Whether others may make the pod leave. How many members a training job has is for the auction alone.
fn may_leave(claim: &Claim) -> bool {
    claim.bound && !claim.pod.is_member
}

/// The images that a node says it has.
fn images(status: Option<&v1::NodeStatus>) -> BTreeMap<String, u64> {
    let images = status.and_then(|status| status.images.as_deref()).unwrap_or_default();
    let named = images.iter().flat_map(|image| {
        let size = image.size_bytes.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        image.names.iter().flatten().map(move |name| (name.clone(), size))
    });
    named.collect()
}

#[cfg(test)]
pub(crate) mod tests;
