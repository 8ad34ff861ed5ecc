//! The registry: the one truth of an Impresario cluster.
//!
//! An ordered map from [`Key`] to JSON bytes with one global [`Revision`], changed by atomic [`Transaction`]s
//! that compare, fence and write, and followed through watches. [`MemoryRegistry`] keeps it in one process;
//! a control member keeps it in a raft group. Both run the same state machine, [`store::Store`],
//! and both are used through the object-safe trait [`Registry`].
//!
//! The crate knows nothing of Kubernetes beyond the shape of a key; objects are bytes to it, read only
//! where a [`Selection`] or a [`Condition`] asks for what is inside.

pub mod clock;
pub mod disk;
pub mod member;
pub mod memory;
pub mod raft;
pub mod replica;
pub mod store;
pub mod watch;
mod watchers;

pub use impresario_registry_api::*;
pub use member::{Beginning, Member, MemberConfig};
pub use memory::MemoryRegistry;
pub use store::Store;
