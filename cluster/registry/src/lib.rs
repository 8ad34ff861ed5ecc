//! The registry: the one truth of an Impresario cluster.
//!
//! An ordered map from [`Key`] to JSON bytes with one global [`Revision`], changed by atomic [`Transaction`]s
//! that compare, fence and write, and followed through watches. [`MemoryRegistry`] keeps it in one process;
//! a control member keeps it in a raft group. Both run the same state machine, [`store::Store`],
//! and both are used through the object-safe trait [`Registry`].
//!
//! The crate knows nothing of Kubernetes beyond the shape of a key; objects are bytes to it, read only
//! where a [`Selection`] asks for a field.

pub mod clock;
pub mod disk;
pub mod error;
pub mod field;
pub mod key;
pub mod member;
pub mod memory;
pub mod protocol;
pub mod query;
pub mod raft;
pub mod remote;
pub mod replica;
pub mod shard;
pub mod store;
pub mod transaction;
pub mod watch;

mod registry;

pub use error::{ReadError, Remedy, TransactError, WatchError};
pub use key::{Entry, Key, Revision};
pub use member::{Beginning, Member, MemberConfig};
pub use memory::MemoryRegistry;
pub use protocol::{
    Heartbeat, Heartbeats, MemberStatus, MembershipError, REGISTRY_ACTOR, RegistryRole,
};
pub use query::{Consistency, ListRequest, Page, Selection, WatchBatch, WatchEvent, WatchRequest};
pub use registry::{BoxFuture, Registry, RegistryHandle};
pub use remote::RemoteRegistry;
pub use shard::{Epoch, SHARDS, Shard, ShardLease, ShardTable, shard_of};
pub use store::Store;
pub use transaction::{Committed, Compare, Fence, Operation, RequestId, Transaction};
pub use watch::Watch;
