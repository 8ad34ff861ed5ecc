//! What a parameter server does for checkpoints. It goes on serving meanwhile: the disk is waited for beside, with one
//! shard in hand.

use super::ParameterServer;
use crate::training::checkpoint;
use actix::prelude::*;
use impresario_client::protocol::training::{
    CheckpointError, CommitCheckpoint, Committed, LookForCheckpoint, Looked, RestoreShards,
    SaveShards, SavedShard,
};
use impresario_runtime::tasks;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The disk, for one order. Whoever comes meanwhile asks again: nothing queues here.
fn take(disk: &Arc<Mutex<()>>) -> Result<OwnedMutexGuard<()>, CheckpointError> {
    disk.clone().try_lock_owned().map_err(|_| CheckpointError::Busy)
}

/// Does what waits for the disk on a thread of its own. The disk is free again when it has ended, whoever still
/// waits for it.
async fn blocking<T: Send + 'static>(
    guard: OwnedMutexGuard<()>,
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, CheckpointError> {
    let task = tasks::spawn_blocking(move || {
        let outcome = work();
        drop(guard);
        outcome
    });
    task.await.unwrap_or_else(|error| {
        let (path, cause) = ("a checkpoint".to_owned(), error.to_string());
        Err(CheckpointError::Folder { path, cause })
    })
}

impl Handler<LookForCheckpoint> for ParameterServer {
    type Result = ResponseFuture<Result<Looked, CheckpointError>>;

    fn handle(&mut self, order: LookForCheckpoint, _: &mut Self::Context) -> Self::Result {
        let (obeys, disk) = (self.link.obeys(order.lease), self.disk.clone());
        Box::pin(async move {
            obeys?;
            blocking(take(&disk)?, move || checkpoint::look(&order)).await
        })
    }
}

impl Handler<SaveShards> for ParameterServer {
    type Result = ResponseFuture<Result<Vec<SavedShard>, CheckpointError>>;

    fn handle(&mut self, order: SaveShards, _: &mut Self::Context) -> Self::Result {
        let obeys = self.link.obeys(order.lease);
        let (shards, disk) = (self.shards.clone(), self.disk.clone());
        Box::pin(async move {
            obeys?;
            let save = move || {
                let folder = Path::new(&order.folder);
                let mut saved = Vec::new();
                for shard in order.shards {
                    // The lock is free again before the disk is waited for.
                    let copy = shards.lock().copy(shard);
                    if let Some(state) = copy {
                        saved.push(checkpoint::write_shard(folder, &state)?);
                    }
                }
                Ok(saved)
            };
            blocking(take(&disk)?, save).await
        })
    }
}

impl Handler<CommitCheckpoint> for ParameterServer {
    type Result = ResponseFuture<Result<Committed, CheckpointError>>;

    fn handle(&mut self, order: CommitCheckpoint, _: &mut Self::Context) -> Self::Result {
        let (obeys, disk) = (self.link.obeys(order.lease), self.disk.clone());
        Box::pin(async move {
            obeys?;
            blocking(take(&disk)?, move || checkpoint::commit(&order)).await
        })
    }
}

impl Handler<RestoreShards> for ParameterServer {
    type Result = ResponseFuture<Result<Vec<(u32, u64)>, CheckpointError>>;

    fn handle(&mut self, order: RestoreShards, _: &mut Self::Context) -> Self::Result {
        let obeys = self.link.obeys(order.lease);
        let (shards, disk) = (self.shards.clone(), self.disk.clone());
        Box::pin(async move {
            obeys?;
            let restore = move || {
                let folder = Path::new(&order.path);
                let manifest = checkpoint::open(folder, &order.sha256)?;
                let mut restored = Vec::new();
                for range in order.shards {
                    let unusable = |cause: String| CheckpointError::Unusable {
                        path: order.path.clone(),
                        cause,
                    };
                    let shard = manifest.shards.get(range.shard as usize);
                    let shard = shard.filter(|shard| shard.range() == range).ok_or_else(|| {
                        unusable(format!("it has no shard {} like the job's", range.shard))
                    })?;
                    let state = checkpoint::read_shard(folder, shard, order.optimizer)?;
                    let accepted = shards.lock().accept(order.epoch, state);
                    accepted.map_err(|error| unusable(error.to_string()))?;
                    restored.push((range.shard, shard.step));
                }
                Ok(restored)
            };
            blocking(take(&disk)?, restore).await
        })
    }
}
