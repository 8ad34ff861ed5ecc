//! Watches: streams of batches that the watcher pulls out of a replica's recent past.
//!
//! A watcher takes out little at a time and nothing is queued for it, so that a slow one costs the writer nothing and
//! keeps little in memory; it falls out of the ring and is told `Gone`. One that nothing concerns is not woken and does not
//! fall behind. Batches are ordered, whole and without gaps because the ring is.

use crate::{
    Watch,
    condition::{Condition, Interest},
    error::WatchError,
    key::Revision,
    query::{WatchBatch, WatchRequest},
    replica::Replica,
    store::SharedChanges,
    watchers::{Sides, Subscription, Told},
};
use futures_util::stream;
use std::{collections::VecDeque, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long a watch may be without news before a bookmark tells how far it has come.
const BOOKMARK_AFTER: Duration = Duration::from_secs(5);

/// Follows what of a replica is selected and meets all conditions. A revision that is already too old is refused here,
/// not in the stream. When `stop` becomes true, or its sender goes, the watch ends with `Closed`.
pub fn follow(
    replica: &Replica,
    request: WatchRequest,
    conditions: Vec<Condition>,
    stop: watch::Receiver<bool>,
) -> Result<Watch, WatchError> {
    let WatchRequest { select, after, bookmarks } = request;
    let oldest = replica.read(crate::store::Store::oldest);
    if after < oldest {
        return Err(WatchError::Gone { oldest });
    }
    let follower = Follower {
        place: replica.subscribe(Interest::new(select, conditions), after),
        replica: replica.clone(),
        bookmarks,
        cursor: after,
        newest: 0,
        at: VecDeque::new(),
        scan: None,
        told: after,
        told_at: Instant::now(),
        ready: VecDeque::new(),
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
    place: Subscription,
    bookmarks: bool,
    /// Nothing up to here is left to look through.
    cursor: Revision,
    /// The newest revision that was there when it looked.
    newest: Revision,
    /// Revisions behind the cursor that concern it.
    at: VecDeque<Revision>,
    /// Everything behind this revision, and behind those above, is to be looked through.
    scan: Option<Revision>,
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
            let through = self.place.through();
            if let Some(told) = self.place.take() {
                self.learn(told);
            }
            if self.scan.is_some() || !self.at.is_empty() {
                self.look()?;
                if self.ready.is_empty() {
                    tokio::task::yield_now().await; // a long way through what does not match
                }
                continue;
            }
            self.cursor = self.cursor.max(through);
            self.newest = self.newest.max(through);
            // A bookmark tells of the past only, so a watch that waits for the future stays silent.
            let reached = self.cursor <= self.newest;
            let now = Instant::now();
            let due = if reached { self.told_at + BOOKMARK_AFTER } else { now + BOOKMARK_AFTER };
            if self.bookmarks && now >= due {
                let bookmark =
                    WatchBatch { revision: self.cursor.max(self.told), events: Vec::new() };
                return Ok(self.tell(bookmark));
            }
            let bookmark_due = async {
                if self.bookmarks {
                    tokio::time::sleep_until(due).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = self.place.news() => {}
                () = bookmark_due => {}
                stopped = self.stop.wait_for(|stop| *stop) => {
                    drop(stopped);
                    return Err(WatchError::Closed);
                }
            }
        }
    }

    /// Takes up what it was told. While it looks through everything it comes to that by itself.
    fn learn(&mut self, told: Told) {
        if self.scan.is_some() {
            return;
        }
        let known = self.at.back().copied().unwrap_or(self.cursor).max(self.cursor);
        self.at.extend(told.at.into_iter().filter(|revision| *revision > known));
        self.scan = told.from.map(|from| self.cursor.max(from.saturating_sub(1)));
    }

    /// Looks at some of what is behind the cursor.
    fn look(&mut self) -> Result<(), WatchError> {
        let (recent, newest) = self.replica.read(|store| {
            let recent = match self.scan {
                Some(after) if self.at.is_empty() => store.recent(after),
                _ => store.changed_at(self.at.iter().copied()),
            };
            (recent, store.revision())
        });
        let recent = recent?;
        self.newest = newest;
        let last = recent.last().map_or(self.cursor, |batch| batch.0);
        self.cursor = self.cursor.max(last);
        if self.at.is_empty() {
            self.scan = (!recent.is_empty() && last < newest).then_some(last);
        } else {
            self.at.drain(..recent.len());
        }
        // Without the lock: what nobody has looked up yet is looked up in the values.
        let seen: Vec<_> = recent.iter().filter_map(|batch| self.seen(batch)).collect();
        self.ready.extend(seen);
        if impresario_runtime::mutant!(WatchSkips) {
            self.ready.retain(|batch| batch.revision % 16 != 0);
        }
        Ok(())
    }

    /// One revision as this watch sees it; none if nothing of it matches.
    fn seen(&self, batch: &SharedChanges) -> Option<WatchBatch> {
        let (revision, changes) = &**batch;
        let interest = self.place.interest();
        if !changes.iter().any(|change| interest.covers(&change.key)) {
            return None;
        }
        let looked = (!interest.conditions.is_empty()).then(|| self.place.seen(batch));
        let nothing = Sides::default();
        let events = changes.iter().enumerate().filter_map(|(place, change)| {
            let sides = looked.as_ref().map_or(&nothing, |looked| looked.change(place));
            change.event(sides.meant(change, interest), *revision)
        });
        let events: Vec<_> = events.collect();
        (!events.is_empty()).then_some(WatchBatch { revision: *revision, events })
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
