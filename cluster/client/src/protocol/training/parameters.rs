//! Parameters and gradients on their way, and shards that move.

use super::membership::StaleLease;
use super::place::Place;
use super::shard::{Applied, ShardRange, ShardState};
use impresario_runtime::{Lane, MESSAGE_LIMIT_BYTES, message};
use serde::{Deserialize, Serialize};
use thiserror::Error;

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
message!(Push => Vec<(u32, Pushed)>, "training.Push", Lane::Bulk, MESSAGE_LIMIT_BYTES);

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
    /// Epoch of the job's lease.
    pub lease: u64,
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
    /// The order is of a control member that was cut off.
    #[error(transparent)]
    OldLease(#[from] StaleLease),
    /// The shard's state cannot be one.
    #[error("{field} of shard {shard} cannot be: nothing was changed")]
    Invalid {
        /// Which shard.
        shard: u32,
        /// Which part of it.
        field: String,
    },
}

/// Take a shard. Taking it again is harmless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accept {
    /// Epoch of the lease by which the move was ordered.
    pub lease: u64,
    /// The epoch of the move.
    pub epoch: u64,
    /// The shard.
    pub state: ShardState,
}
message!(Accept => Result<(), HandoverError>, "training.Accept", Lane::Bulk, MESSAGE_LIMIT_BYTES);

/// The receiver of a shard is gone: serve it here again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Epoch of the job's lease.
    pub lease: u64,
    /// Which shard.
    pub shard: u32,
    /// An epoch later than that of the move.
    pub epoch: u64,
}
message!(Keep => Result<(), HandoverError>, "training.Keep");

/// Give shards to a parameter server from your own latest copy: this replaces a parameter server that
/// died. A job begins with the model's initial values, which nobody may pass off as trained ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provide {
    /// Epoch of the job's lease.
    pub lease: u64,
    /// Which shards.
    pub shards: Vec<ShardRange>,
    /// To whom.
    pub to: Place,
    /// The epoch of the move.
    pub epoch: u64,
    /// The job begins: where there is no copy, the model's initial values are it.
    pub begins: bool,
}
message!(Provide => Result<Vec<(u32, u64)>, ProvideError>, "training.Provide");

/// Why shards were not provided.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ProvideError {
    /// This trainer has never had the parameters.
    #[error("this trainer has no copy of the parameters yet: ask another")]
    NoCopy,
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
    /// The order is of a control member that was cut off.
    #[error(transparent)]
    OldLease(#[from] StaleLease),
}

/// Hand back your work and ask for no more. Answered at once; the trainer asks a last
/// [`NextWork`](super::NextWork) with what it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Epoch of the job's lease.
    pub lease: u64,
}
message!(Leave => Result<(), StaleLease>, "training.Leave");
