//! How many pods of a job have ended, and how: each is counted once.
//!
//! What has ended decides at once; what the status says of it follows in portions that one
//! transaction can carry. A pod that failed and whose index is tried again keeps its finalizer until
//! another pod has taken over its count of failures.

use super::super::super::pod_view::PodView as _;
use super::super::indexes;
use super::failure_policy::{Effect, effect};
use super::marks::{INDEX_FAILURES, INDEX_IGNORED, PodId, TRACKING, id, index, to_i32};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pods whose end one transaction counts; the rest follows with the next look.
pub const COUNTED_AT_ONCE: usize = 250;
/// And what their objects may have in bytes, if they are more than one: a third of what the registry takes.
pub const COUNTED_BYTES: usize = 1 << 20;

/// The ends of pods: those that the status has, and those that are new.
pub(super) struct Count {
    /// Of all that is known.
    pub(super) succeeded: i32,
    /// Of all that is known.
    pub(super) failed: i32,
    /// Indexes that succeeded.
    pub(super) completed: BTreeSet<u32>,
    /// Indexes that failed for good.
    pub(super) failed_indexes: BTreeSet<u32>,
    pub(super) indexed: bool,
    /// The pods whose end the next status has and the one before did not.
    pub(super) counted: Vec<PodId>,
    /// Whether pods have ended that the next status does not have yet.
    pub(super) is_behind: bool,
    /// Why the job has failed, if a pod's failure ended it.
    pub(super) failure: Option<String>,
    /// For each index that waits for another pod: the one that failed last.
    pub(super) last_failed: BTreeMap<u32, Arc<Pod>>,
    /// What the next status says.
    written: (i32, i32),
}

/// How a pod ended; `None` while it may still do either. A pod that is being deleted has failed,
/// unless the job asks to wait for its end.
fn end(spec: &JobSpec, pod: &Pod) -> Option<bool> {
    let waits = replaces_only_failed(spec);
    match () {
        () if pod.succeeded() => Some(true),
        () if pod.finished() || (pod.terminating() && !waits) => Some(false),
        () => None,
    }
}

/// Whether a pod is replaced only when it has really ended: `podReplacementPolicy: Failed`, which a
/// failure policy implies.
pub(super) fn replaces_only_failed(spec: &JobSpec) -> bool {
    match spec.pod_replacement_policy.as_deref() {
        Some(policy) => policy == "Failed",
        None => spec.pod_failure_policy.is_some(),
    }
}

impl Count {
    /// `is_over` says that nothing is tried again: the job has ended or is being deleted.
    pub(super) fn of(
        job: &Job,
        (pods, sizes): (&[Arc<Pod>], &[usize]),
        old: &JobStatus,
        is_over: bool,
    ) -> Self {
        let no_spec = JobSpec::default();
        let spec = job.spec.as_ref().unwrap_or(&no_spec);
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let completions = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        let parse =
            |text: Option<&String>| indexes::parse(text.map_or("", String::as_str), completions);
        let mut count = Self {
            succeeded: old.succeeded.unwrap_or(0),
            failed: old.failed.unwrap_or(0),
            completed: parse(old.completed_indexes.as_ref()),
            failed_indexes: parse(old.failed_indexes.as_ref()),
            indexed,
            counted: Vec::new(),
            is_behind: false,
            failure: None,
            last_failed: BTreeMap::new(),
            written: (old.succeeded.unwrap_or(0), old.failed.unwrap_or(0)),
        };
        // An index out of range is none: the job was made smaller.
        let index = |pod: &Pod| index(pod).filter(|index| *index < completions);
        if indexed {
            count.see_indexes(spec, pods, &index);
        }
        let mut bytes = 0;
        for (at, pod) in pods.iter().enumerate().filter(|(_, pod)| is_tracked(pod)) {
            let Some(succeeded) = end(spec, pod) else { continue };
            let index = index(pod);
            let effect = if succeeded { Effect::Counts } else { effect(spec, pod) };
            if let Effect::FailsJob(message) = &effect {
                count.failure.get_or_insert_with(|| message.clone());
            }
            let is_new_failure =
                !succeeded && effect != Effect::Ignored && (!indexed || index.is_some());
            let is_new_success = succeeded && !indexed;
            count.succeeded = count.succeeded.saturating_add(i32::from(is_new_success));
            count.failed = count.failed.saturating_add(i32::from(is_new_failure));
            let takes_over = index.and_then(|index| count.last_failed.get(&index));
            let is_kept = takes_over.is_some_and(|last| last.uid() == pod.uid())
                && spec.backoff_limit_per_index.is_some()
                && !is_over;
            let size = sizes.get(at).copied().unwrap_or(0);
            let is_full = count.counted.len() >= COUNTED_AT_ONCE
                || (!count.counted.is_empty() && bytes + size > COUNTED_BYTES);
            if is_kept || is_full {
                count.is_behind = true;
                continue;
            }
            bytes += size;
            count.written.0 = count.written.0.saturating_add(i32::from(is_new_success));
            count.written.1 = count.written.1.saturating_add(i32::from(is_new_failure));
            count.counted.push(id(pod));
        }
        if indexed {
            count.succeeded = to_i32(count.completed.len());
            count.written.0 = count.succeeded;
        }
        count
    }

    /// Which indexes have ended, and which wait for another pod.
    fn see_indexes(
        &mut self,
        spec: &JobSpec,
        pods: &[Arc<Pod>],
        index: &impl Fn(&Pod) -> Option<u32>,
    ) {
        let ended = |pod: &&Arc<Pod>| end(spec, pod).is_some();
        let tracked = pods.iter().filter(|pod| is_tracked(pod)).filter(ended);
        for pod in tracked.filter(|pod| pod.succeeded()) {
            self.completed.extend(index(pod));
        }
        let Some(limit) = spec.backoff_limit_per_index else { return };
        let failed = || pods.iter().filter(|pod| end(spec, pod) == Some(false));
        for pod in failed().filter(|pod| is_tracked(pod)) {
            let Some(index) = index(pod) else { continue };
            let is_last = match effect(spec, pod) {
                Effect::FailsIndex => true,
                Effect::Ignored => false,
                Effect::Counts | Effect::FailsJob(_) => failures(pod).0 >= limit,
            };
            if is_last && !self.completed.contains(&index) {
                self.failed_indexes.insert(index);
            }
        }
        let busy: BTreeSet<u32> = pods
            .iter()
            .filter(|pod| end(spec, pod).is_none() && !pod.terminating())
            .filter_map(|pod| index(pod))
            .collect();
        for pod in failed() {
            let Some(index) = index(pod) else { continue };
            if self.has_ended(index) || busy.contains(&index) {
                continue;
            }
            let weight = |pod: &Pod| {
                let (counted, ignored) = failures(pod);
                (i64::from(counted) + i64::from(ignored), pod.ended(), pod.created())
            };
            let is_later = |last: &Arc<Pod>| weight(last) < weight(pod);
            if self.last_failed.get(&index).is_none_or(is_later) {
                self.last_failed.insert(index, pod.clone());
            }
        }
    }

    /// Whether an index is not tried again.
    pub(super) fn has_ended(&self, index: u32) -> bool {
        self.completed.contains(&index) || self.failed_indexes.contains(&index)
    }

    /// The failures of an index that its next pod takes over: those that count, and the others.
    pub(super) fn failures_before(&self, spec: &JobSpec, index: u32) -> (i32, i32) {
        let Some(last) = self.last_failed.get(&index) else { return (0, 0) };
        let (counted, ignored) = failures(last);
        match effect(spec, last) {
            Effect::Ignored => (counted, ignored.saturating_add(1)),
            _ => (counted.saturating_add(1), ignored),
        }
    }

    /// The old status with these counts.
    pub(super) fn status(
        &self,
        spec: &JobSpec,
        old: &JobStatus,
        active: usize,
        terminating: usize,
    ) -> JobStatus {
        let some = |n: i32| (n > 0).then_some(n);
        JobStatus {
            active: some(to_i32(active)),
            succeeded: some(self.written.0),
            failed: some(self.written.1),
            terminating: Some(to_i32(terminating)),
            completed_indexes: self
                .indexed
                .then(|| indexes::format(&self.completed))
                .filter(|text| !text.is_empty()),
            failed_indexes: (self.indexed && spec.backoff_limit_per_index.is_some())
                .then(|| indexes::format(&self.failed_indexes)),
            uncounted_terminated_pods: Some(UncountedTerminatedPods::default()),
            ..old.clone()
        }
    }
}

/// The failures of its index before this pod: those that count, and those that a policy ignores.
fn failures(pod: &Pod) -> (i32, i32) {
    let read = |key: &str| {
        let text = pod.metadata.annotations.as_ref()?.get(key)?;
        text.parse::<i32>().ok().filter(|count| *count >= 0)
    };
    (read(INDEX_FAILURES).unwrap_or(0), read(INDEX_IGNORED).unwrap_or(0))
}

/// Whether the end of the pod is still to be counted.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}
