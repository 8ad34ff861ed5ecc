//! Which waiting pod goes to which node. No IO, no clock.
//!
//! Pods are taken by priority, then by age; each takes what it asks from the picture before the
//! next one is looked at, so one plan never gives a node more than the picture says is free. What
//! the picture says may be wrong: the node itself has the last word.

use super::{
    filters,
    fit::{NoVictims, Unfit, Why},
    leavers::Leavers,
    parties::Pending,
    picture::{Nomination, Picture, Spent},
    policy::{Candidate, Policy},
    preempt,
    scene::{Scene, Subject},
    scores,
};
use std::{cmp::Reverse, collections::BTreeMap, collections::HashMap, sync::Arc};

/// Above this many nodes only a sample of those that fit is scored: [`SAMPLE`] of them.
pub const SCORE_ALL: usize = 100;
/// How many fitting nodes are scored in a large cluster.
pub const SAMPLE: usize = 100;
/// So many kinds of pods are remembered in a plan that found no node.
const KINDS: usize = 256;
/// So often it is told in a plan, node by node, why a pod fits nowhere; who comes after that has its turn in the next.
const TOLD: usize = 64;
/// So often it is looked in a plan for pods that could leave for another.
const SEARCHES: usize = 32;
/// So many nodes are looked at in a plan for all pods together.
const LOOKS: usize = 4_000_000;

/// Why a node is passed by for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// It is being asked, and takes its time.
    Busy,
    /// It did not answer.
    Silent,
}

/// Others are to leave a node for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The uid of the pod.
    pub uid: String,
    /// The node.
    pub node: String,
    /// The uids of those that are to leave it; nobody where those are enough that are leaving anyway.
    pub victims: Vec<String>,
}

/// What is to be tried now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The uids of the pods for each node, in the order of placement.
    pub placements: BTreeMap<String, Vec<String>>,
    /// Pods that fit nowhere, and why.
    pub unschedulable: Vec<(String, Arc<Why>)>,
    /// Pods that fit on a node that is busy, and on none that can be asked now.
    pub behind: Vec<String>,
    /// Pods that fit only on nodes that do not answer, and what rules out the others.
    pub held: Vec<(String, Arc<Why>)>,
    /// Who is made to leave, for pods that fit nowhere.
    pub preemptions: Vec<Preemption>,
    /// Whether there was too much to look at: some pods have their turn in the next plan.
    pub is_cut: bool,
}

/// Where a pod can go that can go nowhere now.
#[derive(Debug, Clone)]
enum Vain {
    Nowhere(Arc<Why>),
    OnlyBusy,
    OnlySilent(Arc<Why>),
    /// Others leave for one of its kind, and it may be so for the next.
    ByVictims(Arc<Why>),
    /// There is too much to look at: it has its turn in the next plan.
    PutOff,
}

/// A pod that found no node.
struct Tried<'a> {
    pod: &'a Pending,
    vain: Vain,
    /// How many were placed before.
    placed: usize,
}

impl Tried<'_> {
    /// Whether it is so for another like it, when so many are placed. Within a plan nodes have less and less; but whoever
    /// must be near others, or is spread, may go to where one of them was placed meanwhile.
    fn holds(&self, placed: usize) -> bool {
        let demands = &self.pod.demands;
        let is_fickle = !demands.near.is_empty() || !demands.spread.is_empty();
        !is_fickle || self.placed == placed
    }
}

impl Plan {
    fn in_vain(&mut self, pod: &Pending, vain: Vain) {
        let uid = pod.uid.clone();
        match vain {
            Vain::Nowhere(why) | Vain::ByVictims(why) => self.unschedulable.push((uid, why)),
            Vain::OnlyBusy => self.behind.push(uid),
            Vain::OnlySilent(why) => self.held.push((uid, why)),
            Vain::PutOff => self.is_cut = true,
        }
    }
}

/// What a plan looks at.
pub struct Moment<'a> {
    /// What is believed.
    pub picture: &'a Picture,
    /// Turns the sample in large clusters.
    pub start: usize,
    /// Which nodes are passed by, and why.
    pub away: &'a dyn Fn(&str) -> Option<Away>,
    /// Whether a pod that was to have left by then, in milliseconds since 1970, is not expected to leave any more.
    pub is_overdue: &'a dyn Fn(i64) -> bool,
    /// Whether what this node says is believed although its pods leave more of it.
    pub is_believed: &'a dyn Fn(&str) -> bool,
    /// Who was told to leave, and who is not let go.
    pub leavers: &'a Leavers,
}

static NOBODY: Leavers = Leavers::new();

impl<'a> Moment<'a> {
    /// One in which nobody is away, late, believed against the registry, or told to leave.
    pub fn of(picture: &'a Picture, start: usize) -> Self {
        Self {
            picture,
            start,
            away: &|_| None,
            is_overdue: &|_| false,
            is_believed: &|_| false,
            leavers: &NOBODY,
        }
    }
}

/// Finds nodes for the waiting pods, none of them one that is away.
///
/// A pod that finds no node looks at all of them; others like it are told the same without a look.
pub fn plan<'a>(
    pending: impl IntoIterator<Item = &'a Pending>,
    moment: &Moment<'a>,
    policy: &mut dyn Policy,
) -> Plan {
    let mut pending: Vec<_> = pending.into_iter().collect();
    pending.sort_by_key(|pod| (Reverse(pod.priority), pod.since, &pod.uid));
    if pending.is_empty() {
        return Plan::default();
    }
    Planning::new(moment, policy).all(pending)
}

struct Planning<'m, 'a> {
    moment: &'m Moment<'a>,
    policy: &'m mut dyn Policy,
    scene: Scene<'a>,
    away: Vec<Option<Away>>,
    /// Which nodes are doubted, once somebody asked.
    doubted: Option<Vec<bool>>,
    plan: Plan,
    /// Who is nominated for a node, and has not come so far: those of the highest priority last.
    nominated: Vec<&'a Nomination>,
    /// Where room is kept for them.
    booked: HashMap<&'a str, usize>,
    in_vain: Vec<Tried<'a>>,
    placed: usize,
    told: usize,
    searches: usize,
    looks: usize,
    spent: Spent,
}

impl<'m, 'a> Planning<'m, 'a> {
    fn new(moment: &'m Moment<'a>, policy: &'m mut dyn Policy) -> Self {
        let picture = moment.picture;
        let scene = Scene::new(picture);
        let away = scene.nodes.iter().map(|node| (moment.away)(&node.name)).collect();
        let mut nominated = picture.nominations.by_priority();
        // Who is being placed has its room.
        nominated.retain(|nomination| !picture.holds(&nomination.pod.uid));
        nominated.reverse();
        let (mut scene, mut spent) = (scene, Spent::new());
        for pod in moment.leavers.leaving().filter_map(|uid| picture.resident(uid)) {
            picture.budgets.spend(pod, &mut spent);
            scene.condemned.insert(pod.uid.clone());
        }
        Self {
            moment,
            policy,
            scene,
            away,
            doubted: None,
            plan: Plan::default(),
            nominated,
            booked: HashMap::new(),
            in_vain: Vec::new(),
            placed: 0,
            told: 0,
            searches: 0,
            looks: 0,
            spent,
        }
    }

    fn all(mut self, pending: Vec<&'a Pending>) -> Plan {
        for pod in pending {
            if self.looks > LOOKS {
                self.plan.is_cut = true;
                break;
            }
            self.book_above(pod.priority);
            let booked = self.booked.remove(pod.uid.as_str());
            if let Some(node) = booked {
                self.scene.unbook(&pod.uid, node);
            }
            let is_placed = self.one(pod, booked);
            if let Some(node) =
                booked.filter(|_| !is_placed && !self.booked.contains_key(&*pod.uid))
            {
                self.scene.book(pod, node);
                self.booked.insert(&pod.uid, node);
            }
        }
        self.plan
    }

    /// Keeps the rooms of those that are nominated, before one of this priority or a lower one looks for a node.
    fn book_above(&mut self, priority: i32) {
        while let Some(nomination) = self.nominated.pop_if(|one| one.pod.priority >= priority) {
            if let Some(node) = self.scene.index_of(&nomination.node) {
                self.scene.book(&nomination.pod, node);
                self.booked.insert(&nomination.pod.uid, node);
            }
        }
    }

    /// Finds a node for a pod, first that of its nomination. Whether there is one.
    fn one(&mut self, pod: &'a Pending, nominated: Option<usize>) -> bool {
        let (in_vain, scene) = (&self.in_vain, &mut self.scene);
        let known = in_vain
            .iter()
            .rev()
            .find(|tried| tried.pod.is_like(pod) && scene.is_seen_alike(tried.pod, pod));
        let known = known.filter(|tried| nominated.is_none() && tried.holds(self.placed));
        let known = known.map(|tried| tried.vain.clone());
        match known {
            None => {}
            Some(Vain::ByVictims(why)) => {
                let subject = self.scene.subject(pod);
                let vain = self.preempt(&subject, None, Why::clone(&why));
                self.plan.in_vain(pod, vain);
                return false;
            }
            Some(vain) => {
                self.plan.in_vain(pod, vain);
                return false;
            }
        }
        let subject = self.scene.subject(pod);
        let is_there = |planning: &Self, node: usize| {
            planning.away[node].is_none() && filters::passes(&planning.scene, &subject, node)
        };
        let chosen = match nominated.filter(|node| is_there(self, *node)) {
            Some(node) => Some(node),
            None => self.choose(&subject),
        };
        let Some(chosen) = chosen else {
            self.tell(&subject, nominated);
            return false;
        };
        self.scene.put(pod, chosen);
        self.placed += 1;
        let name = &self.scene.nodes[chosen].name;
        // Names are copied where they are new alone.
        match self.plan.placements.get_mut(name) {
            Some(uids) => uids.push(pod.uid.clone()),
            None => drop(self.plan.placements.insert(name.clone(), vec![pod.uid.clone()])),
        }
        true
    }

    fn choose(&mut self, subject: &Subject<'_>) -> Option<usize> {
        let count = self.scene.nodes.len();
        let turn = if count > SCORE_ALL { self.moment.start % count } else { 0 };
        let mut fitting = Vec::new();
        for node in (turn..count).chain(0..turn) {
            self.looks += 1;
            if self.away[node].is_none() && filters::passes(&self.scene, subject, node) {
                fitting.push(node);
                if count > SCORE_ALL && fitting.len() >= SAMPLE {
                    break;
                }
            }
        }
        if fitting.is_empty() {
            return None;
        }
        fitting.sort_unstable();
        let wished = scores::wished(&self.scene, subject, &fitting);
        let candidates: Vec<_> = fitting
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let node = &*self.scene.nodes[*node];
                let wishes: i64 = wished.iter().map(|(_, points)| points[at]).sum();
                Candidate { node, score: self.policy.score(subject.pod, node) + wishes }
            })
            .collect();
        Some(fitting[self.policy.pick(&candidates).min(fitting.len() - 1)])
    }

    /// Says why a pod fits nowhere, and looks for others that could leave for it.
    fn tell(&mut self, subject: &Subject<'a>, nominated: Option<usize>) {
        let vain = if self.told < TOLD { self.vain(subject, nominated) } else { Vain::PutOff };
        self.told += 1;
        self.plan.in_vain(subject.pod, vain.clone());
        // Whoever is nominated is nobody's like.
        if self.in_vain.len() < KINDS && nominated.is_none() {
            self.in_vain.push(Tried { pod: subject.pod, vain, placed: self.placed });
        }
    }

    fn vain(&mut self, subject: &Subject<'a>, nominated: Option<usize>) -> Vain {
        let mut why = Why::default();
        let (mut fits_busy, mut fits_silent) = (false, false);
        for node in 0..self.scene.nodes.len() {
            match (filters::why(&self.scene, subject, node), self.away[node]) {
                (Some(reason), _) => why.count(reason),
                (None, Some(Away::Silent)) => {
                    fits_silent = true;
                    why.count(Unfit::Silent);
                }
                // One that fits on a node that is there was given that.
                (None, Some(Away::Busy) | None) => fits_busy = true,
            }
        }
        match (fits_busy, fits_silent) {
            (true, _) => Vain::OnlyBusy,
            (false, true) => Vain::OnlySilent(Arc::new(why)),
            (false, false) => self.preempt(subject, nominated, why),
        }
    }

    fn may_search(&self, pod: &Pending) -> bool {
        // How many members a training job has is for the auction alone.
        pod.preempts && !pod.is_member && self.moment.picture.has_lower(pod.priority)
    }

    /// Looks for others that could leave for a pod that fits nowhere.
    fn preempt(&mut self, subject: &Subject<'a>, nominated: Option<usize>, mut why: Why) -> Vain {
        let pod = subject.pod;
        if !self.may_search(pod) {
            if !pod.preempts && self.moment.picture.has_lower(pod.priority) {
                why.without_victims(NoVictims::Never);
            }
            return Vain::Nowhere(Arc::new(why));
        }
        if nominated.is_some_and(|node| self.are_leaving(pod, node)) {
            why.without_victims(NoVictims::Waits);
            return Vain::Nowhere(Arc::new(why));
        }
        if self.searches >= SEARCHES {
            return Vain::PutOff;
        }
        let doubted = self.doubted();
        if self.may_have_room(subject, &doubted) {
            self.doubted = Some(doubted);
            why.without_victims(NoVictims::Unsure);
            return Vain::OnlySilent(Arc::new(why));
        }
        self.searches += 1;
        let away = &self.away;
        let rules = preempt::Rules {
            spent: &self.spent,
            start: self.moment.start,
            is_overdue: self.moment.is_overdue,
            stays: &|uid| self.moment.leavers.stays(uid),
            is_passed_by: &|node| away[node] == Some(Away::Silent) || doubted[node],
        };
        let found = preempt::search(&mut self.scene, subject, &rules, &mut self.looks);
        let is_unsure = doubted.contains(&true);
        self.doubted = Some(doubted);
        match found {
            Ok(victims) => {
                for victim in &victims.pods {
                    self.moment.picture.budgets.spend(victim, &mut self.spent);
                    self.scene.condemned.insert(victim.uid.clone());
                }
                self.scene.book(pod, victims.node);
                self.booked.insert(&pod.uid, victims.node);
                self.plan.preemptions.push(Preemption {
                    uid: pod.uid.clone(),
                    node: self.scene.nodes[victims.node].name.clone(),
                    victims: victims.pods.iter().map(|pod| pod.uid.clone()).collect(),
                });
                Vain::ByVictims(Arc::new(why))
            }
            Err(none) => {
                why.without_victims(none);
                // There may be somebody when it is known what those nodes have.
                let why = Arc::new(why);
                if is_unsure { Vain::OnlySilent(why) } else { Vain::Nowhere(why) }
            }
        }
    }

    /// Which nodes say that they have less than their pods leave, and are not believed.
    fn doubted(&mut self) -> Vec<bool> {
        let (picture, is_believed) = (self.moment.picture, self.moment.is_believed);
        self.doubted.take().unwrap_or_else(|| {
            let doubted =
                picture.nodes().map(|node| picture.is_doubtful(node) && !is_believed(&node.name));
            doubted.collect()
        })
    }

    /// Whether the pod would fit on one of the doubted nodes if that had what its pods leave.
    fn may_have_room(&mut self, subject: &Subject<'_>, doubted: &[bool]) -> bool {
        let nodes = self.moment.picture.nodes().enumerate().filter(|(at, _)| doubted[*at]);
        for (at, node) in nodes {
            self.looks += 1;
            let said = self.scene.nodes[at].free.clone();
            self.scene.nodes[at].to_mut().free.add(&self.moment.picture.unsaid(node));
            let fits = filters::passes(&self.scene, subject, at);
            self.scene.nodes[at].to_mut().free = said;
            if fits {
                return true;
            }
        }
        false
    }

    /// Whether on the node of its nomination some are on their way out that make room for the pod.
    fn are_leaving(&self, pod: &Pending, node: usize) -> bool {
        self.moment.picture.residents(&self.scene.nodes[node].name).any(|(other, leaves_by)| {
            other.priority < pod.priority
                && leaves_by.is_some_and(|by| !(self.moment.is_overdue)(by))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
