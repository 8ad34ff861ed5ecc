//! One resource of the registry, kept in memory by a list and a watch, shared by all controllers
//! of a process.
//!
//! A mirror may lag behind, and never run ahead. Up to [`Mirror::revision`] it shows no half of a
//! transaction; single objects may be filed ahead of that, as the registry has them
//! ([`Mirror::file`]). Nothing that is shown goes back. Who has just
//! written waits with [`Mirror::reached`] until the mirror has seen it, so that no controller acts
//! twice on what it did itself. Readers of [`Mirror::changes`] that fall behind are told to look at
//! everything again: a change is a hint, the mirror is the state. Of an object that its type
//! cannot read the metadata is kept apart: who looks at metadata alone sees it.

mod changes;
mod follow;
mod orphans;
mod seen;
mod shared;
mod state;

pub use changes::Changes;
pub use seen::{Change, Mirrored, Seen};

use super::partial::Partial;
use impresario_registry_api::{
    Consistency, Entry, ListRequest, ReadError, RegistryHandle, Revision, Selection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use parking_lot::RwLock;
use shared::{CHANGES, MISREAD, Shared};
use state::State;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{Mutex, broadcast, watch};
use tokio::task::JoinHandle;

/// The mirror has not seen a revision in time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the mirror of {resource} is at revision {at}, not {wanted}, after {waited:?}: look again later"
)]
pub struct Behind {
    /// The resource.
    pub resource: String,
    /// What the mirror has seen.
    pub at: Revision,
    /// What was waited for.
    pub wanted: Revision,
    /// For how long.
    pub waited: Duration,
}

/// The task that follows; it ends with the last handle of the mirror.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A handle of a mirror. The mirror follows as long as one lives.
pub struct Mirror<K> {
    shared: Arc<Shared<K>>,
    /// Held, not used: the last handle ends the task.
    follower: Arc<Follower>,
}

impl<K> Clone for Mirror<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), follower: self.follower.clone() }
    }
}

impl<K: Mirrored> Mirror<K> {
    /// Starts to follow all of `resource` on the current tokio runtime.
    #[must_use]
    pub fn start(registry: RegistryHandle, resource: &str) -> Self {
        Self::over(registry, Selection::all(resource))
    }

    /// The same of these objects alone: of the others nothing is read or kept.
    #[must_use]
    pub fn over(registry: RegistryHandle, select: Selection) -> Self {
        let shared = Arc::new(Shared {
            select,
            registry: registry.clone(),
            newest: Mutex::new(None),
            state: RwLock::new(State::new()),
            revision: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGES),
            misread: broadcast::Sender::new(MISREAD),
        });
        let follower = tokio::spawn(follow::follow(registry, shared.clone()));
        Self { shared, follower: Arc::new(Follower(follower)) }
    }

    /// All objects, in order of namespace and name.
    #[must_use]
    pub fn all(&self) -> Vec<Seen<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Vec<Seen<K>> {
        self.picked_within(namespace, |_| true)
    }

    /// The objects that `wanted` picks.
    #[must_use]
    pub fn picked(&self, wanted: impl Fn(&K) -> bool) -> Vec<Seen<K>> {
        self.picked_as_stored(|_, object| wanted(object))
    }

    /// The same, by how they are stored too.
    #[must_use]
    pub fn picked_as_stored(&self, wanted: impl Fn(&Entry, &K) -> bool) -> Vec<Seen<K>> {
        let state = self.shared.state.read();
        let picked = state.objects.values().filter(|seen| wanted(&seen.entry, &seen.object));
        picked.cloned().collect()
    }

    /// The greatest that is said of any object, where something is.
    pub fn greatest<F: Ord>(&self, says: impl Fn(&Seen<K>) -> Option<F>) -> Option<F> {
        self.shared.state.read().objects.values().filter_map(says).max()
    }

    /// The objects of a namespace that `wanted` picks.
    #[must_use]
    pub fn picked_within(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Seen<K>> {
        let from = (namespace.to_owned(), String::new());
        let state = self.shared.state.read();
        let within = state.objects.range(from..).take_while(|((ns, _), _)| ns == namespace);
        within.filter(|(_, seen)| wanted(&seen.object)).map(|(_, seen)| seen.clone()).collect()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Seen<K>> {
        let place = (namespace.to_owned(), name.to_owned());
        self.shared.state.read().objects.get(&place).cloned()
    }

    /// The objects of a namespace whose controller has this uid, in order of their names. Others may name
    /// it among their owners, so that they go with it: it has nothing else to do with those. Owners are in
    /// the namespace of what they own.
    #[must_use]
    pub fn controlled_by(&self, namespace: &str, uid: &str) -> Vec<Seen<K>> {
        self.family(namespace, uid, None)
    }

    /// As [`Mirror::controlled_by`], and those of the namespace that nobody controls and `adopts` selects;
    /// these come last. Both as they are at one time.
    #[must_use]
    pub fn family(
        &self,
        namespace: &str,
        uid: &str,
        adopts: Option<&LabelSelector>,
    ) -> Vec<Seen<K>> {
        self.shared.state.read().family(namespace, uid, adopts)
    }

    /// Whether an object has an owner of this uid, whether or not the type can read it.
    #[must_use]
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.shared.state.read().is_owned_by(uid)
    }

    /// One object that the type cannot read.
    #[must_use]
    pub fn get_misread(&self, namespace: &str, name: &str) -> Option<Seen<Partial>> {
        let place = (namespace.to_owned(), name.to_owned());
        self.shared.state.read().misread.get(&place).cloned()
    }

    /// The objects that the type cannot read and `wanted` picks.
    #[must_use]
    pub fn picked_misread(&self, wanted: impl Fn(&Entry, &Partial) -> bool) -> Vec<Seen<Partial>> {
        let state = self.shared.state.read();
        let picked = state.misread.values().filter(|seen| wanted(&seen.entry, &seen.object));
        picked.cloned().collect()
    }

    /// What changes from now on of the objects that the type cannot read. Of one that it can read by now nothing is
    /// told here.
    #[must_use]
    pub fn misread_changes(&self) -> Changes<Partial> {
        Changes(self.shared.misread.subscribe())
    }

    /// What changes from now on.
    #[must_use]
    pub fn changes(&self) -> Changes<K> {
        Changes(self.shared.changes.subscribe())
    }

    /// Files what was read of one object in the registry ahead of the watch, and tells of it as the watch would; that
    /// this brings it, too, is then no news. Whether it was news.
    ///
    /// Only a later state of an object that is shown is: one that is not may have been deleted since it was read, and is
    /// left to the watch.
    pub fn file(&self, entry: &Entry) -> bool {
        if entry.key.resource != self.shared.select.resource {
            return false;
        }
        if !self.shared.state.read().is_news(entry) {
            return false;
        }
        let Ok(now) = state::read::<K>(entry) else { return false };
        let Some(before) = self.shared.state.write().advance(now.clone()) else { return false };
        // No receiver is no error: nobody may follow the changes of this mirror.
        let _ = self.shared.changes.send(Change::Put { now, before: Some(before) });
        true
    }

    /// The revision up to which the mirror has seen everything; 0 before the first list.
    #[must_use]
    pub fn revision(&self) -> Revision {
        *self.shared.revision.borrow()
    }

    /// The newest revision of an object of this resource, as the registry itself has it at `since` or
    /// later. Who waits for it with [`Mirror::reached`] sees all that was created or changed until `since`,
    /// by whomever. One listing answers all that ask about a time before it.
    pub async fn newest(&self, since: Instant) -> Result<Revision, ReadError> {
        let mut known = self.shared.newest.lock().await;
        if let Some((_, revision)) = known.filter(|(at, _)| *at >= since) {
            return Ok(revision);
        }
        let at = tokio::time::Instant::now().into_std();
        let mut request = ListRequest::of(self.shared.select.clone());
        request.consistency = Consistency::Linearizable;
        let page = self.shared.registry.list(request).await?;
        let revision = page.entries.iter().map(|entry| entry.mod_revision).max().unwrap_or(1);
        *known = Some((at, revision));
        Ok(revision)
    }

    /// Waits until everything up to `revision`, at which this resource changed, is seen. Revision 1
    /// waits for the first list.
    pub async fn reached(&self, revision: Revision, limit: Duration) -> Result<(), Behind> {
        let mut seen = self.shared.revision.subscribe();
        let outcome = tokio::time::timeout(limit, seen.wait_for(|at| *at >= revision)).await;
        match outcome {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Behind {
                resource: self.shared.select.resource.clone(),
                at: self.revision(),
                wanted: revision,
                waited: limit,
            }),
        }
    }
}

#[cfg(test)]
mod filing_tests;
#[cfg(test)]
mod tests;
