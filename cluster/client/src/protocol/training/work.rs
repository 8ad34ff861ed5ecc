//! What a trainer does next, and what members report.

use super::membership::ReportError;
use super::place::Place;
use super::shard::ShardMap;
use impresario_runtime::{Lane, NodeName, message};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;

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
    /// Mean loss over it; none if it was not a number.
    pub loss: Option<f32>,
    /// From the pull to the last acknowledged push, in seconds.
    pub seconds: f32,
    /// Of these, computing.
    pub compute_seconds: f32,
    /// Square of the gradient's norm; none if it was not a number.
    pub gradient_square: Option<f32>,
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
    /// What an evaluation that it was asked for has found; none if it did not succeed.
    pub evaluated: Option<Evaluated>,
    /// The number of the order that this evaluation was for.
    pub evaluation: Option<u64>,
    /// The epoch of its shard map.
    pub map_epoch: u64,
}
message!(NextWork => Result<Work, ReportError>, "training.NextWork");

/// What a trainer is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doing {
    /// It waits for work.
    Waiting,
    /// It works on this step.
    Training(u64),
    /// It evaluates.
    Evaluating,
}

/// A trainer tells that it lives, however long what it is at may take. The answer is whether it is
/// wanted: if not, it stops at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainerReport {
    /// The activation that welcomed it.
    pub activation: u64,
    /// The pod's uid.
    pub pod_uid: String,
    /// What it is at.
    pub doing: Doing,
    /// For how long, in milliseconds.
    pub milliseconds: u64,
}
message!(TrainerReport => Result<bool, ReportError>, "training.TrainerReport", Lane::Control);

/// How good the averaged parameters are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The fewest gradients that were in any shard of them.
    pub version: u64,
    /// Mean loss on the testing data; none if it was not a number.
    pub loss: Option<f32>,
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
    Evaluate {
        /// Goes back with what was found: a report that comes twice is not about a later order.
        number: u64,
    },
    /// Nothing to do now: ask again after this time.
    Wait {
        /// In milliseconds.
        milliseconds: u64,
    },
    /// Stop: the job has ended or needs this trainer no more.
    Stop,
    /// Compute these parts of a step that trainers compute together. They stay in hand until every shard has applied
    /// the step, and are pushed again where a shard has lost them.
    Parts {
        /// The step.
        batch: Batch,
        /// Which parts of it, from 0.
        parts: Vec<u32>,
        /// Into how many parts it is cut.
        of: u32,
    },
}

/// A parameter server tells that it lives and how far its shards are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// The activation that welcomed it.
    pub activation: u64,
    /// The pod's uid.
    pub pod_uid: String,
    /// For each shard that it has, the gradients applied.
    pub versions: Vec<(u32, u64)>,
    /// Those of them that are on their way to another server, as far as this one knows: they do not change here.
    pub leaving: BTreeSet<u32>,
}
message!(ServerReport => Result<ServerOrder, ReportError>, "training.ServerReport");

/// What a parameter server is told when it reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOrder {
    /// Whether it is needed: if not, it stops.
    pub wanted: bool,
    /// Every step below this is done with: a gradient of one is not applied any more.
    pub settled: u64,
    /// Shards of its report that others serve since: what it has of them is old, and takes no gradient.
    pub elsewhere: Vec<Elsewhere>,
}

/// Where a shard is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Which shard.
    pub shard: u32,
    /// The epoch in which it came there.
    pub epoch: u64,
    /// The server that has it.
    pub to: Place,
}

/// A trainer cannot reach a shard and asks where it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentMap {
    /// The activation that welcomed it.
    pub activation: u64,
    /// The pod's uid.
    pub pod_uid: String,
}
message!(CurrentMap => Result<ShardMap, ReportError>, "training.CurrentMap");

/// A member asks who the control members are: they may be others than when its pod started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlMembers {
    /// The pod's uid.
    pub pod_uid: String,
}
message!(ControlMembers => Vec<(NodeName, SocketAddr)>, "training.ControlMembers", Lane::Control);
