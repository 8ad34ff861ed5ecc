//! The picture as one plan has it: what it has placed so far is there already. No IO.
//!
//! Pods are counted per place (the nodes with the same value of a label) when the first pod of the plan asks for that
//! count, and kept with each placement. To ask what a place has is to look into an array.

mod places;
mod tally;

use super::crowd::{Stance, Standing, stances};
use super::demands::{Spread, Term};
use super::fit::{forbids, is_chosen};
use super::parties::{Node, Pending};
use super::picture::Picture;
use impresario_client::protocol::resources::Resources;
use places::Topology;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tally::{Counted, Lay, Stand, Tally};

/// A pod that looks for a node, and where in the scene stands what it asks.
pub struct Subject<'p> {
    /// The pod.
    pub pod: &'p Pending,
    near: Vec<usize>,
    is_near_itself: bool,
    apart: Vec<usize>,
    against: Vec<usize>,
    prefers: Vec<(i64, usize)>,
    preferred: Vec<(i64, usize)>,
    spread: Vec<Spreading>,
}

struct Spreading {
    lay: usize,
    max_skew: i32,
    min_domains: usize,
    is_required: bool,
    counts_itself: i32,
}

/// What is wrong with how a pod would be spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skewed {
    /// The node has not the label.
    NoPlace,
    /// There would be too many in its place.
    TooMany,
}

/// The picture, what is placed so far, and who waits for room that is being made.
pub struct Scene<'a> {
    /// What it began with.
    pub picture: &'a Picture,
    /// The nodes by name; copied where something is placed, which few are.
    pub nodes: Vec<Cow<'a, Node>>,
    index: HashMap<&'a str, usize>,
    topologies: Vec<Topology>,
    tallies: Vec<Tally>,
    stands: Vec<Stand>,
    stands_by: HashMap<Standing, usize>,
    has_stands: bool,
    lays: Vec<Lay>,
    booked: HashMap<usize, Vec<&'a Pending>>,
    /// What the plan has placed, and taken back: what is counted later counts it too.
    log: Vec<(&'a Pending, usize, i32)>,
    /// Who is made to leave by this plan.
    pub condemned: HashSet<String>,
    /// Whether a taint says that pods should rather not come.
    pub has_soft_taints: bool,
    /// Whether nodes say which images they have.
    pub has_images: bool,
    with_image: HashMap<&'a str, u64>,
}

impl<'a> Scene<'a> {
    /// The scene before anything is placed.
    pub fn new(picture: &'a Picture) -> Self {
        let nodes: Vec<_> = picture.nodes().map(Cow::Borrowed).collect();
        let names = picture.nodes().map(|node| node.name.as_str());
        let index = names.enumerate().map(|(index, name)| (name, index)).collect();
        let mut with_image: HashMap<&str, u64> = HashMap::new();
        for image in picture.nodes().flat_map(|node| node.images.keys()) {
            *with_image.entry(image).or_default() += 1;
        }
        Self {
            picture,
            nodes,
            index,
            topologies: Vec::new(),
            tallies: Vec::new(),
            stands: Vec::new(),
            stands_by: HashMap::new(),
            has_stands: false,
            lays: Vec::new(),
            booked: HashMap::new(),
            log: Vec::new(),
            condemned: HashSet::new(),
            has_soft_taints: picture
                .nodes()
                .flat_map(|node| &node.taints)
                .any(|taint| taint.effect == "PreferNoSchedule"),
            has_images: !with_image.is_empty(),
            with_image,
        }
    }

    /// How many nodes have the image.
    pub fn with_image(&self, image: &str) -> u64 {
        self.with_image.get(image).copied().unwrap_or(0)
    }

    /// Where the node with this name stands.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn topology(&mut self, key: &str) -> usize {
        if let Some(known) = self.topologies.iter().position(|one| one.key == key) {
            return known;
        }
        self.topologies.push(Topology::of(key, &self.nodes));
        self.topologies.len() - 1
    }

    fn place(&self, topology: usize, node: usize) -> Option<usize> {
        self.topologies[topology].place(node)
    }

    /// Looks up, or begins to count, all that a pod asks.
    pub fn subject<'p>(&mut self, pod: &'p Pending) -> Subject<'p> {
        let demands = &pod.demands;
        let namespace = self.picture.namespace(&pod.namespace);
        let selects =
            |term: &Term| term.is_about(&pod.namespace, namespace) && term.selects(&pod.labels);
        let near: Vec<_> =
            demands.near.iter().map(|term| self.tally(&demands.near, &term.topology)).collect();
        let alone = |scene: &mut Self, term: &Arc<Term>| {
            scene.tally(std::slice::from_ref(term), &term.topology)
        };
        let apart = demands.apart.iter().map(|term| alone(self, term)).collect();
        let prefers = demands
            .prefers
            .iter()
            .map(|(weight, term)| (i64::from(*weight), alone(self, term)))
            .collect();
        let (mut against, mut preferred) = (Vec::new(), Vec::new());
        self.take_stands();
        for at in 0..self.stands.len() {
            if !selects(&self.stands[at].of.1) {
                continue;
            }
            self.count_stand(at);
            match self.stands[at].of.0 {
                Stance::Apart => against.push(at),
                Stance::Near => preferred.push((1, at)),
                Stance::Prefers(weight) => preferred.push((i64::from(weight), at)),
            }
        }
        let spread = demands.spread.iter().map(|one| self.spreading(pod, one)).collect();
        let is_near_itself = demands.near.iter().all(|term| selects(term));
        Subject { pod, near, is_near_itself, apart, against, prefers, preferred, spread }
    }

    fn tally(&mut self, terms: &[Arc<Term>], key: &str) -> usize {
        let topology = self.topology(key);
        let known =
            self.tallies.iter().position(|one| one.topology == topology && one.terms == terms);
        if let Some(known) = known {
            return known;
        }
        let counts = vec![0; self.topologies[topology].count];
        let mut tally = Tally { terms: terms.to_vec(), topology, counts, total: 0 };
        let crowd = self.picture.crowd();
        for namespace in crowd.namespaces() {
            let its_labels = self.picture.namespace(namespace);
            if !terms.iter().all(|term| term.is_about(namespace, its_labels)) {
                continue;
            }
            let selected = |labels| terms.iter().all(|term: &Arc<Term>| term.selects(labels));
            let groups = crowd.of_namespace(namespace).filter(|((labels, _), _)| selected(labels));
            for (node, count) in groups.flat_map(|(_, nodes)| nodes) {
                let node = self.index.get(node.as_str());
                if let Some(place) = node.and_then(|node| self.place(topology, *node)) {
                    tally.counts[place] += count;
                    tally.total += count;
                }
            }
        }
        for (pod, node, by) in &self.log {
            let place = self.place(topology, *node);
            tally.shift(place, pod, self.picture.namespace(&pod.namespace), *by);
        }
        self.tallies.push(tally);
        self.tallies.len() - 1
    }

    fn take_stands(&mut self) {
        if std::mem::replace(&mut self.has_stands, true) {
            return;
        }
        let all: Vec<_> = self.picture.crowd().standing().cloned().collect();
        for standing in all {
            self.stand(standing);
        }
    }

    fn stand(&mut self, of: Standing) -> usize {
        if let Some(known) = self.stands_by.get(&of) {
            return *known;
        }
        let topology = self.topology(&of.1.topology);
        self.stands.push(Stand { of: of.clone(), topology, counts: None });
        self.stands_by.insert(of, self.stands.len() - 1);
        self.stands.len() - 1
    }

    /// Whether the labels of two pods that demand the same are the same to all that go by them: what they demand
    /// themselves, and what others demand of who comes.
    pub fn is_seen_alike(&mut self, one: &Pending, other: &Pending) -> bool {
        if one.labels == other.labels {
            return true;
        }
        self.take_stands();
        let namespace = self.picture.namespace(&one.namespace);
        let stands = self.stands.iter().map(|stand| &stand.of.1);
        let terms = stands.chain(&one.demands.near);
        let mut about = terms.filter(|term| term.is_about(&one.namespace, namespace));
        about.all(|term| term.selects(&one.labels) == term.selects(&other.labels))
            && one.demands.spread.iter().all(|spread| {
                spread.selector.selects(&one.labels) == spread.selector.selects(&other.labels)
            })
    }

    fn count_stand(&mut self, at: usize) {
        if self.stands[at].counts.is_some() {
            return;
        }
        let topology = self.stands[at].topology;
        let mut counts = vec![0; self.topologies[topology].count];
        for (node, count) in self.picture.crowd().demanded(&self.stands[at].of) {
            let node = self.index.get(node.as_str());
            if let Some(place) = node.and_then(|node| self.place(topology, *node)) {
                counts[place] += count;
            }
        }
        self.stands[at].counts = Some(counts);
        for at_log in 0..self.log.len() {
            let (pod, node, by) = self.log[at_log];
            let place = self.place(topology, node);
            self.stands[at].shift(place, pod, by);
        }
    }

    fn spreading(&mut self, pod: &Pending, spread: &Spread) -> Spreading {
        let alike = pod.demands.spread.iter().filter(|one| one.is_required == spread.is_required);
        let topology = self.topology(&spread.topology);
        let is_meant = !pod.selector.is_empty() || pod.affinity.is_some();
        let chosen = is_meant && !spread.any_affinity;
        let of = Counted {
            namespace: pod.namespace.clone(),
            selector: spread.selector.clone(),
            topology,
            keys: alike.map(|one| one.topology.clone()).collect(),
            chosen: chosen.then(|| (pod.selector.clone(), pod.affinity.clone())),
            tolerated: (!spread.any_taints).then(|| pod.tolerations.clone()),
        };
        let known = self.lays.iter().position(|lay| lay.of == of);
        let lay = known.unwrap_or_else(|| self.lay(of));
        Spreading {
            lay,
            max_skew: spread.max_skew,
            min_domains: spread.min_domains,
            is_required: spread.is_required,
            counts_itself: i32::from(spread.selector.selects(&pod.labels)),
        }
    }

    fn lay(&mut self, of: Counted) -> usize {
        let eligible: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let tolerations = of.tolerated.as_deref();
                of.keys.iter().all(|key| node.labels.contains_key(key))
                    && of.chosen.as_ref().is_none_or(|(selector, affinity)| {
                        is_chosen(selector, affinity.as_deref(), &node.name, &node.labels)
                    })
                    && tolerations.is_none_or(|all| forbids(all, &node.taints).is_none())
            })
            .collect();
        let (topology, crowd) = (of.topology, self.picture.crowd());
        let mut lay = Lay::new(of, eligible, &self.topologies[topology]);
        for ((labels, going), nodes) in crowd.of_namespace(&lay.of.namespace.clone()) {
            if *going || !lay.of.selector.selects(labels) {
                continue;
            }
            for (node, count) in nodes {
                if let Some(node) = self.index.get(node.as_str()) {
                    lay.add(*node, self.place(topology, *node), *count);
                }
            }
        }
        for (pod, node, by) in &self.log {
            lay.shift(*node, self.place(topology, *node), pod, *by);
        }
        self.lays.push(lay);
        self.lays.len() - 1
    }

    /// A pod is placed on a node. Everything that is counted knows of it.
    pub fn put(&mut self, pod: &'a Pending, node: usize) {
        let here = self.nodes[node].to_mut();
        here.free.subtract(&pod.requests);
        here.host_ports.extend(pod.host_ports.iter().cloned());
        self.shift(pod, node, 1);
        self.log.push((pod, node, 1));
    }

    /// A pod comes to be counted at a node, or (-1) not to be any more; as a trial, to be taken back before anything
    /// new is counted.
    pub fn shift(&mut self, pod: &Pending, node: usize, by: i32) {
        let namespace = self.picture.namespace(&pod.namespace);
        let topologies = &self.topologies;
        let place = |topology: usize| topologies[topology].place(node);
        for tally in &mut self.tallies {
            tally.shift(place(tally.topology), pod, namespace, by);
        }
        for lay in &mut self.lays {
            lay.shift(node, place(lay.of.topology), pod, by);
        }
        let demands = &pod.demands;
        if demands.apart.is_empty() && demands.near.is_empty() && demands.prefers.is_empty() {
            return;
        }
        self.take_stands();
        let mut concerned: Vec<_> = stances(pod).map(|standing| self.stand(standing)).collect();
        concerned.sort_unstable();
        concerned.dedup();
        for at in concerned {
            let place = self.place(self.stands[at].topology, node);
            self.stands[at].shift(place, pod, by);
        }
    }

    /// Keeps room on a node for a pod that waits until others have left it.
    pub fn book(&mut self, pod: &'a Pending, node: usize) {
        self.shift(pod, node, 1);
        self.log.push((pod, node, 1));
        self.booked.entry(node).or_default().push(pod);
    }

    /// The pod with this uid needs its room no more.
    pub fn unbook(&mut self, uid: &str, node: usize) {
        let Some(booked) = self.booked.get_mut(&node) else { return };
        let Some(at) = booked.iter().position(|pod| pod.uid == uid) else { return };
        let pod = booked.swap_remove(at);
        if booked.is_empty() {
            self.booked.remove(&node);
        }
        self.shift(pod, node, -1);
        self.log.push((pod, node, -1));
    }

    /// Who waits for room on the node.
    pub fn booked(&self, node: usize) -> &[&'a Pending] {
        if self.booked.is_empty() {
            return &[];
        }
        self.booked.get(&node).map_or(&[], Vec::as_slice)
    }

    /// What is free on a node beside what is kept for others.
    pub fn beside_booked(&self, node: usize) -> Option<Resources> {
        let booked = self.booked(node);
        if booked.is_empty() {
            return None;
        }
        let mut free = self.nodes[node].free.clone();
        for pod in booked {
            free.subtract(&pod.requests);
        }
        Some(free)
    }

    /// Whether the pods are there near which the pod must be. The first of its kind may be anywhere.
    pub fn is_near(&self, subject: &Subject<'_>, node: usize) -> bool {
        let is_first = subject.is_near_itself
            && subject.near.iter().all(|tally| self.tallies[*tally].total == 0);
        subject.near.iter().all(|tally| {
            let tally = &self.tallies[*tally];
            self.place(tally.topology, node)
                .is_some_and(|place| is_first || tally.counts[place] > 0)
        })
    }

    /// Whether nobody is there from whom the pod must be apart.
    pub fn is_apart(&self, subject: &Subject<'_>, node: usize) -> bool {
        subject.apart.iter().all(|tally| {
            let tally = &self.tallies[*tally];
            self.place(tally.topology, node).is_none_or(|place| tally.counts[place] == 0)
        })
    }

    /// Whether nobody there must be apart from the pod.
    pub fn is_welcome(&self, subject: &Subject<'_>, node: usize) -> bool {
        subject.against.iter().all(|stand| self.standing(*stand, node) == 0)
    }

    fn standing(&self, stand: usize, node: usize) -> i32 {
        let stand = &self.stands[stand];
        let place = self.place(stand.topology, node);
        stand.counts.as_ref().zip(place).map_or(0, |(counts, place)| counts[place])
    }

    /// What is wrong with how the pod would be spread.
    pub fn skewed(&self, subject: &Subject<'_>, node: usize) -> Option<Skewed> {
        subject.spread.iter().filter(|spread| spread.is_required).find_map(|spread| {
            let lay = &self.lays[spread.lay];
            let Some(place) = self.place(lay.of.topology, node) else {
                return Some(Skewed::NoPlace);
            };
            let is_few = lay.places < spread.min_domains;
            let emptiest = if is_few { 0 } else { lay.emptiest() };
            let there = if lay.is_place[place] { lay.counts[place] } else { 0 };
            let is_too_many = i64::from(there) + i64::from(spread.counts_itself)
                - i64::from(emptiest)
                > i64::from(spread.max_skew);
            is_too_many.then_some(Skewed::TooMany)
        })
    }

    /// Whether pods around say anything of where the pod would rather be.
    pub fn has_preferences(&self, subject: &Subject<'_>) -> bool {
        !subject.prefers.is_empty() || !subject.preferred.is_empty()
    }

    /// How much the pod and those around a node would like it there.
    pub fn liking(&self, subject: &Subject<'_>, node: usize) -> i64 {
        let own = subject.prefers.iter().map(|(weight, tally)| {
            let tally = &self.tallies[*tally];
            let place = self.place(tally.topology, node);
            weight * place.map_or(0, |place| i64::from(tally.counts[place]))
        });
        let others = subject
            .preferred
            .iter()
            .map(|(weight, stand)| weight * i64::from(self.standing(*stand, node)));
        own.chain(others).sum()
    }

    /// Whether the pod would rather be spread.
    pub fn would_spread(subject: &Subject<'_>) -> bool {
        subject.spread.iter().any(|spread| !spread.is_required)
    }

    /// How crowded the places of a node are over which the pod would rather be spread; nothing for a node that has not
    /// all of them. Labels with few values weigh less.
    pub fn crowded(&self, subject: &Subject<'_>, node: usize) -> Option<i64> {
        let mut sum = 0.0;
        for spread in subject.spread.iter().filter(|spread| !spread.is_required) {
            let lay = &self.lays[spread.lay];
            let place = self.place(lay.of.topology, node).filter(|_| lay.eligible[node])?;
            #[expect(clippy::cast_precision_loss, reason = "there are never that many places")]
            let weight = (lay.places as f64 + 2.0).ln();
            sum += f64::from(lay.counts[place]) * weight + f64::from(spread.max_skew - 1);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a score of so many pods is no larger")]
        Some(sum.round() as i64)
    }
}

#[cfg(test)]
mod tests;
