//! A job's status: what is written of the state, and what a later activation reads of it.

use super::state::State;
use crate::auction::speed::steps_per_second;
use impresario_client::protocol::training::Size;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Instant;

/// Scale events that an object keeps.
const EVENTS: usize = 100;

/// What an earlier activation left in the object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Earlier {
    /// Its phase, if it had ended.
    pub ended: Option<bool>,
    /// Its size.
    pub size: Option<Size>,
    /// The latest round that it heard of.
    pub round: u64,
    /// Steps that were done.
    pub steps: u64,
    /// Its scale events.
    pub events: Vec<Value>,
    /// The size in the latest of them.
    pub last_event: Option<Size>,
}

impl Earlier {
    /// Reads the object.
    pub fn read(job: &Value) -> Self {
        let status = &job["status"];
        let size_in = |object: &Value| -> Option<Size> {
            let count = |field: &str| object[field].as_u64().and_then(|n| u32::try_from(n).ok());
            let (parameter_servers, trainers) = (count("parameterServers")?, count("trainers")?);
            Some(Size { parameter_servers, trainers })
        };
        let events = status["scaleEvents"].as_array().cloned().unwrap_or_default();
        Self {
            ended: match status["phase"].as_str() {
                Some("Succeeded") => Some(true),
                Some("Failed") => Some(false),
                _ => None,
            },
            size: size_in(status).filter(|size| *size != Size::default()),
            round: status["round"].as_u64().unwrap_or(0),
            steps: status["step"].as_u64().unwrap_or(0),
            last_event: events.last().and_then(size_in),
            events,
        }
    }
}

/// The status as it is to be written.
pub fn write(state: &State, job: &Value, earlier: &[Value], now: Instant) -> Value {
    let wall = Timestamp::now();
    let moment = |at: Instant| {
        let ago = SignedDuration::try_from(now.duration_since(at)).unwrap_or_default();
        seconds(wall.checked_sub(ago).unwrap_or(wall))
    };
    let (book, size, before) = (state.book(), state.size(), &job["status"]);
    let mut events: Vec<Value> = earlier.to_vec();
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
        "round": state.round(),
        "step": state.steps(),
        "samples": book.samples(),
        "scaleEvents": events,
    });
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            status[field] = value;
        }
    };
    let rounded = |value: f64| json!((value * 1e4).round() / 1e4);
    set("loss", book.loss().map(rounded));
    set("accuracy", book.evaluation().map(|evaluated| rounded(f64::from(evaluated.accuracy))));
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
    let measured = state.book().steps_per_second(now);
    let speed = if measured > 0.0 {
        measured
    } else {
        steps_per_second(&state.book().speed_model(), state.size())
    };
    (speed > 0.0 && left / speed < 1e8).then(|| left / speed)
}
