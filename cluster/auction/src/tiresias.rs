//! Tiresias (NSDI 2019), its discretised two-dimensional least attained service: jobs that have
//! had less than a threshold of GPU-seconds go before all others; first come, first served within
//! each queue; what does not fit is passed over.

use crate::fifo::whole;
use crate::hall::{Hall, Size};
use crate::policy::Policy;

/// Worker-seconds after which a job goes to the second queue (16 h, as in the Pollux benchmark).
const THRESHOLD: f64 = 16.0 * 3600.0;

/// The policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tiresias;

impl Policy for Tiresias {
    fn name(&self) -> &'static str {
        "tiresias"
    }

    fn is_elastic(&self) -> bool {
        false
    }

    fn clear(&self, hall: &Hall<'_>) -> Vec<Size> {
        whole(hall, &order(hall), true)
    }

    fn placing_order(&self, hall: &Hall<'_>, _: &[Size]) -> Vec<usize> {
        order(hall)
    }
}

fn order(hall: &Hall<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..hall.bids.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&hall.bids[*a], &hall.bids[*b]);
        // Who reports what cannot be is not put before the others for it.
        let late = |attained: f64| !(0.0..THRESHOLD).contains(&attained);
        late(a.attained_service)
            .cmp(&late(b.attained_service))
            .then(a.submitted.total_cmp(&b.submitted))
    });
    order
}
