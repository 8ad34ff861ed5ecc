//! Whether a job is complete or has failed, and the conditions that say so.

use super::super::super::pod_view::PodView as _;
use super::super::indexes;
use super::count::Count;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How a job ends. Once announced it stays, whatever is seen later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Complete { reason: String, message: String },
    Failed { reason: String, message: String },
}

impl Verdict {
    fn complete(reason: &str, message: &str) -> Self {
        Self::Complete { reason: reason.into(), message: message.into() }
    }

    fn failed(reason: &str, message: &str) -> Self {
        Self::Failed { reason: reason.into(), message: message.into() }
    }

    /// What the status announces already.
    pub(super) fn announced(status: &JobStatus) -> Option<Self> {
        let find = |type_: &str| {
            let mut all = status.conditions.iter().flatten();
            all.find(|condition| condition.type_ == type_ && condition.status == "True")
        };
        let words = |condition: &JobCondition| {
            let word = |word: &Option<String>| word.clone().unwrap_or_default();
            (word(&condition.reason), word(&condition.message))
        };
        if let Some(met) = find("SuccessCriteriaMet") {
            let (reason, message) = words(met);
            return Some(Self::Complete { reason, message });
        }
        let (reason, message) = words(find("FailureTarget")?);
        Some(Self::Failed { reason, message })
    }
}

pub(super) fn verdict(
    job: &Job,
    count: &Count,
    pods: &[Arc<Pod>],
    active: usize,
    started: Option<&Time>,
    now: Timestamp,
) -> Option<Verdict> {
    let spec = job.spec.as_ref()?;
    if let Some(announced) = job.status.as_ref().and_then(Verdict::announced) {
        return Some(announced);
    }
    if let Some(message) = &count.failure {
        return Some(Verdict::failed("PodFailurePolicy", message));
    }
    if count.failed > spec.backoff_limit.unwrap_or(6) || has_restarted_too_often(spec, pods) {
        let message = "Job has reached the specified backoff limit";
        return Some(Verdict::failed("BackoffLimitExceeded", message));
    }
    if let (Some(limit), Some(started), false) =
        (spec.active_deadline_seconds, started, spec.suspend == Some(true))
        && now.as_second() - started.0.as_second() >= limit
    {
        let message = "Job was active longer than specified deadline";
        return Some(Verdict::failed("DeadlineExceeded", message));
    }
    if count.indexed
        && let Some(verdict) = of_indexes(spec, count)
    {
        return Some(verdict);
    }
    let complete = match spec.completions {
        Some(completions) => count.succeeded >= completions,
        None => count.succeeded > 0 && active == 0,
    };
    let message = "Reached expected number of succeeded pods";
    complete.then(|| Verdict::complete("CompletionsReached", message))
}

/// Whether so many indexes failed, or the right ones succeeded, that the rest does not matter.
fn of_indexes(spec: &JobSpec, count: &Count) -> Option<Verdict> {
    let completions = usize::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
    let failed = count.failed_indexes.len();
    if spec.backoff_limit_per_index.is_some() && failed > 0 {
        let most = spec.max_failed_indexes.map(|most| usize::try_from(most).unwrap_or(0));
        if most.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Verdict::failed("MaxFailedIndexesExceeded", message));
        }
        if failed + count.completed.len() >= completions {
            return Some(Verdict::failed("FailedIndexes", "Job has failed indexes"));
        }
    }
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    let is_met = |wanted: Option<&BTreeSet<u32>>, enough: Option<i32>| {
        let found = match wanted {
            Some(wanted) => count.completed.intersection(wanted).count(),
            None => count.completed.len(),
        };
        let enough = enough.map(|enough| usize::try_from(enough).unwrap_or(0));
        match (enough, wanted) {
            (Some(enough), _) => found >= enough,
            (None, Some(wanted)) => found == wanted.len(),
            (None, None) => false,
        }
    };
    for (at, rule) in rules.enumerate() {
        let limit = u32::try_from(completions).unwrap_or(u32::MAX);
        let wanted = rule.succeeded_indexes.as_deref().map(|text| indexes::parse(text, limit));
        if is_met(wanted.as_ref(), rule.succeeded_count) {
            let message = format!("Matched rules at index {at}");
            return Some(Verdict::complete("SuccessPolicy", &message));
        }
    }
    None
}

/// Whether the containers of pods that are started again in place failed as often as pods may.
fn has_restarted_too_often(spec: &JobSpec, pods: &[Arc<Pod>]) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = pods.iter().filter(|pod| !pod.finished());
    let restarts = running.fold(0_i32, |sum, pod| sum.saturating_add(pod.restarts()));
    match spec.backoff_limit.unwrap_or(6) {
        0 => restarts > 0,
        limit => restarts >= limit,
    }
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
    match verdict {
        Some(Verdict::Complete { reason, message }) => {
            set("SuccessCriteriaMet", "True", reason, message);
            if all_gone {
                set("Complete", "True", reason, message);
            }
        }
        Some(Verdict::Failed { reason, message }) => {
            set("FailureTarget", "True", reason, message);
            if all_gone {
                set("Failed", "True", reason, message);
            }
        }
        None if suspended => set("Suspended", "True", "JobSuspended", "Job suspended"),
        None if was_suspended => set("Suspended", "False", "JobResumed", "Job resumed"),
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
