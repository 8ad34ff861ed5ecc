//! What the actors of a training job say to each other.
//!
//! A job's parameters are cut into shards, once, and each shard is held by one parameter server at
//! a time. A **step** is the number of a batch of the data plan, unique in the job's life; a shard
//! remembers which steps it has applied, so that a gradient counts once however often it is sent,
//! by whomever, and wherever the shard has moved in between. Each move of shards has an **epoch**.

mod membership;
mod parameters;
mod shard;
mod sizing;
mod work;

pub use membership::{
    HeldShard, Holds, JoinRefused, JoinTraining, Member, ModelFacts, Place, Unknown, Welcome,
};
pub use parameters::{
    Accept, Handover, HandoverError, Keep, Leave, Provide, ProvideError, Pull, Pulled, Push, Pushed,
};
pub use shard::{Applied, OptimizerKind, ShardMap, ShardRange, ShardState};
pub use sizing::{Bid, Describe, Description, RequestBid, Scale, ScaleError, Size, SpeedModel};
pub use work::{Batch, CurrentMap, Evaluated, NextWork, Order, Progress, ServerReport, Work};

use impresario_runtime::role;

/// The actor name of a training job.
pub fn job_actor(uid: &str) -> String {
    format!("trainingjob/{uid}")
}

/// The actor name of the parameter server in the pod with this uid.
pub fn parameter_server_actor(pod_uid: &str) -> String {
    format!("parameterserver/{pod_uid}")
}

/// The actor name of the trainer in the pod with this uid.
pub fn trainer_actor(pod_uid: &str) -> String {
    format!("trainer/{pod_uid}")
}

role! {
    /// The actor that runs one training job.
    pub TrainingJobRole = "trainingjob" {
        asks: [JoinTraining, NextWork, ServerReport, CurrentMap, RequestBid, Scale, Describe],
        streams: []
    }
}

role! {
    /// The actor that keeps shards of a job's parameters.
    pub ParameterServerRole = "parameterserver" {
        asks: [Pull, Push, Handover, Accept, Keep],
        streams: []
    }
}

role! {
    /// The actor that computes gradients.
    pub TrainerRole = "trainer" {
        asks: [Provide, Leave],
        streams: []
    }
}
