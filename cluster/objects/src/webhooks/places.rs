//! How many questions, and how much of answers, there may be at once: of one webhook, and of all together.
//!
//! A webhook that hangs fills its own places; the others have theirs. Being out of the places of all is nobody's fault, and
//! is never taken for a webhook that cannot be reached: otherwise who writes much would turn others' webhooks off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Questions that may be under way at once to all webhooks, each with its object and its answer.
const OF_ALL: usize = 256;
/// The same to one webhook.
const OF_ONE: usize = 32;
/// Answers over [`SMALL`] that may be read at once, of all webhooks.
const LARGE_OF_ALL: usize = 8;
/// The same of one webhook.
const LARGE_OF_ONE: usize = 2;
/// Names that may be looked up at once, for all webhooks. The system's look-up takes a thread until it is done, long after
/// nobody waits for it.
const NAMES_OF_ALL: usize = 32;
/// The same for one webhook.
const NAMES_OF_ONE: usize = 4;
/// Answers up to so many bytes are read without waiting for room.
pub(super) const SMALL: usize = 64 << 10;
/// How long a question waits for a place.
const FREE: Duration = Duration::from_secs(5);

/// The places of one webhook, or of all.
#[derive(Debug)]
pub(super) struct Places {
    questions: Arc<Semaphore>,
    large: Arc<Semaphore>,
    names: Arc<Semaphore>,
    /// Whether the last question was answered, as far as is known.
    answers: AtomicBool,
}

/// What holds places; they are free when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The webhook does not answer what it was asked already.
    Hangs,
    /// Too much is being asked: it says nothing about the webhook.
    Busy,
}

impl Places {
    /// Those of one webhook.
    pub(super) fn of_one() -> Self {
        Self::new(OF_ONE, LARGE_OF_ONE, NAMES_OF_ONE)
    }

    /// Those of all webhooks together.
    pub(super) fn of_all() -> Self {
        Self::new(OF_ALL, LARGE_OF_ALL, NAMES_OF_ALL)
    }

    fn new(questions: usize, large: usize, names: usize) -> Self {
        Self {
            questions: Arc::new(Semaphore::new(questions)),
            large: Arc::new(Semaphore::new(large)),
            names: Arc::new(Semaphore::new(names)),
            answers: AtomicBool::new(true),
        }
    }

    /// A place for a question to this webhook, which also takes one of those of all.
    pub(super) async fn take(&self, all: &Self) -> Result<Held, Full> {
        self.take_until(all, Instant::now() + FREE).await
    }

    async fn take_until(&self, all: &Self, until: Instant) -> Result<Held, Full> {
        let own = timeout_at(until, Arc::clone(&self.questions).acquire_owned()).await;
        let Ok(Ok(own)) = own else {
            let answers = self.answers.load(Ordering::Relaxed);
            return Err(if answers { Full::Busy } else { Full::Hangs });
        };
        match timeout_at(until, Arc::clone(&all.questions).acquire_owned()).await {
            Ok(Ok(of_all)) => Ok(Held { _own: own, _of_all: of_all }),
            _ => Err(Full::Busy),
        }
    }

    /// Room for a large answer of this webhook, out of that of all; the caller keeps the time.
    pub(super) async fn take_large(&self, all: &Self) -> Option<Held> {
        let own = Arc::clone(&self.large).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&all.large).acquire_owned().await.ok()?;
        Some(Held { _own: own, _of_all: of_all })
    }

    /// The right to look up the name of this webhook, held by who looks it up; the caller keeps the time.
    pub(super) async fn take_name(&self, all: &Self) -> Option<Held> {
        let own = Arc::clone(&self.names).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&all.names).acquire_owned().await.ok()?;
        Some(Held { _own: own, _of_all: of_all })
    }

    /// Notes whether a question was answered.
    pub(super) fn note(&self, was_answered: bool) {
        self.answers.store(was_answered, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_webhook_that_hangs_takes_no_place_of_another() {
        let (all, hangs, healthy) = (Places::of_all(), Places::of_one(), Places::of_one());
        let mut held = Vec::new();
        for _ in 0..OF_ONE {
            held.push(hangs.take_until(&all, Instant::now()).await.unwrap());
        }
        assert_eq!(
            hangs.take_until(&all, Instant::now()).await.unwrap_err(),
            Full::Busy,
            "it may only be slow"
        );
        hangs.note(false);
        assert_eq!(hangs.take_until(&all, Instant::now()).await.unwrap_err(), Full::Hangs);
        held.push(healthy.take_until(&all, Instant::now()).await.unwrap());
        drop(held);
        assert!(hangs.take_until(&all, Instant::now()).await.is_ok());
    }

    #[tokio::test]
    async fn being_out_of_the_places_of_all_is_no_fault_of_a_webhook() {
        let (all, mine) = (Places::new(1, 1, 1), Places::of_one());
        mine.note(false);
        let _other = Places::of_one().take_until(&all, Instant::now()).await.unwrap();
        assert_eq!(mine.take_until(&all, Instant::now()).await.unwrap_err(), Full::Busy);
    }
}
