//! The auction of a cluster: what training jobs bid and what nodes have free, as a hall of
//! `impresario_auction`, and what its policies decide, as orders to jobs. The simulation clears its
//! halls with the same policies. Nothing here has a clock or does IO.
//!
//! Jobs that run keep at least their minimum, then those that were granted theirs and make their pods, and
//! those that wait get the whole of theirs or nothing, and then they are told what is missing: no two jobs
//! hold a half each and wait for the other's. A grant whose pods find no place, because others took it, is
//! taken back after a while.
//!
//! What is promised is never more than what is free and what the bidders hold together. The same
//! bids give the same outcome, in whatever order they came.

mod wire;
mod words;
mod worth;

pub use wire::{in_hall, model_of, speed_of};

use impresario_auction::hall::{self, Hall, Standing};
use impresario_auction::{POLICIES, Policy, named, optimus::Optimus};
use impresario_client::protocol::resources::{CPU, GPU, MEMORY, PODS, Resources};
use impresario_client::protocol::training::{Bid, Scale, Size};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use wire::on_wire;
use worth::Believed;

/// Predictions from fewer steps than this count for less.
const YOUNG_STEPS: u64 = 100;
/// A grant that is not complete by then, and does not fit any more, is taken back.
const INCOMPLETE_SECONDS: u64 = 10;
/// The most additions of a round for each job, and as many again: what a job may want does not say how long a round
/// takes. By so many any size is reached.
const MOST_ADDITIONS: usize = 128;
/// And of a round at all: with some hundred jobs it would take longer than it is good for.
const MOST_ADDITIONS_OF_ALL: usize = 4_096;

/// What a round decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The job's uid.
    pub job: String,
    /// What it is told.
    pub scale: Scale,
}

/// One of the policies of `impresario_auction`, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuctionPolicy(&'static str);

/// There is no policy of this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no policy of training jobs is called {0:?}: use one of {list}", list = POLICIES.join(", "))]
pub struct NoSuchAuctionPolicy(String);

impl Default for AuctionPolicy {
    fn default() -> Self {
        Self("optimus")
    }
}

impl FromStr for AuctionPolicy {
    type Err = NoSuchAuctionPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = POLICIES.iter().find(|known| **known == name);
        known.map(|known| Self(known)).ok_or_else(|| NoSuchAuctionPolicy(name.to_owned()))
    }
}

impl fmt::Display for AuctionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl AuctionPolicy {
    /// What decides.
    #[must_use]
    pub fn policy(self) -> Box<dyn Policy + Send + Sync> {
        // Only names that are known come into being.
        named(self.0).unwrap_or_else(|| Box::new(Optimus))
    }
}

/// Divides what there is. `free` is what nobody holds on each node that takes pods. Only jobs whose
/// size is, or is to be, another are in the answer.
pub fn round(policy: &dyn Policy, number: u64, bids: &[Bid], free: &[Resources]) -> Vec<Outcome> {
    let mut bids: Vec<&Bid> = bids.iter().collect();
    bids.sort_by_key(|bid| (bid.created_unix_seconds, bid.job.as_str()));
    let worth: Vec<Believed> = bids.iter().map(|bid| Believed::of(bid)).collect();
    let hall = hall_of(&bids, &worth, free);
    let sizes = policy.clear(&hall);
    let reasons = words::Reasons { bids: &bids, worth: &worth, hall: &hall, sizes: &sizes, free };
    let decided = bids.iter().zip(&sizes).enumerate();
    decided
        .filter_map(|(index, (bid, size))| {
            let size = on_wire(*size);
            let reason = if size == Size::default() && !runs(bid) {
                reasons.missing(index)
            } else if size == bid.current && size == bid.wanted || !is_within(size, bid) {
                return None;
            } else {
                reasons.change(index)
            };
            let (job, lease) = (bid.job.clone(), bid.lease);
            let scale = Scale { round: number, scheduler: 0, lease, size, reason };
            Some(Outcome { job, scale })
        })
        .collect()
}

/// Whether a job has what must not be taken from it: what it has trained is in its members.
fn runs(bid: &Bid) -> bool {
    bid.done_steps > 0 || bid.current.trainers >= bid.min.trainers.max(1)
}

/// What a job has without those of its members that are on their way out: a round that counted them in would call
/// them back while they leave, and the next would send them away again.
fn keeps(bid: &Bid) -> Size {
    let (has, wanted) = (bid.current, bid.wanted);
    if wanted == Size::default() {
        return has;
    }
    Size {
        parameter_servers: has.parameter_servers.min(wanted.parameter_servers),
        trainers: has.trainers.min(wanted.trainers),
    }
}

fn is_within(size: Size, bid: &Bid) -> bool {
    in_hall(size).is_within(in_hall(bid.min), in_hall(bid.max))
}

/// The resources that pods ask for: those by which they are told large from small first.
fn resources(bids: &[&Bid]) -> Vec<String> {
    let pods = bids.iter().flat_map(|bid| [&bid.parameter_server, &bid.trainer]);
    let others: BTreeSet<&String> = pods.flat_map(|pod| pod.extended.keys()).collect();
    let others = others.into_iter().filter(|name| *name != GPU).cloned();
    [GPU, CPU, MEMORY, PODS].map(str::to_owned).into_iter().chain(others).collect()
}

fn hall_of<'a>(bids: &[&'a Bid], worth: &[Believed], free: &[Resources]) -> Hall<'a> {
    let names = resources(bids);
    let amounts = |of: &Resources| -> Vec<u64> { names.iter().map(|name| of.get(name)).collect() };
    let pieces: Vec<u64> = free.iter().flat_map(amounts).collect();
    let mut capacity = vec![0u128; names.len()];
    for node in pieces.chunks_exact(names.len()) {
        capacity.iter_mut().zip(node).for_each(|(all, one)| *all += u128::from(*one));
    }
    let mut in_order = Vec::new();
    for (bid, worth) in bids.iter().zip(worth) {
        let (server, worker) = (amounts(&bid.parameter_server), amounts(&bid.trainer));
        let holds = [(&server, bid.current.parameter_servers), (&worker, bid.current.trainers)];
        for (pod, many) in holds {
            let all = capacity.iter_mut().zip(pod);
            all.for_each(|(all, one)| *all += u128::from(*one) * u128::from(many));
        }
        in_order.push(hall::Bid {
            standing: standing(bid),
            current: in_hall(bid.current),
            keeps: in_hall(keeps(bid)),
            min: in_hall(bid.min),
            max: in_hall(bid.max),
            server,
            worker,
            submitted: bid.created_unix_seconds as f64,
            attained_service: worth.attained_service(),
            rescale_seconds: worth.rescale_seconds(),
            known: Some(u32::MAX),
            ladder: None,
            is_young: bid.done_steps < YOUNG_STEPS,
            is_doubted: worth.doubt().is_some(),
            worth: Box::new(*worth),
        });
    }
    let most_additions = MOST_ADDITIONS.saturating_mul(bids.len() + 1).min(MOST_ADDITIONS_OF_ALL);
    Hall { bids: in_order, capacity, pieces: Some(pieces), most_additions }
}

fn standing(bid: &Bid) -> Standing {
    match () {
        () if runs(bid) => Standing::Runs,
        // Nobody is put in before those whose pods are on their way already.
        () if bid.wanted == Size::default() => Standing::Waits,
        () if bid.incomplete_seconds < INCOMPLETE_SECONDS => Standing::Promised,
        () => Standing::Late,
    }
}

#[cfg(test)]
mod tests;
