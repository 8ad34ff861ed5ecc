//! What a leader lets in: so many bytes at a time, and only what the disks have room for.
//!
//! What is let in is in memory, in the log's next batch and in messages to the others until it is committed, so
//! its bytes are bounded; and it must be written to the end, so nothing is let in that may not fit.

use crate::{disk::volume::Room, error::TransactError, transaction::Transaction};
use parking_lot::RwLock;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
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
}

impl Default for Intake {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(IN_FLIGHT)), crowded: RwLock::new(None) }
    }
}

/// The disk that a write goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk<'m> {
    pub(super) room: &'m Room,
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
        disk: Disk<'_>,
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
        match crowded {
            Some(member) if !transaction.only_removes() => {
                Err(Turned::Away(TransactError::NoSpace { member }))
            }
            _ => Ok(place),
        }
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

/// The voters without room, by name, if the others are no majority.
fn crowded(voters: &BTreeSet<String>, without_room: &BTreeSet<String>) -> Option<String> {
    let full: Vec<&str> = voters.intersection(without_room).map(String::as_str).collect();
    (2 * (voters.len() - full.len()) <= voters.len() && !full.is_empty()).then(|| full.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, disk::volume::Machine};

    fn disk<'m>(member: &'m str, room: &'m Room) -> Disk<'m> {
        Disk { room, state_bytes: 0, member }
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
        let (intake, limit) = (Intake::default(), Duration::from_secs(1));
        let large = Transaction::new().put(Key::new("pods", "d", "x"), vec![0; 1 << 20]);
        let mut places = Vec::new();
        while let Ok(place) = intake.enter(&large, disk("m", &room), limit).await {
            places.push(place);
        }
        assert_eq!(places.len(), 31, "a bound in bytes");
        let late = intake.enter(&large, disk("m", &room), limit).await;
        assert!(matches!(late, Err(Turned::Late)), "{late:?}");
        places.pop();
        drop(intake.enter(&large, disk("m", &room), limit).await.unwrap());
    }

    #[tokio::test]
    async fn without_room_only_what_removes_is_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(Arc::new(Machine), directory.path());
        let (intake, limit) = (Intake::default(), Duration::from_secs(1));
        let voters = names(&["a", "b", "c"]);
        assert!(intake.hear(&voters, &names(&["b", "c"])));
        assert!(!intake.hear(&voters, &names(&["b", "c"])), "that is no news");
        let key = || Key::new("pods", "d", "x");
        let put = |value: &'static str| Transaction::new().put(key(), value);
        let refused = intake.enter(&put("{}"), disk("a", &room), limit).await;
        let Err(Turned::Away(TransactError::NoSpace { member })) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(member, "b, c");
        drop(
            intake.enter(&Transaction::new().delete(key()), disk("a", &room), limit).await.unwrap(),
        );
        let ending = put(r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}"#);
        drop(intake.enter(&ending, disk("a", &room), limit).await.unwrap());
        assert!(intake.hear(&voters, &names(&["b"])));
        drop(intake.enter(&put("{}"), disk("a", &room), limit).await.unwrap());
    }
}
