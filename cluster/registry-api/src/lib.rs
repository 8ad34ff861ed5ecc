//! What a registry is asked and what it answers: its words, without the store behind them.
//!
//! A registry is an ordered map from [`Key`] to JSON bytes with one global [`Revision`], changed by atomic
//! [`Transaction`]s that compare, fence and write, and followed through [`Watch`]es. The object-safe trait
//! [`Registry`] is the narrow handle through which everybody sees one, be it kept in memory, by a raft member in
//! this process, or far away. [`remote`] speaks with control members by message.
//!
//! The crate knows nothing of Kubernetes beyond the shape of a key; objects are bytes to it, read only
//! where a [`Selection`] or a [`Condition`] asks for what is inside.

pub mod around;
pub mod condition;
pub mod error;
pub mod field;
pub mod key;
pub mod life;
pub mod members;
pub mod protocol;
pub mod query;
pub mod remote;
pub mod serials;
pub mod shard;
pub mod transaction;
pub mod watch;

mod registry;

pub use around::Around;
pub use condition::{Condition, Demand, Interest};
pub use error::{ReadError, Remedy, TransactError, WatchError};
pub use key::{Entry, Key, Revision};
pub use life::Life;
pub use members::Members;
pub use protocol::{
    Heartbeat, Heartbeats, MemberStatus, MembershipError, REGISTRY_ACTOR, RegistryRole,
};
pub use query::{Consistency, ListRequest, Page, Selection, WatchBatch, WatchEvent, WatchRequest};
pub use registry::{BoxFuture, Registry, RegistryHandle};
pub use remote::RemoteRegistry;
pub use shard::{Epoch, SHARDS, Shard, ShardLease, ShardTable, shard_of};
pub use transaction::{Committed, Compare, Fence, Operation, RequestId, Transaction};
pub use watch::Watch;
