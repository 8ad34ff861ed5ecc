//! `optimus+oracle`: Optimus's rule with true step times and true remaining work, as a yardstick.
//! The only policy that reads the tables.

use crate::Application;
use impresario_auction::{Batch, Decision, Model, Picture, Policy, optimus};
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

    fn decide(&self, picture: &Picture, _: &[Model]) -> Decision {
        optimus::clear(picture, |index, replicas| {
            let job = &picture.jobs[index];
            let tables = self.applications.get(&job.application)?;
            let total = f64::from(job.fixed_batch.unwrap_or(job.initial_batch));
            let last = tables.epochs - 1;
            let steps = if job.epoch >= last {
                1.0
            } else {
                tables.iterations(total, last) - tables.iterations(total, job.epoch)
            };
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
            Some(steps * (step + f64::from(batch.accumulation) * (step - sync)))
        })
    }
}
