//! Runs pods to completion, each counted exactly once (API reference, Job v1).
//!
//! A pod of a job carries the finalizer [`TRACKING`] until its end is in the job's status. The
//! count and the removal of the finalizer are one transaction ([`Action::Report`] with the pods
//! that it counts), so that no crash between the two can count a pod twice or never. A pod that the
//! job itself ends loses the finalizer with that, and is never counted. [`reconcile`] is a plain
//! function of what was seen and the time.

mod backoff;
#[cfg(test)]
mod bounds;
mod count;
mod failure_policy;
mod marks;
mod verdict;

pub use backoff::{BACKOFF, BACKOFF_LIMIT};
pub use count::COUNTED_AT_ONCE;
pub use marks::{INDEX, INDEX_FAILURES, INDEX_IGNORED, PodId, TRACKING};
pub use verdict::is_finished;

use super::super::pod_view::{PodView, loss};
use count::{Count, replaces_only_failed};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use marks::{id, index, to_i32};
use std::collections::BTreeSet;
use std::sync::Arc;
use verdict::{Verdict, conditions, finished_at, verdict};

/// Who manages a job that does not say otherwise, as in `spec.managedBy`.
pub const CONTROLLER: &str = "kubernetes.io/job-controller";
/// The most pods that one look creates.
pub const BURST: usize = 500;

/// A place in an indexed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The completion index.
    pub index: u32,
    /// How often pods of this index failed before, and how often that was ignored; `None` where the
    /// job counts failures as a whole.
    pub failures: Option<(i32, i32)>,
}

/// What the job wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write this status and, in the same transaction, take the finalizer off the pods whose
    /// end it counts.
    Report {
        /// The new status.
        status: Box<JobStatus>,
        /// The pods that `status` counts and the one before did not.
        counted: Vec<PodId>,
    },
    /// Create a pod, with its place for an indexed job.
    Create(Option<Place>),
    /// End a pod that is not needed any more, uncounted.
    End(PodId),
    /// Delete the finished job itself: its `ttlSecondsAfterFinished` has passed.
    DeleteJob,
}

/// What one look at a job says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What to do now.
    pub actions: Vec<Action>,
    /// When to look again although nothing changed.
    pub look_again: Option<Timestamp>,
}

/// What must happen next. `pods` are those that the job owns.
#[must_use]
pub fn reconcile(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    reconcile_sized(job, pods, &[], now)
}

/// As [`reconcile`], for pods whose objects have these sizes in bytes: no report counts more of them than
/// one transaction can carry. A size that is not given is none.
#[must_use]
pub fn reconcile_sized(job: &Job, pods: &[Arc<Pod>], sizes: &[usize], now: Timestamp) -> Plan {
    let Some(spec) = &job.spec else { return Plan::default() };
    let old = job.status.clone().unwrap_or_default();
    let mut plan = Plan::default();
    if spec.managed_by.as_deref().is_some_and(|manager| manager != CONTROLLER) {
        // Somebody else makes its pods and writes its status; it is tidied away all the same.
        if is_finished(&old) {
            plan.expire(job, &old, now);
        }
        return plan;
    }
    let is_deleted = job.metadata.deletion_timestamp.is_some();
    let is_over = is_deleted || is_finished(&old) || Verdict::announced(&old).is_some();
    let mut count = Count::of(job, (pods, sizes), &old, is_over);
    let active: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| !pod.terminating() && !pod.finished()).collect();
    let terminating = pods.iter().filter(|pod| pod.terminating() && !pod.finished()).count();

    if is_finished(&old) {
        let status = JobStatus { ready: Some(0), ..count.status(spec, &old, 0, terminating) };
        plan.report(&old, status, count.counted);
        plan.end(&active);
        plan.expire(job, &old, now);
        return plan;
    }
    if is_deleted {
        // Its pods are the garbage collector's; only counting goes on, so that they can go.
        let status = count.status(spec, &old, active.len(), terminating);
        plan.report(&old, status, count.counted);
        return plan;
    }

    let suspended = spec.suspend == Some(true);
    let started = old.start_time.clone().or_else(|| (!suspended).then_some(Time(now)));
    let verdict = verdict(job, &count, pods, active.len(), started.as_ref(), now);
    let ending = verdict.is_some();
    let wanted = if ending || suspended { 0 } else { wanted(spec, &count, active.len()) };

    let surplus = surplus(spec, &count, &active, wanted);
    if surplus.is_empty() {
        let held = if replaces_only_failed(spec) { terminating } else { 0 };
        let missing = wanted.saturating_sub(active.len() + held);
        plan.create(spec, &count, pods, missing, now);
    }
    plan.end(&surplus);
    if let (Some(limit), Some(started)) = (spec.active_deadline_seconds, &started)
        && !ending
        && !suspended
    {
        plan.wake_after(started.0, SignedDuration::from_secs(limit));
    }

    let all_gone = active.is_empty() && terminating == 0 && !count.is_behind;
    let mut status = count.status(spec, &old, active.len(), terminating);
    status.start_time = if suspended && !ending { None } else { started };
    status.ready = Some(to_i32(active.iter().filter(|pod| pod.ready()).count()));
    status.conditions = conditions(&old, suspended, verdict.as_ref(), all_gone, now);
    if matches!(verdict, Some(Verdict::Complete { .. })) && all_gone {
        status.completion_time = Some(Time(now));
    }
    plan.report(&old, status, std::mem::take(&mut count.counted));
    plan
}

/// How many pods should be active now. Without `completions` the pods share a queue of work: once
/// one succeeded, no new ones start.
fn wanted(spec: &JobSpec, count: &Count, active: usize) -> usize {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    match spec.completions {
        Some(completions) => {
            let left = usize::try_from(completions.saturating_sub(count.succeeded)).unwrap_or(0);
            parallelism.min(left)
        }
        None if count.succeeded > 0 => active.min(parallelism),
        None => parallelism,
    }
}

/// The active pods that are too many: those of an index that the job has not or that another pod
/// has, then those with which the least is lost.
fn surplus<'a>(
    spec: &JobSpec,
    count: &Count,
    active: &[&'a Arc<Pod>],
    wanted: usize,
) -> Vec<&'a Arc<Pod>> {
    let mut by_loss = active.to_vec();
    by_loss.sort_by_key(|pod| loss(pod, ()));
    let mut surplus = Vec::new();
    if count.indexed {
        let completions = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        let mut taken = BTreeSet::new();
        let mut kept = Vec::new();
        // From the end: of two pods of one index the one that is further stays.
        for pod in by_loss.into_iter().rev() {
            let place = index(pod).filter(|index| {
                *index < completions && !count.has_ended(*index) && taken.insert(*index)
            });
            if place.is_some() { kept.push(pod) } else { surplus.push(pod) }
        }
        kept.reverse();
        by_loss = kept;
    }
    let more = by_loss.len().saturating_sub(wanted);
    surplus.extend(by_loss.into_iter().take(more));
    surplus
}

impl Plan {
    /// A finished job is deleted when its time is over.
    fn expire(&mut self, job: &Job, old: &JobStatus, now: Timestamp) {
        let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
        let (Some(ttl), Some(ended)) = (ttl, finished_at(old)) else { return };
        let ttl = SignedDuration::from_secs(i64::from(ttl));
        if now.duration_since(ended) >= ttl && job.metadata.deletion_timestamp.is_none() {
            self.actions.push(Action::DeleteJob);
        } else {
            self.wake_after(ended, ttl);
        }
    }

    fn create(
        &mut self,
        spec: &JobSpec,
        count: &Count,
        pods: &[Arc<Pod>],
        missing: usize,
        now: Timestamp,
    ) {
        let missing = missing.min(BURST);
        if missing == 0 {
            return;
        }
        let each_for_itself = count.indexed && spec.backoff_limit_per_index.is_some();
        if !each_for_itself && let Some(until) = backoff::of_job(pods, now) {
            self.wake(until);
            return;
        }
        if !count.indexed {
            self.actions.extend((0..missing).map(|_| Action::Create(None)));
            return;
        }
        let waits = replaces_only_failed(spec);
        let is_busy = |pod: &&Arc<Pod>| !pod.finished() && (waits || !pod.terminating());
        let busy: BTreeSet<u32> =
            pods.iter().filter(is_busy).filter_map(|pod| index(pod)).collect();
        let completions = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        let free = (0..completions)
            .filter(|index| !busy.contains(index) && !count.has_ended(*index))
            .take(missing);
        for index in free {
            let failures = each_for_itself.then(|| count.failures_before(spec, index));
            if let (Some((counted, ignored)), Some(last)) =
                (failures, count.last_failed.get(&index))
            {
                let all = usize::try_from(counted.saturating_add(ignored)).unwrap_or(0);
                if let Some(until) = backoff::of_index(last, all, now) {
                    self.wake(until);
                    continue;
                }
            }
            self.actions.push(Action::Create(Some(Place { index, failures })));
        }
    }

    fn end(&mut self, pods: &[&Arc<Pod>]) {
        self.actions.extend(pods.iter().take(BURST).map(|pod| Action::End(id(pod))));
    }

    /// As [`Self::wake`]; a time that no calendar has never comes.
    fn wake_after(&mut self, since: Timestamp, wait: SignedDuration) {
        if let Ok(due) = since.checked_add(wait) {
            self.wake(due);
        }
    }

    fn wake(&mut self, due: Timestamp) {
        self.look_again = Some(self.look_again.map_or(due, |other| other.min(due)));
    }

    fn report(&mut self, old: &JobStatus, status: JobStatus, counted: Vec<PodId>) {
        if !counted.is_empty() || *old != status {
            self.actions.push(Action::Report { status: Box::new(status), counted });
        }
    }
}

#[cfg(test)]
mod tests;
