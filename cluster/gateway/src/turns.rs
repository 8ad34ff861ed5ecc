//! Turns for what is computed of long answers: a few of them at a time.
//!
//! Lists and watches read and write objects of megabytes, for as many clients as there are. Each does so in turn, and
//! only so many at once that a processor is left for everybody else: however many there are, a request that is small
//! is answered meanwhile.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::ready;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Most turns at a time, on a machine with many processors.
const MOST: usize = 4;

/// The turns of one gateway.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

/// A turn that is waited for.
type Coming = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

impl Turns {
    /// Turns for half of the processors.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() / 2);
        Self::of(processors.clamp(1, MOST))
    }

    fn of(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Does work that computes only in turn. A turn ends wherever the work waits: nobody has one who waits for the
    /// registry or for a client, so that one comes after as many steps of others as there are before it. Whoever
    /// cannot wait for that puts a deadline around all of it.
    pub async fn by_turns<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut coming: Option<Coming> = None;
        poll_fn(|context| {
            let turn = coming.get_or_insert_with(|| Box::pin(Arc::clone(&self.0).acquire_owned()));
            // They are never closed; without them it would be done all the same.
            let _turn = ready!(turn.as_mut().poll(context));
            coming = None;
            work.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn nothing_is_computed_while_others_have_all_turns() {
        let turns = Turns::of(1);
        let computed = AtomicBool::new(false);
        let other = Arc::clone(&turns.0).acquire_owned().await.unwrap();
        let mut work = Box::pin(turns.by_turns(async { computed.store(true, Ordering::Relaxed) }));
        assert!(work.as_mut().now_or_never().is_none() && !computed.load(Ordering::Relaxed));
        drop(other);
        work.await;
        assert!(computed.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn who_waits_has_no_turn() {
        let turns = Turns::of(1);
        let (tell, told) = oneshot::channel();
        let mut waits = Box::pin(turns.by_turns(told));
        assert!(waits.as_mut().now_or_never().is_none());
        turns.by_turns(async { tell.send(7).unwrap() }).await;
        assert_eq!(waits.await, Ok(7));
        // Nor has who went away while waiting for one.
        let other = Arc::clone(&turns.0).acquire_owned().await.unwrap();
        assert!(turns.by_turns(async {}).now_or_never().is_none());
        drop(other);
        assert!(turns.by_turns(async {}).now_or_never().is_some());
    }
}
