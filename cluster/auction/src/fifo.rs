//! First come, first served: what a user asked for, in order of arrival, and nobody overtakes.

use crate::placement::{emptiest_first, free_after};
use crate::policy::{Decision, Policy};
use crate::{Model, Picture};

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo;

impl Policy for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }

    fn is_elastic(&self) -> bool {
        false
    }

    fn decide(&self, picture: &Picture, _: &[Model]) -> Decision {
        let mut order: Vec<usize> = (0..picture.jobs.len()).collect();
        order.sort_by(|a, b| picture.jobs[*a].submitted.total_cmp(&picture.jobs[*b].submitted));
        let cluster = picture.gpus();
        let mut left = cluster;
        let mut wanted = vec![0; picture.jobs.len()];
        for job in order.iter().copied() {
            let asked = picture.jobs[job].max_replicas;
            if asked > cluster {
                // Never fits: it waits without holding up the others.
                continue;
            }
            if asked > left {
                break;
            }
            left -= asked;
            wanted[job] = asked;
        }
        gangs(picture, &order, &wanted)
    }
}

/// Gives each job its gang of `wanted` GPUs: those that run keep their place, the others follow
/// in `order`.
pub(crate) fn gangs(picture: &Picture, order: &[usize], wanted: &[u32]) -> Decision {
    let mut allocations: Vec<Vec<usize>> = picture
        .jobs
        .iter()
        .zip(wanted)
        .map(|(job, wanted)| {
            let same = job.allocation.len() == *wanted as usize;
            if same { job.allocation.clone() } else { Vec::new() }
        })
        .collect();
    let mut free = free_after(picture, &mut allocations);
    for job in order.iter().copied() {
        if allocations[job].is_empty() && wanted[job] > 0 {
            allocations[job] = emptiest_first(&mut free, wanted[job]);
        }
    }
    Decision { allocations }
}
