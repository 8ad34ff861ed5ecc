//! Again and again the one addition with the largest gain: the rule by which Optimus (EuroSys 2018, section
//! 4.1) divides a cluster.

use crate::hall::{Draft, Size};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One step of one job.
struct Addition {
    gain: f64,
    job: usize,
    /// Its place among the additions that the job was offered.
    turn: usize,
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
        // Ties go to the job that came first, and to what it named first.
        let earlier = (other.job, other.turn).cmp(&(self.job, self.turn));
        self.gain.total_cmp(&other.gain).then(earlier)
    }
}

/// Grants additions until nothing fits, none has a gain, or `most` were granted.
///
/// `additions` gives for a job of this size each size that is one larger, and what that gains; a gain that
/// is not a positive number is none. What does not fit once is not tried again for that job's size.
pub(crate) fn grant<A>(
    draft: &mut Draft<'_>,
    jobs: usize,
    most: usize,
    additions: impl Fn(usize, Size) -> A,
) where
    A: IntoIterator<Item = (Size, f64)>,
{
    let mut granted = vec![0; jobs];
    let offers = |job: usize, size: Size, after: usize| {
        let offers = additions(job, size).into_iter().enumerate();
        let worth = offers.filter(|(_, (_, gain))| gain.is_finite() && *gain > 0.0);
        worth
            .map(|(turn, (size, gain))| Addition { gain, job, turn, size, after })
            .collect::<Vec<_>>()
    };
    let mut heap: BinaryHeap<Addition> =
        (0..jobs).flat_map(|job| offers(job, draft.size(job), 0)).collect();
    let mut left = most;
    while left > 0 {
        let Some(Addition { job, size, after, .. }) = heap.pop() else { break };
        if after == granted[job] && draft.give(job, size) {
            left -= 1;
            granted[job] += 1;
            heap.extend(offers(job, size, granted[job]));
        }
    }
}
