//! Checkpoints: what a job has its parameter servers write, look for and take back.
//!
//! A shard is written as it is between two gradients; the others may be some steps further or behind. A
//! [`Checkpoint`] says which steps are in all of them.

use super::membership::{ModelFacts, StaleLease};
use super::shard::{Applied, OptimizerKind, ShardRange};
use impresario_runtime::{Lane, MESSAGE_LIMIT_BYTES, message};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most that a [`LookForCheckpoint`] may have: it names all blocks and shards of a model.
const LOOK_BYTES: usize = 4 << 20;

/// A checkpoint that is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its folder, as the job's parameter servers see it.
    pub path: String,
    /// Steps that are in every shard of it.
    pub step: u64,
    /// Which ones.
    pub done: Applied,
    /// SHA-256 of its manifest, which names that of each file, in hexadecimal.
    pub sha256: String,
    /// All its files together.
    pub bytes: u64,
    /// When it was completed, in seconds since 1970.
    pub unix_seconds: i64,
}

/// Which checkpoint in a folder is the newest that can be used?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookForCheckpoint {
    /// Epoch of the job's lease.
    pub lease: u64,
    /// The folder; it is made if it is the job's own.
    pub folder: String,
    /// The job: of another one none is taken, and what earlier activations left half written is removed. Without it
    /// those of all jobs are looked at, and nothing is changed.
    pub uid: Option<String>,
    /// The activation that asks.
    pub activation: u64,
    /// Whether every file is read and compared; else only whether its manifest is whole.
    pub verify: bool,
    /// What is trained.
    pub model: ModelFacts,
    /// How it is cut.
    pub ranges: Vec<ShardRange>,
}
message!(LookForCheckpoint => Result<Looked, CheckpointError>, "training.LookForCheckpoint", Lane::Work, LOOK_BYTES);

/// What a folder has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The newest that can be used.
    pub newest: Option<Checkpoint>,
    /// Newer ones that cannot, and why.
    pub refused: Vec<(String, String)>,
    /// The largest number that a checkpoint there has.
    pub last: u64,
}

/// Write some of your shards, each as it is now. Of those that are not there nothing is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveShards {
    /// Epoch of the job's lease.
    pub lease: u64,
    /// The folder, which is no checkpoint yet.
    pub folder: String,
    /// Which.
    pub shards: Vec<u32>,
}
message!(SaveShards => Result<Vec<SavedShard>, CheckpointError>, "training.SaveShards");

/// A shard that has been written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedShard {
    /// Which parameters.
    pub range: ShardRange,
    /// Gradients in them.
    pub version: u64,
    /// Which ones.
    pub applied: Applied,
    /// Steps since the optimizer's memory was empty.
    pub memory_steps: u64,
    /// Length of the file.
    pub bytes: u64,
    /// And its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// All shards have been written: make a checkpoint of them, and remove the oldest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitCheckpoint {
    /// Epoch of the job's lease.
    pub lease: u64,
    /// The folder of checkpoints.
    pub folder: String,
    /// The name in it of the folder where the shards are.
    pub temporary: String,
    /// The checkpoint's number.
    pub number: u64,
    /// How many of the job's are kept, this one included.
    pub keep: u32,
    /// The job as people call it.
    pub job: String,
    /// The job.
    pub uid: String,
    /// What is trained.
    pub model: ModelFacts,
    /// The shards, by number.
    pub saved: Vec<SavedShard>,
}
message!(CommitCheckpoint => Result<Committed, CheckpointError>, "training.CommitCheckpoint", Lane::Bulk, MESSAGE_LIMIT_BYTES);

/// A checkpoint has been completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// This one.
    pub checkpoint: Checkpoint,
    /// Why older ones could not be removed, if they could not.
    pub left_over: Option<String>,
}

/// Serve shards as they are in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreShards {
    /// Epoch of the job's lease.
    pub lease: u64,
    /// The epoch of the move.
    pub epoch: u64,
    /// The checkpoint's folder.
    pub path: String,
    /// SHA-256 of its manifest.
    pub sha256: String,
    /// Which shards.
    pub shards: Vec<ShardRange>,
    /// How gradients are applied.
    pub optimizer: OptimizerKind,
}
message!(RestoreShards => Result<Vec<(u32, u64)>, CheckpointError>, "training.RestoreShards");

/// Why a checkpoint was not written or not read.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum CheckpointError {
    /// The order is of a control member that was cut off.
    #[error(transparent)]
    OldLease(#[from] StaleLease),
    /// The disk or the folder does not do.
    #[error(
        "{path}: {cause}: see to it that every parameter server can write there, and that there is room"
    )]
    Folder {
        /// Which file or folder.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// It is cut, changed or another's.
    #[error("{path} cannot be used: {cause}")]
    Unusable {
        /// Which file or folder.
        path: String,
        /// What is the matter with it.
        cause: String,
    },
    /// The server is at another such order still.
    #[error("the parameter server reads or writes a checkpoint already: ask again")]
    Busy,
}
