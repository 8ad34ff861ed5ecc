//! The door through which everyone else sees the registry, wherever it runs.

use crate::{
    condition::Condition,
    error::{ReadError, TransactError, WatchError},
    key::{Entry, Key, Revision},
    query::{Consistency, ListRequest, Page, WatchRequest},
    transaction::{Committed, Transaction},
    watch::Watch,
};
use std::{future::Future, pin::Pin, sync::Arc};

/// A future behind a pointer, so that [`Registry`] is object safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A registry that someone holds: in memory, as a raft member, or far away.
pub type RegistryHandle = Arc<dyn Registry>;

/// Reads, writes and watches. Every call ends by itself: with an answer or with an error that says what to do.
pub trait Registry: Send + Sync + 'static {
    /// One object, and the revision at which it was looked for.
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>>;

    /// The objects of a selection, all of one revision.
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>>;

    /// The first objects of a selection, for who goes on with the next ones when it has dealt with these: about
    /// so many bytes of them, one at least, where they lie near, and as many as a list has where they are far.
    /// `remaining` only tells whether there are more.
    fn part(
        &self,
        request: ListRequest,
        most_bytes: usize,
    ) -> BoxFuture<'_, Result<Page, ReadError>> {
        let _ = most_bytes;
        self.list(request)
    }

    /// Applies a transaction: durable on a majority when it is answered.
    fn transact(&self, transaction: Transaction)
    -> BoxFuture<'_, Result<Committed, TransactError>>;

    /// Follows a selection: ordered, without gaps, a revision never split, resumable after any batch.
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>>;

    /// As [`Registry::watch`], for who looks at each object anyway: what does not meet all of these conditions does
    /// not have to be told. A registry that is near does not even wake the watcher for it, one that is far tells of it.
    fn watch_where(
        &self,
        request: WatchRequest,
        conditions: Vec<Condition>,
    ) -> BoxFuture<'_, Result<Watch, WatchError>> {
        drop(conditions);
        self.watch(request)
    }
}
