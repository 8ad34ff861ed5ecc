//! Working on requests: small ones where they came, large ones beside, a few at a time.
//!
//! Reading, checking and changing a body takes processor time in proportion to it, and YAML may take
//! more than it looks. The threads that answer everybody, and that the registry's heartbeats run on,
//! do no such work: a request with a large body is answered on a thread of its own, and only so many of
//! these compute at one time.

use crate::limits::Limits;
use impresario_api::wire;
use impresario_runtime::tasks;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

/// Memory that working on a body takes, in multiples of its size: the parsed object is up to ten
/// times as large as its text, and stands there as read, as it was, as it becomes, and as bytes.
const WORK_PER_BYTE: usize = 32;
/// Bodies up to so many bytes are worked on where they came: about a millisecond.
const SMALL: usize = 16 * 1024;
/// Bytes of one permit.
const UNIT: usize = 1024;
/// Requests with large bodies that are worked on at a time; most of them wait for the registry.
const THREADS: usize = 8;

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
    threads: Arc<Semaphore>,
    /// Held while one of the large ones computes.
    processors: Vec<Mutex<()>>,
    next: AtomicUsize,
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
    _thread: Option<OwnedSemaphorePermit>,
}

impl Work {
    /// As the limits have it. A quarter is kept for small requests, which large ones cannot take.
    pub fn of(limits: &Limits) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() / 2);
        Self {
            small: Room::of(limits.work / 4),
            large: Room::of(limits.work / 4 * 3),
            threads: Arc::new(Semaphore::new(THREADS)),
            processors: (0..processors.clamp(1, THREADS / 2)).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Waits for the turn of a request.
    pub async fn turn(&self, load: Load) -> Turn {
        match load {
            Load::Small(bytes) => Turn { _room: self.small.wait(bytes).await, _thread: None },
            Load::Large(bytes) => {
                let thread = Arc::clone(&self.threads).acquire_owned().await.ok();
                Turn { _room: self.large.wait(bytes).await, _thread: thread }
            }
        }
    }

    /// Does a large piece of work on a thread of its own. Where it waits it lets others compute.
    pub async fn beside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let this = Arc::clone(self);
        let runtime = tokio::runtime::Handle::current();
        let task = tasks::spawn_blocking(move || {
            let number = this.next.fetch_add(1, Ordering::Relaxed) % this.processors.len();
            runtime.block_on(async {
                let mut work = pin!(work);
                std::future::poll_fn(|context| -> Poll<T> {
                    let _computes =
                        this.processors[number].lock().unwrap_or_else(PoisonError::into_inner);
                    work.as_mut().poll(context)
                })
                .await
            })
        });
        task.await
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
        let work =
            Arc::new(Work { processors: vec![Mutex::default()], ..Work::of(&Limits::default()) });
        let (tell, told) = tokio::sync::oneshot::channel();
        let waits = work.beside(async { told.await.unwrap() });
        let tells = work.beside(async { tell.send(7).unwrap() });
        let (heard, _) = tokio::join!(waits, tells);
        assert_eq!(heard.unwrap(), 7);
    }
}
