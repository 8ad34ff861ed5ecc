//! What a reader of a mirror is told.

use super::seen::Change;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// What changes in a mirror, from when it was asked for. Who falls behind is told to look at everything.
#[derive(Debug)]
pub struct Changes<K>(pub(super) Receiver<Change<K>>);

impl<K> Changes<K> {
    /// Waits for the next change; `None` where the mirror has ended. Who gives up waiting has missed none.
    pub async fn next(&mut self) -> Option<Change<K>> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(RecvError::Lagged(_)) => Some(Change::Everything),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next change, if it has come.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        match self.0.try_recv() {
            Ok(change) => Some(change),
            Err(TryRecvError::Lagged(_)) => Some(Change::Everything),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}
