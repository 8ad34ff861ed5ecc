//! Dominant-resource fairness (NSDI 2011). Training contends for GPUs, so a job's dominant share
//! is its GPUs: the next goes to the job with fewest, until nothing is left or nobody wants more.

use crate::fifo::gangs;
use crate::policy::{Decision, Policy};
use crate::{Model, Picture};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drf;

impl Policy for Drf {
    fn name(&self) -> &'static str {
        "drf"
    }

    fn decide(&self, picture: &Picture, _: &[Model]) -> Decision {
        let mut wanted = vec![0u32; picture.jobs.len()];
        let mut queue: BinaryHeap<_> =
            (0..picture.jobs.len()).map(|job| Reverse((0, job))).collect();
        let mut left = picture.gpus();
        while left > 0 {
            let Some(Reverse((has, job))) = queue.pop() else { break };
            if has < picture.most_replicas(&picture.jobs[job]) {
                wanted[job] += 1;
                left -= 1;
                queue.push(Reverse((has + 1, job)));
            }
        }
        let mut order: Vec<usize> = (0..picture.jobs.len()).collect();
        order.sort_by_key(|job| wanted[*job]);
        gangs(picture, &order, &wanted)
    }
}
