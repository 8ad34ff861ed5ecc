//! Optimus (EuroSys 2018): each job one GPU, then again and again the addition that takes most
//! from the sum of remaining times.

use crate::fifo::gangs;
use crate::goodput::{self, Batch};
use crate::greedy;
use crate::model;
use crate::policy::{Decision, Policy};
use crate::{Model, Picture};

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

/// Optimus's rule, given how many seconds a job would still take with so many GPUs (`None`:
/// unknown, so it wants no more).
pub fn clear(picture: &Picture, seconds: impl Fn(usize, u32) -> Option<f64>) -> Decision {
    let jobs = picture.jobs.len();
    let gpus = picture.gpus() as usize;
    let mut wanted: Vec<u32> = (0..jobs).map(|job| u32::from(job < gpus)).collect();
    let additions = |job: usize, has: &u32| {
        let allowed = (1..picture.most_replicas(&picture.jobs[job])).contains(has);
        let gain = || Some(seconds(job, *has)? - seconds(job, *has + 1)?);
        allowed.then(gain).flatten().map(|gain| (*has + 1, gain))
    };
    // Nodes hold what there is of GPUs: their number is the only bound.
    greedy::grant(&mut wanted, additions, |_| true, gpus.saturating_sub(jobs));
    let mut order: Vec<usize> = (0..jobs).collect();
    order.sort_by_key(|job| wanted[*job]);
    gangs(picture, &order, &wanted)
}
