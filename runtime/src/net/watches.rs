//! Death watches between two nodes: ours on the peer's actors, and its on ours.
//!
//! Each side says again, with every heartbeat, what the other has not confirmed: a watch until it is confirmed or
//! answered, an end until its watcher says that it has heard. So neither a full lane nor a connection that breaks loses
//! one. A watch that was confirmed names the actor's life: a successor of the same name does not inherit it.

use super::frame::Frame;
use crate::{
    door::Failure,
    name::ActorName,
    watch::{Reason, WatchError},
};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use tokio::{sync::oneshot, task::AbortHandle};

/// Frames that are said again at a time, so that a heartbeat never waits behind them.
pub(super) const AGAIN: usize = 4096;

/// How a watch ends.
pub(crate) type Word = Result<Reason, WatchError>;

struct Ours {
    actor: ActorName,
    /// Which life of the actor is watched, once that is confirmed.
    life: Option<u64>,
    tell: oneshot::Sender<Word>,
}

#[derive(Default)]
struct OurWatches {
    watches: HashMap<u64, Ours>,
    /// Those of them that the present connection has not confirmed.
    unconfirmed: BTreeSet<u64>,
    /// Ends of watches that the lane had no room for.
    unsaid: BTreeSet<u64>,
}

/// Our watches on a peer's actors.
#[derive(Default)]
pub(crate) struct Watches(Mutex<OurWatches>);

impl Watches {
    pub(crate) fn add(&self, id: u64, actor: ActorName, tell: oneshot::Sender<Word>) -> Frame {
        let frame = Frame::Watch { id, actor: actor.clone(), life: None };
        let mut ours = self.0.lock();
        ours.watches.insert(id, Ours { actor, life: None, tell });
        ours.unconfirmed.insert(id);
        frame
    }

    /// Takes a watch back that was never sent.
    pub(crate) fn take(&self, id: u64) -> Option<oneshot::Sender<Word>> {
        let mut ours = self.0.lock();
        ours.unconfirmed.remove(&id);
        ours.watches.remove(&id).map(|watch| watch.tell)
    }

    /// The peer watches this life of the actor for us; `false` when we do not want it any more.
    pub(crate) fn confirmed(&self, id: u64, life: u64) -> bool {
        let mut ours = self.0.lock();
        ours.unconfirmed.remove(&id);
        match ours.watches.get_mut(&id) {
            Some(watch) => {
                watch.life.get_or_insert(life);
                true
            }
            None => false,
        }
    }

    /// The word on a watch; a second one finds nobody.
    pub(crate) fn answer(&self, id: u64, word: Word) {
        if let Some(tell) = self.take(id) {
            // Its watcher may have left meanwhile.
            let _ = tell.send(word);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().watches.is_empty()
    }

    /// A new connection stands: nothing is confirmed on it.
    pub(crate) fn connected(&self) {
        let mut ours = self.0.lock();
        ours.unconfirmed = ours.watches.keys().copied().collect();
    }

    /// The end of this watch is to be said again later.
    pub(crate) fn not_said(&self, id: u64) {
        self.0.lock().unsaid.insert(id);
    }

    /// What is to be said again, at most [`AGAIN`] of each.
    pub(crate) fn again(&self) -> Vec<Frame> {
        let mut ours = self.0.lock();
        let OurWatches { watches, unconfirmed, unsaid } = &mut *ours;
        let watch = |id: &u64| {
            let watch = watches.get(id)?;
            Some(Frame::Watch { id: *id, actor: watch.actor.clone(), life: watch.life })
        };
        let mut frames: Vec<_> = unconfirmed.iter().filter_map(watch).take(AGAIN).collect();
        for _ in 0..AGAIN {
            let Some(id) = unsaid.pop_first() else { break };
            frames.push(Frame::Unwatch { id });
        }
        frames
    }

    /// The peer is lost.
    pub(crate) fn all_lost(&self) {
        let lost = std::mem::take(&mut *self.0.lock());
        for watch in lost.watches.into_values() {
            // Its watcher may have left meanwhile.
            let _ = watch.tell.send(Ok(Reason::NodeLost));
        }
    }
}

enum Watcher {
    Waiting { task: AbortHandle, life: u64 },
    Told(Reason),
}

#[derive(Default)]
struct TheirWatches {
    watchers: HashMap<u64, Watcher>,
    /// Ends that the peer has not said it has heard.
    told: BTreeSet<u64>,
}

/// A peer's watches on our actors.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<TheirWatches>);

impl Watchers {
    /// What is known of a watch that is said again.
    pub(crate) fn known(&self, id: u64) -> Option<Frame> {
        match self.0.lock().watchers.get(&id)? {
            Watcher::Waiting { life, .. } => Some(Frame::Watching { id, life: *life }),
            Watcher::Told(reason) => Some(Frame::Terminated { id, reason: *reason }),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().watchers.len()
    }

    /// Keeps the task that `start` starts; it cannot call [`Self::ended`] before it is kept.
    pub(crate) fn add(&self, id: u64, life: u64, start: impl FnOnce() -> AbortHandle) -> Frame {
        let mut theirs = self.0.lock();
        theirs.watchers.insert(id, Watcher::Waiting { task: start(), life });
        Frame::Watching { id, life }
    }

    /// The watched actor has ended.
    pub(crate) fn ended(&self, id: u64, reason: Reason) -> Option<Frame> {
        let mut theirs = self.0.lock();
        *theirs.watchers.get_mut(&id)? = Watcher::Told(reason);
        theirs.told.insert(id);
        Some(Frame::Terminated { id, reason })
    }

    /// The watcher has heard, or does not watch any more.
    pub(crate) fn remove(&self, id: u64) {
        let mut theirs = self.0.lock();
        theirs.told.remove(&id);
        if let Some(Watcher::Waiting { task, .. }) = theirs.watchers.remove(&id) {
            task.abort();
        }
    }

    /// Ends that are to be said again, at most [`AGAIN`].
    pub(crate) fn again(&self) -> Vec<Frame> {
        let theirs = self.0.lock();
        let told = theirs.told.iter().take(AGAIN);
        told.filter_map(|id| match theirs.watchers.get(id)? {
            Watcher::Told(reason) => Some(Frame::Terminated { id: *id, reason: *reason }),
            Watcher::Waiting { .. } => None,
        })
        .collect()
    }

    /// The peer is lost: it is told nothing more, and will watch anew.
    pub(crate) fn forget(&self) {
        for watcher in std::mem::take(&mut *self.0.lock()).watchers.into_values() {
            if let Watcher::Waiting { task, .. } = watcher {
                task.abort();
            }
        }
    }
}

/// What a failure to watch is to the watcher.
pub(crate) fn refused(failure: Failure) -> WatchError {
    match failure {
        Failure::Refused { reason } => WatchError::Refused { reason },
        _ => WatchError::Overloaded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_ambient::tasks;

    fn ids(frames: &[Frame]) -> Vec<(u64, Option<u64>)> {
        let watch = |frame: &Frame| match frame {
            Frame::Watch { id, life, .. } => Some((*id, *life)),
            _ => None,
        };
        frames.iter().filter_map(watch).collect()
    }

    #[test]
    fn a_watch_is_said_again_until_it_is_confirmed_and_once_more_on_each_connection() {
        let watches = Watches::default();
        let (tell, mut word) = oneshot::channel();
        watches.add(7, "a".into(), tell);
        assert_eq!(ids(&watches.again()), [(7, None)]);
        assert!(watches.confirmed(7, 3));
        assert!(watches.again().is_empty());
        watches.connected();
        assert_eq!(ids(&watches.again()), [(7, Some(3))]);
        watches.answer(7, Ok(Reason::Failed));
        watches.answer(7, Ok(Reason::Stopped));
        assert_eq!(word.try_recv(), Ok(Ok(Reason::Failed)));
        assert!(!watches.confirmed(7, 3) && watches.again().is_empty());
    }

    #[tokio::test]
    async fn an_end_is_said_again_until_its_watcher_has_heard() {
        let watchers = Watchers::default();
        let task = || tasks::spawn(std::future::pending::<()>()).abort_handle();
        assert_eq!(watchers.add(7, 3, task), Frame::Watching { id: 7, life: 3 });
        assert_eq!(watchers.known(7), Some(Frame::Watching { id: 7, life: 3 }));
        let told = Frame::Terminated { id: 7, reason: Reason::Failed };
        assert_eq!(watchers.ended(7, Reason::Failed), Some(told.clone()));
        assert_eq!(watchers.known(7), Some(told.clone()));
        assert_eq!(watchers.again(), [told]);
        watchers.remove(7);
        assert!(watchers.again().is_empty() && watchers.len() == 0);
        assert_eq!(watchers.ended(7, Reason::Failed), None);
    }
}
