//! What every cluster has.

use super::control::LookError;
use super::node_lifecycle::{Heard, Silence};
use super::*;
use crate::testing::{Machine, eventually};
use futures_util::future::BoxFuture;
use impresario_objects::Objects;
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{
    Consistency, Epoch, Fence, Key, RegistryHandle, Transaction, shard_of,
};
use serde_json::json;

/// Nobody was heard.
struct Nobody;

impl Silence for Nobody {
    fn heard(&self) -> BoxFuture<'_, Result<Heard, LookError>> {
        Box::pin(std::future::pending())
    }
}

#[actix::test]
async fn events_that_are_over_are_looked_for() {
    let registry = MemoryRegistry::default();
    let machine = Machine::start(1000).await;
    registry.assign_shards(&[machine.node.name().to_string()]);
    let handle: RegistryHandle = Arc::new(registry.clone());
    let view = view::View::start(Objects::new(handle), "test");
    let key = Key::new("events", "ns", "over");
    let event = json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}).to_string();
    registry.transact(Transaction::create(key.clone(), event)).await.unwrap();

    let all = kinds(&view, Arc::new(Nobody), Arc::new(Vec::new), "pem");
    let start = all.iter().find_map(|kind| match kind {
        Kind::One { name: EVENT_EXPIRY, start, .. } => Some(start.clone()),
        _ => None,
    });
    let activation = Activation {
        actor: EVENT_EXPIRY.into(),
        namespace: String::new(),
        name: EVENT_EXPIRY.into(),
        uid: EVENT_EXPIRY.into(),
        fence: Fence { shard: shard_of(EVENT_EXPIRY), epoch: Epoch(1) },
        since: std::time::Instant::now(),
    };
    start.expect("every cluster has one")(&machine.node, &activation).unwrap();
    eventually("it is deleted", async || {
        let (found, _) = registry.get(key.clone(), Consistency::Local).await.unwrap();
        found.map_or(Ok(()), Err)
    })
    .await;
}
