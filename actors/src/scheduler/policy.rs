//! How a node is chosen among those that fit: one trait, several answers. No IO.
//!
//! A policy that draws lots takes them from a seeded generator, so that a run can be repeated.

use super::parties::{Node, Pending};
use impresario_client::protocol::resources::Resources;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::str::FromStr;
use thiserror::Error;

/// Chooses nodes for pods.
pub trait Policy: Send {
    /// The policy's name, as in the settings.
    fn name(&self) -> &'static str;

    /// How well the pod would do there, in millionths; more is better. What the pod itself would rather have is added to
    /// it.
    fn score(&self, pod: &Pending, node: &Node) -> i64;

    /// The index of the chosen one; `candidates` is not empty and ordered by node name.
    fn pick(&mut self, candidates: &[Candidate<'_>]) -> usize {
        let best = candidates
            .iter()
            .enumerate()
            .max_by_key(|(index, candidate)| (candidate.score, std::cmp::Reverse(*index)));
        best.map_or(0, |(index, _)| index)
    }
}

/// A node that fits, and its score.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a Node,
    /// What [`Policy::score`] said.
    pub score: i64,
}

/// Which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    /// The node that has the most left.
    #[default]
    LeastAllocated,
    /// The node that has the least left.
    MostAllocated,
    /// Any node that fits.
    Random,
    /// Each node in turn.
    RoundRobin,
}

/// There is no policy of this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "no policy is called {0:?}: use one of least-allocated, most-allocated, random, round-robin"
)]
pub struct NoSuchPolicy(String);

impl Which {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::LeastAllocated, Self::MostAllocated, Self::Random, Self::RoundRobin];
}

impl FromStr for Which {
    type Err = NoSuchPolicy;

    fn from_str(name: &str) -> Result<Self, NoSuchPolicy> {
        let mut all = Self::ALL.into_iter();
        all.find(|which| policy(*which, 0).name() == name)
            .ok_or_else(|| NoSuchPolicy(name.to_owned()))
    }
}

/// The policy; `seed` is for those that draw lots.
#[must_use]
pub fn policy(which: Which, seed: u64) -> Box<dyn Policy> {
    match which {
        Which::LeastAllocated => Box::new(LeastAllocated),
        Which::MostAllocated => Box::new(MostAllocated),
        Which::Random => Box::new(Random(StdRng::seed_from_u64(seed))),
        Which::RoundRobin => Box::new(RoundRobin { last: None }),
    }
}

/// Those that nothing speaks against more than against others.
fn best<'a>(candidates: &'a [Candidate<'_>]) -> impl Iterator<Item = usize> + 'a {
    let most = candidates.iter().map(|candidate| candidate.score).max();
    let best = move |(_, candidate): &(usize, &Candidate<'_>)| Some(candidate.score) == most;
    candidates.iter().enumerate().filter(best).map(|(index, _)| index)
}

/// Any node that fits, of those that the pod likes best.
#[derive(Debug)]
pub struct Random(StdRng);

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn score(&self, _: &Pending, _: &Node) -> i64 {
        0
    }

    fn pick(&mut self, candidates: &[Candidate<'_>]) -> usize {
        let best: Vec<_> = best(candidates).collect();
        best.get(self.0.random_range(0..best.len().max(1))).copied().unwrap_or(0)
    }
}

/// The next node by name after the one that was chosen last.
#[derive(Debug)]
pub struct RoundRobin {
    last: Option<String>,
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn score(&self, _: &Pending, _: &Node) -> i64 {
        0
    }

    fn pick(&mut self, candidates: &[Candidate<'_>]) -> usize {
        let after = |candidate: &Candidate<'_>| {
            self.last.as_ref().is_none_or(|last| candidate.node.name > *last)
        };
        let mut next = best(candidates).filter(|index| after(&candidates[*index]));
        let index = next.next().or_else(|| best(candidates).next()).unwrap_or(0);
        self.last = candidates.get(index).map(|candidate| candidate.node.name.clone());
        index
    }
}

/// The node that has most left: load spreads. Pods that ask for GPUs are packed instead, so that
/// whole nodes stay free for those that need many.
#[derive(Debug)]
pub struct LeastAllocated;

impl Policy for LeastAllocated {
    fn name(&self) -> &'static str {
        "least-allocated"
    }

    fn score(&self, pod: &Pending, node: &Node) -> i64 {
        if pod.requests.gpus() > 0 { allocated(pod, node) } else { -allocated(pod, node) }
    }
}

/// The fullest node that still fits.
#[derive(Debug)]
pub struct MostAllocated;

impl Policy for MostAllocated {
    fn name(&self) -> &'static str {
        "most-allocated"
    }

    fn score(&self, pod: &Pending, node: &Node) -> i64 {
        allocated(pod, node)
    }
}

/// How full the node is with the pod on it, in thousandths: the mean over CPU and memory, or, for
/// a pod that asks for GPUs, over GPUs alone. Pods break a tie that neither of them would.
fn allocated(pod: &Pending, node: &Node) -> i64 {
    let share = |of: fn(&Resources) -> u64| {
        let whole = of(&node.allocatable).max(1);
        let used = whole.saturating_sub(of(&node.free)).saturating_add(of(&pod.requests));
        i64::try_from(u128::from(used) * 1_000_000 / u128::from(whole)).unwrap_or(i64::MAX / 8)
    };
    let pods = share(|resources| resources.pods) / 1000;
    if pod.requests.gpus() > 0 {
        return share(Resources::gpus) + pods;
    }
    let cpu = share(|resources| resources.cpu_milli);
    let memory = share(|resources| resources.memory_bytes);
    i64::midpoint(cpu, memory) + pods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::picture::tests::{node, pod};

    fn choices(name: &str, rounds: usize) -> Vec<String> {
        let mut policy = policy(name.parse().unwrap(), 7);
        let (mut full, half, empty) = (node("a", 1000), node("b", 1000), node("c", 1000));
        full.free.cpu_milli = 200;
        let mut nodes = [full, half, empty];
        nodes[1].free.cpu_milli = 500;
        let pod = pod("p", 100);
        let pick = |policy: &mut Box<dyn Policy>| {
            let candidates: Vec<_> = nodes
                .iter()
                .map(|node| Candidate { node, score: policy.score(&pod, node) })
                .collect();
            policy.pick(&candidates)
        };
        (0..rounds).map(|_| nodes[pick(&mut policy)].name.clone()).collect()
    }

    #[test]
    fn each_policy_chooses_in_its_own_way() {
        assert_eq!(choices("least-allocated", 2), ["c", "c"]);
        assert_eq!(choices("most-allocated", 2), ["a", "a"]);
        assert_eq!(choices("round-robin", 5), ["a", "b", "c", "a", "b"]);
        let random = choices("random", 60);
        assert!(["a", "b", "c"].iter().all(|name| random.iter().any(|chosen| chosen == name)));
        assert_eq!(random, choices("random", 60));
    }

    #[test]
    fn a_pod_with_gpus_is_packed_by_default() {
        let policy = policy(Which::LeastAllocated, 0);
        let (mut full, mut empty) = (node("a", 1000), node("b", 1000));
        for node in [&mut full, &mut empty] {
            node.allocatable.set("nvidia.com/gpu", 4);
            node.free.set("nvidia.com/gpu", 4);
        }
        full.free.set("nvidia.com/gpu", 2);
        let mut pod = pod("p", 100);
        pod.requests.set("nvidia.com/gpu", 1);
        assert!(policy.score(&pod, &full) > policy.score(&pod, &empty));
    }

    #[test]
    fn every_named_policy_exists() {
        for which in Which::ALL {
            assert_eq!(policy(which, 0).name().parse(), Ok(which));
        }
        assert!("cheapest".parse::<Which>().is_err());
    }
}
