//! What an earlier activation of the job's actor left in the object.

use impresario_client::protocol::training::{Applied, Checkpoint, Member, Size};
use impresario_runtime::clock;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The condition that says whether the auction has granted a job's minimum.
pub const ADMITTED: &str = "Admitted";

/// Where the status says that the whole model is being taken from a checkpoint.
pub const RESTORING: &str = "restoring";

/// Where the status says how long the next pod of a role may take until it joins, in seconds.
pub const JOIN_SECONDS: [(Member, &str); 2] = [
    (Member::ParameterServer, "parameterServerJoinSeconds"),
    (Member::Trainer, "trainerJoinSeconds"),
];

/// What the object tells of the time before this activation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Earlier {
    /// Its phase, if it had ended: whether well.
    pub ended: Option<bool>,
    /// Its size.
    pub size: Option<Size>,
    /// The latest round that it heard of.
    pub round: u64,
    /// Steps that were done.
    pub steps: u64,
    /// Samples that were seen.
    pub samples: u64,
    /// Mean loss when it was last written.
    pub loss: Option<f64>,
    /// Accuracy when it was last written.
    pub accuracy: Option<f64>,
    /// Its scale events.
    pub events: Vec<Value>,
    /// The size in the latest of them.
    pub last_event: Option<Size>,
    /// Whether the auction had granted the minimum.
    pub admitted: bool,
    /// How long the next pod of a role may take until it joins, where it is more than at first.
    pub join_within: BTreeMap<Member, Duration>,
    /// The newest checkpoint that it knew of.
    pub checkpoint: Option<Checkpoint>,
    /// Whether it was taking the whole model from a checkpoint: what members have may be a part of it.
    pub restoring: bool,
    /// How old the newest checkpoint is.
    pub checkpoint_age: Duration,
    /// The whole status: what a job that has ended says for ever.
    pub status: Value,
}

/// A checkpoint as the object tells of it.
fn checkpoint_in(object: &Value) -> Option<Checkpoint> {
    let (step, text) = (object["step"].as_u64()?, |field: &str| object[field].as_str());
    Some(Checkpoint {
        path: text("path")?.to_owned(),
        step,
        done: Applied::all_below(step),
        sha256: text("sha256")?.to_owned(),
        bytes: object["bytes"].as_u64()?,
        unix_seconds: text("time")?.parse::<Timestamp>().ok()?.as_second(),
    })
}

/// How long ago it was written; nothing where clocks disagree.
fn age(checkpoint: &Checkpoint) -> Duration {
    let seconds = clock::timestamp().as_second().saturating_sub(checkpoint.unix_seconds);
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
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
        let checkpoint = checkpoint_in(&status["lastCheckpoint"]);
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
            samples: status["samples"].as_u64().unwrap_or(0),
            loss: status["loss"].as_f64(),
            accuracy: status["accuracy"].as_f64(),
            last_event: events.last().and_then(size_in),
            events,
            admitted: status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == ADMITTED && condition["status"] == "True"),
            join_within: JOIN_SECONDS
                .into_iter()
                .filter_map(|(member, field)| {
                    Some((member, Duration::from_secs(status[field].as_u64()?)))
                })
                .collect(),
            checkpoint_age: checkpoint.as_ref().map_or(Duration::ZERO, age),
            checkpoint,
            restoring: status[RESTORING] == true,
            status: status.clone(),
        }
    }

    /// The size that was granted, if any was.
    pub fn granted_size(&self) -> Option<Size> {
        let began = self.admitted || self.steps > 0;
        began.then(|| self.size.or(self.last_event).unwrap_or_default())
    }
}
