//! Keeps a mirror as the registry is, by a list and a watch.

use super::super::partial::Partial;
use super::seen::{Change, Mirrored};
use super::shared::{CHANGES, Shared};
use super::state::{Filed, Misread, State, Was};
use futures_util::StreamExt as _;
use impresario_registry_api::{
    Consistency, ListRequest, ReadError, RegistryHandle, Revision, WatchError, WatchEvent,
    WatchRequest,
};
use rand::Rng as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// How long a mirror waits for readers that are about to fall behind.
const READERS: Duration = Duration::from_secs(1);
/// The shortest and the longest pause between attempts to list.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// What is said of an object that its type cannot read.
const LEFT_OUT: &str =
    "object is not what its kind promises: no more is seen of it than its metadata";

/// Lists, and follows from there. When a watch ends, the next goes on after what was seen; only where that is
/// no longer kept all is listed anew. Ends when it is aborted.
pub(super) async fn follow<K: Mirrored>(registry: RegistryHandle, shared: Arc<Shared<K>>) {
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
                    tracing::debug!(resource = shared.select.resource, %error, "cannot list yet");
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
    let mut request = ListRequest::of(shared.select.clone());
    request.consistency = Consistency::Linearizable;
    let page = registry.list(request).await?;
    {
        let mut state = shared.state.write();
        let before = std::mem::replace(&mut *state, State::new());
        for entry in &page.entries {
            // What was filed while this was listed is not taken back.
            let entry = before.as_new(entry).map_or(entry, |shown| &shown.entry);
            if let Err(Misread { cause, .. }) = state.put(entry).now {
                tracing::error!(key = %entry.key, %cause, LEFT_OUT);
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
    let select = shared.select.clone();
    let request = WatchRequest { select, after, bookmarks: true };
    let mut watch = match registry.watch(request).await {
        Ok(watch) => watch,
        Err(error) => {
            tracing::debug!(resource = shared.select.resource, %error, "cannot watch yet");
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
        let (changes, misread) = apply(shared, &batch.events);
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

pub(super) fn apply<K: Mirrored>(shared: &Shared<K>, events: &[WatchEvent]) -> Changed<K> {
    let mut state = shared.state.write();
    let (mut changes, mut misread) = (Vec::with_capacity(events.len()), Vec::new());
    for event in events {
        match event {
            // It was filed before it came, and told of then.
            WatchEvent::Put { entry, .. } if state.as_new(entry).is_some() => {}
            WatchEvent::Put { entry, .. } => match state.put(entry) {
                Filed { now: Ok(now), before } => changes.push(Change::Put { now, before }),
                Filed { now: Err(Misread { now, cause }), before } => {
                    tracing::error!(key = %entry.key, %cause, LEFT_OUT);
                    // As a list would: what it was before is not what it is.
                    changes.extend(before.map(|before| Change::Deleted { before }));
                    misread.extend(now.map(|now| Change::Put { now, before: None }));
                }
            },
            WatchEvent::Delete { previous, .. } => {
                let place = (previous.key.namespace.clone(), previous.key.name.clone());
                match state.delete(&place) {
                    Some(Was::Read(before)) => changes.push(Change::Deleted { before }),
                    Some(Was::Misread(before)) => misread.push(Change::Deleted { before }),
                    None => {}
                }
            }
        }
    }
    (changes, misread)
}
