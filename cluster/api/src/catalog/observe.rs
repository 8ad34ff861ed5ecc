//! Who is told of the changes of a catalog.

use super::change::Change;
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::sync::{Arc, Weak};

type Tell = dyn Fn(&Change, u64) + Send + Sync;

/// Is told of changes for as long as it is kept.
pub struct Observer(#[expect(dead_code, reason = "it is kept, not read")] Arc<Tell>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// Who is to be told.
#[derive(Default)]
pub(super) struct Observers {
    /// Held while a change is made and told: one comes after the other.
    telling: Mutex<()>,
    told: Mutex<Vec<Weak<Tell>>>,
}

/// The right to make a change, and to tell of it.
pub(super) struct Telling<'a> {
    observers: &'a Observers,
    _alone: MutexGuard<'a, ()>,
}

impl Observers {
    pub(super) fn add(&self, tell: Arc<Tell>) -> Observer {
        let mut told = self.told.lock();
        told.retain(|one| one.strong_count() > 0);
        told.push(Arc::downgrade(&tell));
        Observer(tell)
    }

    pub(super) fn lock(&self) -> Telling<'_> {
        Telling { observers: self, _alone: self.telling.lock() }
    }
}

impl Telling<'_> {
    pub(super) fn tell(&self, change: &Change, generation: u64) {
        // Out of the lock: who is told may have an observer of its own to add or to drop.
        let told: Vec<_> = self.observers.told.lock().iter().filter_map(Weak::upgrade).collect();
        for tell in told {
            tell(change, generation);
        }
    }
}
