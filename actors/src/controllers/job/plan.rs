//! Runs pods to completion, each counted exactly once (API reference, Job v1).
//!
//! A pod of a job carries the finalizer [`TRACKING`] until its end is in the job's status. The
//! count and the removal of the finalizer are one transaction ([`Action::Report`] with the pods
//! that it counts), so that no crash between the two can count a pod twice or never.
//! [`reconcile`] is a plain function of what was seen and the time.

mod count;
mod verdict;

pub use verdict::is_finished;

use super::super::pod_view::PodView;
use count::Count;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use verdict::{Verdict, conditions, finished_at, verdict};

/// Who manages a job that does not say otherwise, as in `spec.managedBy`.
pub const CONTROLLER: &str = "kubernetes.io/job-controller";
/// The finalizer of a pod whose end is not counted yet.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation of a pod of an indexed job: its index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The most pods that one look creates.
pub const BURST: usize = 500;
/// Wait after the first failure; doubled for each further one in a row.
pub const BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait between failures.
pub const BACKOFF_LIMIT: SignedDuration = SignedDuration::from_secs(360);

/// A pod by name and by the uid that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    /// The pod's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
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
    /// Create a pod, with its index for an indexed job.
    Create {
        /// The completion index.
        index: Option<u32>,
    },
    /// Delete a pod that is not needed any more.
    Delete(PodId),
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
    let mut count = Count::of(job, pods, &old);
    let active: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| !pod.terminating() && !pod.finished()).collect();
    let terminating = pods.iter().filter(|pod| pod.terminating() && !pod.finished()).count();

    if is_finished(&old) {
        let status = JobStatus { ready: Some(0), ..count.status(&old, 0, terminating) };
        plan.report(&old, status, count.counted);
        plan.actions.extend(active.iter().map(|pod| Action::Delete(id(pod))));
        plan.expire(job, &old, now);
        return plan;
    }
    if job.metadata.deletion_timestamp.is_some() {
        // Its pods are the garbage collector's; only counting goes on, so that they can go.
        let status = count.status(&old, active.len(), terminating);
        plan.report(&old, status, count.counted);
        return plan;
    }

    let suspended = spec.suspend == Some(true);
    let started = old.start_time.clone().or_else(|| (!suspended).then_some(Time(now)));
    let wanted = wanted(job, &count, active.len());
    let verdict = verdict(job, &count, &active, started.as_ref(), now);
    let ending = verdict.is_some();
    let keep = if ending || suspended { 0 } else { active.len().min(wanted) };

    let mut surplus = active.clone();
    surplus.sort_by_key(|pod| (pod.bound(), pod.ready(), Reverse(pod.created())));
    surplus.truncate(active.len() - keep);
    plan.actions.extend(surplus.iter().map(|pod| Action::Delete(id(pod))));

    if !ending && !suspended && active.len() < wanted {
        match backoff(pods, now) {
            Some(until) => plan.look_again = Some(until),
            None => plan.create(job, &count, &active, wanted - active.len()),
        }
    }
    if let (Some(limit), Some(started)) = (spec.active_deadline_seconds, &started)
        && !ending
        && !suspended
    {
        let due = started.0 + SignedDuration::from_secs(limit);
        plan.look_again = Some(plan.look_again.map_or(due, |other| other.min(due)));
    }

    let still = active.len() + terminating;
    let mut status = count.status(&old, active.len(), terminating);
    status.start_time = if suspended { None } else { started };
    status.ready = Some(to_i32(active.iter().filter(|pod| pod.ready()).count()));
    status.conditions = conditions(&old, suspended, verdict.as_ref(), still == 0, now);
    if verdict == Some(Verdict::Complete) && still == 0 {
        status.completion_time = Some(Time(now));
    }
    plan.report(&old, status, std::mem::take(&mut count.counted));
    plan
}

/// How many pods should be active now. Without `completions` the pods share a queue of work: once
/// one succeeded, no new ones start.
fn wanted(job: &Job, count: &Count, active: usize) -> usize {
    let Some(spec) = &job.spec else { return 0 };
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    match spec.completions {
        Some(completions) => {
            let left = usize::try_from(completions - count.succeeded).unwrap_or(0);
            parallelism.min(left)
        }
        None if count.succeeded > 0 => active.min(parallelism),
        None => parallelism,
    }
}

/// Until when no pod may be started, after failures in a row.
fn backoff(pods: &[Arc<Pod>], now: Timestamp) -> Option<Timestamp> {
    let ended = |pod: &Arc<Pod>| pod.ended().unwrap_or_else(|| pod.created());
    let last_success = pods.iter().filter(|pod| pod.succeeded()).map(ended).max();
    let failures: Vec<Timestamp> = pods
        .iter()
        .filter(|pod| pod.finished() && !pod.succeeded())
        .map(ended)
        .filter(|end| last_success.is_none_or(|success| *end > success))
        .collect();
    let last = *failures.iter().max()?;
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(16);
    let wait = (BACKOFF * 2_i32.pow(doublings)).min(BACKOFF_LIMIT);
    let until = last + wait;
    (until > now).then_some(until)
}

impl Plan {
    /// A finished job is deleted when its time is over.
    fn expire(&mut self, job: &Job, old: &JobStatus, now: Timestamp) {
        let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
        let (Some(ttl), Some(ended)) = (ttl, finished_at(old)) else { return };
        let due = ended + SignedDuration::from_secs(i64::from(ttl));
        if due <= now && job.metadata.deletion_timestamp.is_none() {
            self.actions.push(Action::DeleteJob);
        } else {
            self.look_again = Some(due);
        }
    }

    fn create(&mut self, job: &Job, count: &Count, active: &[&Arc<Pod>], missing: usize) {
        if !count.indexed {
            let missing = missing.min(BURST);
            self.actions.extend((0..missing).map(|_| Action::Create { index: None }));
            return;
        }
        let completions = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(0);
        let busy: BTreeSet<u32> = active.iter().filter_map(|pod| index(pod)).collect();
        let free = (0..u32::try_from(completions).unwrap_or(0))
            .filter(|index| !busy.contains(index) && !count.completed.contains(index));
        let creations = free.take(missing.min(BURST));
        self.actions.extend(creations.map(|index| Action::Create { index: Some(index) }));
    }

    fn report(&mut self, old: &JobStatus, status: JobStatus, counted: Vec<PodId>) {
        if !counted.is_empty() || *old != status {
            self.actions.push(Action::Report { status: Box::new(status), counted });
        }
    }
}

fn index(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

fn id(pod: &Arc<Pod>) -> PodId {
    PodId { name: pod.name().into(), uid: pod.uid().into() }
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::table::{cells, pod};
    use super::*;
    use k8s_openapi::api::batch::v1::JobSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn job(words: &str) -> Job {
        let mut spec = JobSpec { backoff_limit: Some(6), ..JobSpec::default() };
        let mut status = JobStatus::default();
        for word in words.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let number = value.parse::<i32>().ok();
            match key {
                "p" => spec.parallelism = number,
                "c" => spec.completions = number,
                "limit" => spec.backoff_limit = number,
                "indexed" => spec.completion_mode = Some("Indexed".into()),
                "suspend" => spec.suspend = Some(true),
                "by" => spec.managed_by = Some(value.into()),
                "succeeded" => status.succeeded = number,
                "failed" => status.failed = number,
                "done" => status.completed_indexes = Some(value.into()),
                "deadline" => spec.active_deadline_seconds = number.map(i64::from),
                other => panic!("unknown word {other}"),
            }
        }
        Job { metadata: ObjectMeta::default(), spec: Some(spec), status: Some(status) }
    }

    fn in_words(plan: &Plan) -> String {
        let mut words = Vec::new();
        let mut created = 0;
        for action in &plan.actions {
            match action {
                Action::Create { index: Some(index) } => words.push(format!("create #{index}")),
                Action::Create { index: None } => created += 1,
                Action::Delete(pod) => words.push(format!("delete {}", pod.name)),
                Action::DeleteJob => words.push("delete job".into()),
                Action::Report { status, counted } => {
                    if created > 0 {
                        words.push(format!("create {created}"));
                        created = 0;
                    }
                    let ends: Vec<_> = status
                        .conditions
                        .iter()
                        .flatten()
                        .map(|condition| condition.type_.as_str())
                        .collect();
                    let names: Vec<_> = counted.iter().map(|pod| pod.name.as_str()).collect();
                    words.push(format!(
                        "{}+{} [{}] {}",
                        status.succeeded.unwrap_or(0),
                        status.failed.unwrap_or(0),
                        names.join(" "),
                        ends.join(" ")
                    ));
                }
            }
        }
        words.join(", ").trim().to_owned()
    }

    #[test]
    fn every_end_is_counted_once_and_no_more_pods_run_than_are_needed() {
        // "1+2 [a b] X": one success and two failures in the status, pods a and b newly counted
        let table = "
            job                  | pods                              | plan
            p=2 c=3              |                                   | create 2, 0+0 []
            p=2 c=3              | a:ready b:ready                   | 0+0 []
            p=2 c=3              | a:succeeded b:ready               | create 1, 1+0 [a]
            p=2 c=3 succeeded=1  | a:succeeded,counted b:ready       | create 1, 1+0 []
            p=2 c=3 succeeded=2  | a:succeeded b:ready,counted       | delete b, 3+0 [a] SuccessCriteriaMet
            p=2 c=3 succeeded=2  | a:succeeded                       | 3+0 [a] SuccessCriteriaMet Complete
            p=2 c=3 succeeded=2  | b:ready,terminating a:succeeded   | 3+1 [b a] SuccessCriteriaMet
            p=1 c=2              | a:ready b:ready                   | delete b, 0+0 []
            p=2 c=2 limit=0      | a:failed b:ready                  | delete b, 0+1 [a] FailureTarget
            p=2 c=2 limit=0      | a:failed                          | 0+1 [a] FailureTarget Failed
            p=2 c=2 suspend      | a:ready                           | delete a, 0+0 [] Suspended
            p=2 c=3 by=example.org/other | a:succeeded               |
            p=2 c=3 by=kubernetes.io/job-controller |                | create 2, 0+0 []
            p=2                  | a:succeeded b:ready               | 1+0 [a]
            p=2 succeeded=1      | b:succeeded                       | 2+0 [b] SuccessCriteriaMet Complete
            p=2 c=3 indexed      | a:ready,index=1                   | create #0, 0+0 []
            p=3 c=3 indexed done=0 | a:succeeded,index=2 b:ready,index=1 | 2+0 [a]
            p=1 c=2 indexed done=0 | a:succeeded,index=0             | create #1, 1+0 [a]";
        for row in table.lines().skip(2) {
            let [job_words, pods, expected] = cells(row);
            let pods: Vec<_> = pods
                .split_whitespace()
                .enumerate()
                .map(|(age, words)| Arc::new(pod(words, age, "job", "x")))
                .collect();
            let now = Timestamp::from_second(100_000).unwrap();
            let plan = reconcile(&job(job_words), &pods, now);
            assert_eq!(in_words(&plan), expected, "in row {row}");
        }
    }

    #[test]
    fn after_failures_in_a_row_the_next_pod_waits_twice_as_long() {
        let failed: Vec<_> = (0..3).map(|n| format!("f{n}:failed,counted")).collect();
        let pods: Vec<_> = failed
            .iter()
            .enumerate()
            .map(|(age, words)| Arc::new(pod(words, age, "job", "x")))
            .collect();
        let last = Timestamp::from_second(1_002).unwrap();
        for (count, wait) in [(1, 10), (2, 20), (3, 40)] {
            let job = job("p=1 c=1 failed=3");
            let pods = &pods[3 - count..];
            let due = last + SignedDuration::from_secs(wait);
            let early = reconcile(&job, pods, due - SignedDuration::from_secs(1));
            assert_eq!(early.look_again, Some(due));
            assert!(!early.actions.contains(&Action::Create { index: None }));
            let late = reconcile(&job, pods, due);
            assert!(late.actions.contains(&Action::Create { index: None }));
        }
    }

    #[test]
    fn a_job_past_its_deadline_fails_and_ends_its_pods() {
        let mut job = job("p=1 c=1 deadline=30");
        let start = Timestamp::from_second(5_000).unwrap();
        job.status.as_mut().unwrap().start_time = Some(Time(start));
        let pods = [Arc::new(pod("a:ready", 0, "job", "x"))];
        let before = reconcile(&job, &pods, start + SignedDuration::from_secs(29));
        assert_eq!(before.look_again, Some(start + SignedDuration::from_secs(30)));
        let after = reconcile(&job, &pods, start + SignedDuration::from_secs(30));
        assert_eq!(in_words(&after), "delete a, 0+0 [] FailureTarget");
    }

    #[test]
    fn once_the_status_is_written_there_is_nothing_left_to_report() {
        let pods = [Arc::new(pod("a:ready,counted", 0, "job", "x"))];
        let now = Timestamp::from_second(5_000).unwrap();
        let mut job = job("p=1 c=1");
        let first = reconcile(&job, &pods, now);
        let [Action::Report { status, .. }] = &first.actions[..] else { panic!("{first:?}") };
        job.status = Some((**status).clone());
        assert_eq!(reconcile(&job, &pods, now + SignedDuration::from_secs(5)).actions, []);
    }
}
