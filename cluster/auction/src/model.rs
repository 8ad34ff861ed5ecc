//! What a job believes about itself.

use crate::picture::Job;
use crate::step_time::StepTime;

/// A job's models. Fitting takes the time; a model stays good until the job reports more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// How long a step takes; `None` before the first report that can be true.
    pub step_time: Option<StepTime>,
}

impl Model {
    /// Fits the models to what the job has reported.
    #[must_use]
    pub fn fit(job: &Job) -> Self {
        Self { step_time: StepTime::fit(&job.profile) }
    }
}

/// Work that is left, in steps of the initial batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Remaining {
    /// The estimate.
    pub steps: f64,
    /// Relative standard deviation of the estimate.
    pub uncertainty: f64,
}

/// What remains by the epochs that were declared and what those so far were worth: an epoch has
/// been worth between `progress / (epoch + 1)` and `progress / epoch`. `None` where the reports
/// make no sense or nothing is known yet.
#[must_use]
pub fn remaining(job: &Job) -> Option<Remaining> {
    if !(job.progress.is_finite() && job.progress > 0.0) || job.epoch >= job.epochs {
        return None;
    }
    let done = f64::from(job.epoch) + 0.5;
    let each = job.progress / done;
    let steps = each * (f64::from(job.epochs) - done).max(0.5);
    steps.is_finite().then_some(Remaining { steps, uncertainty: 0.29 / done })
}
