//! Who is told that a node lives.

use impresario_registry_api::{Heartbeat, RemoteRegistry};
use std::{future::Future, pin::Pin};

/// A beat under way: whether it was taken.
pub type Pulse<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Who is told that a node lives.
pub trait Heart: Send + Sync + 'static {
    /// Tells it once.
    fn beat(&self, beat: Heartbeat) -> Pulse<'_>;
}

impl Heart for RemoteRegistry {
    fn beat(&self, beat: Heartbeat) -> Pulse<'_> {
        Box::pin(async move { self.heartbeat(beat).await.is_ok() })
    }
}
