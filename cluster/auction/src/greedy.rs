//! Again and again the one addition with the largest gain: the rule by which Optimus (EuroSys 2018, section
//! 4.1) divides a cluster.

use crate::hall::{Draft, Hall, Size};
use crate::strides::{Role, Strides};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A size that one job may have next.
struct Addition {
    gain: f64,
    job: usize,
    role: Role,
    size: Size,
    /// How many additions the job had been granted when this was worked out.
    after: usize,
}

impl PartialEq for Addition {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Addition {}

impl PartialOrd for Addition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Addition {
    fn cmp(&self, other: &Self) -> Ordering {
        // Ties go to the job that came first, and to servers.
        let turn = |one: &Self| (one.job, one.role == Role::Worker);
        let earlier = turn(other).cmp(&turn(self));
        self.gain.total_cmp(&other.gain).then(earlier)
    }
}

/// Grants additions until nothing fits, none has a gain, or as many were granted as the hall allows.
///
/// `gain` says what a job gains by going from one size to a larger one; what is not a positive number is none. What
/// does not fit once is not tried again for that job's size.
pub(crate) fn grant(
    draft: &mut Draft<'_>,
    hall: &Hall<'_>,
    gain: impl Fn(usize, Size, Size) -> Option<f64>,
) {
    let strides = Strides::within(hall, hall.most_additions);
    let mut granted = vec![0; hall.bids.len()];
    // The largest of a role that gains anything, of those that are smaller than one that was refused.
    let offer = |job: usize, from: Size, role: Role, refused: Option<Size>, after: usize| {
        let next = strides.next(&hall.bids[job], from, role);
        let mut worth = next
            .filter(|to| refused.is_none_or(|refused| refused.grows_from(*to)))
            .filter_map(|to| Some((to, gain(job, from, to)?)))
            .filter(|(_, gain)| gain.is_finite() && *gain > 0.0);
        worth.next().map(|(size, gain)| Addition { gain, job, role, size, after })
    };
    let offers = |job: usize, from: Size, after: usize| {
        let offers = Role::BOTH.map(|role| offer(job, from, role, None, after));
        offers.into_iter().flatten()
    };
    let mut heap = BinaryHeap::new();
    for job in 0..hall.bids.len() {
        heap.extend(offers(job, draft.size(job), 0));
    }
    let mut left = hall.most_additions;
    while left > 0 {
        let Some(Addition { job, role, size, after, .. }) = heap.pop() else { break };
        if after != granted[job] {
            continue;
        }
        if draft.give(job, size) {
            left -= 1;
            granted[job] += 1;
            heap.extend(offers(job, size, granted[job]));
        } else {
            heap.extend(offer(job, draft.size(job), role, Some(size), after));
        }
    }
}
