//! Working on requests: small ones where they came, large ones beside, a few at a time.
//!
//! Reading, checking and changing a body takes processor time in proportion to it, and YAML may take
//! more than it looks. The threads that answer everybody, and that the registry's heartbeats run on,
//! do no such work: a request with a large body computes on a thread beside them, and only so many compute
//! at one time. Who waits, for the registry or for a webhook that does not answer, holds nothing but its room
//! of memory.

use crate::limits::Limits;
use impresario_api::wire;
use impresario_runtime::tasks;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

/// Memory that working on a body takes, in multiples of its size: the parsed object is up to ten
/// times as large as its text, and stands there as read, as it was, as it becomes, and as bytes.
const WORK_PER_BYTE: usize = 32;
/// Bodies up to so many bytes are worked on where they came: about a millisecond.
const SMALL: usize = 16 * 1024;
/// Bytes of one permit.
const UNIT: usize = 1024;
/// Requests with large bodies that compute at one time, on however large a machine.
const MOST_COMPUTE: usize = 4;

/// How a request is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Where it came. So many bytes.
    Small(usize),
    /// On a thread of its own. So many bytes.
    Large(usize),
}

impl Load {
    /// What a body of this type weighs.
    pub fn of(content_type: &str, body: &[u8]) -> Self {
        // What YAML says with a few aliases takes as much as the largest body.
        let yaml = content_type.to_ascii_lowercase().contains("yaml");
        let aliases = yaml && body.contains(&b'&');
        let bytes = if aliases { wire::MAX_BODY_BYTES } else { body.len() };
        let work = bytes.saturating_mul(WORK_PER_BYTE);
        if bytes > SMALL || (yaml && !body.is_empty()) {
            Self::Large(work)
        } else {
            Self::Small(work)
        }
    }
}

/// The room for work of one gateway.
#[derive(Debug)]
pub struct Work {
    small: Room,
    large: Room,
    /// Those of the large ones that may compute now.
    processors: Arc<Semaphore>,
}

#[derive(Debug)]
struct Room {
    left: Arc<Semaphore>,
    units: u32,
}

impl Room {
    fn of(bytes: usize) -> Self {
        let units = units(bytes).max(1);
        Self { left: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Room for so many bytes, in turn. What is larger than all of it waits for all of it.
    async fn wait(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = units(bytes).min(self.units);
        Arc::clone(&self.left).acquire_many_owned(wanted).await.ok()
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 3).min(u32::MAX >> 3)
}

/// A turn to work; over when dropped.
#[derive(Debug, Default)]
pub struct Turn {
    _room: Option<OwnedSemaphorePermit>,
}

impl Work {
    /// As the limits have it. A quarter is kept for small requests, which large ones cannot take.
    pub fn of(limits: &Limits) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() / 2);
        Self {
            small: Room::of(limits.work / 4),
            large: Room::of(limits.work / 4 * 3),
            processors: Arc::new(Semaphore::new(processors.clamp(1, MOST_COMPUTE))),
        }
    }

    /// Waits for the turn of a request.
    pub async fn turn(&self, load: Load) -> Turn {
        let (room, bytes) = match load {
            Load::Small(bytes) => (&self.small, bytes),
            Load::Large(bytes) => (&self.large, bytes),
        };
        Turn { _room: room.wait(bytes).await }
    }

    /// Does a large piece of work beside. Each time it can go on it takes one of the processors, and a thread, until it
    /// waits again: so much as waits holds neither.
    pub async fn beside<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let mut work = Box::pin(work);
        let woken = Arc::new(Woken::default());
        loop {
            let turn = Arc::clone(&self.processors).acquire_owned().await.ok();
            let waker = Waker::from(Arc::clone(&woken));
            let step = tasks::spawn_blocking(move || {
                let _computes = turn;
                let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
                (work, polled)
            });
            let (rest, polled) = step.await?;
            match polled {
                Poll::Ready(outcome) => return Ok(outcome),
                Poll::Pending => work = rest,
            }
            woken.0.notified().await;
        }
    }
}

/// Told when a piece of work can go on, also while it is still looked whether it can.
#[derive(Debug, Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn what_looks_small_and_is_not_goes_beside() {
        assert!(matches!(Load::of("application/json", b"{}"), Load::Small(64)));
        assert!(matches!(Load::of("application/json", &vec![b' '; SMALL + 1]), Load::Large(_)));
        assert!(matches!(Load::of("application/yaml", b"a: b"), Load::Large(128)));
        assert!(matches!(Load::of("application/yaml", b""), Load::Small(0)));
        let most = wire::MAX_BODY_BYTES * WORK_PER_BYTE;
        assert_eq!(Load::of("application/apply-patch+YAML", b"a: &a b"), Load::Large(most));
    }

    #[tokio::test]
    async fn small_requests_do_not_wait_for_large_ones() {
        let work = Work::of(&Limits::default());
        let _all = work.turn(Load::Large(usize::MAX)).await;
        assert!(work.turn(Load::Large(1)).now_or_never().is_none());
        assert!(work.turn(Load::Small(1)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_is_done_beside_lets_others_compute_while_it_waits() {
        let work = Work { processors: Arc::new(Semaphore::new(1)), ..Work::of(&Limits::default()) };
        let (tell, told) = tokio::sync::oneshot::channel();
        let waits = work.beside(async { told.await.unwrap() });
        let tells = work.beside(async { tell.send(7).unwrap() });
        let (heard, _) = tokio::join!(waits, tells);
        assert_eq!(heard.unwrap(), 7);
    }

    #[tokio::test]
    async fn however_many_wait_for_somebody_others_are_worked_on() {
        let work = Work::of(&Limits::default());
        let (tell, told) = tokio::sync::watch::channel(false);
        let mut waiting = futures_util::stream::FuturesUnordered::new();
        for _ in 0..64 {
            let mut told = told.clone();
            let turn = work.turn(Load::Large(1)).await;
            waiting.push(work.beside(async move {
                let _holds = turn;
                told.wait_for(|told| *told).await.is_ok()
            }));
        }
        let another = async {
            let _turn = work.turn(Load::Large(1)).await;
            work.beside(async { 7 }).await.unwrap()
        };
        let all_wait = futures_util::StreamExt::next(&mut waiting);
        let done = futures_util::future::select(all_wait, Box::pin(another)).await;
        assert!(matches!(done, futures_util::future::Either::Right((7, _))));
        tell.send(true).unwrap();
        assert_eq!(futures_util::StreamExt::count(waiting).await, 64);
    }

    #[tokio::test]
    async fn what_panics_beside_frees_its_processor() {
        let work = Work { processors: Arc::new(Semaphore::new(1)), ..Work::of(&Limits::default()) };
        assert!(
            work.beside(async { panic!("as the test wants it") }).await.unwrap_err().is_panic()
        );
        assert_eq!(work.beside(async { 7 }).await.unwrap(), 7);
    }
}
