//! What the keeper is told of, and how changes of the mirrors become that.

use crate::controllers::mirror::{Change, Mirror, Mirrored, Seen};
use tokio::sync::mpsc;

/// An object that an actor is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Subject {
    pub(super) fn of<K: Mirrored>(seen: &Seen<K>) -> Self {
        Self {
            namespace: seen.entry.key.namespace.clone(),
            name: seen.entry.key.name.clone(),
            uid: seen.object.metadata().uid.clone().unwrap_or_default(),
        }
    }
}

/// What becomes of the objects of a kind.
pub(super) enum Hint {
    /// An object of the kind of this number was put or deleted.
    Object(usize, Subject, bool),
    /// Look at all objects of the kind of this number: changes of them were missed.
    Kind(usize),
}

/// Turns each change of a mirror into a hint. Changes that were missed are one to look at everything.
pub(super) async fn forward<K: Mirrored>(
    mirror: Mirror<K>,
    hints: mpsc::Sender<Hint>,
    hint: impl Fn(Change<K>) -> Hint,
) {
    let mut changes = mirror.changes();
    while let Some(change) = changes.next().await {
        if hints.send(hint(change)).await.is_err() {
            return;
        }
    }
}
