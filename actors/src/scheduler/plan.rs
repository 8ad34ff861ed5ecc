//! Which waiting pod goes to which node. No IO, no clock.
//!
//! Pods are taken by priority, then by age; each takes what it asks from the picture before the
//! next one is looked at, so one plan never gives a node more than the picture says is free. What
//! the picture says may be wrong: the node itself has the last word.

use super::{
    fit::{Unfit, in_words},
    picture::{Pending, Picture},
    policy::{Candidate, Policy},
};
use std::{cmp::Reverse, collections::BTreeMap};

/// Above this many nodes only a sample of those that fit is scored: [`SAMPLE`] of them.
pub const SCORE_ALL: usize = 100;
/// How many fitting nodes are scored in a large cluster.
pub const SAMPLE: usize = 100;

/// What is to be tried now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The uids of the pods for each node, in the order of placement.
    pub placements: BTreeMap<String, Vec<String>>,
    /// Pods that fit nowhere, and why, in words for an event.
    pub unschedulable: Vec<(String, String)>,
    /// Pods that fit only where nobody can be asked now.
    pub held: Vec<String>,
}

/// Finds nodes for the waiting pods, none of them one that is `away`: it does not answer, or not now.
/// `start` turns the sample in large clusters.
pub fn plan<'a>(
    pending: impl IntoIterator<Item = &'a Pending>,
    picture: &Picture,
    policy: &mut dyn Policy,
    start: usize,
    away: impl Fn(&str) -> bool,
) -> Plan {
    let mut pending: Vec<_> = pending.into_iter().collect();
    pending.sort_by_key(|pod| (Reverse(pod.priority), pod.since, &pod.uid));
    if pending.is_empty() {
        return Plan::default();
    }
    let mut nodes: Vec<_> = picture.nodes().cloned().collect();
    let away: Vec<bool> = nodes.iter().map(|node| away(&node.name)).collect();
    let mut plan = Plan::default();
    for pod in pending {
        let mut fitting = Vec::new();
        let mut unfit: Vec<Unfit> = Vec::new();
        let mut fits_away = false;
        let turn = if nodes.len() > SCORE_ALL { start % nodes.len() } else { 0 };
        for index in (turn..nodes.len()).chain(0..turn) {
            match policy.filter(pod, &nodes[index]) {
                Ok(()) if away[index] => fits_away = true,
                Ok(()) => fitting.push(index),
                Err(reason) => unfit.push(reason),
            }
            if nodes.len() > SCORE_ALL && fitting.len() >= SAMPLE {
                break;
            }
        }
        if fitting.is_empty() && fits_away {
            plan.held.push(pod.uid.clone());
            continue;
        }
        if fitting.is_empty() {
            plan.unschedulable.push((pod.uid.clone(), in_words(&unfit)));
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
        let node = &mut nodes[chosen];
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
            |_| false,
        );
        assert_eq!(plan.placements["n"], ["urgent", "early"]);
        let told = "0/1 nodes are available: 1 Insufficient cpu.".to_owned();
        assert_eq!(plan.unschedulable, [("late".to_owned(), told)]);
    }

    #[test]
    fn many_nodes_are_sampled_and_still_any_that_fits_is_found() {
        let mut nodes: Vec<_> = (0..300).map(|n| node(&format!("n{n:03}"), 100)).collect();
        nodes[250].free.cpu_milli = 1000;
        nodes[250].allocatable.cpu_milli = 1000;
        let picture = picture(nodes);
        for start in [0, 100, 251, 299, 1000] {
            let plan =
                plan([&pod("p", 500)], &picture, &mut *policy(Which::Random, 1), start, |_| false);
            assert_eq!(plan.placements["n250"], ["p"]);
        }
    }

    #[test]
    fn a_node_that_cannot_be_asked_gets_nothing_and_who_fits_only_there_waits_for_it() {
        let picture = picture([node("emptiest", 2000), node("full", 500)]);
        let (small, large) = (pod("small", 300), pod("large", 1500));
        let mut policy = policy(Which::LeastAllocated, 0);
        let plan = plan([&small, &large], &picture, &mut *policy, 0, |name| name == "emptiest");
        assert_eq!(plan.placements, [("full".to_owned(), vec!["small".to_owned()])].into());
        assert_eq!((plan.held, plan.unschedulable), (vec!["large".to_owned()], vec![]));
    }

    proptest! {
        #[test]
        fn no_policy_ever_plans_more_than_is_free_and_no_pod_is_lost(
            free in proptest::collection::vec(0..2000u64, 1..12),
            asks in proptest::collection::vec(1..900u64, 0..40),
            which in 0..4usize,
            silent in 0..12usize,
        ) {
            let picture = picture(free.iter().enumerate().map(|(n, cpu)| node(&format!("n{n}"), *cpu)));
            let pods: Vec<_> = asks.iter().enumerate().map(|(n, cpu)| pod(&format!("p{n}"), *cpu)).collect();
            let plan = plan(&pods, &picture, &mut *policy(Which::ALL[which], 3), 0, |name| name == format!("n{silent}"));
            let asked = |uid: &String| pods.iter().find(|pod| pod.uid == *uid).unwrap().requests.cpu_milli;
            for (name, uids) in &plan.placements {
                let free = free[name[1..].parse::<usize>().unwrap()];
                prop_assert!(uids.iter().map(asked).sum::<u64>() <= free);
            }
            let placed = plan.placements.values().map(Vec::len).sum::<usize>();
            prop_assert_eq!(placed + plan.unschedulable.len() + plan.held.len(), pods.len());
            let asks_silent = plan.placements.contains_key(&format!("n{silent}"));
            prop_assert!(!asks_silent);
        }
    }
}
