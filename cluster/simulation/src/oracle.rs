//! `optimus+oracle`: Optimus's rule with true step times and true remaining work, as a yardstick.
//! The only policy that reads the tables.

use crate::Application;
use impresario_auction::hall::{Hall, Worth};
use impresario_auction::{Batch, Decision, Job, Model, Picture, Policy, Size, gpus, optimus};
use std::collections::BTreeMap;

/// The policy.
pub struct Oracle<'a> {
    /// The tables.
    pub applications: &'a BTreeMap<String, Application>,
    /// GPUs a node.
    pub gpus: u32,
}

impl Policy for Oracle<'_> {
    fn name(&self) -> &'static str {
        "optimus+oracle"
    }

    fn clear(&self, hall: &Hall<'_>) -> Vec<Size> {
        optimus::divide(hall).into_sizes()
    }

    fn decide(&self, picture: &Picture, _: &[Model]) -> Decision {
        let worth = |index: usize| -> Box<dyn Worth + '_> {
            let job = &picture.jobs[index];
            Box::new(Truth {
                job,
                tables: self.applications.get(&job.application),
                gpus: self.gpus,
            })
        };
        // All sizes are known.
        let hall = gpus::hall_with(picture, true, worth, |_| Some(u32::MAX));
        self.place(picture, &hall, &self.clear(&hall))
    }
}

/// What the tables say of a job.
struct Truth<'a> {
    job: &'a Job,
    tables: Option<&'a Application>,
    gpus: u32,
}

impl Worth for Truth<'_> {
    fn remaining(&self) -> Option<f64> {
        let (job, tables) = (self.job, self.tables?);
        let total = f64::from(job.fixed_batch.unwrap_or(job.initial_batch));
        let last = tables.epochs - 1;
        Some(if job.epoch >= last {
            1.0
        } else {
            tables.iterations(total, last) - tables.iterations(total, job.epoch)
        })
    }

    fn rate(&self, size: Size) -> Option<f64> {
        Some(1.0 / self.step_seconds(size)?)
    }

    fn uncertainty(&self, _: Size) -> f64 {
        0.0
    }

    fn seconds(&self, size: Size) -> Option<f64> {
        Some(self.remaining()? * self.step_seconds(size)?)
    }
}

impl Truth<'_> {
    fn step_seconds(&self, size: Size) -> Option<f64> {
        let (job, tables, replicas) = (self.job, self.tables?, size.workers);
        let total = f64::from(job.fixed_batch.unwrap_or(job.initial_batch));
        let mut placement = vec![self.gpus; (replicas / self.gpus) as usize];
        placement.extend((replicas % self.gpus > 0).then_some(replicas % self.gpus));
        let mut batch = Batch::within(job, total, replicas);
        if replicas == 1 && batch.accumulation == 0 {
            // The published policy takes two micro-batches for one GPU, whatever the batch.
            batch.accumulation = 1;
            batch.local_batch = batch.local_batch.div_ceil(2);
        }
        let local = batch.local_batch.max(tables.min_local_batch);
        let (step, sync) = tables.step_time(&placement, local);
        Some(step + f64::from(batch.accumulation) * (step - sync))
    }
}
