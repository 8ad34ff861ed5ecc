//! Whether a job is complete or has failed, and the conditions that say so.

use super::count::Count;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Complete,
    Failed { reason: &'static str, message: String },
}

pub(super) fn verdict(
    job: &Job,
    count: &Count,
    active: &[&Arc<Pod>],
    started: Option<&Time>,
    now: Timestamp,
) -> Option<Verdict> {
    let spec = job.spec.as_ref()?;
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts: i32 = active.iter().map(|pod| restarts(pod)).sum();
    if count.failed > limit || (restarts > 0 && restarts > limit) {
        let message = "Job has reached the specified backoff limit".to_owned();
        return Some(Verdict::Failed { reason: "BackoffLimitExceeded", message });
    }
    if let (Some(limit), Some(started)) = (spec.active_deadline_seconds, started)
        && now.as_second() - started.0.as_second() >= limit
    {
        let message = "Job was active longer than specified deadline".to_owned();
        return Some(Verdict::Failed { reason: "DeadlineExceeded", message });
    }
    let complete = match spec.completions {
        Some(completions) => count.succeeded >= completions,
        None => count.succeeded > 0 && active.is_empty(),
    };
    complete.then_some(Verdict::Complete)
}

/// The conditions of an unfinished job. A verdict is announced at once (`SuccessCriteriaMet`,
/// `FailureTarget`) and final (`Complete`, `Failed`) when its last pod is gone.
pub(super) fn conditions(
    old: &JobStatus,
    suspended: bool,
    verdict: Option<&Verdict>,
    all_gone: bool,
    now: Timestamp,
) -> Option<Vec<JobCondition>> {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let mut set = |type_: &str, status: &str, reason: &str, message: &str| {
        let at = conditions.iter().position(|condition| condition.type_ == type_);
        if at.is_some_and(|at| conditions[at].status == status) {
            return;
        }
        let condition = JobCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        };
        match at {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
    };
    let was_suspended =
        old.conditions.iter().flatten().any(|c| c.type_ == "Suspended" && c.status == "True");
    if suspended {
        set("Suspended", "True", "JobSuspended", "Job suspended");
    } else if was_suspended {
        set("Suspended", "False", "JobResumed", "Job resumed");
    }
    match verdict {
        Some(Verdict::Complete) => {
            let message = "Reached expected number of succeeded pods";
            set("SuccessCriteriaMet", "True", "CompletionsReached", message);
            if all_gone {
                set("Complete", "True", "CompletionsReached", message);
            }
        }
        Some(Verdict::Failed { reason, message }) => {
            set("FailureTarget", "True", reason, message);
            if all_gone {
                set("Failed", "True", reason, message);
            }
        }
        None => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// The job is complete or failed for good.
#[must_use]
pub fn is_finished(status: &JobStatus) -> bool {
    finished_at(status).is_some()
}

pub(super) fn finished_at(status: &JobStatus) -> Option<Timestamp> {
    let ended =
        |c: &&JobCondition| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True";
    let condition = status.conditions.iter().flatten().find(ended)?;
    Some(condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}
