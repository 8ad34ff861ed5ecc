//! Dominant-resource fairness (NSDI 2011): the next addition goes to the job whose largest share of any
//! resource is smallest, until nothing is left or nobody wants more.

use crate::hall::{Bid, Hall, Size};
use crate::policy::Policy;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drf;

impl Policy for Drf {
    fn name(&self) -> &'static str {
        "drf"
    }

    fn clear(&self, hall: &Hall<'_>) -> Vec<Size> {
        let mut draft = hall.minimums();
        // The bits of numbers that are not negative are ordered as the numbers are.
        let place = |job: usize, size: Size| Reverse((hall.share(job, size).to_bits(), job));
        let mut queue: BinaryHeap<_> = (0..hall.bids.len())
            .filter(|job| draft.size(*job).workers > 0)
            .map(|job| place(job, draft.size(job)))
            .collect();
        let mut left = hall.most_additions;
        while left > 0 {
            let Some(Reverse((_, job))) = queue.pop() else { break };
            let next = next(&hall.bids[job], draft.size(job));
            if let Some(next) = next.filter(|next| draft.give(job, *next)) {
                left -= 1;
                queue.push(place(job, next));
            }
        }
        draft.into_sizes()
    }
}

/// One more of the role that has the smaller part of its maximum.
fn next(bid: &Bid<'_>, size: Size) -> Option<Size> {
    let part = |size: Size| {
        let part = |has: u32, most: u32| f64::from(has) / f64::from(most.max(1));
        part(size.servers, bid.max.servers).max(part(size.workers, bid.max.workers))
    };
    // Of two as good the worker, which is the later one.
    bid.additions(size).min_by(|a, b| part(*a).total_cmp(&part(*b)).then(b.workers.cmp(&a.workers)))
}
