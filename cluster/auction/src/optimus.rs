//! Optimus (EuroSys 2018): each job its minimum, then again and again the addition that takes most from the
//! sum of remaining times, for its dominant share. A change that does not pay for itself is not made.

use crate::greedy;
use crate::hall::{Draft, Hall, Size};
use crate::policy::Policy;

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
        let mut draft = divide(hall);
        draft.spare_needless_changes();
        draft.into_sizes()
    }
}

/// Optimus's rule, whatever changes it takes.
#[must_use]
pub fn divide<'h>(hall: &'h Hall<'_>) -> Draft<'h> {
    let mut draft = hall.minimums();
    greedy::grant(&mut draft, hall, |job, from, to| {
        let most = hall.bids[job].known.map_or(0, |known| known.saturating_mul(GROWTH));
        let may = from.workers > 0 && to.workers <= most;
        if may { gain(hall, job, from, to) } else { None }
    });
    draft
}

fn gain(hall: &Hall<'_>, job: usize, from: Size, to: Size) -> Option<f64> {
    let bid = &hall.bids[job];
    let saved = bid.worth.seconds(from)? - bid.worth.seconds(to)?;
    let young = if bid.is_young { YOUNG_FACTOR } else { 1.0 };
    Some(saved * young / hall.share_between(job, from, to))
}
