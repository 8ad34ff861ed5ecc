//! The jobs of a cron job: one for a time, and which old ones go.

use super::super::engine::view::View;
use impresario_api::cron::written;
use impresario_api::kinds::cronjobs::SCHEDULED;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::cmp::Reverse;

/// How a job ended, if it did: `Complete` or `Failed`.
pub(super) fn end_of(job: &Job) -> Option<&'static str> {
    let conditions = job.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let holds = |kind: &str| conditions.iter().any(|it| it.type_ == kind && it.status == "True");
    ["Complete", "Failed"].into_iter().find(|kind| holds(kind))
}

/// Whether it ended.
pub(super) fn is_ended(job: &Job) -> bool {
    end_of(job).is_some()
}

/// The name of the job for a time: the minutes since 1970 tell it from others.
pub(super) fn name_for(cron_job: &CronJob, at: Timestamp) -> String {
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", at.as_second().div_euclid(60))
}

/// The time that a job was made for; none for one that was made otherwise.
pub(super) fn scheduled(cron_job: &CronJob, job: &Job) -> Option<Timestamp> {
    let at = job.metadata.annotations.as_ref()?.get(SCHEDULED)?.parse().ok()?;
    (job.metadata.name.as_deref() == Some(&name_for(cron_job, at))).then_some(at)
}

/// The job for a time.
pub(super) fn job_for(
    view: &View<'_, CronJob>,
    name: &str,
    at: Timestamp,
    zone: &TimeZone,
) -> Value {
    let template = &view.stored["spec"]["jobTemplate"];
    let mut annotations = match &template["metadata"]["annotations"] {
        Value::Object(annotations) => Value::Object(annotations.clone()),
        _ => json!({}),
    };
    annotations[SCHEDULED] = written(at, zone).into();
    let mut metadata = json!({
        "name": name,
        "annotations": annotations,
        "ownerReferences": [view.owner().reference()],
    });
    if let Value::Object(labels) = &template["metadata"]["labels"] {
        metadata["labels"] = labels.clone().into();
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": template["spec"],
    })
}

/// The jobs that ended and are more than are kept, those that began first before others.
pub(super) fn surplus<'a>(cron_job: &CronJob, jobs: &[&'a Job]) -> Vec<&'a Job> {
    let spec = &cron_job.spec;
    let limits = [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ];
    let mut surplus = Vec::new();
    for (end, limit) in limits {
        let Some(limit) = limit else { continue };
        let kept = usize::try_from(limit).unwrap_or(0);
        let is_leaving = |job: &Job| job.metadata.deletion_timestamp.is_some();
        let mut ended: Vec<&Job> = jobs
            .iter()
            .copied()
            .filter(|job| end_of(job) == Some(end) && !is_leaving(job))
            .collect();
        // One that never began is no older than one that did.
        ended.sort_by_key(|job| {
            let began = job.status.as_ref().and_then(|status| status.start_time.clone());
            (Reverse(began.is_some()), began, job.metadata.name.clone())
        });
        let more = ended.len().saturating_sub(kept);
        surplus.extend(ended.into_iter().take(more));
    }
    surplus
}
