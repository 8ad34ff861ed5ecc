//! A store that is shared: one writer, many readers, and watchers who are woken by what concerns them.

use crate::{
    condition::Interest,
    key::Revision,
    shard::ShardTable,
    store::Store,
    watchers::{Subscription, Watchers},
};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::watch;

/// A store behind a lock, with those who are told when to look again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replica {
    store: Arc<RwLock<Store>>,
    watchers: Arc<Watchers>,
    shards: Arc<watch::Sender<ShardTable>>,
}

impl Replica {
    /// Shares a store.
    pub fn new(store: Store) -> Self {
        let watchers = Watchers::new(store.revision());
        let shards = watch::Sender::new(store.shards().clone());
        Self {
            store: Arc::new(RwLock::new(store)),
            watchers: Arc::new(watchers),
            shards: Arc::new(shards),
        }
    }

    /// Reads the store.
    pub fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.store.read())
    }

    /// Changes the store and wakes whoever is concerned.
    pub fn write<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let (answer, is_new, shards) = {
            let mut store = self.store.write();
            let before = store.revision();
            let answer = change(&mut store);
            let moved = (store.shards() != &*self.shards.borrow()).then(|| store.shards().clone());
            (answer, store.revision() != before, moved)
        };
        if is_new {
            self.watchers.dispatch(&self.store);
        }
        if let Some(shards) = shards {
            self.shards.send_replace(shards);
        }
        answer
    }

    /// Takes in a watcher of what comes after this revision.
    pub(crate) fn subscribe(&self, interest: Interest, after: Revision) -> Subscription {
        self.watchers.subscribe(interest, after)
    }

    /// The shard table, as it changes.
    pub fn shards(&self) -> watch::Receiver<ShardTable> {
        self.shards.subscribe()
    }
}
