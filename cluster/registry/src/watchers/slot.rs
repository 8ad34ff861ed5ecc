//! One watcher, as the index knows it.

use crate::{condition::Interest, key::Revision};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// So many revisions a watcher is told one by one. One that has not come for more looks through all that lies behind
/// them.
const MOST_TOLD: usize = 64;

/// A watcher as the index knows it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) interest: Interest,
    /// Nothing at or before this revision concerns it.
    pub(super) after: Revision,
    pub(super) told: Mutex<Told>,
    pub(super) news: Notify,
}

/// What a watcher has to look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// These revisions concern it, rising.
    pub(crate) at: Vec<Revision>,
    /// From this one on, which is behind the others, it looks through everything.
    pub(crate) from: Option<Revision>,
}

impl Told {
    /// Everything from this revision on.
    pub(super) fn from(revision: Revision) -> Self {
        Self { at: Vec::new(), from: Some(revision) }
    }

    fn is_empty(&self) -> bool {
        self.at.is_empty() && self.from.is_none()
    }
}

impl Slot {
    /// Tells it to look at this revision, whether it knows already or not. Revisions come in their order.
    pub(super) fn tell(&self, revision: Revision) {
        self.add(|told| {
            if told.from.is_some() || told.at.last().is_some_and(|last| *last >= revision) {
                return;
            }
            if told.at.len() < MOST_TOLD {
                told.at.push(revision);
            } else {
                told.from = Some(revision);
            }
        });
    }

    /// Tells it to look through everything from this revision on.
    pub(super) fn tell_from(&self, revision: Revision) {
        self.add(|told| {
            told.from.get_or_insert(revision);
        });
    }

    fn add(&self, add: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock();
        let had_none = told.is_empty();
        add(&mut told);
        drop(told);
        if had_none {
            self.news.notify_one();
        }
    }

    /// What it was told since it was asked last.
    pub(super) fn take(&self) -> Option<Told> {
        let mut told = self.told.lock();
        (!told.is_empty()).then(|| std::mem::take(&mut *told))
    }
}
