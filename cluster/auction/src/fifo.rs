//! First come, first served: what a user asked for, in order of arrival, and nobody overtakes.

use crate::hall::{Hall, Size, Standing};
use crate::policy::Policy;

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

    fn clear(&self, hall: &Hall<'_>) -> Vec<Size> {
        whole(hall, &order(hall), false)
    }

    fn placing_order(&self, hall: &Hall<'_>, _: &[Size]) -> Vec<usize> {
        order(hall)
    }
}

fn order(hall: &Hall<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..hall.bids.len()).collect();
    order.sort_by(|a, b| hall.bids[*a].submitted.total_cmp(&hall.bids[*b].submitted));
    order
}

/// The whole of what was asked for or nothing, in this order: first every minimum, then every maximum. Who
/// got more than its minimum once keeps that while it fits. With `overtaking` what does not fit is passed over;
/// without it nobody gets anything before those that wait.
pub(crate) fn whole(hall: &Hall<'_>, order: &[usize], overtaking: bool) -> Vec<Size> {
    let mut draft = hall.floors();
    for job in order.iter().copied() {
        let bid = &hall.bids[job];
        // What never fits waits without holding up the others.
        if bid.standing != Standing::Waits || !hall.could_hold(job, bid.min) {
            continue;
        }
        if !draft.give(job, bid.min) && !overtaking {
            break;
        }
    }
    for job in order.iter().copied() {
        let bid = &hall.bids[job];
        let has = bid.keeps.is_within(bid.min, bid.max);
        if draft.size(job).workers > 0 && !draft.give(job, bid.max) && has {
            draft.give(job, bid.keeps);
        }
    }
    draft.into_sizes()
}
