//! How many pods of a job have ended, and how: each is counted once.

use super::super::indexes;
use super::{PodId, PodView, TRACKING, id, index, to_i32};
use k8s_openapi::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The ends of pods: those that the status has, and those that it gets now.
pub(super) struct Count {
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    pub(super) completed: BTreeSet<u32>,
    pub(super) indexed: bool,
    pub(super) counted: Vec<PodId>,
}

impl Count {
    pub(super) fn of(job: &Job, pods: &[Arc<Pod>], old: &JobStatus) -> Self {
        let indexed =
            job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()) == Some("Indexed");
        let mut count = Self {
            succeeded: old.succeeded.unwrap_or(0),
            failed: old.failed.unwrap_or(0),
            completed: indexes::parse(old.completed_indexes.as_deref().unwrap_or_default()),
            indexed,
            counted: Vec::new(),
        };
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            if pod.succeeded() {
                match (indexed, index(pod)) {
                    (true, Some(index)) => {
                        count.completed.insert(index);
                    }
                    (true, None) => {}
                    (false, _) => count.succeeded += 1,
                }
            } else if pod.finished() || pod.terminating() {
                count.failed += 1;
            } else {
                continue;
            }
            count.counted.push(id(pod));
        }
        if indexed {
            count.succeeded = to_i32(count.completed.len());
        }
        count
    }

    /// The old status with these counts.
    pub(super) fn status(&self, old: &JobStatus, active: usize, terminating: usize) -> JobStatus {
        let some = |n: i32| (n > 0).then_some(n);
        JobStatus {
            active: some(to_i32(active)),
            succeeded: some(self.succeeded),
            failed: some(self.failed),
            terminating: Some(to_i32(terminating)),
            completed_indexes: self
                .indexed
                .then(|| indexes::format(&self.completed))
                .filter(|text| !text.is_empty()),
            uncounted_terminated_pods: Some(UncountedTerminatedPods::default()),
            ..old.clone()
        }
    }
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}
