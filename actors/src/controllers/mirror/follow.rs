//! Keeps a mirror as the registry is, by a list and a watch.

use super::super::partial::Partial;
use super::seen::{Change, Mirrored};
use super::shared::{CHANGES, Shared};
use super::state::{Filed, Misread, Place, State, Was, place_of, read};
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_registry_api::{
    Consistency, Entry, ListRequest, ReadError, RegistryHandle, Revision, Watch, WatchError,
    WatchEvent, WatchRequest,
};
use rand::Rng as _;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::broadcast;

/// How long a mirror waits for readers that are about to fall behind.
const READERS: Duration = Duration::from_secs(1);
/// The shortest and the longest pause between attempts to list.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// So many objects are read before others have the thread: some milliseconds.
const PART: usize = 64;
/// So many changes are taken from the history at most after each part: far more than come meanwhile.
const BATCHES: usize = 1_024;
/// What is said of an object that its type cannot read.
const LEFT_OUT: &str =
    "object is not what its kind promises: no more is seen of it than its metadata";

/// Lists, and follows from there. When a watch ends, the next goes on after what was seen; only where that is
/// no longer kept all is listed anew. Ends when it is aborted.
pub(super) async fn follow<K: Mirrored>(registry: RegistryHandle, shared: Arc<Shared<K>>) {
    let mut pause = PAUSE.0;
    let mut after = None;
    loop {
        let begun = match after {
            None => fill(&registry, &shared).await,
            Some(seen) => match watch(&registry, &shared, seen).await {
                Ok(watch) => Ok((watch, seen)),
                Err(error) => Err(Unseen::Watch(error)),
            },
        };
        match begun {
            Ok((watch, from)) => {
                let ended = tail(&shared, watch, from).await;
                // A list alone says nothing of how the registry is: the pause stays, so that a watch that it ends at
                // once makes nobody list everything again and again.
                if ended.seen > from {
                    pause = PAUSE.0;
                }
                after = Some(ended.seen).filter(|_| !ended.gone);
            }
            Err(error) => {
                tracing::debug!(resource = shared.select.resource, %error, "cannot follow yet");
                after = after.filter(|_| !error.is_gone());
            }
        }
        let jitter: f64 = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Why it is not known what is.
#[derive(Debug, Error)]
enum Unseen {
    #[error(transparent)]
    List(#[from] ReadError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl Unseen {
    /// Whether what came after what was seen is no longer kept.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Watch(WatchError::Gone { .. }))
    }
}

async fn watch<K: Mirrored>(
    registry: &RegistryHandle,
    shared: &Shared<K>,
    after: Revision,
) -> Result<Watch, WatchError> {
    let request = WatchRequest { select: shared.select.clone(), after, bookmarks: true };
    registry.watch(request).await
}

/// Makes it what is listed, and what has changed by the time that all of that is read. The watch goes on from there.
///
/// The history may be short beside how long it takes to read everything: changes are taken from it meanwhile. Whoever
/// looks sees what was there before until all is read, and neither waits for it nor shares the thread with it for long.
async fn fill<K: Mirrored>(
    registry: &RegistryHandle,
    shared: &Shared<K>,
) -> Result<(Watch, Revision), Unseen> {
    let mut request = ListRequest::of(shared.select.clone());
    request.consistency = Consistency::Linearizable;
    let page = registry.list(request).await?;
    let mut watch = watch(registry, shared, page.revision).await?;
    let mut seen = page.revision;
    // The newest change of each: never more than there are objects, and were when it was listed.
    let mut changed: HashMap<Place, WatchEvent> = HashMap::new();
    let mut state = State::new();
    let mut entries = page.entries.into_iter();
    loop {
        let mut is_done = true;
        for entry in entries.by_ref().take(PART) {
            is_done = false;
            let place = place_of(&entry);
            let known = shared.state.read().objects.get(&place).cloned();
            match known.filter(|known| known.entry == entry) {
                Some(known) => drop(state.put(place, Ok(known))),
                None => file(&mut state, place, &entry),
            }
        }
        for _ in 0..BATCHES {
            let Some(batch) = watch.next().now_or_never() else { break };
            let batch = batch.unwrap_or(Err(WatchError::Closed))?;
            seen = seen.max(batch.revision);
            changed
                .extend(batch.events.into_iter().map(|event| (place_of(subject(&event)), event)));
        }
        if is_done {
            break;
        }
        tokio::task::yield_now().await;
    }
    for (number, (place, event)) in changed.into_iter().enumerate() {
        match event {
            WatchEvent::Put { entry, .. } => file(&mut state, place, &entry),
            WatchEvent::Delete { .. } => drop(state.delete(&place)),
        }
        give_way(number).await;
    }
    let before = {
        let mut shown = shared.state.write();
        // What was filed while this was listed and read is not taken back.
        state.keep_ahead(&shown);
        std::mem::replace(&mut *shown, state)
    };
    if !before.objects.is_empty() {
        // Letting go of so much takes time, too. It comes to its end by itself.
        drop(tokio::task::spawn_blocking(move || drop(before)));
    }
    // No receiver is no error: nobody may follow the changes of this mirror.
    let _ = shared.changes.send(Change::Everything);
    shared.revision.send_replace(seen.max(1));
    Ok((watch, seen))
}

fn file<K: Mirrored>(state: &mut State<K>, place: Place, entry: &Entry) {
    if let Err(Misread { cause, .. }) = state.put(place, read(entry)).now {
        tracing::error!(key = %entry.key, %cause, LEFT_OUT);
    }
}

fn subject(event: &WatchEvent) -> &Entry {
    match event {
        WatchEvent::Put { entry, .. } => entry,
        WatchEvent::Delete { previous, .. } => previous,
    }
}

/// Lets others have the thread after each part of what is read.
async fn give_way(number: usize) {
    if number % PART == PART - 1 {
        tokio::task::yield_now().await;
    }
}

/// How a watch ended.
struct Ended {
    /// Everything up to this revision was seen.
    seen: Revision,
    /// What came after it is no longer kept.
    gone: bool,
}

/// Follows until the watch ends, of which all is seen up to this revision.
async fn tail<K: Mirrored>(shared: &Shared<K>, mut watch: Watch, after: Revision) -> Ended {
    let mut ended = Ended { seen: after, gone: false };
    let mut left = READERS;
    while let Some(next) = watch.next().await {
        let batch = match next {
            Ok(batch) => batch,
            Err(error) => {
                ended.gone = matches!(error, WatchError::Gone { .. });
                break;
            }
        };
        let (changes, misread) = apply(shared, &batch.events).await;
        ended.seen = ended.seen.max(batch.revision);
        shared.revision.send_replace(ended.seen);
        for change in misread {
            // As above.
            let _ = shared.misread.send(change);
        }
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

/// What changed of those that the type can read, and of the others.
pub(super) type Changed<K> = (Vec<Change<K>>, Vec<Change<Partial>>);

pub(super) async fn apply<K: Mirrored>(shared: &Shared<K>, events: &[WatchEvent]) -> Changed<K> {
    let mut read_already = Vec::with_capacity(events.len());
    for (number, event) in events.iter().enumerate() {
        read_already.push(match event {
            WatchEvent::Put { entry, .. } => Some(read(entry)),
            WatchEvent::Delete { .. } => None,
        });
        give_way(number).await;
    }
    let mut state = shared.state.write();
    let (mut changes, mut misread) = (Vec::with_capacity(events.len()), Vec::new());
    for (event, now) in events.iter().zip(read_already) {
        let entry = subject(event);
        let place = place_of(entry);
        match now {
            // It was filed before it came, and told of then.
            Some(_) if state.is_known(entry) => {}
            Some(now) => match state.put(place, now) {
                Filed { now: Ok(now), before } => changes.push(Change::Put { now, before }),
                Filed { now: Err(Misread { now, cause }), before } => {
                    tracing::error!(key = %entry.key, %cause, LEFT_OUT);
                    // As a list would: what it was before is not what it is.
                    changes.extend(before.map(|before| Change::Deleted { before }));
                    misread.extend(now.map(|now| Change::Put { now, before: None }));
                }
            },
            None => match state.delete(&place) {
                Some(Was::Read(before)) => changes.push(Change::Deleted { before }),
                Some(Was::Misread(before)) => misread.push(Change::Deleted { before }),
                None => {}
            },
        }
    }
    (changes, misread)
}
