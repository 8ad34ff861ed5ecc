//! What a mirror shows and tells of.

use impresario_registry_api::Entry;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// What a mirror can hold: an object with metadata.
pub trait Mirrored: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static {}

impl<K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static> Mirrored for K {}

/// An object and the entry that it was read from.
#[derive(Debug)]
pub struct Seen<K: ?Sized> {
    /// The typed view.
    pub object: Arc<K>,
    /// The stored form, with the fields that the view does not know.
    pub entry: Entry,
}

impl<K: ?Sized> Clone for Seen<K> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), entry: self.entry.clone() }
    }
}

/// Something changed.
#[derive(Debug)]
pub enum Change<K: ?Sized> {
    /// The object was created or changed.
    Put {
        /// What it is now.
        now: Seen<K>,
        /// What it was.
        before: Option<Seen<K>>,
    },
    /// The object is gone.
    Deleted {
        /// What it was.
        before: Seen<K>,
    },
    /// Look at everything: the mirror was filled anew, or a reader fell behind.
    Everything,
}

impl<K: ?Sized> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Put { now, before } => Self::Put { now: now.clone(), before: before.clone() },
            Self::Deleted { before } => Self::Deleted { before: before.clone() },
            Self::Everything => Self::Everything,
        }
    }
}
