//! Death watch: exactly one word about an actor's end.
//!
//! A watch on this node is answered by the actor's cell; on another node by that node, or by our failure detector
//! (`NodeLost`) when nothing has been heard of it for longer than `Timing::lost_after`.

use crate::name::ActorPath;
use serde::{Deserialize, Serialize};
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
    /// Nobody of that name was there when the watch arrived.
    NoSuchActor,
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
    answer: oneshot::Receiver<Reason>,
}

impl DeathWatch {
    pub(crate) fn new(path: ActorPath, answer: oneshot::Receiver<Reason>) -> Self {
        Self { path, answer }
    }

    /// Who is watched.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }

    /// Waits for the end of the actor. When our own node stops first, that is `NodeLost`: nothing more can be known.
    pub async fn terminated(self) -> Terminated {
        let reason = self.answer.await.unwrap_or(Reason::NodeLost);
        Terminated { path: self.path, reason }
    }
}
