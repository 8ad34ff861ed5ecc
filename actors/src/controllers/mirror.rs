//! One resource of the registry, kept in memory by a list and a watch, shared by all controllers
//! of a process.
//!
//! A mirror may lag behind, never run ahead, and never shows half a transaction. Who has just
//! written waits with [`Mirror::reached`] until the mirror has seen it, so that no controller acts
//! twice on what it did itself. Readers of [`Mirror::changes`] that fall behind are told to look at
//! everything again: a change is a hint, the mirror is the state.

mod changes;
mod orphans;

pub use changes::Changes;

use super::labels;
use super::owners::controller;
use futures_util::StreamExt as _;
use impresario_registry_api::{
    Consistency, Entry, ListRequest, ReadError, RegistryHandle, Revision, Selection, WatchError,
    WatchEvent, WatchRequest,
};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use orphans::Orphans;
use parking_lot::RwLock;
use rand::Rng as _;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{Mutex, broadcast, watch};
use tokio::task::JoinHandle;

/// Changes that a reader may be behind before it must look at everything.
/// Their places are taken up at once, for each of the mirrors.
const CHANGES: usize = 512;
/// How long a mirror waits for readers that are about to fall behind.
const READERS: Duration = Duration::from_secs(1);
/// The shortest and the longest pause between attempts to list.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

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

type Place = (String, String);

struct State<K> {
    objects: BTreeMap<Place, Seen<K>>,
    by_owner: HashMap<String, BTreeSet<Place>>,
    orphans: Orphans,
}

impl<K: Mirrored> State<K> {
    fn new() -> Self {
        Self { objects: BTreeMap::new(), by_owner: HashMap::new(), orphans: Orphans::default() }
    }

    fn put(&mut self, entry: &Entry) -> Result<(Seen<K>, Option<Seen<K>>), serde_json::Error> {
        let object: K = serde_json::from_slice(&entry.value)?;
        let now = Seen { object: Arc::new(object), entry: entry.clone() };
        let place = (entry.key.namespace.clone(), entry.key.name.clone());
        let before = self.objects.insert(place.clone(), now.clone());
        if let Some(before) = &before {
            self.forget_owners(before, &place);
        }
        self.orphans.put(&place.0, &place.1, now.object.metadata());
        for owner in now.object.metadata().owner_references.iter().flatten() {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(place.clone());
        }
        Ok((now, before))
    }

    fn delete(&mut self, place: &Place) -> Option<Seen<K>> {
        let before = self.objects.remove(place)?;
        self.forget_owners(&before, place);
        Some(before)
    }

    fn forget_owners(&mut self, seen: &Seen<K>, place: &Place) {
        self.orphans.take(&place.0, &place.1, seen.object.metadata());
        for owner in seen.object.metadata().owner_references.iter().flatten() {
            if let Some(owned) = self.by_owner.get_mut(&owner.uid) {
                owned.remove(place);
                if owned.is_empty() {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
    }
}

struct Shared<K> {
    resource: String,
    registry: RegistryHandle,
    state: RwLock<State<K>>,
    /// The newest revision that the registry itself has shown, and when it was asked.
    newest: Mutex<Option<(Instant, Revision)>>,
    revision: watch::Sender<Revision>,
    changes: broadcast::Sender<Change<K>>,
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
    /// Starts to follow `resource` on the current tokio runtime.
    #[must_use]
    pub fn start(registry: RegistryHandle, resource: &str) -> Self {
        let shared = Arc::new(Shared {
            resource: resource.to_owned(),
            registry: registry.clone(),
            newest: Mutex::new(None),
            state: RwLock::new(State::new()),
            revision: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGES),
        });
        let follower = tokio::spawn(follow(registry, shared.clone()));
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
        let state = self.shared.state.read();
        state.objects.values().filter(|seen| wanted(&seen.object)).cloned().collect()
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
        let state = self.shared.state.read();
        let places = state.by_owner.get(uid).into_iter().flatten();
        let is_its_own =
            |seen: &Seen<K>| controller(seen.object.metadata()).is_some_and(|it| it.uid == uid);
        let mut family: Vec<_> = places
            .filter(|(within, _)| within == namespace)
            .filter_map(|place| state.objects.get(place))
            .filter(|seen| is_its_own(seen))
            .cloned()
            .collect();
        if let Some(selector) = adopts {
            let names = state.orphans.among(namespace, selector);
            let orphans = names
                .filter_map(|name| state.objects.get(&(namespace.to_owned(), name.clone())))
                .filter(|seen| labels::selects(selector, labels::of(seen.object.metadata())));
            family.extend(orphans.cloned());
        }
        family
    }

    /// Whether an object has an owner of this uid.
    #[must_use]
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.shared.state.read().by_owner.contains_key(uid)
    }

    /// What changes from now on.
    #[must_use]
    pub fn changes(&self) -> Changes<K> {
        Changes(self.shared.changes.subscribe())
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
        let mut request = ListRequest::of(Selection::all(&self.shared.resource));
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
                resource: self.shared.resource.clone(),
                at: self.revision(),
                wanted: revision,
                waited: limit,
            }),
        }
    }
}

/// Lists, and follows from there. When a watch ends, the next goes on after what was seen; only where that is
/// no longer kept all is listed anew. Ends when it is aborted.
async fn follow<K: Mirrored>(registry: RegistryHandle, shared: Arc<Shared<K>>) {
    let mut pause = PAUSE.0;
    let mut after = None;
    loop {
        match after {
            None => match fill(&registry, &shared).await {
                Ok(revision) => {
                    after = Some(revision);
                    // A list alone says nothing of how the registry is: the pause stays, so that a watch that
                    // it refuses makes nobody list everything again and again.
                    continue;
                }
                Err(error) => {
                    tracing::debug!(resource = shared.resource, %error, "cannot list yet");
                }
            },
            Some(seen) => {
                let ended = tail(&registry, &shared, seen).await;
                if ended.seen > seen {
                    pause = PAUSE.0;
                }
                after = Some(ended.seen).filter(|_| !ended.gone);
            }
        }
        let jitter: f64 = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn fill<K: Mirrored>(
    registry: &RegistryHandle,
    shared: &Shared<K>,
) -> Result<Revision, ReadError> {
    let mut request = ListRequest::of(Selection::all(&shared.resource));
    request.consistency = Consistency::Linearizable;
    let page = registry.list(request).await?;
    {
        let mut state = shared.state.write();
        *state = State::new();
        for entry in &page.entries {
            if let Err(error) = state.put(entry) {
                tracing::error!(key = %entry.key, %error, "object is not what its kind promises; left out");
            }
        }
    }
    // No receiver is no error: nobody may follow the changes of this mirror.
    let _ = shared.changes.send(Change::Everything);
    shared.revision.send_replace(page.revision.max(1));
    Ok(page.revision)
}

/// How a watch ended.
struct Ended {
    /// Everything up to this revision was seen.
    seen: Revision,
    /// What came after it is no longer kept.
    gone: bool,
}

/// Follows until the watch ends.
async fn tail<K: Mirrored>(
    registry: &RegistryHandle,
    shared: &Shared<K>,
    after: Revision,
) -> Ended {
    let mut ended = Ended { seen: after, gone: false };
    let select = Selection::all(&shared.resource);
    let request = WatchRequest { select, after, bookmarks: true };
    let mut watch = match registry.watch(request).await {
        Ok(watch) => watch,
        Err(error) => {
            tracing::debug!(resource = shared.resource, %error, "cannot watch yet");
            ended.gone = matches!(error, WatchError::Gone { .. });
            return ended;
        }
    };
    let mut left = READERS;
    while let Some(next) = watch.next().await {
        let batch = match next {
            Ok(batch) => batch,
            Err(error) => {
                ended.gone = matches!(error, WatchError::Gone { .. });
                break;
            }
        };
        let changes = apply(shared, &batch.events);
        ended.seen = ended.seen.max(batch.revision);
        shared.revision.send_replace(ended.seen);
        for change in changes {
            room(&shared.changes, &mut left).await;
            // As above.
            let _ = shared.changes.send(change);
        }
    }
    ended
}

/// Waits until readers have room for one more change, in one burst no longer than [`READERS`] in all: a burst must not
/// make those look at everything that keep up, and one that does not must not set the pace for all. `left` is what is
/// left of that time; it is whole again when half of what was waited for is read.
async fn room<T>(changes: &broadcast::Sender<T>, left: &mut Duration) {
    let behind = changes.len();
    if behind < CHANGES / 2 {
        *left = READERS;
    }
    let waited = tokio::time::Instant::now();
    while changes.len() >= CHANGES && waited.elapsed() < *left {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    *left = left.saturating_sub(waited.elapsed());
}

fn apply<K: Mirrored>(shared: &Shared<K>, events: &[WatchEvent]) -> Vec<Change<K>> {
    let mut state = shared.state.write();
    let mut changes = Vec::with_capacity(events.len());
    for event in events {
        match event {
            WatchEvent::Put { entry, .. } => match state.put(entry) {
                Ok((now, before)) => changes.push(Change::Put { now, before }),
                Err(error) => {
                    tracing::error!(key = %entry.key, %error, "object is not what its kind promises; left out");
                    // As a list would: what it was before is not what it is.
                    let place = (entry.key.namespace.clone(), entry.key.name.clone());
                    changes.extend(state.delete(&place).map(|before| Change::Deleted { before }));
                }
            },
            WatchEvent::Delete { previous, .. } => {
                let place = (previous.key.namespace.clone(), previous.key.name.clone());
                changes.extend(state.delete(&place).map(|before| Change::Deleted { before }));
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests;
