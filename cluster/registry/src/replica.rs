//! A store that is shared: one writer, many readers, and watchers who are woken when the revision rises.

use crate::{key::Revision, shard::ShardTable, store::Store};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::watch;

/// A store behind a lock, with the signals that say when to look again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replica {
    store: Arc<RwLock<Store>>,
    revision: Arc<watch::Sender<Revision>>,
    shards: Arc<watch::Sender<ShardTable>>,
}

impl Replica {
    /// Shares a store.
    pub fn new(store: Store) -> Self {
        let revision = watch::Sender::new(store.revision());
        let shards = watch::Sender::new(store.shards().clone());
        Self {
            store: Arc::new(RwLock::new(store)),
            revision: Arc::new(revision),
            shards: Arc::new(shards),
        }
    }

    /// Reads the store.
    pub fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.store.read())
    }

    /// Changes the store and wakes whoever waits for it.
    pub fn write<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let (answer, revision, shards) = {
            let mut store = self.store.write();
            let answer = change(&mut store);
            let moved = (store.shards() != &*self.shards.borrow()).then(|| store.shards().clone());
            (answer, store.revision(), moved)
        };
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        if let Some(shards) = shards {
            self.shards.send_replace(shards);
        }
        answer
    }

    /// The revision, as it rises. Its sender lives as long as the replica or a watch of it.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// The shard table, as it changes.
    pub fn shards(&self) -> watch::Receiver<ShardTable> {
        self.shards.subscribe()
    }
}
