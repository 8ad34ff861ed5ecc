//! Which waiting pod goes to which node. No IO, no clock.
//!
//! Pods are taken by priority, then by age; each takes what it asks from the picture before the
//! next one is looked at, so one plan never gives a node more than the picture says is free. What
//! the picture says may be wrong: the node itself has the last word.

use super::{
    fit::{Unfit, Why},
    picture::{Pending, Picture},
    policy::{Candidate, Policy},
};
use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap, sync::Arc};

/// Above this many nodes only a sample of those that fit is scored: [`SAMPLE`] of them.
pub const SCORE_ALL: usize = 100;
/// How many fitting nodes are scored in a large cluster.
pub const SAMPLE: usize = 100;
/// So many kinds of pods are remembered in a plan that found no node.
const KINDS: usize = 64;

/// Why a node is passed by for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// It is being asked, and takes its time.
    Busy,
    /// It did not answer.
    Silent,
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
}

/// Where a pod can go that can go nowhere now.
#[derive(Debug, Clone)]
enum Vain {
    Nowhere(Arc<Why>),
    OnlyBusy,
    OnlySilent(Arc<Why>),
}

impl Plan {
    fn in_vain(&mut self, pod: &Pending, vain: Vain) {
        let uid = pod.uid.clone();
        match vain {
            Vain::Nowhere(why) => self.unschedulable.push((uid, why)),
            Vain::OnlyBusy => self.behind.push(uid),
            Vain::OnlySilent(why) => self.held.push((uid, why)),
        }
    }
}

/// Finds nodes for the waiting pods, none of them one that is `away`.
/// `start` turns the sample in large clusters.
///
/// A pod that finds no node looks at all of them; others like it are told the same without a look.
pub fn plan<'a>(
    pending: impl IntoIterator<Item = &'a Pending>,
    picture: &Picture,
    policy: &mut dyn Policy,
    start: usize,
    away: impl Fn(&str) -> Option<Away>,
) -> Plan {
    let mut pending: Vec<_> = pending.into_iter().collect();
    pending.sort_by_key(|pod| (Reverse(pod.priority), pod.since, &pod.uid));
    if pending.is_empty() {
        return Plan::default();
    }
    // Copied where something is placed, which few are.
    let mut nodes: Vec<_> = picture.nodes().map(Cow::Borrowed).collect();
    let away: Vec<_> = nodes.iter().map(|node| away(&node.name)).collect();
    let mut plan = Plan::default();
    // Within a plan nodes have less and less: what found none finds none for another like it.
    let mut in_vain: Vec<(&Pending, Vain)> = Vec::new();
    for pod in pending {
        if let Some((_, vain)) = in_vain.iter().find(|(other, _)| other.is_like(pod)) {
            plan.in_vain(pod, vain.clone());
            continue;
        }
        let mut fitting = Vec::new();
        let mut why = Why::default();
        let (mut fits_busy, mut fits_silent) = (false, false);
        let turn = if nodes.len() > SCORE_ALL { start % nodes.len() } else { 0 };
        for index in (turn..nodes.len()).chain(0..turn) {
            match (policy.filter(pod, &nodes[index]), away[index]) {
                (Ok(()), None) => fitting.push(index),
                (Ok(()), Some(Away::Busy)) => fits_busy = true,
                (Ok(()), Some(Away::Silent)) => {
                    fits_silent = true;
                    why.count(Unfit::Silent);
                }
                (Err(reason), _) => why.count(reason),
            }
            if nodes.len() > SCORE_ALL && fitting.len() >= SAMPLE {
                break;
            }
        }
        if fitting.is_empty() {
            let vain = match (fits_busy, fits_silent) {
                (true, _) => Vain::OnlyBusy,
                (false, true) => Vain::OnlySilent(Arc::new(why)),
                (false, false) => Vain::Nowhere(Arc::new(why)),
            };
            plan.in_vain(pod, vain.clone());
            if in_vain.len() < KINDS {
                in_vain.push((pod, vain));
            }
            continue;
        }
        fitting.sort_unstable();
        let candidates: Vec<_> = fitting
            .iter()
            .map(|index| Candidate {
                node: &nodes[*index],
                score: policy.score(pod, &nodes[*index]),
            })
            .collect();
        let chosen = fitting[policy.pick(&candidates).min(fitting.len() - 1)];
        let node = nodes[chosen].to_mut();
        node.free.subtract(&pod.requests);
        node.host_ports.extend(pod.host_ports.iter().cloned());
        plan.placements.entry(node.name.clone()).or_default().push(pod.uid.clone());
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::{
        picture::tests::{node, picture, pod},
        policy::{Which, policy},
    };
    use proptest::prelude::*;

    #[test]
    fn the_more_important_and_the_older_pod_goes_first() {
        let (mut late, mut early, mut urgent) =
            (pod("late", 600), pod("early", 600), pod("urgent", 600));
        (late.since, early.since, urgent.since) = (2, 1, 3);
        urgent.priority = 10;
        let picture = picture([node("n", 1200)]);
        let plan = plan(
            [&late, &early, &urgent],
            &picture,
            &mut *policy(Which::LeastAllocated, 0),
            0,
            |_| None,
        );
        assert_eq!(plan.placements["n"], ["urgent", "early"]);
        let (uid, why) = &plan.unschedulable[0];
        let told = "0/1 nodes are available: 1 Insufficient cpu.".to_owned();
        assert_eq!((uid.as_str(), why.to_string(), plan.unschedulable.len()), ("late", told, 1));
    }

    #[test]
    fn many_nodes_are_sampled_and_still_any_that_fits_is_found() {
        let mut nodes: Vec<_> = (0..300).map(|n| node(&format!("n{n:03}"), 100)).collect();
        nodes[250].free.cpu_milli = 1000;
        nodes[250].allocatable.cpu_milli = 1000;
        let picture = picture(nodes);
        for start in [0, 100, 251, 299, 1000] {
            let plan =
                plan([&pod("p", 500)], &picture, &mut *policy(Which::Random, 1), start, |_| None);
            assert_eq!(plan.placements["n250"], ["p"]);
        }
    }

    #[test]
    fn a_node_that_cannot_be_asked_gets_nothing_and_who_fits_only_there_waits_for_it() {
        let picture = picture([node("emptiest", 2000), node("full", 500)]);
        let (small, large) = (pod("small", 300), pod("large", 1500));
        let mut policy = policy(Which::LeastAllocated, 0);
        let mut planned = |away| {
            let away = |name: &str| (name == "emptiest").then_some(away);
            plan([&small, &large], &picture, &mut *policy, 0, away)
        };
        let placements = [("full".to_owned(), vec!["small".to_owned()])].into();
        let silent = planned(Away::Silent);
        assert_eq!(silent.placements, placements);
        let told = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) did not answer.";
        assert_eq!(
            (silent.held[0].0.as_str(), silent.held[0].1.to_string().as_str()),
            ("large", told)
        );
        assert_eq!((silent.held.len(), silent.unschedulable.len()), (1, 0));
        let behind = vec!["large".to_owned()];
        assert_eq!(planned(Away::Busy), Plan { placements, behind, ..Plan::default() });
    }

    #[test]
    fn pods_like_one_that_fits_nowhere_are_told_the_same_and_others_are_looked_at() {
        let picture = picture([node("n", 1000)]);
        let (one, two, small) = (pod("a", 3000), pod("b", 3000), pod("c", 300));
        let mut policy = policy(Which::Random, 1);
        let plan = plan([&one, &two, &small], &picture, &mut *policy, 0, |_| None);
        let uids: Vec<_> = plan.unschedulable.iter().map(|(uid, _)| uid.as_str()).collect();
        assert_eq!(uids, ["a", "b"]);
        assert!(Arc::ptr_eq(&plan.unschedulable[0].1, &plan.unschedulable[1].1));
        assert_eq!(plan.placements["n"], ["c"]);
    }

    proptest! {
        #[test]
        fn no_policy_ever_plans_more_than_is_free_and_no_pod_is_lost(
            free in proptest::collection::vec(0..2000u64, 1..12),
            asks in proptest::collection::vec(1..900u64, 0..40),
            which in 0..4usize,
            silent in 0..12usize,
            busy in 0..12usize,
        ) {
            let picture = picture(free.iter().enumerate().map(|(n, cpu)| node(&format!("n{n}"), *cpu)));
            let pods: Vec<_> = asks.iter().enumerate().map(|(n, cpu)| pod(&format!("p{n}"), *cpu)).collect();
            let away = |name: &str| match name[1..].parse::<usize>().unwrap() {
                n if n == silent => Some(Away::Silent),
                n if n == busy => Some(Away::Busy),
                _ => None,
            };
            let plan = plan(&pods, &picture, &mut *policy(Which::ALL[which], 3), 0, away);
            let asked = |uid: &String| pods.iter().find(|pod| pod.uid == *uid).unwrap().requests.cpu_milli;
            for (name, uids) in &plan.placements {
                let free = free[name[1..].parse::<usize>().unwrap()];
                prop_assert!(uids.iter().map(asked).sum::<u64>() <= free);
            }
            let placed = plan.placements.values().map(Vec::len).sum::<usize>();
            let waiting = plan.unschedulable.len() + plan.held.len() + plan.behind.len();
            prop_assert_eq!(placed + waiting, pods.len());
            let asked_away = plan.placements.keys().any(|name| away(name).is_some());
            prop_assert!(!asked_away);
        }
    }
}
