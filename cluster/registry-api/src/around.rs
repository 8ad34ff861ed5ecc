//! A registry around another one, for tests in which something happens on the way: it says what is different, and
//! everything else is the inner one's.

use crate::{
    error::{ReadError, TransactError, WatchError},
    key::{Entry, Key, Revision},
    query::{Consistency, ListRequest, Page, WatchRequest},
    registry::{BoxFuture, Registry},
    transaction::{Committed, Transaction},
    watch::Watch,
};

/// What is a [`Registry`] by another one. Each call goes to [`Around::inner`] unless it is written anew.
pub trait Around: Send + Sync + 'static {
    /// The registry that answers.
    fn inner(&self) -> &dyn Registry;

    /// As [`Registry::get`].
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        self.inner().get(key, consistency)
    }

    /// As [`Registry::list`]; lists in parts are put together by it as well.
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        self.inner().list(request)
    }

    /// As [`Registry::transact`].
    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        self.inner().transact(transaction)
    }

    /// As [`Registry::watch`].
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.inner().watch(request)
    }
}

impl<A: Around> Registry for A {
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        Around::get(self, key, consistency)
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        Around::list(self, request)
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        Around::transact(self, transaction)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        Around::watch(self, request)
    }
}
