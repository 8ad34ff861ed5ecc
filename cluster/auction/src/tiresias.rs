//! Tiresias (NSDI 2019), its discretised two-dimensional least attained service: jobs that have
//! had less than a threshold of GPU-seconds go before all others; first come, first served within
//! each queue; what does not fit is passed over.

use crate::fifo::gangs;
use crate::policy::{Decision, Policy};
use crate::{Model, Picture};

/// GPU-seconds after which a job goes to the second queue (16 h, as in the Pollux benchmark).
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

    fn decide(&self, picture: &Picture, _: &[Model]) -> Decision {
        let mut order: Vec<usize> = (0..picture.jobs.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&picture.jobs[*a], &picture.jobs[*b]);
            // Who reports what cannot be is not put before the others for it.
            let late = |attained: f64| !(0.0..THRESHOLD).contains(&attained);
            late(a.attained_service)
                .cmp(&late(b.attained_service))
                .then(a.submitted.total_cmp(&b.submitted))
        });
        let mut left = picture.gpus();
        let mut wanted = vec![0; picture.jobs.len()];
        for job in order.iter().copied() {
            let asked = picture.jobs[job].max_replicas;
            if asked <= left {
                left -= asked;
                wanted[job] = asked;
            }
        }
        gangs(picture, &order, &wanted)
    }
}
