//! Watchers, one for each member and resource, and what they were told against each other and against the
//! lists (I4): revisions rise, none is told twice or in parts, nothing is left out, and a watch that breaks
//! goes on after the last revision that it told, at another member.

use crate::clients::{LEDGER, REGISTER};
use crate::cluster::Session;
use futures_util::StreamExt as _;
use impresario_registry_api::{
    Key, ListRequest, RegistryHandle, Revision, Selection, WatchBatch, WatchError, WatchEvent,
    WatchRequest,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Registers change often, the ledger grows, pods come and go.
const WATCHED: [&str; 3] = [REGISTER, LEDGER, "pods"];
/// How long a watcher waits before it tries again.
const PAUSE: Duration = Duration::from_millis(100);
/// After this long without a word a watcher asks another member; a watch that lives has bookmarks.
const SILENCE: Duration = Duration::from_secs(8);
/// How long watchers have, when all writers have stopped, to be told of the last write.
const LAST_WORD: Duration = Duration::from_secs(60);
/// Faults that are kept; one is enough.
const KEPT: usize = 20;

/// What one watcher was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// The last revision; everything that matches up to it was told.
    last: Revision,
    /// The keys that exist, and when each was last written.
    known: BTreeMap<Key, Revision>,
    /// Batches, bookmarks aside.
    batches: u64,
}

/// What is wrong with a batch, after what was told before it.
impl Told {
    /// Begins with a list.
    fn at(revision: Revision, known: BTreeMap<Key, Revision>) -> Self {
        Self { last: revision, known, batches: 0 }
    }

    /// Takes a batch in; `Err` says what may not be.
    pub(crate) fn take(&mut self, batch: &WatchBatch) -> Result<(), String> {
        let WatchBatch { revision, events } = batch;
        let revision = *revision;
        if events.is_empty() {
            if revision < self.last {
                return Err(format!("bookmark {revision} came after {}", self.last));
            }
            self.last = revision;
            return Ok(());
        }
        if revision <= self.last {
            return Err(format!("revision {revision} was told after {}", self.last));
        }
        for event in events {
            let key = event.key();
            let (before, after) = match event {
                WatchEvent::Put { entry, previous } => {
                    if entry.mod_revision != revision {
                        return Err(format!("{key} of {} came in {revision}", entry.mod_revision));
                    }
                    let before = previous.as_ref().map(|previous| previous.mod_revision);
                    (before, Some(entry.mod_revision))
                }
                WatchEvent::Delete { previous, revision: gone } => {
                    if *gone != revision {
                        return Err(format!("the end of {key} at {gone} came in {revision}"));
                    }
                    (Some(previous.mod_revision), None)
                }
            };
            let known = self.known.get(key).copied();
            if known != before {
                return Err(format!(
                    "{key} was last told at {known:?}, but {revision} follows {before:?}: a change is missing"
                ));
            }
            match after {
                Some(now) => self.known.insert(key.clone(), now),
                None => self.known.remove(key),
            };
        }
        self.last = revision;
        self.batches += 1;
        Ok(())
    }
}

/// What all watchers of a resource were told, by revision: members must not differ.
type Replay = BTreeMap<(&'static str, Revision), Vec<Key>>;

#[derive(Debug, Default)]
struct Shared {
    replay: Replay,
    faults: Vec<String>,
    /// By resource and by the member that the watcher began with.
    told: BTreeMap<(&'static str, usize), Told>,
    resumed: u64,
    gone: u64,
}

/// What is known of all watches when a run is over.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// What should not have been told, or was not; in words.
    pub faults: Vec<String>,
    /// How many revisions were told, to all watchers together.
    pub batches: u64,
    /// How often a watch went on where another had broken: it told more after the last revision of that one.
    pub resumed: u64,
    /// How often a member had no history that reaches back so far, and a watcher began anew with a list.
    pub gone: u64,
}

/// The watchers. They end when dropped.
pub struct Watchers {
    shared: Arc<Mutex<Shared>>,
    /// One watcher for each member and resource.
    members: usize,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn locked(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watchers {
    /// Starts one watcher for each member and resource.
    #[must_use]
    pub fn start(session: &Session) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let members: Vec<_> = session.members.iter().map(|name| session.through(name)).collect();
        let mut tasks = Vec::new();
        for resource in WATCHED {
            for first in 0..members.len() {
                tasks.push(tokio::spawn(follow(members.clone(), first, resource, shared.clone())));
            }
        }
        Self { shared, members: members.len(), tasks }
    }

    /// What was told, compared with what is there; for when nobody writes registers any more.
    pub async fn finish(self, session: &Session) -> Watched {
        for resource in [REGISTER, LEDGER] {
            self.compare(session, resource).await;
        }
        let shared = locked(&self.shared);
        Watched {
            faults: shared.faults.clone(),
            batches: shared.told.values().map(|told| told.batches).sum(),
            resumed: shared.resumed,
            gone: shared.gone,
        }
    }

    async fn compare(&self, session: &Session, resource: &'static str) {
        let deadline = Instant::now() + LAST_WORD;
        loop {
            let missing = match session
                .registry
                .list(ListRequest::of(Selection::all(resource)))
                .await
            {
                Ok(page) => {
                    let there: BTreeMap<Key, Revision> = page
                        .entries
                        .into_iter()
                        .map(|entry| (entry.key, entry.mod_revision))
                        .collect();
                    let shared = locked(&self.shared);
                    (0..self.members)
                        .filter_map(|member| {
                            unlike(member, resource, shared.told.get(&(resource, member)), &there)
                        })
                        .collect()
                }
                Err(error) => vec![format!("{resource} cannot be listed: {error}")],
            };
            if missing.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                locked(&self.shared).faults.extend(missing);
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

/// What a watcher was told, where it is not what is there. One that was told nothing proves nothing.
fn unlike(
    member: usize,
    resource: &str,
    told: Option<&Told>,
    there: &BTreeMap<Key, Revision>,
) -> Option<String> {
    let Some(told) = told else {
        return Some(format!("watcher {member} of {resource} was told nothing in the end"));
    };
    if told.known == *there {
        return None;
    }
    let first = there.iter().find(|(key, revision)| told.known.get(key) != Some(revision));
    Some(format!(
        "watcher {member} of {resource} was told up to {} and never of {first:?}",
        told.last
    ))
}

async fn follow(
    members: Vec<RegistryHandle>,
    first: usize,
    resource: &'static str,
    shared: Arc<Mutex<Shared>>,
) {
    for place in first.. {
        let Some(member) = members.get(place % members.len().max(1)) else { return };
        let last = locked(&shared).told.get(&(resource, first)).map(|told| told.last);
        let mut resumes = last.is_some();
        let after = match last {
            Some(last) => last,
            None => match begin(member, resource).await {
                Some(told) => {
                    let last = told.last;
                    locked(&shared).told.insert((resource, first), told);
                    last
                }
                None => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let request = WatchRequest { select: Selection::all(resource), after, bookmarks: true };
        if let Ok(Ok(mut watch)) = timeout(SILENCE, member.watch(request)).await {
            while let Ok(Some(item)) = timeout(SILENCE, watch.next()).await {
                match item {
                    Ok(batch) => {
                        if !hear(&shared, resource, first, &batch) {
                            break;
                        }
                        if std::mem::take(&mut resumes) {
                            locked(&shared).resumed += 1;
                        }
                    }
                    Err(WatchError::Gone { .. }) => {
                        // Told so, and not kept from it: a new list is what is due. Where each is told so,
                        // none resumes, which is a fault.
                        let mut shared = locked(&shared);
                        shared.gone += 1;
                        shared.told.remove(&(resource, first));
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// Takes a batch in. False when something was wrong with it: the watcher begins anew with a list.
fn hear(shared: &Mutex<Shared>, resource: &'static str, first: usize, batch: &WatchBatch) -> bool {
    let mut shared = locked(shared);
    let Some(told) = shared.told.get_mut(&(resource, first)) else { return false };
    let mut taken = told.take(batch);
    if taken.is_ok() && !batch.events.is_empty() {
        let keys: Vec<Key> = batch.events.iter().map(|event| event.key().clone()).collect();
        let others =
            shared.replay.entry((resource, batch.revision)).or_insert_with(|| keys.clone());
        if *others != keys {
            taken = Err(format!("{} was {others:?} elsewhere and {keys:?} here", batch.revision));
        }
    }
    if let Err(fault) = taken {
        if shared.faults.len() < KEPT {
            shared.faults.push(format!("watcher {first} of {resource}: {fault}"));
        }
        shared.told.remove(&(resource, first));
        return false;
    }
    true
}

async fn begin(member: &RegistryHandle, resource: &'static str) -> Option<Told> {
    let listed = timeout(SILENCE, member.list(ListRequest::of(Selection::all(resource)))).await;
    let page = listed.ok()?.ok()?;
    let known = page.entries.into_iter().map(|entry| (entry.key, entry.mod_revision)).collect();
    Some(Told::at(page.revision, known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry_api::Entry;

    fn entry(name: &str, create_revision: Revision, mod_revision: Revision) -> Entry {
        let key = Key::new(LEDGER, "", name);
        Entry { key, value: bytes::Bytes::from_static(b"{}"), create_revision, mod_revision }
    }

    fn put(name: &str, before: Option<Revision>, revision: Revision) -> WatchEvent {
        let previous = before.map(|before| entry(name, 1, before));
        WatchEvent::Put { entry: entry(name, 1, revision), previous }
    }

    #[test]
    fn a_watcher_that_was_told_nothing_or_less_than_is_there_is_a_fault() {
        let there: BTreeMap<Key, Revision> =
            [("a", 2), ("b", 3)].map(|(name, at)| (Key::new(LEDGER, "", name), at)).into();
        assert!(unlike(0, LEDGER, None, &there).is_some());
        assert_eq!(unlike(0, LEDGER, Some(&Told::at(3, there.clone())), &there), None);
        let mut less = there.clone();
        less.remove(&Key::new(LEDGER, "", "b"));
        let said = unlike(0, LEDGER, Some(&Told::at(3, less)), &there).unwrap();
        assert!(said.contains("up to 3 and never of"), "{said}");
    }

    fn batch(revision: Revision, events: Vec<WatchEvent>) -> WatchBatch {
        WatchBatch { revision, events }
    }

    #[test]
    fn a_watch_is_whole_when_each_change_follows_the_one_that_was_told_before() {
        let gone = WatchEvent::Delete { previous: entry("a", 3, 6), revision: 8 };
        let mut told = Told::at(2, BTreeMap::new());
        for good in [
            batch(3, vec![put("a", None, 3), put("b", None, 3)]),
            batch(5, Vec::new()),
            batch(6, vec![put("a", Some(3), 6)]),
            batch(8, vec![gone]),
            batch(9, vec![put("a", None, 9)]),
        ] {
            assert_eq!(told.take(&good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn what_goes_back_comes_twice_or_is_left_out_is_a_fault() {
        let mut told = Told::at(2, BTreeMap::new());
        told.take(&batch(6, vec![put("a", None, 6)])).unwrap();
        for (wrong, word) in [
            (batch(6, vec![put("a", None, 6)]), "was told after"),
            (batch(5, vec![put("b", None, 5)]), "was told after"),
            (batch(5, Vec::new()), "bookmark"),
            (batch(9, vec![put("a", Some(8), 9)]), "a change is missing"),
            (batch(9, vec![put("b", Some(7), 9)]), "a change is missing"),
            (batch(9, vec![put("b", None, 8)]), "came in 9"),
            (
                batch(9, vec![WatchEvent::Delete { previous: entry("a", 3, 8), revision: 9 }]),
                "a change is missing",
            ),
        ] {
            let fault = told.clone().take(&wrong).unwrap_err();
            assert!(fault.contains(word), "{wrong:?}: {fault}");
        }
    }
}
