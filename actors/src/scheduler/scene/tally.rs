//! Pods counted per place: those whom terms select, those that demand something of who comes, and those that are spread.

use super::super::crowd::{Standing, stances};
use super::super::demands::{Labels, Selector, Term};
use super::super::parties::Pending;
use super::places::Topology;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Toleration};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many pods that all of the terms select are in each place.
pub struct Tally {
    pub terms: Vec<Arc<Term>>,
    /// Which topology, of those of the scene.
    pub topology: usize,
    pub counts: Vec<i32>,
    pub total: i32,
}

impl Tally {
    /// A pod has come to a node, or (-1) left it.
    pub fn shift(&mut self, place: Option<usize>, pod: &Pending, namespace: &Labels, by: i32) {
        let Some(place) = place else { return };
        let selects = |term: &Arc<Term>| {
            term.is_about(&pod.namespace, namespace) && term.selects(&pod.labels)
        };
        if self.terms.iter().all(selects) {
            self.counts[place] += by;
            self.total += by;
        }
    }
}

/// How many pods that make the same demand of those that come are in each place.
pub struct Stand {
    pub of: Standing,
    pub topology: usize,
    /// Counted when one comes of whom it is demanded.
    pub counts: Option<Vec<i32>>,
}

impl Stand {
    /// A pod has come to a node, or left it.
    pub fn shift(&mut self, place: Option<usize>, pod: &Pending, by: i32) {
        let (Some(counts), Some(place)) = (&mut self.counts, place) else { return };
        for stance in stances(pod) {
            if stance == self.of {
                counts[place] += by;
            }
        }
    }
}

/// The node selector and the required node affinity of a pod.
pub type Chosen = (BTreeMap<String, String>, Option<Vec<NodeSelectorTerm>>);

/// What counts where pods are spread.
#[derive(PartialEq)]
pub struct Counted {
    pub namespace: String,
    pub selector: Selector,
    pub topology: usize,
    /// The labels that a node must have.
    pub keys: Vec<String>,
    /// Which nodes the pod is meant for.
    pub chosen: Option<Chosen>,
    /// The tolerations that a node's taints must be covered by.
    pub tolerated: Option<Vec<Toleration>>,
}

/// How many pods are in each place over which they are spread.
pub struct Lay {
    pub of: Counted,
    /// Which nodes count.
    pub eligible: Vec<bool>,
    pub counts: Vec<i32>,
    /// The places with a node that counts.
    pub is_place: Vec<bool>,
    pub places: usize,
    /// How many of those places have so many pods.
    depths: BTreeMap<i32, u32>,
}

impl Lay {
    /// One without pods.
    pub fn new(of: Counted, eligible: Vec<bool>, topology: &Topology) -> Self {
        let mut is_place = vec![false; topology.count];
        for node in (0..eligible.len()).filter(|node| eligible[*node]) {
            if let Some(place) = topology.place(node) {
                is_place[place] = true;
            }
        }
        let places = is_place.iter().filter(|is| **is).count();
        let mut lay = Self {
            of,
            eligible,
            counts: vec![0; topology.count],
            is_place,
            places,
            depths: BTreeMap::new(),
        };
        lay.depths.insert(0, u32::try_from(places).unwrap_or(u32::MAX));
        lay
    }

    /// So many more pods are in a place.
    pub fn add(&mut self, node: usize, place: Option<usize>, by: i32) {
        let Some(place) = place.filter(|_| self.eligible[node]) else { return };
        let was = self.counts[place];
        self.counts[place] = was + by;
        if let Some(many) = self.depths.get_mut(&was) {
            *many = many.saturating_sub(1);
            if *many == 0 {
                self.depths.remove(&was);
            }
        }
        *self.depths.entry(was + by).or_insert(0) += 1;
    }

    /// A pod has come to a node, or left it. One that is on its way out counts nowhere.
    pub fn shift(&mut self, node: usize, place: Option<usize>, pod: &Pending, by: i32) {
        let counts = !pod.going && self.of.namespace == pod.namespace;
        if counts && self.of.selector.selects(&pod.labels) {
            self.add(node, place, by);
        }
    }

    /// How many are in the emptiest place.
    pub fn emptiest(&self) -> i32 {
        self.depths.keys().next().copied().unwrap_or(i32::MAX)
    }
}
