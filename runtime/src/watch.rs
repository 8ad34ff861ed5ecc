//! Death watch: exactly one word about an actor's end.
//!
//! A watch that is refused, or is one too many, is no death: it ends with a [`WatchError`]. One that stands is on one life
//! of the actor; a successor of the same name does not inherit it. A watch on this node is answered by the actor's cell; on another node by that node, or by our failure detector
//! (`NodeLost`) when nothing has been heard of it for longer than `Timing::lost_after`.

use crate::name::ActorPath;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

/// Why an actor is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// It stopped, or was stopped, in order.
    Stopped,
    /// It failed and its supervisor gave up.
    Failed,
    /// Its node was lost, replaced by a new incarnation, or could not be reached in time. The actor may still run.
    NodeLost,
    /// Nobody of that name was there when the watch arrived, or the one that was watched ended so long ago that its node
    /// does not remember how.
    NoSuchActor,
}

/// Why an actor is not watched. It says nothing of the actor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The actor's node does not let this one watch it.
    #[error("refused: {reason}")]
    Refused {
        /// Why, in the words of the actor's node.
        reason: String,
    },
    /// This node watches as many actors there as it may.
    #[error("the actor's node keeps no more watches for this one: drop some, then watch again")]
    Overloaded,
}

/// The end of a watched actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// Who was watched.
    pub path: ActorPath,
    /// Why it is no more.
    pub reason: Reason,
}

/// A watch on one actor, answered once. Dropping it ends the watch.
#[derive(Debug)]
pub struct DeathWatch {
    path: ActorPath,
    answer: oneshot::Receiver<Result<Reason, WatchError>>,
}

impl DeathWatch {
    pub(crate) fn new(
        path: ActorPath,
        answer: oneshot::Receiver<Result<Reason, WatchError>>,
    ) -> Self {
        Self { path, answer }
    }

    /// Who is watched.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }

    /// Waits for the end of the actor. When our own node stops first, that is `NodeLost`: nothing more can be known.
    ///
    /// An error is the end of the watch, not of the actor.
    pub async fn terminated(self) -> Result<Terminated, WatchError> {
        let reason = self.answer.await.unwrap_or(Ok(Reason::NodeLost))?;
        Ok(Terminated { path: self.path, reason })
    }
}
