//! One watcher, as the index knows it.

use crate::{condition::Interest, key::Revision};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// A watcher as the index knows it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) interest: Interest,
    /// Nothing at or before this revision concerns it.
    pub(super) after: Revision,
    /// The first revision that it has to look at, 0 for none.
    pub(super) pending: AtomicU64,
    pub(super) news: Notify,
}

impl Slot {
    /// Tells it to look at this revision and what comes behind it, whether it knows already or not.
    pub(super) fn tell(&self, revision: Revision) {
        let first = self.pending.compare_exchange(0, revision, Ordering::AcqRel, Ordering::Relaxed);
        if first.is_ok() {
            self.news.notify_one();
        }
    }
}
