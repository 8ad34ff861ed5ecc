//! The registry as a raft group: openraft's types filled in with ours.
//!
//! openraft decides; [`log`] makes its log durable, [`machine`] applies what is committed to the [`Store`],
//! [`snapshot`] saves and moves the store's image, [`network`] carries its messages over the runtime.
//!
//! [`Store`]: crate::store::Store

pub mod actor;
pub mod heard;
pub mod log;
pub mod machine;
pub mod messages;
pub mod network;
pub mod pace;
pub mod snapshot;

use crate::{
    error::TransactError,
    shard::ShardMove,
    store::Admission,
    transaction::{Committed, Transaction},
};
use serde::{Deserialize, Serialize};
use std::fmt;

pub use crate::protocol::{MemberId, MemberNode};
pub use machine::Raft;

/// What goes through the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A change of objects.
    Transact(Transaction),
    /// The leader's decision on shards.
    MoveShards(Vec<ShardMove>),
    /// A disk asks for a member number.
    Admit {
        /// The id of the disk.
        disk: u128,
    },
    /// A member left for good: its number and its disk are never taken again.
    Retire {
        /// Its number.
        member: MemberId,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transact(transaction) => write!(f, "transaction on {}", transaction.subject()),
            Self::MoveShards(moves) => write!(f, "{} shard moves", moves.len()),
            Self::Admit { disk } => write!(f, "admission of disk {disk:032x}"),
            Self::Retire { member } => write!(f, "retirement of member {member}"),
        }
    }
}

/// What a command answers once it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Command::Transact`].
    Transacted(Result<Committed, TransactError>),
    /// To [`Command::Admit`].
    Admitted(Admission),
    /// To everything else, openraft's own entries included.
    Done,
}

openraft::declare_raft_types!(
    /// The raft group of the registry.
    pub Types:
        D = Command,
        R = Answer,
        NodeId = MemberId,
        Node = MemberNode,
);

/// The identity of a log entry.
pub type LogId = openraft::type_config::alias::LogIdOf<Types>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<Types>;
/// An entry of the log.
pub type Entry = openraft::type_config::alias::EntryOf<Types>;
/// The membership and the entry that made it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
/// What a snapshot says of itself.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
