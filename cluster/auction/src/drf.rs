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
            let mut next = next(strides, &hall.bids[job], draft.size(job));
            if next.any(|size| draft.give(job, size)) {
                left -= 1;
                queue.push(place(job, draft.size(job)));
            }
        }
        draft.into_sizes()
    }
}

/// More of the role that has the smaller part of its maximum, and if none of that can be had more of the other; of
/// each what is less comes later.
fn next(strides: Strides, bid: &Bid<'_>, size: Size) -> impl Iterator<Item = Size> {
    let part = |size: Size| {
        let part = |has: u32, most: u32| f64::from(has) / f64::from(most.max(1));
        part(size.servers, bid.max.servers).max(part(size.workers, bid.max.workers))
    };
    let one_more = |role| {
        let next = strides.next(bid, size, role).last();
        next.map_or(f64::INFINITY, part)
    };
    // Of two as good the worker.
    let mut roles = [Role::Worker, Role::Server];
    if one_more(Role::Server) < one_more(Role::Worker) {
        roles.reverse();
    }
    roles.map(|role| strides.next(bid, size, role)).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hall::{Standing, Worth};

    struct Unknown;

    impl Worth for Unknown {
        fn remaining(&self) -> Option<f64> {
            None
        }

        fn rate(&self, _: Size) -> Option<f64> {
            None
        }

        fn uncertainty(&self, _: Size) -> f64 {
            0.0
        }
    }

    #[test]
    fn a_role_that_does_not_fit_any_more_does_not_stop_the_other() {
        // Servers of 16 CPUs and workers of one; the node has eight.
        let bid = Bid {
            standing: Standing::Runs,
            current: Size { servers: 1, workers: 1 },
            keeps: Size { servers: 1, workers: 1 },
            min: Size { servers: 1, workers: 1 },
            max: Size { servers: 4, workers: 4 },
            server: vec![16],
            worker: vec![1],
            submitted: 0.0,
            attained_service: 0.0,
            rescale_seconds: 0.0,
            known: None,
            ladder: None,
            is_young: false,
            is_doubted: false,
            worth: Box::new(Unknown),
        };
        let hall = Hall {
            bids: vec![bid],
            capacity: vec![16 + 1 + 8],
            pieces: Some(vec![8]),
            most_additions: 100,
        };
        assert_eq!(Drf.clear(&hall), [Size { servers: 1, workers: 4 }]);
    }
}
