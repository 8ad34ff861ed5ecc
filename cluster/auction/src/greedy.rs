//! Again and again the one addition with the largest gain: the rule by which Optimus (EuroSys 2018, section
//! 4.1) divides a cluster, whatever a size is. The simulator's sizes are GPUs, the live scheduler's are
//! parameter servers and trainers.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One step of one job.
struct Addition<S> {
    gain: f64,
    job: usize,
    /// Its place among the additions that the job was offered.
    turn: usize,
    size: S,
    /// How many additions the job had been granted when this was worked out.
    after: usize,
}

impl<S> PartialEq for Addition<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<S> Eq for Addition<S> {}

impl<S> PartialOrd for Addition<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> Ord for Addition<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Ties go to the job that came first, and to what it named first.
        let earlier = (other.job, other.turn).cmp(&(self.job, self.turn));
        self.gain.total_cmp(&other.gain).then(earlier)
    }
}

/// Grants additions until nothing fits, none has a gain, or `most` were granted.
///
/// `additions` gives for a job of this size each size that is one larger, and what that gains; a gain that
/// is not a positive number is none. `fits` says whether all sizes can be had together: what did not fit once
/// is not tried again, so it must hold that nothing fits later that does not fit now.
pub fn grant<S, A>(
    sizes: &mut [S],
    additions: impl Fn(usize, &S) -> A,
    fits: impl Fn(&[S]) -> bool,
    most: usize,
) where
    A: IntoIterator<Item = (S, f64)>,
{
    let mut granted = vec![0; sizes.len()];
    let offers = |job: usize, size: &S, after: usize| {
        let offers = additions(job, size).into_iter().enumerate();
        let worth = offers.filter(|(_, (_, gain))| gain.is_finite() && *gain > 0.0);
        worth
            .map(|(turn, (size, gain))| Addition { gain, job, turn, size, after })
            .collect::<Vec<_>>()
    };
    let mut heap: BinaryHeap<Addition<S>> =
        sizes.iter().enumerate().flat_map(|(job, size)| offers(job, size, 0)).collect();
    let mut left = most;
    while left > 0 {
        let Some(Addition { job, size, after, .. }) = heap.pop() else { break };
        if after != granted[job] {
            continue;
        }
        let before = std::mem::replace(&mut sizes[job], size);
        if fits(sizes) {
            left -= 1;
            granted[job] += 1;
            heap.extend(offers(job, &sizes[job], granted[job]));
        } else {
            sizes[job] = before;
        }
    }
}
