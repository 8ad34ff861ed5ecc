//! How large a job is, what it bids, and what the auction decides.

use super::membership::StaleLease;
use super::work::Evaluated;
use crate::protocol::resources::Resources;
use impresario_runtime::{Lane, message};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The scheduler asks what a job would give for more, and what it loses with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestBid {
    /// The round of the auction.
    pub round: u64,
}
message!(RequestBid => Option<Bid>, "training.RequestBid2", Lane::Control);

/// The same as members of the version before ask it. Answered, and asked of who does not know [`RequestBid`], as
/// long as a cluster may have such members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestUnsureBid {
    /// The round of the auction.
    pub round: u64,
}
message!(RequestUnsureBid => Option<UnsureBid>, "training.RequestBid", Lane::Control);

/// What a job knows about itself. The auction derives gains and losses from it, so that one answer
/// serves a whole round however many resources change hands in it. A job that has ended, or waits
/// for nothing, bids nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bid {
    /// The job's uid.
    pub job: String,
    /// Epoch of the lease by which its actor runs.
    pub lease: u64,
    /// Who it is for people.
    pub namespace: String,
    /// Who it is for people.
    pub name: String,
    /// When it was created, in seconds since 1970: the tie-breaker.
    pub created_unix_seconds: i64,
    /// Predicted steps to the end.
    pub remaining_steps: f64,
    /// Relative standard deviation of that prediction; 0 where the end is known.
    pub remaining_uncertainty: f64,
    /// Steps done: a prediction from few of them counts less.
    pub done_steps: u64,
    /// Steps a second as a function of size.
    pub speed: SpeedModel,
    /// Relative standard deviation of what the model says of the sizes that were measured.
    pub speed_uncertainty: f64,
    /// The most trainers that its speed was measured with; 0 before any measurement.
    pub measured_trainers: u32,
    /// What it has now: parameter servers and trainers.
    pub current: Size,
    /// What it is on its way to.
    pub wanted: Size,
    /// The least that it can work with.
    pub min: Size,
    /// The most that it wants.
    pub max: Size,
    /// What one parameter server takes.
    pub parameter_server: Resources,
    /// What one trainer takes.
    pub trainer: Resources,
    /// What a change of size has cost so far, in seconds of its work.
    pub rescale_seconds: f64,
    /// Standard deviation of that, in seconds.
    pub rescale_uncertainty: f64,
    /// For how long the job has been granted its minimum without all of it having a node, in seconds.
    pub incomplete_seconds: u64,
}

/// A [`Bid`] that does not say how sure it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnsureBid {
    /// As in a bid.
    pub job: String,
    /// As in a bid.
    pub lease: u64,
    /// As in a bid.
    pub namespace: String,
    /// As in a bid.
    pub name: String,
    /// As in a bid.
    pub created_unix_seconds: i64,
    /// As in a bid.
    pub remaining_steps: f64,
    /// As in a bid.
    pub done_steps: u64,
    /// As in a bid.
    pub speed: SpeedModel,
    /// As in a bid.
    pub current: Size,
    /// As in a bid.
    pub wanted: Size,
    /// As in a bid.
    pub min: Size,
    /// As in a bid.
    pub max: Size,
    /// As in a bid.
    pub parameter_server: Resources,
    /// As in a bid.
    pub trainer: Resources,
    /// As in a bid.
    pub rescale_seconds: f64,
    /// As in a bid.
    pub incomplete_seconds: u64,
}

impl From<Bid> for UnsureBid {
    fn from(bid: Bid) -> Self {
        Self {
            job: bid.job,
            lease: bid.lease,
            namespace: bid.namespace,
            name: bid.name,
            created_unix_seconds: bid.created_unix_seconds,
            remaining_steps: bid.remaining_steps,
            done_steps: bid.done_steps,
            speed: bid.speed,
            current: bid.current,
            wanted: bid.wanted,
            min: bid.min,
            max: bid.max,
            parameter_server: bid.parameter_server,
            trainer: bid.trainer,
            rescale_seconds: bid.rescale_seconds,
            incomplete_seconds: bid.incomplete_seconds,
        }
    }
}

impl From<UnsureBid> for Bid {
    /// It is taken at its word, as the version that sent it takes it.
    fn from(bid: UnsureBid) -> Self {
        Self {
            job: bid.job,
            lease: bid.lease,
            namespace: bid.namespace,
            name: bid.name,
            created_unix_seconds: bid.created_unix_seconds,
            remaining_steps: bid.remaining_steps,
            remaining_uncertainty: 0.0,
            done_steps: bid.done_steps,
            speed: bid.speed,
            speed_uncertainty: 0.0,
            measured_trainers: u32::MAX,
            current: bid.current,
            wanted: bid.wanted,
            min: bid.min,
            max: bid.max,
            parameter_server: bid.parameter_server,
            trainer: bid.trainer,
            rescale_seconds: bid.rescale_seconds,
            rescale_uncertainty: 0.0,
            incomplete_seconds: bid.incomplete_seconds,
        }
    }
}

/// How many of each.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Size {
    /// Parameter servers.
    pub parameter_servers: u32,
    /// Trainers.
    pub trainers: u32,
}

/// Steps a second for p parameter servers and w trainers (Optimus, EuroSys 2018).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum SpeedModel {
    /// `w / (a0 + a1·w/p + a2·w + a3·p)`
    Asynchronous {
        /// The coefficients, none negative.
        a: [f64; 4],
    },
    /// `1 / (a0·batch/w + a1 + a2·w/p + a3·w + a4·p)`
    Synchronous {
        /// Samples in one step of all trainers.
        batch: f64,
        /// The coefficients, none negative.
        a: [f64; 5],
    },
}

/// The auction's decision for one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// The round.
    pub round: u64,
    /// Epoch of the scheduler's lease: rounds of an older one are late.
    pub scheduler: u64,
    /// Epoch of the job's lease, as in the bid that this answers.
    pub lease: u64,
    /// What it gets; nothing at all while its minimum cannot be had.
    pub size: Size,
    /// Why, in words for people.
    pub reason: String,
}
message!(Scale => Result<(), ScaleError>, "training.Scale", Lane::Control);

/// Why a decision was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ScaleError {
    /// A later round has been heard already.
    #[error("round {current} has been heard already: this one is late")]
    Stale {
        /// The latest round.
        current: u64,
    },
    /// The answer to a bid of another activation, or of a scheduler that was cut off.
    #[error(transparent)]
    OldLease(#[from] StaleLease),
    /// The job's actor cannot tell whether it still holds the job.
    #[error("the control member may be cut off: ask for a bid again")]
    InDoubt,
    /// The size is outside of what the job asked for.
    #[error("the size is not between the job's minimum and maximum: ask for a bid again")]
    OutOfRange,
    /// The job has ended.
    #[error("the job has ended: give its resources to others")]
    Ended,
}

/// Asks how the job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Describe;
message!(Describe => Description, "training.Describe");

/// How a job is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// What works for it now.
    pub size: Size,
    /// What it is to become.
    pub wanted: Size,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole plan, if it has an end.
    pub total_steps: Option<u64>,
    /// Mean loss over the latest steps.
    pub loss: Option<f32>,
    /// The latest evaluation.
    pub evaluated: Option<Evaluated>,
    /// Steps a second, lately.
    pub steps_per_second: f64,
    /// Seconds to the end, predicted.
    pub remaining_seconds: Option<f64>,
    /// Whether it has ended.
    pub ended: bool,
}
