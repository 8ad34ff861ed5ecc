//! A registry in one process, without raft and without a disk: for tests and simulations of everything above it.

use crate::{
    BoxFuture, Registry, Watch,
    condition::Condition,
    error::{ReadError, TransactError, WatchError},
    key::{Entry, Key, Revision},
    query::{Consistency, ListRequest, Page, WatchRequest},
    replica::Replica,
    shard::{ShardTable, assign},
    store::{Paging, RingLimits, Store},
    transaction::{Committed, Transaction},
};
use std::sync::Arc;
use tokio::sync::watch;

/// The state machine of the registry behind the trait that everyone uses. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryRegistry {
    replica: Replica,
    stop: Arc<watch::Sender<bool>>,
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::with_limits(RingLimits::default())
    }

    /// An empty registry that keeps so much history.
    pub fn with_limits(limits: RingLimits) -> Self {
        Self {
            replica: Replica::new(Store::new(limits)),
            stop: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Deals the shards out to these members, as a leader would when they are the live ones.
    pub fn assign_shards(&self, live: &[String]) {
        self.replica.write(|store| {
            let moves = assign(store.shards(), live);
            store.move_shards(&moves)
        });
    }

    /// The shard table, as it changes.
    pub fn shards(&self) -> watch::Receiver<ShardTable> {
        self.replica.shards()
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.replica.read(Store::revision)
    }
}

impl Registry for MemoryRegistry {
    fn get(
        &self,
        key: Key,
        _: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        Box::pin(async move { Ok(self.replica.read(|store| (store.get(&key), store.revision()))) })
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(async move { self.replica.read(|store| store.list(&request)) })
    }

    fn part(
        &self,
        request: ListRequest,
        most_bytes: usize,
    ) -> BoxFuture<'_, Result<Page, ReadError>> {
        Box::pin(async move {
            let part = self.replica.read(|store| store.part(&request, usize::MAX, usize::MAX))?;
            let mut paging = Paging::new(&request, most_bytes);
            paging.take(part.records);
            Ok(paging.page(part.revision))
        })
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Box::pin(async move { self.replica.write(|store| store.transact(&transaction)) })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.watch_where(request, Vec::new())
    }

    fn watch_where(
        &self,
        request: WatchRequest,
        conditions: Vec<Condition>,
    ) -> BoxFuture<'_, Result<Watch, WatchError>> {
        let stop = self.stop.subscribe();
        Box::pin(async move { crate::watch::follow(&self.replica, request, conditions, stop) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compare, Fence, Selection, Shard, WatchBatch, WatchEvent};
    use futures_util::StreamExt;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(20);

    fn pod(name: &str) -> Key {
        Key::new("pods", "default", name)
    }

    async fn next(watch: &mut Watch) -> Result<WatchBatch, WatchError> {
        let item = tokio::time::timeout(LIMIT, watch.next()).await;
        item.expect("the watch says something in time").expect("the watch goes on")
    }

    fn from(after: Revision) -> WatchRequest {
        WatchRequest { select: Selection::all("pods"), after, bookmarks: false }
    }

    #[tokio::test]
    async fn a_watch_tells_the_past_and_then_what_happens() {
        let registry = MemoryRegistry::new();
        registry.transact(Transaction::create(pod("a"), "{}")).await.unwrap();
        let mut watch = registry.watch(from(0)).await.unwrap();
        assert_eq!(next(&mut watch).await.unwrap().revision, 1);
        registry.transact(Transaction::new().put(Key::new("nodes", "", "n"), "{}")).await.unwrap();
        registry.transact(Transaction::new().put(pod("b"), "{}").delete(pod("a"))).await.unwrap();
        let batch = next(&mut watch).await.unwrap();
        assert_eq!((batch.revision, batch.events.len()), (3, 2));
        assert!(
            matches!(&batch.events[1], WatchEvent::Delete { previous, revision: 3 } if previous.key == pod("a"))
        );
    }

    #[tokio::test]
    async fn a_watch_from_the_future_waits_in_silence() {
        let registry = MemoryRegistry::new();
        let mut watch = registry.watch(from(2)).await.unwrap();
        for name in ["a", "b", "c"] {
            registry.transact(Transaction::create(pod(name), "{}")).await.unwrap();
        }
        assert_eq!(next(&mut watch).await.unwrap().revision, 3);
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_is_told_gone_and_the_writer_goes_on() {
        let registry = MemoryRegistry::with_limits(RingLimits { revisions: 10, bytes: 1 << 20 });
        let mut watch = registry.watch(from(0)).await.unwrap();
        for name in 0..100 {
            registry.transact(Transaction::create(pod(&name.to_string()), "{}")).await.unwrap();
        }
        assert_eq!(next(&mut watch).await, Err(WatchError::Gone { oldest: 90 }));
        assert!(watch.next().await.is_none(), "a watch ends after its error");
        assert_eq!(registry.watch(from(89)).await.unwrap_err(), WatchError::Gone { oldest: 90 });
        let mut resumed = registry.watch(from(90)).await.unwrap();
        assert_eq!(next(&mut resumed).await.unwrap().revision, 91);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bookmark_comes_after_everything_that_it_covers() {
        let registry = MemoryRegistry::new();
        let mut watch = registry.watch(WatchRequest { bookmarks: true, ..from(0) }).await.unwrap();
        registry.transact(Transaction::create(Key::new("nodes", "", "n"), "{}")).await.unwrap();
        let bookmark = watch.next().await.unwrap().unwrap();
        assert_eq!(bookmark, WatchBatch { revision: 1, events: Vec::new() });
    }

    #[tokio::test]
    async fn a_filtered_watch_deletes_what_ceases_to_match_and_puts_what_begins_to() {
        let registry = MemoryRegistry::new();
        let select = Selection::all("pods").with_field("/spec/nodeName", "m1");
        let mut watch =
            registry.watch(WatchRequest { select, after: 0, bookmarks: false }).await.unwrap();
        for value in
            ["{}", r#"{"spec":{"nodeName":"m1"}}"#, r#"{"spec":{"nodeName":"m1"},"x":1}"#, "{}"]
        {
            registry.transact(Transaction::new().put(pod("a"), value)).await.unwrap();
        }
        let batch = next(&mut watch).await.unwrap();
        assert!(matches!(&batch.events[..], [WatchEvent::Put { previous: None, .. }]), "{batch:?}");
        let batch = next(&mut watch).await.unwrap();
        assert!(
            matches!(&batch.events[..], [WatchEvent::Put { previous: Some(_), .. }]),
            "{batch:?}"
        );
        let batch = next(&mut watch).await.unwrap();
        assert!(matches!(&batch.events[..], [WatchEvent::Delete { revision: 4, .. }]), "{batch:?}");
    }

    #[tokio::test]
    async fn an_old_epoch_writes_nothing_once_the_shard_has_moved() {
        let registry = MemoryRegistry::new();
        registry.assign_shards(&["m1".to_owned()]);
        let held = registry.shards().borrow().held_by("m1").next().unwrap();
        let fence = Fence { shard: held.0, epoch: held.1 };
        registry.transact(Transaction::create(pod("a"), "{}").fenced(fence)).await.unwrap();
        registry.assign_shards(&["m2".to_owned()]);
        let refused =
            registry.transact(Transaction::create(pod("b"), "{}").fenced(fence)).await.unwrap_err();
        assert!(matches!(refused, TransactError::Fenced { shard: Shard(0), .. }), "{refused}");
        let (missing, _) = registry.get(pod("b"), Consistency::Linearizable).await.unwrap();
        assert_eq!(missing, None);
        let exists = Compare::Exists { key: pod("b") };
        let refused =
            registry.transact(Transaction::new().when(exists).delete(pod("b"))).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "pods \"default/b\" does not exist: read it again and redo the change"
        );
    }
}
