//! Optimus (EuroSys 2018): each job its minimum, then again and again the addition that takes most from the
//! sum of remaining times, for its dominant share. A change that does not pay for itself is not made, nor on a cluster
//! one by which others surely lose about as much.

use crate::greedy;
use crate::hall::{Draft, Hall, LONGEST_SECONDS, Size};
use crate::policy::Policy;
use crate::trades;

/// What the gain of a job counts whose predictions are from few steps.
const YOUNG_FACTOR: f64 = 0.95;
/// No faith beyond so many times the workers that were measured.
const GROWTH: u32 = 2;

/// The policy, by each job's own models.
#[derive(Clone, Copy, Debug, Default)]
pub struct Optimus;

impl Policy for Optimus {
    fn name(&self) -> &'static str {
        "optimus"
    }

    fn clear(&self, hall: &Hall<'_>) -> Vec<Size> {
        // Seconds less are worth more.
        let value =
            |job: usize, size| -hall.bids[job].worth.seconds(size).unwrap_or(LONGEST_SECONDS);
        let unsure = |job: usize, size| hall.bids[job].worth.uncertainty(size);
        let grow = |draft: &mut Draft<'_>| grow(hall, draft);
        let mut draft = trades::settled(hall, divide(hall), grow, value, unsure);
        draft.spare_needless_changes();
        draft.into_sizes()
    }
}

/// Optimus's rule, whatever changes it takes.
#[must_use]
pub fn divide<'h>(hall: &'h Hall<'_>) -> Draft<'h> {
    let mut draft = hall.minimums();
    grow(hall, &mut draft);
    draft
}

fn grow(hall: &Hall<'_>, draft: &mut Draft<'_>) {
    greedy::grant(draft, hall, |job, from, to| {
        let most = hall.bids[job].known.map_or(0, |known| known.saturating_mul(GROWTH));
        let may = from.workers > 0 && to.workers <= most;
        if may { gain(hall, job, from, to) } else { None }
    });
}

fn gain(hall: &Hall<'_>, job: usize, from: Size, to: Size) -> Option<f64> {
    let bid = &hall.bids[job];
    let saved = bid.worth.seconds(from)? - bid.worth.seconds(to)?;
    let young = if bid.is_young { YOUNG_FACTOR } else { 1.0 };
    Some(saved * young / hall.share_between(job, from, to))
}
