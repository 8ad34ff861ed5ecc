//! A selection of the registry as an endless stream: what is there, then every change.
//!
//! An actor adds the stream to its context and is told batches in order. Whenever the thread is
//! lost (changes no longer kept, registry away) the stream lists again and says so with
//! [`Followed::All`], which replaces whatever was known: nothing is missed for good. It ends only
//! with its owner.

use futures_util::{Stream, StreamExt, stream};
use impresario_registry_api::{
    Consistency, Entry, ListRequest, RegistryHandle, Revision, Selection, Watch, WatchError,
    WatchEvent, WatchRequest,
};
use impresario_runtime::random;
use std::time::Duration;

/// What a follower is told.
#[derive(Debug, Clone)]
pub enum Followed {
    /// Everything that is selected; what is not in here is gone.
    All(Vec<Entry>),
    /// What changed since, in order; never empty.
    Changes(Vec<WatchEvent>),
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

enum State {
    Listing { failures: u32 },
    Watching { after: Revision, failures: u32 },
    Reading { watch: Watch, after: Revision },
}

/// Follows a selection for as long as the stream is polled.
pub fn follow(registry: RegistryHandle, select: Selection) -> impl Stream<Item = Followed> + Send {
    let start = (registry, select, State::Listing { failures: 0 });
    stream::unfold(start, |(registry, select, mut state)| async move {
        loop {
            let (told, next) = step(&registry, &select, state).await;
            state = next;
            if let Some(told) = told {
                return Some((told, (registry, select, state)));
            }
        }
    })
    .boxed()
}

async fn step(
    registry: &RegistryHandle,
    select: &Selection,
    state: State,
) -> (Option<Followed>, State) {
    match state {
        State::Listing { failures } => {
            pause(failures).await;
            let request = ListRequest {
                select: select.clone(),
                after: None,
                limit: None,
                at: None,
                consistency: Consistency::Linearizable,
            };
            match registry.list(request).await {
                Ok(page) => {
                    let watching = State::Watching { after: page.revision, failures: 0 };
                    (Some(Followed::All(page.entries)), watching)
                }
                Err(error) => {
                    tracing::debug!(%error, resource = %select.resource, "cannot list, trying again");
                    (None, State::Listing { failures: failures.saturating_add(1) })
                }
            }
        }
        State::Watching { after, failures } => {
            pause(failures).await;
            let request = WatchRequest { select: select.clone(), after, bookmarks: true };
            match registry.watch(request).await {
                Ok(watch) => (None, State::Reading { watch, after }),
                Err(WatchError::Gone { .. }) => (None, State::Listing { failures: 0 }),
                Err(_) => (None, State::Watching { after, failures: failures.saturating_add(1) }),
            }
        }
        State::Reading { mut watch, after } => match watch.next().await {
            Some(Ok(batch)) => {
                let changes = (!batch.events.is_empty()).then_some(Followed::Changes(batch.events));
                (changes, State::Reading { watch, after: batch.revision.max(after) })
            }
            Some(Err(WatchError::Gone { .. })) => (None, State::Listing { failures: 0 }),
            Some(Err(_)) | None => (None, State::Watching { after, failures: 1 }),
        },
    }
}

async fn pause(failures: u32) {
    if let Some(doublings) = failures.checked_sub(1) {
        let longest = FIRST_PAUSE.saturating_mul(1 << doublings.min(8)).min(LONGEST_PAUSE);
        tokio::time::sleep(longest.mul_f64(random::random_range(0.5..1.0))).await;
    }
}
