//! Watches: streams of batches that the watcher pulls out of a replica's recent past.
//!
//! A watcher takes out little at a time and nothing is queued for it, so that a slow one costs the writer nothing and
//! keeps little in memory; it falls out of the ring and is told `Gone`. Batches are ordered, whole and without gaps because the ring is.

use crate::{
    Watch,
    error::WatchError,
    key::Revision,
    query::{WatchBatch, WatchRequest},
    replica::Replica,
    store::Changes,
};
use futures_util::stream;
use std::{collections::VecDeque, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long a watch may be without news before a bookmark tells how far it has come.
const BOOKMARK_AFTER: Duration = Duration::from_secs(5);

/// Follows a replica. A revision that is already too old is refused here, not in the stream.
/// When `stop` becomes true, or its sender goes, the watch ends with `Closed`.
pub fn follow(
    replica: &Replica,
    request: WatchRequest,
    stop: watch::Receiver<bool>,
) -> Result<Watch, WatchError> {
    let oldest = replica.read(crate::store::Store::oldest);
    if request.after < oldest {
        return Err(WatchError::Gone { oldest });
    }
    let follower = Follower {
        revisions: replica.revisions(),
        replica: replica.clone(),
        cursor: request.after,
        told: request.after,
        told_at: Instant::now(),
        ready: VecDeque::new(),
        request,
        stop,
    };
    Ok(Watch::new(stream::unfold(follower, |mut follower| async move {
        let item = follower.next().await;
        Some((item, follower))
    })))
}

/// Where a watch of a replica stands.
struct Follower {
    replica: Replica,
    revisions: watch::Receiver<Revision>,
    request: WatchRequest,
    /// Everything up to here has been looked through.
    cursor: Revision,
    /// The last revision that the watcher was told.
    told: Revision,
    told_at: Instant,
    ready: VecDeque<WatchBatch>,
    stop: watch::Receiver<bool>,
}

impl Follower {
    async fn next(&mut self) -> Result<WatchBatch, WatchError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(self.tell(batch));
            }
            if *self.stop.borrow() {
                return Err(WatchError::Closed);
            }
            let newest = *self.revisions.borrow_and_update();
            let recent = self.replica.read(|store| store.recent(self.cursor))?;
            // Looked through without the lock: a filter reads every value.
            let changes = Changes::of(&recent, &self.request.select, self.cursor);
            let progressed = changes.cursor > self.cursor;
            self.cursor = changes.cursor;
            self.ready.extend(changes.batches);
            if impresario_runtime::mutant!(WatchSkips) {
                self.ready.retain(|batch| batch.revision % 16 != 0);
            }
            if !self.ready.is_empty() {
                continue;
            }
            // A bookmark tells of the past only, so a watch that waits for the future stays silent.
            let due = self.told_at + BOOKMARK_AFTER;
            let reached = self.cursor <= newest;
            if self.request.bookmarks && reached && Instant::now() >= due {
                let bookmark =
                    WatchBatch { revision: self.cursor.max(self.told), events: Vec::new() };
                return Ok(self.tell(bookmark));
            }
            if progressed && self.cursor < newest {
                tokio::task::yield_now().await; // a long way through what does not match
                continue;
            }
            let bookmark_due = async {
                if self.request.bookmarks && reached {
                    tokio::time::sleep_until(due).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                changed = self.revisions.changed() => changed.map_err(|_| WatchError::Closed)?,
                () = bookmark_due => {}
                stopped = self.stop.wait_for(|stop| *stop) => {
                    drop(stopped);
                    return Err(WatchError::Closed);
                }
            }
        }
    }

    fn tell(&mut self, batch: WatchBatch) -> WatchBatch {
        if impresario_runtime::mutant!(WatchDoubles)
            && batch.revision.is_multiple_of(16)
            && self.told != batch.revision
        {
            self.ready.push_front(batch.clone());
        }
        self.told = batch.revision;
        self.told_at = Instant::now();
        batch
    }
}
