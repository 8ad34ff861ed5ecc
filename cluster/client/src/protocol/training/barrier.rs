//! Steps that trainers compute together: each a part of the batch, and all parts make one gradient.

use super::membership::ReportError;
use super::parameters::Pulled;
use super::place::Place;
use super::work::{NextWork, Work};
use impresario_runtime::{Lane, MESSAGE_LIMIT_BYTES, message};
use serde::{Deserialize, Serialize};

/// Asks for the values that some shards had when every step below this one was applied, and this one not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullAt {
    /// The step that is to be computed.
    pub step: u64,
    /// Which shards.
    pub shards: Vec<u32>,
}
message!(PullAt => Vec<Pulled>, "training.PullAt", Lane::Bulk);

/// The gradient of one part of a step's batch, for some shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PushPart {
    /// The step.
    pub step: u64,
    /// Into how many parts its batch is cut.
    pub of: u32,
    /// Which part this is, from 0.
    pub part: u32,
    /// How many samples that has.
    pub samples: u64,
    /// Shard and mean gradient over these samples.
    pub gradients: Vec<(u32, Vec<f32>)>,
}
message!(PushPart => Vec<(u32, StepState)>, "training.PushPart", Lane::Bulk, MESSAGE_LIMIT_BYTES);

/// Asks how far some shards are with a step, and waits a moment while other parts are still to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitStep {
    /// The step.
    pub step: u64,
    /// Into how many parts its batch is cut.
    pub of: u32,
    /// Which shards.
    pub shards: Vec<u32>,
    /// The parts that whoever asks has pushed: without one of them nothing is waited for.
    pub parts: Vec<u32>,
}
message!(AwaitStep => Vec<(u32, StepState)>, "training.AwaitStep");

/// What a trainer has in hand of a step that trainers compute together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The step.
    pub step: u64,
    /// The parts that it has computed.
    pub parts: Vec<u32>,
    /// Whether every shard has said, when it was last asked, that it has them all.
    pub everywhere: bool,
}

/// A trainer that has parts in hand tells what it has done and asks for more. One that asks by [`NextWork`] has none:
/// what it was given it has lost, or never heard of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextPart {
    /// What every trainer says.
    pub asked: NextWork,
    /// What it has in hand.
    pub held: Held,
}
message!(NextPart => Result<Work, ReportError>, "training.NextPart");

/// How far a shard is with a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    /// All parts have come, and the step is in the parameters.
    Applied,
    /// Others are still to come.
    Waiting {
        /// Those that are there.
        parts: Vec<u32>,
    },
    /// The shard is on its way to another server, or is behind: send it again in a moment.
    Moving,
    /// The shard is elsewhere.
    Moved {
        /// Where it went, if it was here.
        to: Option<(u64, Place)>,
    },
    /// What was pushed is no part of this shard's gradient.
    Misfit {
        /// The shard's length.
        expected: u64,
    },
}
