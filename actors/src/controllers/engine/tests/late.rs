//! A registry whose leader does something after its answer was given up.

use super::{Shared, World, owners};
use futures_util::future::BoxFuture;
use impresario_objects::Objects;
use impresario_registry::{MemoryRegistry, Registry};
use impresario_registry_api::{
    Committed, Consistency, Entry, Key, ListRequest, Page, ReadError, Revision, TransactError,
    Transaction, Watch, WatchError, WatchRequest,
};
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Gives no answer to the first write of a secret, and does not do it yet.
struct Late {
    registry: MemoryRegistry,
    kept: Arc<Mutex<Option<Transaction>>>,
}

impl Registry for Late {
    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        self.registry.get(key, consistency)
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
        self.registry.list(request)
    }

    fn transact(
        &self,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, TransactError>> {
        let (key, mut kept) = (transaction.subject(), self.kept.lock());
        if key.resource != "secrets" || kept.is_some() {
            return self.registry.transact(transaction);
        }
        *kept = Some(transaction);
        Box::pin(async { Err(TransactError::Unknown { key, waited: Duration::from_secs(8) }) })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.registry.watch(request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_nobody_has_answered_is_waited_for_before_another_is_made() {
    let world = World::new().await;
    let (registry, kept) = (world.registry.clone(), Arc::<Mutex<_>>::default());
    let objects = Objects::new(Arc::new(Late { registry: registry.clone(), kept: kept.clone() }));
    let Shared { clock, authority, .. } = world.shared;
    let shared = Shared { clock, authority, ..Shared::start(objects, "test") };
    let world = World { registry, shared };
    world.create("configmaps", "a", json!({}), json!({})).await;
    let worker = world.worker("a");
    worker.look_once().await.unwrap_err();
    let comes = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let late = kept.lock().clone().expect("a secret was to be made");
        world.registry.transact(late).await.unwrap();
    };
    let (looked, ()) = tokio::join!(worker.look_once(), comes);
    looked.unwrap();
    assert_eq!(owners(&world.all("secrets").await), ["uid-a"]);
}
