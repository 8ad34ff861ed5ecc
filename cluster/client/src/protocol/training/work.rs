//! What a trainer does next, and what members report.

use super::{ShardMap, Unknown};
use impresario_runtime::message;
use serde::{Deserialize, Serialize};

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
