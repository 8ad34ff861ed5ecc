//! Makes a job at each time of the schedule of a `CronJob`, and says what became of them.
//!
//! ```text
//! times   which time is due now, and when the next one is
//! jobs    a job for a time, which times jobs were made for, and which old ones go
//! ```
//!
//! A job has the time that it is for in its name, and comes in one transaction with the status that says that the time was used: so
//! none is made twice for one time and none is missed, whoever looks, however often, whatever fails, and however soon a job goes. What
//! else the status says follows from the jobs that there are and from what it said before. A job that somebody made from
//! the template by hand is its own too, but is none of its times. (API reference, CronJob v1; Kubernetes documentation, "CronJob".)

mod jobs;
mod times;

#[cfg(test)]
mod tests;

use super::engine::controller::Controller;
use super::engine::effects::{Effects, Event};
use super::engine::looks_at::LooksAt;
use super::engine::view::View;
use impresario_api::cron::{self, Schedule};
use jobs::{end_of, is_ended, name_for, scheduled};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use std::sync::Arc;
use times::{Begin, Times};

/// Decides for cron jobs.
#[derive(Debug)]
pub enum Reconciler {}

impl Controller for Reconciler {
    type Object = CronJob;

    /// What is to go is tried first: a status that cannot be written keeps no job.
    const STATUS_FIRST: bool = false;

    fn looks_at() -> LooksAt<CronJob> {
        LooksAt::itself().owned::<Job>()
    }

    fn reconcile(view: &View<'_, CronJob>, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let cron_job = view.object;
        let jobs: Vec<&Job> = view.of::<Job>().iter().map(Arc::as_ref).collect();
        let status = status(cron_job, &jobs, now, &mut effects);
        effects.report(&status);
        if cron_job.metadata.deletion_timestamp.is_some() {
            return effects;
        }
        if cron_job.status.clone().unwrap_or_default() == status {
            for job in jobs::surplus(cron_job, &jobs) {
                effects.delete(job);
            }
        } else if !jobs::surplus(cron_job, &jobs).is_empty() {
            // What only they say is written down before they go: which time was used.
            effects.look_again(now);
        }
        if cron_job.spec.suspend == Some(true) {
            return effects;
        }
        let Some((schedule, zone)) = read(cron_job, &mut effects) else { return effects };
        let created = cron_job.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let begin = match status.last_schedule_time.as_ref() {
            Some(used) => Begin::Used(used.0),
            None => Begin::Created(created.unwrap_or(now)),
        };
        let deadline = cron_job.spec.starting_deadline_seconds;
        let times = Times::of(&schedule, &zone, begin, deadline, now);
        if let Some(next) = times.next {
            effects.look_again(next);
        }
        if times.many {
            effects.say(Event::warning("TooManyMissedTimes", TOO_MANY));
        }
        if let Some(missed) = times.missed {
            let at = missed.to_zoned(TimeZone::UTC);
            let at = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let message = format!("Missed scheduled time to start a job: {at}");
            effects.say(Event::warning("MissSchedule", message));
        }
        if let Some(due) = times.due {
            begin_job(view, (&jobs, &status), due, &zone, &mut effects);
        }
        effects
    }
}

const TOO_MANY: &str = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
const STILL_RUNS: &str =
    "Not starting job because prior execution is running and concurrency policy is Forbid";

/// Its schedule and its time zone; none where one of them cannot be read, which is said.
fn read(cron_job: &CronJob, effects: &mut Effects) -> Option<(Schedule, TimeZone)> {
    let spec = &cron_job.spec;
    let name = spec.time_zone.as_deref().unwrap_or_default();
    let Some(zone) = cron::zone(name) else {
        let message = format!("invalid timeZone: {name:?}: unknown time zone {name}");
        effects.say(Event::warning("UnknownTimeZone", message));
        return None;
    };
    match Schedule::parse(&spec.schedule) {
        Ok(schedule) => Some((schedule, zone)),
        Err(error) => {
            let message = format!("unparseable schedule: {} : {error}", spec.schedule);
            effects.say(Event::warning("UnparseableSchedule", message));
            None
        }
    }
}

/// Makes the job for a time, where those that run leave that to it.
fn begin_job(
    view: &View<'_, CronJob>,
    (jobs, status): (&[&Job], &CronJobStatus),
    due: Timestamp,
    zone: &TimeZone,
    effects: &mut Effects,
) {
    let cron_job = view.object;
    let name = name_for(cron_job, due);
    // The names have minutes: of two times in one the first has it.
    if jobs.iter().any(|job| job.metadata.name.as_ref() == Some(&name)) {
        return;
    }
    if view.is_taken(&name) {
        let message = format!("Error creating job: {name:?} is the name of somebody else's job");
        effects.say(Event::warning("FailedCreate", message));
        return;
    }
    let mut active =
        jobs.iter().filter(|job| !is_ended(job) && scheduled(cron_job, job).is_some()).peekable();
    match cron_job.spec.concurrency_policy.as_deref() {
        Some("Forbid") if active.peek().is_some() => {
            effects.say(Event::normal("JobAlreadyActive", STILL_RUNS));
            return;
        }
        // They are gone before the next begins, whatever fails on the way: no two run beside each other.
        Some("Replace") if active.peek().is_some() => {
            for job in active.filter(|job| job.metadata.deletion_timestamp.is_none()) {
                effects.delete(*job);
            }
            return;
        }
        _ => {}
    }
    let begun = CronJobStatus { last_schedule_time: Some(Time(due)), ..status.clone() };
    effects.begin::<Job>(jobs::job_for(view, &name, due, zone), &begun);
}

/// What is said of it: which jobs run, which time was used last, when one was done last.
fn status(
    cron_job: &CronJob,
    jobs: &[&Job],
    now: Timestamp,
    effects: &mut Effects,
) -> CronJobStatus {
    let was = cron_job.status.clone().unwrap_or_default();
    let listed = was.active.unwrap_or_default();
    for reference in &listed {
        let name = reference.name.as_deref().unwrap_or_default();
        match jobs.iter().find(|job| job.metadata.uid == reference.uid) {
            None => {
                let message = format!("Active job went missing: {name}");
                effects.say(Event::normal("MissingJob", message));
            }
            Some(job) => {
                if let Some(end) = end_of(job) {
                    let message = format!("Saw completed job: {name}, condition: {end}");
                    effects.say(Event::normal("SawCompletedJob", message));
                }
            }
        }
    }
    let mut status = CronJobStatus {
        active: None,
        last_schedule_time: was.last_schedule_time,
        last_successful_time: was.last_successful_time,
    };
    let mut active = Vec::new();
    for job in jobs {
        let for_time = scheduled(cron_job, job).filter(|at| *at <= now);
        status.last_schedule_time = status.last_schedule_time.max(for_time.map(Time));
        if end_of(job) == Some("Complete") {
            let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
            status.last_successful_time = status.last_successful_time.max(ended);
        }
        if is_ended(job) {
            continue;
        }
        if for_time.is_some() {
            let known = listed.iter().find(|reference| reference.uid == job.metadata.uid);
            active.push(known.cloned().unwrap_or_else(|| reference_to(job)));
        } else {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Saw a job that the controller did not create or forgot: {name}");
            effects.say(Event::warning("UnexpectedJob", message));
        }
    }
    status.active = Some(active).filter(|active| !active.is_empty());
    status
}

fn reference_to(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
