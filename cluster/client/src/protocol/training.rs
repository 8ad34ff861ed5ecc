//! What the actors of a training job say to each other.
//!
//! A job's parameters are cut into shards, once, and each shard is held by one parameter server at
//! a time. A **step** is the number of a batch of the data plan, unique in the job's life; a shard
//! remembers which steps it has applied, so that a gradient counts once however often it is sent,
//! by whomever, and wherever the shard has moved in between. Each move of shards has an **epoch**.

use super::resources::Resources;
use impresario_runtime::{ActorPath, Lane, message, role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use thiserror::Error;

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
}

/// Where an actor of the job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its node and name.
    pub path: ActorPath,
    /// Its node's QUIC address.
    pub address: SocketAddr,
}

/// A run of the flat vector of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRange {
    /// The shard's number, from 0 without gaps.
    pub shard: u32,
    /// Its first parameter.
    pub start: u64,
    /// How many parameters it has.
    pub length: u64,
}

/// Which parameter server holds which shard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardMap {
    /// Rises with every change.
    pub epoch: u64,
    /// All shards, by number.
    pub shards: Vec<ShardRange>,
    /// For each shard where it is.
    pub places: Vec<Place>,
}

/// Steps that have been applied: all below a limit, and some above it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    below: u64,
    above: BTreeSet<u64>,
}

impl Applied {
    /// Everything below this step, nothing else.
    pub fn all_below(below: u64) -> Self {
        Self { below, above: BTreeSet::new() }
    }

    /// Whether this step is among them.
    pub fn contains(&self, step: u64) -> bool {
        step < self.below || self.above.contains(&step)
    }

    /// Adds a step; false when it was there.
    pub fn insert(&mut self, step: u64) -> bool {
        if step < self.below || !self.above.insert(step) {
            return false;
        }
        while self.above.remove(&self.below) {
            self.below += 1;
        }
        true
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.below + self.above.len() as u64
    }

    /// The first step that is not among them.
    pub fn first_missing(&self) -> u64 {
        self.below
    }

    /// One more than the largest step among them.
    pub fn end(&self) -> u64 {
        self.above.last().map_or(self.below, |last| last + 1)
    }

    /// The steps that both have.
    pub fn both(&self, other: &Self) -> Self {
        let mut both = Self::all_below(self.below.min(other.below));
        let (low, high) = (both.below, self.end().min(other.end()));
        for step in (low..high).filter(|step| self.contains(*step) && other.contains(*step)) {
            both.insert(step);
        }
        both
    }
}

/// How a gradient changes parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Momentum {
        /// Step length at the start; at step k it is `rate / (1 + decay·k)`.
        rate: f32,
        /// How fast it falls.
        decay: f32,
        /// Part of the previous step that goes on.
        momentum: f32,
    },
    /// Adam (Kingma and Ba, 2015).
    Adam {
        /// Step length at the start; at step k it is `rate / (1 + decay·k)`.
        rate: f32,
        /// How fast it falls.
        decay: f32,
        /// Memory of the mean.
        beta1: f32,
        /// Memory of the mean square.
        beta2: f32,
    },
}

/// A shard with all that belongs to it; this is what moves between parameter servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardState {
    /// Which parameters.
    pub range: ShardRange,
    /// Their values.
    pub values: Vec<f32>,
    /// A running mean of the values over the latest steps, which is what is evaluated.
    pub average: Vec<f32>,
    /// Gradients applied since the job began.
    pub version: u64,
    /// Which ones.
    pub applied: Applied,
    /// The rule.
    pub optimizer: OptimizerKind,
    /// Steps since the rule's memory was empty.
    pub memory_steps: u64,
    /// Its memory: momentum, or the mean of gradients.
    pub first: Vec<f32>,
    /// Its memory: the mean of squares; empty for momentum.
    pub second: Vec<f32>,
}

/// A pod's process is ready to work. Sent again when the job's actor says [`Unknown`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinTraining {
    /// The pod's uid.
    pub pod_uid: String,
    /// Where its actor is.
    pub place: Place,
    /// What it does, and what it has.
    pub holds: Holds,
}
message!(JoinTraining => Result<Welcome, JoinRefused>, "training.Join");

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
}

/// The member belongs to the job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names this activation of the job's actor.
    pub activation: u64,
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
}

/// This activation of the job's actor does not know the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("this activation of the job does not know you: join again")]
pub struct Unknown;

/// A batch of the data plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number.
    pub step: u64,
    /// The pass over the data set that it belongs to, from 0.
    pub epoch: u64,
    /// Its first place in that epoch's order.
    pub start: u64,
    /// How many samples it has.
    pub length: u64,
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The batch.
    pub step: u64,
    /// Samples in it.
    pub samples: u64,
    /// Mean loss over it.
    pub loss: f32,
    /// From the pull to the last acknowledged push, in seconds.
    pub seconds: f32,
    /// Of these, computing.
    pub compute_seconds: f32,
    /// Square of the gradient's norm.
    pub gradient_square: f32,
}

/// A trainer tells what it has done and asks for more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextWork {
    /// The activation that welcomed it.
    pub activation: u64,
    /// The pod's uid.
    pub pod_uid: String,
    /// Batches whose gradients every shard has acknowledged.
    pub done: Vec<Progress>,
    /// Batches that it will not do.
    pub returned: Vec<u64>,
    /// An evaluation that it was asked for.
    pub evaluated: Option<Evaluated>,
    /// The epoch of its shard map.
    pub map_epoch: u64,
}
message!(NextWork => Result<Work, Unknown>, "training.NextWork");

/// How good the averaged parameters are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Gradients that were in them.
    pub version: u64,
    /// Mean loss on the testing data.
    pub loss: f32,
    /// Part of the answers that is right.
    pub accuracy: f32,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// A newer shard map, if there is one.
    pub map: Option<ShardMap>,
    /// What to do.
    pub order: Order,
}

/// A trainer's orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Compute these, in order.
    Train(Vec<Batch>),
    /// Evaluate the averaged parameters, then ask again.
    Evaluate,
    /// Nothing to do now: ask again after this time.
    Wait {
        /// In milliseconds.
        milliseconds: u64,
    },
    /// Stop: the job has ended or needs this trainer no more.
    Stop,
}

/// A parameter server tells that it lives and how far its shards are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// The activation that welcomed it.
    pub activation: u64,
    /// The pod's uid.
    pub pod_uid: String,
    /// For each shard that it serves, the gradients applied.
    pub versions: Vec<(u32, u64)>,
}
message!(ServerReport => Result<bool, Unknown>, "training.ServerReport");

/// A trainer cannot reach a shard and asks where it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentMap {
    /// The activation that welcomed it.
    pub activation: u64,
}
message!(CurrentMap => Result<ShardMap, Unknown>, "training.CurrentMap");

/// Asks for the values of some shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Which.
    pub shards: Vec<u32>,
    /// The running mean instead of the latest values.
    pub averaged: bool,
}
message!(Pull => Vec<Pulled>, "training.Pull", Lane::Bulk);

/// One shard's answer to a [`Pull`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Pulled {
    /// Its values.
    Values {
        /// Which shard.
        shard: u32,
        /// Gradients in them.
        version: u64,
        /// Which ones.
        applied: Applied,
        /// The values.
        values: Vec<f32>,
    },
    /// It is somewhere else.
    Elsewhere {
        /// Which shard.
        shard: u32,
        /// Where it went, if it was here.
        to: Option<(u64, Place)>,
    },
}

/// A gradient for some shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The batch that it was computed on.
    pub step: u64,
    /// Shard and gradient.
    pub gradients: Vec<(u32, Vec<f32>)>,
}
message!(Push => Vec<(u32, Pushed)>, "training.Push", Lane::Bulk);

/// What one shard did with a gradient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Pushed {
    /// It is in the parameters now.
    Applied {
        /// Gradients in them.
        version: u64,
    },
    /// It was in the parameters already.
    Already {
        /// Gradients in them.
        version: u64,
    },
    /// The shard is on its way to another server: send it again in a moment.
    Moving,
    /// The shard is elsewhere.
    Moved {
        /// Where it went, if it was here.
        to: Option<(u64, Place)>,
    },
    /// The gradient is not of the shard's length.
    Misfit {
        /// The shard's length.
        expected: u64,
    },
}

/// Give a shard to another parameter server. Asking again is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Which shard.
    pub shard: u32,
    /// To whom.
    pub to: Place,
    /// The epoch of the move.
    pub epoch: u64,
}
message!(Handover => Result<(), HandoverError>, "training.Handover");

/// Why a shard was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum HandoverError {
    /// The shard is not here.
    #[error("shard {shard} is not here: ask where it is")]
    NotHere {
        /// Which shard.
        shard: u32,
    },
    /// The order is older than the shard's last move.
    #[error("shard {shard} moved in epoch {current} already: give newer orders")]
    Stale {
        /// Which shard.
        shard: u32,
        /// The epoch of its last move.
        current: u64,
    },
    /// The receiver did not confirm. The shard is frozen until this is asked again, or
    /// [`Keep`] is.
    #[error("shard {shard} may have arrived or not ({cause}): ask again, or tell it to stay")]
    Unconfirmed {
        /// Which shard.
        shard: u32,
        /// What happened.
        cause: String,
    },
}

/// Take a shard. Taking it again is harmless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accept {
    /// The epoch of the move.
    pub epoch: u64,
    /// The shard.
    pub state: ShardState,
}
message!(Accept => Result<(), HandoverError>, "training.Accept", Lane::Bulk);

/// The receiver of a shard is gone: serve it here again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Which shard.
    pub shard: u32,
    /// An epoch later than that of the move.
    pub epoch: u64,
}
message!(Keep => Result<(), HandoverError>, "training.Keep");

/// Give shards to a parameter server from your own latest copy, or with the model's initial values
/// when you have none: this begins a job, and replaces a parameter server that died.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provide {
    /// Which shards.
    pub shards: Vec<ShardRange>,
    /// To whom.
    pub to: Place,
    /// The epoch of the move.
    pub epoch: u64,
}
message!(Provide => Result<Vec<(u32, u64)>, ProvideError>, "training.Provide");

/// Why shards were not provided.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ProvideError {
    /// The model has fewer parameters than the shard map.
    #[error("the model has no shard {shard}: give all trainers one image")]
    NoSuchShard {
        /// Which shard.
        shard: u32,
    },
    /// The receiver did not take them.
    #[error("the parameter server did not take shard {shard} ({cause}): try again")]
    NotTaken {
        /// Which shard.
        shard: u32,
        /// What happened.
        cause: String,
    },
}

/// Hand back your work and ask for no more. Answered at once; the trainer asks a last
/// [`NextWork`] with what it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave;
message!(Leave => (), "training.Leave");

/// The scheduler asks what a job would give for more, and what it loses with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestBid {
    /// The round of the auction.
    pub round: u64,
}
message!(RequestBid => Option<Bid>, "training.RequestBid", Lane::Control);

/// What a job knows about itself. The auction derives gains and losses from it, so that one answer
/// serves a whole round however many resources change hands in it. A job that has ended, or waits
/// for nothing, bids nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bid {
    /// The job's uid.
    pub job: String,
    /// Who it is for people.
    pub namespace: String,
    /// Who it is for people.
    pub name: String,
    /// When it was created, in seconds since 1970: the tie-breaker.
    pub created_unix_seconds: i64,
    /// Predicted steps to the end.
    pub remaining_steps: f64,
    /// Steps done: a prediction from few of them counts less.
    pub done_steps: u64,
    /// Steps a second as a function of size.
    pub speed: SpeedModel,
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
    /// What it gets.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_once_in_whatever_order_steps_arrive() {
        let mut applied = Applied::default();
        for step in [2, 0, 2, 1, 5, 0] {
            applied.insert(step);
        }
        assert_eq!(applied.count(), 4);
        assert_eq!((applied.first_missing(), applied.end()), (3, 6));
        assert!(!applied.insert(5) && !applied.insert(1) && applied.insert(3));
    }

    #[test]
    fn what_both_have_is_what_each_has() {
        let of = |steps: &[u64]| {
            let mut applied = Applied::default();
            for step in steps {
                applied.insert(*step);
            }
            applied
        };
        let both = of(&[0, 1, 2, 5, 7]).both(&of(&[0, 2, 5, 6]));
        assert_eq!(both, of(&[0, 2, 5]));
    }
}
