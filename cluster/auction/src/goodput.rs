//! What a configuration is worth: steps a second times what a step of that batch advances.

use crate::picture::{Gradient, Job};
use crate::step_time::StepTime;

/// How the batch of a step is made up on each GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Samples a micro-batch.
    pub local_batch: u32,
    /// Micro-batches before the one that synchronises.
    pub accumulation: u32,
}

impl Batch {
    /// Samples a step over all replicas.
    #[must_use]
    pub fn total(self, replicas: u32) -> f64 {
        f64::from(replicas) * f64::from(self.local_batch) * (f64::from(self.accumulation) + 1.0)
    }

    /// How `total` samples are divided over `replicas` GPUs within the job's limits. One replica
    /// alone with more than the initial batch accumulates at least once, since gradient noise
    /// cannot be told from a single micro-batch.
    #[must_use]
    pub fn dividing(job: &Job, total: f64, replicas: u32) -> Self {
        let replicas = replicas.max(1);
        let most = f64::from(job.max_local_batch.max(1));
        let each = total / f64::from(replicas);
        let mut accumulation = ((each / most - 1e-8).ceil() - 1.0).max(0.0);
        if replicas == 1 && total > f64::from(job.initial_batch) + 1e-8 {
            accumulation = accumulation.max(1.0);
        }
        let local = (each / (accumulation + 1.0) - 1e-8).ceil().max(1.0);
        Self { local_batch: local as u32, accumulation: accumulation as u32 }
    }

    /// The same with a total that does not pass the job's largest.
    #[must_use]
    pub fn within(job: &Job, total: f64, replicas: u32) -> Self {
        let batch = Self::dividing(job, total, replicas);
        let parts = u64::from(replicas.max(1)) * (u64::from(batch.accumulation) + 1);
        let most = u64::from(job.max_batch) / parts;
        Self { local_batch: batch.local_batch.min(most.max(1) as u32), ..batch }
    }
}

/// What one step of `total` samples advances, in steps of the initial batch (Pollux, section 3.1).
#[must_use]
pub fn gain(gradient: Option<Gradient>, scale: f64) -> f64 {
    match gradient.filter(Gradient::is_sane) {
        Some(Gradient { sqr, var }) => {
            let below = var / scale + sqr;
            if below > 0.0 { (var + sqr) / below } else { 1.0 }
        }
        // Nothing known of the noise: no more than the initial batch is believed to help.
        None => 1.0,
    }
}

/// The best batch on `replicas` GPUs of `nodes` nodes and the progress a second that it makes;
/// `None` where the job's limits leave no batch. `tries` batches in geometric order are looked at.
#[must_use]
pub fn best(
    job: &Job,
    step_time: &StepTime,
    nodes: u32,
    replicas: u32,
    tries: u32,
) -> Option<(f64, Batch)> {
    let initial = f64::from(job.initial_batch.max(1));
    if let Some(total) = job.fixed_batch {
        let batch = Batch::within(job, f64::from(total), replicas);
        return Some((rate(job, step_time, nodes, replicas, batch), batch));
    }
    let least = initial.max(f64::from(job.min_local_batch) * f64::from(replicas));
    let most = f64::from(job.max_batch);
    if least > most {
        return None;
    }
    let ratio = (most / least).powf(1.0 / f64::from(tries.max(2) - 1));
    let mut total = least;
    let mut found: Option<(f64, Batch)> = None;
    for _ in 0..tries.max(2) {
        let batch = Batch::within(job, total.min(most), replicas);
        let allowed = (job.min_local_batch..=job.max_local_batch).contains(&batch.local_batch);
        if allowed && batch.total(replicas) + 1e-6 >= initial {
            let rate = rate(job, step_time, nodes, replicas, batch);
            if found.is_none_or(|(best, _)| rate > best) {
                found = Some((rate, batch));
            }
        }
        total *= ratio;
    }
    found
}

/// Progress a second in one configuration.
#[must_use]
pub fn rate(job: &Job, step_time: &StepTime, nodes: u32, replicas: u32, batch: Batch) -> f64 {
    let seconds =
        step_time.seconds(nodes, replicas, f64::from(batch.local_batch), batch.accumulation);
    let scale = batch.total(replicas) / f64::from(job.initial_batch.max(1));
    gain(job.gradient, scale) / seconds
}

/// The batch that a job runs with: the user's, the best by its model, or before it has measured
/// anything the smallest.
#[must_use]
pub fn choose(job: &Job, step_time: Option<&StepTime>, nodes: u32, replicas: u32) -> Batch {
    let smallest = f64::from(job.initial_batch.max(job.min_local_batch.saturating_mul(replicas)));
    match step_time {
        Some(model) => best(job, model, nodes, replicas, 50).map(|(_, batch)| batch),
        None => job.fixed_batch.map(|total| Batch::within(job, f64::from(total), replicas)),
    }
    .unwrap_or_else(|| Batch::within(job, smallest, replicas))
}
