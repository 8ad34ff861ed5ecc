//! What the actors of a training job say to each other.
//!
//! A job's parameters are cut into shards, once, and each shard is held by one parameter server at
//! a time. A **step** is the number of a batch of the data plan, unique in the job's life; a shard
//! remembers which steps it has applied, so that a gradient counts once however often it is sent,
//! by whomever, and wherever the shard has moved in between. Each move of shards has an **epoch**.

mod barrier;
mod checkpoint;
mod membership;
mod names;
mod parameters;
mod place;
mod shard;
mod sizing;
mod work;

pub use barrier::{AwaitStep, Held, NextPart, PullAt, PushPart, StepState};
pub use checkpoint::{
    Checkpoint, CheckpointError, CommitCheckpoint, Committed, LookForCheckpoint, Looked,
    RestoreShards, SaveShards, SavedShard,
};
pub use membership::{
    HeldShard, Holds, JoinRefused, JoinTraining, Member, ModelFacts, ReportError, StaleLease,
    Welcome,
};
pub use names::{guest_node, job_actor, parameter_server_actor, trainer_actor};
pub use parameters::{
    Accept, Handover, HandoverError, Keep, Leave, Provide, ProvideError, Pull, Pulled, Push, Pushed,
};
pub use place::Place;
pub use shard::{Applied, OptimizerKind, ShardMap, ShardRange, ShardState};
pub use sizing::{
    Bid, Describe, Description, RequestBid, RequestUnsureBid, Scale, ScaleError, Size, SpeedModel,
    UnsureBid,
};
pub use work::{
    Batch, ControlMembers, CurrentMap, Doing, Elsewhere, Evaluated, NextWork, Order, Progress,
    ServerOrder, ServerReport, TrainerReport, Work,
};

use super::control;
use impresario_runtime::{Message, NodeName, role};
use std::any::Any;

/// Whether a guest of this name may send this to its own job's actor: what members say, each for
/// itself. Sizes are the scheduler's business.
pub fn is_of_guest(node: &NodeName, message: &str, body: &dyn Any) -> bool {
    let speaks_for = |pod_uid: &str| guest_node(pod_uid) == *node;
    if let Some(join) = body.downcast_ref::<JoinTraining>() {
        return speaks_for(&join.pod_uid) && join.place.path.node == *node;
    }
    let work = body.downcast_ref().map(|NextWork { pod_uid, .. }| pod_uid);
    let part = body.downcast_ref().map(|NextPart { asked, .. }| &asked.pod_uid);
    let trainer = body.downcast_ref().map(|TrainerReport { pod_uid, .. }| pod_uid);
    let server = body.downcast_ref().map(|ServerReport { pod_uid, .. }| pod_uid);
    let map = body.downcast_ref().map(|CurrentMap { pod_uid, .. }| pod_uid);
    let members = body.downcast_ref().map(|ControlMembers { pod_uid }| pod_uid);
    let pod_uid = work.or(part).or(trainer).or(server).or(map).or(members);
    message == Describe::NAME || pod_uid.is_some_and(|uid| speaks_for(uid))
}

/// Whether a guest may send a message of this name to its job's actor, if it speaks for itself in it.
pub fn is_from_guests(message: &str) -> bool {
    [
        JoinTraining::NAME,
        NextWork::NAME,
        NextPart::NAME,
        TrainerReport::NAME,
        ServerReport::NAME,
        CurrentMap::NAME,
        ControlMembers::NAME,
        Describe::NAME,
    ]
    .contains(&message)
}

/// Whether members of one job may send this to each other. Orders are the job's alone.
pub fn is_between_guests(message: &str) -> bool {
    [Pull::NAME, Push::NAME, Accept::NAME, PullAt::NAME, PushPart::NAME, AwaitStep::NAME]
        .contains(&message)
}

role! {
    /// The actor that runs one training job.
    pub TrainingJobRole = "trainingjob" {
        asks: [JoinTraining, NextWork, NextPart, TrainerReport, ServerReport, CurrentMap, ControlMembers, RequestBid, RequestUnsureBid, Scale, Describe, control::Describe, control::Scale],
        streams: []
    }
}

role! {
    /// The actor that keeps shards of a job's parameters.
    pub ParameterServerRole = "parameterserver" {
        asks: [Pull, Push, PullAt, PushPart, AwaitStep, Handover, Accept, Keep, LookForCheckpoint, SaveShards, CommitCheckpoint, RestoreShards],
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
