//! The shards that this member holds, and since when.

use impresario_registry_api::{Epoch, Fence, Shard, ShardTable, shard_of};
use impresario_runtime::{NodeName, clock};
use std::collections::HashMap;
use std::time::Instant;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

/// The table of shards from the view of one member.
pub(super) struct Held {
    member: NodeName,
    table: watch::Receiver<ShardTable>,
    /// When each shard was first seen to be held, in the epoch in which it is.
    since: HashMap<Shard, (Epoch, Instant)>,
}

impl Held {
    pub(super) fn new(member: NodeName, table: watch::Receiver<ShardTable>) -> Self {
        Self { member, table, since: HashMap::new() }
    }

    /// Waits until the table is another. An error when there will be none any more.
    pub(super) async fn changed(&mut self) -> Result<(), RecvError> {
        self.table.changed().await
    }

    /// The right to write for the object of this uid, if the member holds its shard, and since when it is
    /// known to: who held the shard before wrote nothing after that.
    pub(super) fn right(&mut self, uid: &str) -> Option<(Fence, Instant)> {
        let shard = shard_of(uid);
        let table = self.table.borrow();
        let lease = table.lease(shard)?;
        if lease.owner.as_deref() != Some(self.member.as_str()) {
            return None;
        }
        let seen = self.since.entry(shard).or_insert((lease.epoch, clock::now()));
        if seen.0 != lease.epoch {
            *seen = (lease.epoch, clock::now());
        }
        Some((Fence { shard, epoch: lease.epoch }, seen.1))
    }
}
