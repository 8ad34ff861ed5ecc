//! A job's status as it is written. What a later activation reads of it: [`Earlier`].

use super::earlier::{ADMITTED, Earlier, JOIN_SECONDS, RESTORING};
use super::state::State;
use crate::auction::{in_hall, speed_of};
use impresario_client::protocol::training::Checkpoint;
use impresario_runtime::clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Instant;

/// Scale events that an object keeps.
const EVENTS: usize = 100;

/// The status as it is to be written.
///
/// What a job had reached when it ended stays as it was written then; of an activation that finds it
/// ended only the members that are left are new.
pub fn write(state: &State, job: &Value, earlier: &Earlier, now: Instant) -> Value {
    if earlier.ended.is_some() {
        let (mut status, size) = (earlier.status.clone(), state.size());
        status["parameterServers"] = json!(size.parameter_servers);
        status["trainers"] = json!(size.trainers);
        return status;
    }
    let wall = clock::timestamp();
    let moment = |at: Instant| {
        let ago = SignedDuration::try_from(now.duration_since(at)).unwrap_or_default();
        seconds(wall.checked_sub(ago).unwrap_or(wall))
    };
    let (book, size, before) = (state.book(), state.size(), &job["status"]);
    let mut events: Vec<Value> = earlier.events.clone();
    events.extend(state.scale_events().iter().map(|event| {
        json!({
            "time": moment(event.at),
            "parameterServers": event.size.parameter_servers,
            "trainers": event.size.trainers,
            "reason": event.reason,
        })
    }));
    events.drain(..events.len().saturating_sub(EVENTS));
    let mut status = json!({
        "phase": state.phase().as_str(),
        "parameterServers": size.parameter_servers,
        "trainers": size.trainers,
        "round": state.latest_round(),
        "step": state.steps(),
        "samples": state.samples(),
        "scaleEvents": events,
        "conditions": conditions(state, before, &seconds(wall)),
    });
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            status[field] = value;
        }
    };
    let rounded = |value: f64| json!((value * 1e4).round() / 1e4);
    let accuracy = book.evaluation().map(|evaluated| f64::from(evaluated.accuracy));
    set("loss", book.loss().or(state.recalled_loss()).map(rounded));
    set("accuracy", accuracy.or(state.recalled_accuracy()).map(rounded));
    for (member, field) in JOIN_SECONDS {
        set(field, state.longer_join(member).map(|limit| json!(limit.as_secs())));
    }
    set("lastCheckpoint", state.checkpoint().map(told));
    set(RESTORING, state.is_restored().then(|| json!(true)));
    set("model", state.model().map(told));
    let kept = |field: &str| before[field].as_str().map(|text| json!(text));
    let running = state.steps() > 0 || state.ended();
    set("startTime", kept("startTime").or_else(|| running.then(|| json!(seconds(wall)))));
    if state.ended() {
        set("completionTime", kept("completionTime").or_else(|| Some(json!(seconds(wall)))));
    } else if let Some(left) = remaining_seconds(state, now) {
        let left = SignedDuration::try_from_secs_f64(left.round()).unwrap_or_default();
        set("predictedCompletionTime", wall.checked_add(left).ok().map(|at| json!(seconds(at))));
    }
    status
}

/// A checkpoint as people and later activations read of it.
fn told(checkpoint: &Checkpoint) -> Value {
    let time = Timestamp::from_second(checkpoint.unix_seconds).unwrap_or_default();
    json!({
        "step": checkpoint.step,
        "path": checkpoint.path,
        "time": seconds(time),
        "sha256": checkpoint.sha256,
        "bytes": checkpoint.bytes,
    })
}

fn conditions(state: &State, before: &Value, now: &str) -> Vec<Value> {
    let mut all = vec![admitted(state, before, now)];
    all.extend(checkpointed(state, before, now));
    all
}

/// Whether what has been learned is saved, of a job that is to save it.
fn checkpointed(state: &State, before: &Value, now: &str) -> Option<Value> {
    state.spec().checkpoint.as_ref()?;
    let (holds, reason, message) = match (state.checkpoint_problem(), state.checkpoint()) {
        (Some(problem), _) => ("False", "CheckpointFailed", problem.to_owned()),
        (None, Some(newest)) => {
            ("True", "Saved", format!("{} has step {}", newest.path, newest.step))
        }
        (None, None) => ("Unknown", "NotYet", "the first checkpoint is still to come".to_owned()),
    };
    Some(condition("Checkpointed", holds, reason, &message, before, now))
}

/// The condition that says whether the job has its minimum, and if not what is missing.
fn admitted(state: &State, before: &Value, now: &str) -> Value {
    let (size, min) = (state.size(), state.spec().min());
    let (holds, reason, message) = match state.waits_for() {
        Some(missing) => ("False", "Waiting", format!("the job waits for its minimum: {missing}")),
        None if state.has_minimum() || state.ended() => {
            ("True", "MinimumGranted", "the job has been granted its minimum".to_owned())
        }
        None => {
            let message = format!(
                "{} of {} parameter servers and {} of {} trainers work so far",
                size.parameter_servers, min.parameter_servers, size.trainers, min.trainers
            );
            ("True", "BelowMinimum", message)
        }
    };
    condition(ADMITTED, holds, reason, &message, before, now)
}

/// A condition; as long as its status stays, so does the time of its last change.
fn condition(
    kind: &str,
    holds: &str,
    reason: &str,
    message: &str,
    before: &Value,
    now: &str,
) -> Value {
    let mut conditions = before["conditions"].as_array().into_iter().flatten();
    let known = conditions.find(|one| one["type"] == kind && one["status"] == holds);
    let since = known.and_then(|one| one["lastTransitionTime"].as_str()).unwrap_or(now);
    json!({
        "type": kind,
        "status": holds,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    })
}

fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// When the job was created, in seconds since 1970.
pub fn created_unix_seconds(job: &Value) -> i64 {
    let created = job["metadata"]["creationTimestamp"].as_str();
    created.and_then(|text| text.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_second)
}

/// Seconds to the end, as far as it can be told.
pub fn remaining_seconds(state: &State, now: Instant) -> Option<f64> {
    let left = state.remaining_steps()?;
    let book = state.book();
    let measured = book.steps_per_second(now);
    let speed = if measured > 0.0 {
        measured
    } else if book.knows_speed() {
        speed_of(&book.speed_model()).steps_per_second(in_hall(state.size()))
    } else {
        return None;
    };
    (speed > 0.0 && left / speed < 1e8).then(|| left / speed)
}
