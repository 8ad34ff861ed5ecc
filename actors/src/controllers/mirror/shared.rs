//! What a mirror is in memory.

use super::super::partial::Partial;
use super::seen::Change;
use super::state::State;
use impresario_registry_api::{RegistryHandle, Revision, Selection};
use parking_lot::RwLock;
use std::time::Instant;
use tokio::sync::{Mutex, broadcast, watch};

/// Changes that a reader may be behind before it must look at everything.
/// Their places are taken up at once, for each of the mirrors.
pub(super) const CHANGES: usize = 512;
/// The same of objects that the type cannot read.
pub(super) const MISREAD: usize = 8;

/// What the handles of a mirror and its follower share.
pub(super) struct Shared<K> {
    pub(super) select: Selection,
    pub(super) registry: RegistryHandle,
    pub(super) state: RwLock<State<K>>,
    /// The newest revision that the registry itself has shown, and when it was asked.
    pub(super) newest: Mutex<Option<(Instant, Revision)>>,
    pub(super) revision: watch::Sender<Revision>,
    pub(super) changes: broadcast::Sender<Change<K>>,
    /// Changes of those that the type cannot read.
    pub(super) misread: broadcast::Sender<Change<Partial>>,
}
