//! Dominant-resource fairness (NSDI 2011): the next addition goes to the job whose largest share of any
//! resource is smallest, until nothing is left or nobody wants more.

use crate::hall::{Bid, Hall, Size};
use crate::policy::Policy;
use crate::strides::{Role, Strides};
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
        let strides = Strides::within(hall, hall.most_additions);
        let mut left = hall.most_additions;
        while left > 0 {
            let Some(Reverse((_, job))) = queue.pop() else { break };
            let next = next(strides, &hall.bids[job], draft.size(job));
            if next.is_some_and(|mut sizes| sizes.any(|size| draft.give(job, size))) {
                left -= 1;
                queue.push(place(job, draft.size(job)));
            }
        }
        draft.into_sizes()
    }
}

/// More of the role that has the smaller part of its maximum; what is less comes later.
fn next(strides: Strides, bid: &Bid<'_>, size: Size) -> Option<impl Iterator<Item = Size>> {
    let part = |size: Size| {
        let part = |has: u32, most: u32| f64::from(has) / f64::from(most.max(1));
        part(size.servers, bid.max.servers).max(part(size.workers, bid.max.workers))
    };
    let one_more = |role| strides.next(bid, size, role).last().map(|next| (role, part(next)));
    // Of two as good the worker, which is the later one.
    let roles = Role::BOTH.into_iter().rev().filter_map(one_more);
    let (role, _) = roles.min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(strides.next(bid, size, role))
}
