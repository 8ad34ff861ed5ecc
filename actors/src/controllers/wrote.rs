//! What a look has written, so that the next one waits until its mirrors have seen it.
//!
//! A mirror's revision rises with changes of its own resource (and with an occasional bookmark), so
//! what was written is remembered by resource.

use super::mirror::{Behind, Mirror, Mirrored};
use super::view::CATCH_UP;
use impresario_registry_api::Revision;
use std::sync::atomic::{AtomicU64, Ordering};

/// The newest revision that one look wrote to one resource.
#[derive(Debug)]
pub(super) struct Wrote(AtomicU64);

impl Default for Wrote {
    /// Nothing yet: a mirror is waited for until it is filled.
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Wrote {
    /// Remembers a write.
    pub(super) fn at(&self, revision: Revision) {
        self.0.fetch_max(revision, Ordering::Relaxed);
    }

    /// Waits until `mirror`, of the same resource, has seen everything that was written.
    pub(super) async fn seen_by<K: Mirrored>(&self, mirror: &Mirror<K>) -> Result<(), Behind> {
        mirror.reached(self.0.load(Ordering::Relaxed), CATCH_UP).await
    }
}
