//! The orders by which shards move, as messages to the members that carry them out.

use super::state::Action;
use impresario_client::protocol::training::{
    CheckpointError, Handover, HandoverError, Keep, ParameterServerRole, Provide, ProvideError,
    RestoreShards, TrainerRole,
};
use impresario_runtime::{ActorNode, AskError};
use std::time::Duration;

/// How long a parameter server or a trainer may take for an order.
const ORDER: Duration = Duration::from_secs(20);

/// And a parameter server that reads shards from its disk.
const FROM_DISK: Duration = Duration::from_mins(1);

/// Why a move was not made.
pub(super) enum MoveError {
    /// The trainer, or the checkpoint, has nothing to give.
    NoCopy,
    /// The server does not have the shard.
    NotThere,
    /// Anything that the next try may mend.
    Failed(String),
}

/// Does a move; gives the versions of shards that were provided.
pub(super) async fn carry_out(
    node: &ActorNode,
    lease: u64,
    action: &Action,
) -> Result<Vec<(u32, u64)>, MoveError> {
    fn failed(error: impl std::fmt::Display) -> MoveError {
        MoveError::Failed(error.to_string())
    }
    match action.clone() {
        Action::Provide { from, place, shards, epoch, begins, .. } => {
            let order = Provide { lease, shards, to: place, epoch, begins };
            let answer = node.actor::<TrainerRole>(from.path).ask(order, ORDER).await;
            match answer.map_err(failed)? {
                Err(ProvideError::NoCopy) => Err(MoveError::NoCopy),
                answer => answer.map_err(failed),
            }
        }
        Action::Restore { place, shards, epoch, path, sha256, optimizer, .. } => {
            let order = RestoreShards { lease, epoch, path, sha256, shards, optimizer };
            let answer = node.actor::<ParameterServerRole>(place.path).ask(order, FROM_DISK).await;
            match answer.map_err(failed)? {
                Err(error @ CheckpointError::Unusable { .. }) => {
                    tracing::warn!(%error, "a checkpoint that was looked at cannot be used");
                    Err(MoveError::NoCopy)
                }
                answer => answer.map_err(failed),
            }
        }
        Action::Handover { from, place, shard, epoch, .. } => {
            let order = Handover { lease, shard, to: place, epoch };
            let answer = node.actor::<ParameterServerRole>(from.path).ask(order, ORDER).await;
            handed_over(answer)
        }
        Action::Keep { from, shard, epoch } => {
            let order = Keep { lease, shard, epoch };
            let answer = node.actor::<ParameterServerRole>(from.path).ask(order, ORDER).await;
            handed_over(answer)
        }
        Action::CreatePod(_) | Action::DeletePod { .. } | Action::Leave(_) => Ok(Vec::new()),
    }
}

fn handed_over(
    answer: Result<Result<(), HandoverError>, AskError>,
) -> Result<Vec<(u32, u64)>, MoveError> {
    match answer {
        Ok(Ok(())) => Ok(Vec::new()),
        Ok(Err(HandoverError::NotHere { .. })) => Err(MoveError::NotThere),
        Ok(Err(error)) => Err(MoveError::Failed(error.to_string())),
        Err(error) => Err(MoveError::Failed(error.to_string())),
    }
}
