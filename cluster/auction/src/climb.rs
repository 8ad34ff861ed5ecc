//! The sizes that are worth a look for one job.

use crate::hall::{Hall, Size};
use crate::strides::{Role, Strides};

/// No more sizes than this are looked at beyond a job's minimum.
pub(crate) const MOST_RUNGS: usize = 128;

/// The sizes that a job alone goes through from its minimum, if each time it gets the addition that makes
/// it faster by most for its dominant share; and the one that it has. In the order of their shares.
#[must_use]
pub(crate) fn climb(hall: &Hall<'_>, job: usize, strides: Strides) -> Vec<Size> {
    let bid = &hall.bids[job];
    let mut size = bid.min;
    let mut sizes = vec![size];
    while sizes.len() <= MOST_RUNGS {
        let Some(rate) = bid.worth.rate(size) else { break };
        let gain = |to: Size| {
            let gain = (bid.worth.rate(to)? - rate) / hall.share_between(job, size, to);
            (gain > 0.0 && gain.is_finite() && hall.could_hold(job, to)).then_some((gain, to))
        };
        let next = |role| strides.next(bid, size, role).find_map(gain);
        let best = Role::BOTH.into_iter().filter_map(next).max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, next)) = best else { break };
        sizes.push(next);
        size = next;
    }
    if bid.keeps.is_within(bid.min, bid.max) && !sizes.contains(&bid.keeps) {
        sizes.push(bid.keeps);
    }
    sizes.sort_by(|a, b| hall.share(job, *a).total_cmp(&hall.share(job, *b)));
    sizes
}
