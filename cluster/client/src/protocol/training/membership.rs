//! How a pod becomes a member of its job.

use super::place::Place;
use super::shard::{Applied, OptimizerKind, ShardRange};
use impresario_runtime::{Lane, message};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most that a [`JoinTraining`] may have: it names all blocks of a model.
const JOIN_BYTES: usize = 1 << 20;

/// What a pod does for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Member {
    /// Keeps parameters.
    ParameterServer,
    /// Computes gradients.
    Trainer,
}

impl Member {
    /// As in labels and in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ParameterServer => "parameterServer",
            Self::Trainer => "trainer",
        }
    }

    /// The one that is called so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::ParameterServer, Self::Trainer].into_iter().find(|one| one.as_str() == name)
    }
}

/// A pod's process is ready to work. Sent again when the job's actor says `Unknown`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinTraining {
    /// The pod's uid.
    pub pod_uid: String,
    /// Where its actor is.
    pub place: Place,
    /// What it does, and what it has.
    pub holds: Holds,
}
message!(JoinTraining => Result<Welcome, JoinRefused>, "training.Join", Lane::Work, JOIN_BYTES);

/// What a member brings when it joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Holds {
    /// A parameter server: shards that it kept through a fail-over of the job's actor.
    Shards(Vec<HeldShard>),
    /// A trainer: its program and data, which must be those of all others.
    Model(ModelFacts),
}

impl Holds {
    /// What such a member does.
    pub fn member(&self) -> Member {
        match self {
            Self::Shards(_) => Member::ParameterServer,
            Self::Model(_) => Member::Trainer,
        }
    }
}

/// What a trainer's program knows about model, data and method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The blocks of parameters, in order: name and length.
    pub blocks: Vec<(String, u64)>,
    /// Samples in one epoch.
    pub samples: u64,
    /// Samples in one batch.
    pub batch: u64,
    /// How gradients are applied.
    pub optimizer: OptimizerKind,
    /// Decides all chance.
    pub seed: u64,
}

/// A shard that a parameter server serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldShard {
    /// Which one.
    pub range: ShardRange,
    /// The epoch in which it came here.
    pub epoch: u64,
    /// Gradients applied to it.
    pub version: u64,
    /// Which ones.
    pub applied: Applied,
    /// Where it is on its way to, as far as this server knows: it does not change here any more.
    pub leaving: Option<Place>,
}

/// The member belongs to the job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names this activation of the job's actor.
    pub activation: u64,
    /// Epoch of the lease by which it runs: a member works for the highest that it has seen.
    pub lease: u64,
}

/// The order is of a control member that has lost the job's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error(
    "lease epoch {given} has passed, {current} is the job's: the order was given by a member that was cut off"
)]
pub struct StaleLease {
    /// The epoch of the order.
    pub given: u64,
    /// The highest that has been seen.
    pub current: u64,
}

/// A member is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum JoinRefused {
    /// The pod is none of the job's, or is being stopped.
    #[error("pod {pod_uid} is not part of this job: stop")]
    NotYours {
        /// The pod's uid.
        pod_uid: String,
    },
    /// The job has ended.
    #[error("the job has ended: stop")]
    Ended,
    /// The job's actor has just been started and does not know its job yet.
    #[error("the job's actor is not ready: try again in a moment")]
    NotYet,
    /// The trainer has another model or other data than those before it.
    #[error("this trainer's model or data differs from the job's: give all trainers one image")]
    OtherModel,
    /// Something in the message cannot be.
    #[error("{field} cannot be ({reason}): nothing was changed, stop")]
    Invalid {
        /// Which field.
        field: String,
        /// What is the matter with it.
        reason: String,
    },
}

/// Why a report was not taken. Nothing was changed by it.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ReportError {
    /// This activation of the job's actor does not know the sender.
    #[error("this activation of the job does not know you: join again")]
    Unknown,
    /// Something in it cannot be.
    #[error("{field} cannot be ({reason}): nothing was changed, stop")]
    Invalid {
        /// Which field.
        field: String,
        /// What is the matter with it.
        reason: String,
    },
}
