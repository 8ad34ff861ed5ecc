//! What a leader lets in: so many bytes at a time, and only what the disks have room for.
//!
//! What is let in is in memory, in the log's next batch and in messages to the others until it is committed, so
//! its bytes are bounded, whether or not anybody waits for its end; and it must be written to the end, so nothing is
//! let in that may not fit. What removes is let in beside that, as far as a part of the log's reserve goes.

use crate::{
    disk::volume::Room, error::TransactError, key::Key, replica::Replica, transaction::Transaction,
};
use parking_lot::RwLock;
use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The bytes of writes that may be on their way at a time.
const IN_FLIGHT: usize = 32 * UNITS;
const UNITS: usize = 1024;
/// The semaphore counts in units of so many bytes.
const UNIT_BYTES: usize = 1024;
/// What a write takes on the disk beside its own bytes.
const OVERHEAD_BYTES: usize = 512;

/// The door for writes.
#[derive(Debug)]
pub(super) struct Intake {
    places: Arc<Semaphore>,
    /// Members without room, if those that have some are no majority.
    crowded: RwLock<Option<String>>,
    /// The bytes of objects being deleted that were written since there was room last.
    ending: AtomicU64,
}

impl Default for Intake {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        Self { places, crowded: RwLock::new(None), ending: AtomicU64::new(0) }
    }
}

/// The disk that a write goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk<'m> {
    pub(super) room: &'m Room,
    /// What is written there now.
    pub(super) replica: &'m Replica,
    /// The size of the state: what a snapshot takes beside the one that it replaces, before it frees the log.
    pub(super) state_bytes: u64,
    /// Whose it is.
    pub(super) member: &'m str,
}

/// Why a write is not let in. Nothing of it was done.
#[derive(Debug)]
pub(super) enum Turned {
    /// For this reason, which the writer is told.
    Away(TransactError),
    /// Too many others were before it.
    Late,
}

impl Intake {
    /// Lets a write in, which holds its place until it drops this. Waits for others up to `limit`.
    pub(super) async fn enter(
        &self,
        transaction: &Transaction,
        disk: &Disk<'_>,
        limit: Duration,
    ) -> Result<OwnedSemaphorePermit, Turned> {
        let bytes = transaction.bytes() + OVERHEAD_BYTES;
        let places = bytes.div_ceil(UNIT_BYTES) as u32;
        let entered = timeout(limit, self.places.clone().acquire_many_owned(places)).await;
        let Ok(Ok(place)) = entered else { return Err(Turned::Late) };
        // Twice: it may stand in the log and in a snapshot.
        let on_the_way = (IN_FLIGHT - self.places.available_permits()) * UNIT_BYTES;
        let crowded = if disk.room.takes(disk.state_bytes + 2 * on_the_way as u64) {
            self.crowded.read().clone()
        } else {
            Some(disk.member.to_owned())
        };
        let Some(member) = crowded else {
            self.ending.store(0, Ordering::Relaxed);
            return Ok(place);
        };
        if self.may_end(transaction, disk) {
            return Ok(place);
        }
        Err(Turned::Away(TransactError::NoSpace { member }))
    }

    /// Whether it only removes objects, or takes the steps that removal needs and does not write more of the reserve
    /// full than deletions leave over: an object that is being deleted could be written for ever.
    fn may_end(&self, transaction: &Transaction, disk: &Disk<'_>) -> bool {
        let held = |key: &Key| disk.replica.read(|store| store.value_bytes(key));
        let Some(bytes) = transaction.ending_bytes(held) else { return false };
        let most = disk.room.reserve_bytes() / 2;
        let with = |before: u64| before.checked_add(bytes as u64).filter(|sum| *sum <= most);
        bytes == 0 || self.ending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    /// What the members have said of their disks. True if that changes what is let in.
    pub(super) fn hear(&self, voters: &BTreeSet<String>, without_room: &BTreeSet<String>) -> bool {
        let crowded = crowded(voters, without_room);
        let mut known = self.crowded.write();
        let news = *known != crowded;
        *known = crowded;
        news
    }
}

/// A write that was let in. Its place is given back when raft has done with it: who waits for it may have gone long
/// before, and what is in the log and in messages is in memory all the same.
pub(super) struct OnItsWay<T: 'static>(Option<(Write<T>, OwnedSemaphorePermit)>);

/// The write, which ends with what became of it.
type Write<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T: 'static> OnItsWay<T> {
    pub(super) fn new(
        place: OwnedSemaphorePermit,
        write: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        Self(Some((Box::pin(write), place)))
    }
}

impl<T: 'static> Future for OnItsWay<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some((write, _)) = &mut self.0 else { return Poll::Pending };
        let answer = std::task::ready!(write.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(answer)
    }
}

impl<T: 'static> Drop for OnItsWay<T> {
    fn drop(&mut self) {
        let Some((write, place)) = self.0.take() else { return };
        // Ends when the entry is committed or cut off, or raft stops; as many as have places can run.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                write.await;
                drop(place);
            });
        }
    }
}

/// The voters without room, by name, if the others are no majority.
fn crowded(voters: &BTreeSet<String>, without_room: &BTreeSet<String>) -> Option<String> {
    let full: Vec<&str> = voters.intersection(without_room).map(String::as_str).collect();
    (2 * (voters.len() - full.len()) <= voters.len() && !full.is_empty()).then(|| full.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, disk::volume::Machine};

    fn disk<'m>(member: &'m str, room: &'m Room, replica: &'m Replica) -> Disk<'m> {
        Disk { room, replica, state_bytes: 0, member }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn writes_go_on_while_a_majority_has_room() {
        let voters = names(&["a", "b", "c"]);
        assert_eq!(crowded(&voters, &names(&[])), None);
        assert_eq!(crowded(&voters, &names(&["a", "gone"])), None);
        assert_eq!(crowded(&voters, &names(&["a", "c"])), Some("a, c".to_owned()));
        assert_eq!(crowded(&names(&["a", "b"]), &names(&["b"])), Some("b".to_owned()));
        assert_eq!(crowded(&names(&["a"]), &names(&["a"])), Some("a".to_owned()));
        assert_eq!(crowded(&names(&[]), &names(&[])), None);
    }

    #[tokio::test(start_paused = true)]
    async fn more_bytes_than_may_be_on_their_way_wait_and_are_turned_away_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(Arc::new(Machine), directory.path());
        let replica = Replica::new(Store::default());
        let (intake, limit) = (Intake::default(), Duration::from_secs(1));
        let large = Transaction::new().put(Key::new("pods", "d", "x"), vec![0; 1 << 20]);
        let mut places = Vec::new();
        while let Ok(place) = intake.enter(&large, &disk("m", &room, &replica), limit).await {
            places.push(place);
        }
        assert_eq!(places.len(), 31, "a bound in bytes");
        let late = intake.enter(&large, &disk("m", &room, &replica), limit).await;
        assert!(matches!(late, Err(Turned::Late)), "{late:?}");
        places.pop();
        drop(intake.enter(&large, &disk("m", &room, &replica), limit).await.unwrap());
    }

    #[tokio::test]
    async fn without_room_only_what_removes_is_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(Arc::new(Machine), directory.path());
        let replica = Replica::new(Store::default());
        let (intake, limit) = (Intake::default(), Duration::from_secs(1));
        let voters = names(&["a", "b", "c"]);
        assert!(intake.hear(&voters, &names(&["b", "c"])));
        assert!(!intake.hear(&voters, &names(&["b", "c"])), "that is no news");
        let key = || Key::new("pods", "d", "x");
        let put = |value: &'static str| Transaction::new().put(key(), value);
        let refused = intake.enter(&put("{}"), &disk("a", &room, &replica), limit).await;
        let Err(Turned::Away(TransactError::NoSpace { member })) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(member, "b, c");
        drop(
            intake
                .enter(&Transaction::new().delete(key()), &disk("a", &room, &replica), limit)
                .await
                .unwrap(),
        );
        let put_ending = |more: usize| {
            let more = "x".repeat(more);
            let value = format!(
                r#"{{"metadata":{{"deletionTimestamp":"2026-01-01T00:00:00Z"}},"x":"{more}"}}"#
            );
            Transaction::new().put(key(), value)
        };
        let enter = |more: usize| {
            let (intake, room, replica) = (&intake, &room, &replica);
            async move { intake.enter(&put_ending(more), &disk("a", room, replica), limit).await }
        };
        assert!(enter(0).await.is_err(), "there is nothing to end");
        replica.write(|store| store.transact(&put("{}"))).unwrap();
        drop(enter(0).await.unwrap());
        assert!(enter(100_000).await.is_err(), "it grows");
        // One that is large may be written again, and not for ever.
        replica.write(|store| store.transact(&put_ending(1 << 20))).unwrap();
        let mut taken = 0;
        while enter(1 << 20).await.is_ok() {
            taken += 1;
        }
        assert!(taken < 8, "{taken} MiB of the reserve");
        drop(
            intake
                .enter(&Transaction::new().delete(key()), &disk("a", &room, &replica), limit)
                .await
                .unwrap(),
        );
        assert!(intake.hear(&voters, &names(&["b"])));
        drop(intake.enter(&put("{}"), &disk("a", &room, &replica), limit).await.unwrap());
    }

    #[tokio::test]
    async fn a_place_is_given_back_when_the_write_is_done_and_not_when_nobody_waits_for_it() {
        let places = Arc::new(Semaphore::new(1));
        let place = || places.clone().try_acquire_owned();
        let (commit, committed) = tokio::sync::oneshot::channel::<()>();
        let write = OnItsWay::new(place().unwrap(), committed);
        assert!(timeout(Duration::ZERO, write).await.is_err());
        assert!(place().is_err(), "the entry is in the log");
        commit.send(()).unwrap();
        drop(places.acquire().await.unwrap());
        assert_eq!(OnItsWay::new(place().unwrap(), async { 7 }).await, 7);
        assert!(place().is_ok());
    }
}
