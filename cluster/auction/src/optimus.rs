//! Optimus (EuroSys 2018): each job one GPU, then again and again the addition that takes most
//! from the sum of remaining times.

use crate::fifo::gangs;
use crate::goodput::{self, Batch};
use crate::model;
use crate::policy::{Decision, Policy};
use crate::{Model, Picture};
use std::collections::BinaryHeap;

/// The policy, by each job's own models.
#[derive(Clone, Copy, Debug, Default)]
pub struct Optimus;

impl Policy for Optimus {
    fn name(&self) -> &'static str {
        "optimus"
    }

    fn decide(&self, picture: &Picture, models: &[Model]) -> Decision {
        clear(picture, |index, replicas| {
            let job = &picture.jobs[index];
            let model = models.get(index)?.step_time.as_ref()?;
            // No faith beyond twice what has been measured.
            if replicas > model.most_replicas().saturating_mul(2) {
                return None;
            }
            let nodes = nodes_for(picture, replicas);
            let total = job.fixed_batch.unwrap_or(job.initial_batch);
            let batch = Batch::within(job, f64::from(total), replicas);
            let rate = goodput::rate(job, model, nodes, replicas, batch);
            Some(model::remaining(job)?.steps / rate)
        })
    }
}

/// The fewest nodes that hold so many GPUs, by the largest node.
#[must_use]
pub fn nodes_for(picture: &Picture, replicas: u32) -> u32 {
    let largest = picture.nodes.iter().map(|node| node.gpus).max().unwrap_or(1).max(1);
    replicas.div_ceil(largest).max(1)
}

#[derive(PartialEq)]
struct Bid {
    gain: f64,
    job: usize,
}

impl Eq for Bid {}

impl Ord for Bid {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Ties go to the job that came first.
        self.gain.total_cmp(&other.gain).then(other.job.cmp(&self.job))
    }
}

impl PartialOrd for Bid {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Optimus's rule, given how many seconds a job would still take with so many GPUs (`None`:
/// unknown, so it wants no more).
pub fn clear(picture: &Picture, seconds: impl Fn(usize, u32) -> Option<f64>) -> Decision {
    let jobs = picture.jobs.len();
    let mut left = picture.gpus();
    let mut wanted = vec![0; jobs];
    let bid = |job: usize, has: u32| {
        let allowed = has < picture.jobs[job].most_replicas();
        let gain = allowed.then(|| Some(seconds(job, has)? - seconds(job, has + 1)?)).flatten();
        gain.filter(|gain| gain.is_finite() && *gain > 0.0).map(|gain| Bid { gain, job })
    };
    for size in &mut wanted {
        if left > 0 {
            *size = 1;
            left -= 1;
        }
    }
    let mut bids = BinaryHeap::new();
    if left > 0 {
        bids.extend((0..jobs).filter_map(|job| bid(job, 1)));
    }
    while left > 0 {
        let Some(Bid { job, .. }) = bids.pop() else { break };
        wanted[job] += 1;
        left -= 1;
        bids.extend(bid(job, wanted[job]));
    }
    let mut order: Vec<usize> = (0..jobs).collect();
    order.sort_by_key(|job| wanted[*job]);
    gangs(picture, &order, &wanted)
}
