//! What the keeper is told of, and how changes of the mirrors become that.

use crate::controllers::mirror::{Change, Mirror, Mirrored, Seen};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
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

/// Something that may concern an actor.
pub(super) enum Hint {
    /// An object of the kind of this number was put or deleted.
    Object(usize, Subject, bool),
    /// A pod was put or deleted: what it was, what it is.
    Pod(Option<Arc<Pod>>, Option<Arc<Pod>>),
    /// The endpoints of the service of this namespace and name were put or deleted.
    Endpoints(String, String),
    /// Nodes may open other ports than before, of which each service says which it cannot have, or changes of
    /// endpoints were missed.
    Services,
    /// A node serves the API elsewhere than before, or can be reached, or cannot, any more.
    Api,
    /// What this namespace, or any, is furnished with was put or deleted.
    Furniture(Option<String>),
    /// Look at all objects of the kind of this number: changes of them were missed.
    Kind(usize),
    /// Look at everything: changes of pods were missed, and all kinds have pods.
    Everything,
    /// The graph of owners changed.
    Garbage,
}

/// Turns each change of a mirror into a hint. Changes that were missed are one to look at everything.
pub(super) async fn forward<K: Mirrored>(
    mirror: Mirror<K>,
    hints: mpsc::Sender<Hint>,
    hint: impl Fn(Change<K>) -> Hint,
) {
    forward_some(mirror, hints, |change| Some(hint(change))).await;
}

/// The same, of changes that may concern nobody.
pub(super) async fn forward_some<K: Mirrored>(
    mirror: Mirror<K>,
    hints: mpsc::Sender<Hint>,
    hint: impl Fn(Change<K>) -> Option<Hint>,
) {
    let mut changes = mirror.changes();
    loop {
        let next = match changes.recv().await {
            Ok(change) => hint(change),
            Err(RecvError::Lagged(_)) => hint(Change::Everything),
            Err(RecvError::Closed) => return,
        };
        let Some(next) = next else { continue };
        if hints.send(next).await.is_err() {
            return;
        }
    }
}
