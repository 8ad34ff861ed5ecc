//! Which nodes a daemon set is meant for, and which of its pods are on each.

use super::super::labels;
use super::super::pod_view::PodView as _;
use super::super::replicas::available_at;
use super::marks::HASH;
use super::pods;
use crate::scheduler::fit;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint, Toleration};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What of a node says whether a pod is meant for it.
#[derive(Debug, PartialEq)]
pub(super) struct Facet {
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    cordoned: bool,
}

impl Facet {
    pub(super) fn of(node: &Node) -> Self {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        Self {
            cordoned: is_cordoned(node),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints.unwrap_or_default(),
        }
    }
}

/// Whether a node is to have a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meant {
    /// It is to have one.
    Wanted,
    /// It keeps the one that it has, and gets no other: a taint that the pod does not tolerate came later.
    Kept,
    /// It is to have none.
    Unwanted,
}

/// A node, and the pods that are there or are made for it, the oldest first.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) node: &'a str,
    pub(super) pods: Vec<&'a Pod>,
    meant: Meant,
    /// Whether the node takes no pods now: the one that it has is kept until it does.
    pub(super) is_cordoned: bool,
}

/// All nodes.
pub(super) struct Places<'a> {
    all: Vec<Place<'a>>,
    lost: Vec<&'a Pod>,
}

impl<'a> Places<'a> {
    /// The nodes, as this set means them, and its pods on them.
    pub(super) fn of(set: &DaemonSet, nodes: &'a [Arc<Node>], pods: &[&'a Pod]) -> Self {
        let mut on: BTreeMap<&str, Vec<&'a Pod>> = BTreeMap::new();
        // Where one goes that is made for no node is not known yet: it is let be until then.
        for pod in pods {
            if let Some(node) = pods::node_of(pod) {
                on.entry(node).or_default().push(pod);
            }
        }
        let pod_spec = set.spec.template.spec.as_ref();
        let tolerations = pods::tolerations(pod_spec);
        let place = |node: &'a Arc<Node>| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let mut pods = on.remove(name).unwrap_or_default();
            pods.sort_by_key(|pod| (!pod.bound(), pod.created(), pod.uid().to_owned()));
            let meant = meant(pod_spec, &tolerations, name, node);
            Place { node: name, pods, meant, is_cordoned: is_cordoned(node) }
        };
        let all = nodes.iter().map(place).collect();
        // One that has a node ends with it; one that waits for a node that is gone waits for ever.
        let lost = on.into_values().flatten();
        let lost = lost.filter(|pod| !pod.bound() && !pod.terminating()).collect();
        Self { all, lost }
    }

    pub(super) fn all(&self) -> &[Place<'a>] {
        &self.all
    }

    /// Pods that are made for nodes that are not there.
    pub(super) fn lost(&self) -> &[&'a Pod] {
        &self.lost
    }
}

impl<'a> Place<'a> {
    /// Whether it is to have a pod.
    pub(super) fn is_wanted(&self) -> bool {
        self.meant == Meant::Wanted
    }

    /// Pods that ended by themselves and are still there.
    pub(super) fn finished(&self) -> impl Iterator<Item = &'a Pod> {
        let stays = self.meant != Meant::Unwanted;
        self.pods.iter().copied().filter(move |pod| stays && pod.finished() && !pod.terminating())
    }

    /// Whether another comes in the place of one that ended: nothing else runs there or has still to end, or what
    /// does is of an older template and may stay beside a new one.
    pub(super) fn is_replaced(&self, surges: bool, hash: &str) -> bool {
        let mut others = self.pods.iter().filter(|pod| !pod.finished());
        let may_stay = |pod: &&Pod| !pod.terminating() && !is_of(pod, hash);
        self.is_wanted()
            && match others.next() {
                None => true,
                Some(_) if !surges || self.is_cordoned => false,
                Some(old) => may_stay(old) && others.next().is_none(),
            }
    }

    /// Whether what ended there stays until something else has ended too: it says how the one is to be made that
    /// comes then.
    pub(super) fn is_awaited(&self) -> bool {
        let mut running = self.pods.iter().filter(|pod| !pod.finished()).peekable();
        self.is_wanted() && running.peek().is_some() && running.all(|pod| pod.terminating())
    }

    fn living(&self) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().copied().filter(|pod| !pod.finished() && !pod.terminating())
    }

    /// The pods that must not be there beside another or at all. Where new ones may come before the old ones go,
    /// the oldest of each is kept until the new one is available or the old one is not ready.
    pub(super) fn unwanted(
        &self,
        surges: bool,
        hash: &str,
        patience: i32,
        now: Timestamp,
    ) -> Vec<&'a Pod> {
        if self.meant == Meant::Unwanted {
            return self.pods.iter().copied().filter(|pod| !pod.terminating()).collect();
        }
        if !surges {
            return self.living().skip(1).collect();
        }
        let (new, old): (Vec<_>, Vec<_>) = self.living().partition(|pod| is_of(pod, hash));
        let replaced = old.first().filter(|old| {
            new.first().is_some_and(|new| !old.ready() || is_available(new, patience, now))
        });
        let surplus = new.iter().skip(1).chain(old.iter().skip(1));
        surplus.chain(replaced).copied().collect()
    }

    /// The new and the old pod that live there; `None` where there are more of one sort than one.
    pub(super) fn new_and_old(&self, hash: &str) -> Option<(Option<&'a Pod>, Option<&'a Pod>)> {
        let (new, old): (Vec<_>, Vec<_>) =
            self.pods.iter().filter(|pod| !pod.terminating()).partition(|pod| is_of(pod, hash));
        let one = |all: Vec<&&'a Pod>| all.first().map(|pod| **pod);
        (new.len() < 2 && old.len() < 2).then(|| (one(new), one(old)))
    }
}

/// Whether it is another thing to a daemon set what a node is now and what it was. Where the set has no pods on a node, it
/// is the same to it what else becomes of that, and whether it is there at all.
pub(super) fn matters(set: &DaemonSet, before: Option<&Node>, now: Option<&Node>) -> bool {
    let pod_spec = set.spec.template.spec.as_ref();
    let tolerations = pods::tolerations(pod_spec);
    let is = |node: &Node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let meant = meant(pod_spec, &tolerations, name, node);
        (meant != Meant::Unwanted).then(|| (meant, is_cordoned(node)))
    };
    before.and_then(is) != now.and_then(is)
}

/// Whether a pod is of the template with this hash.
pub(super) fn is_of(pod: &Pod, hash: &str) -> bool {
    pod.labels().get(HASH).is_some_and(|of| of == hash)
}

/// Whether a pod has been ready for so many seconds.
pub(super) fn is_available(pod: &Pod, patience: i32, now: Timestamp) -> bool {
    pod.ready() && available_at(pod, patience).is_none_or(|at| at <= now)
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

fn meant(spec: Option<&PodSpec>, tolerations: &[Toleration], name: &str, node: &Node) -> Meant {
    let Some(spec) = spec else { return Meant::Unwanted };
    let named = spec.node_name.as_deref().filter(|named| !named.is_empty());
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let none = BTreeMap::new();
    let chosen = fit::is_chosen(
        spec.node_selector.as_ref().unwrap_or(&none),
        required.map(|required| required.node_selector_terms.as_slice()),
        name,
        labels::of(&node.metadata),
    );
    if named.is_some_and(|named| named != name) || !chosen {
        return Meant::Unwanted;
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let forbidden = taints.filter(|taint| !fit::tolerates(tolerations, taint));
    let effects: BTreeSet<&str> = forbidden.map(|taint| taint.effect.as_str()).collect();
    match () {
        () if effects.contains("NoExecute") => Meant::Unwanted,
        () if effects.contains("NoSchedule") => Meant::Kept,
        () => Meant::Wanted,
    }
}
