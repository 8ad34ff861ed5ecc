//! The threads that a node's actors run on: a few, taken in turn.

use actix::{Arbiter, ArbiterHandle, System};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::error::StartError;

/// Threads that the actors of several nodes of one process run on. Cheap to clone; they end with the last clone and
/// the last node that has them.
#[derive(Clone)]
pub struct Threads(pub(crate) Arc<Arbiters>);

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Threads").field(&self.0.handles.len()).finish()
    }
}

impl Threads {
    /// Starts so many threads, at least one. Must run inside an actix `System`.
    pub fn start(count: usize) -> Result<Self, StartError> {
        if System::try_current().is_none() {
            return Err(StartError::NoSystem);
        }
        Ok(Self(Arc::new(Arbiters::start(count))))
    }
}

pub(crate) struct Arbiters {
    handles: Vec<ArbiterHandle>,
    owned: Mutex<Vec<Arbiter>>,
    next: AtomicUsize,
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        self.release();
    }
}

impl Arbiters {
    /// Starts `count` threads. Needs an actix system in this thread.
    pub(crate) fn start(count: usize) -> Self {
        let owned: Vec<_> = (0..count.max(1)).map(|_| Arbiter::new()).collect();
        let handles = owned.iter().map(Arbiter::handle).collect();
        Self { handles, owned: Mutex::new(owned), next: AtomicUsize::new(0) }
    }

    pub(crate) fn next(&self) -> &ArbiterHandle {
        &self.handles[self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }

    /// Tells the threads to stop.
    pub(crate) fn release(&self) {
        for handle in &self.handles {
            handle.stop();
        }
    }

    /// Stops the threads and waits for them.
    pub(crate) fn stop(&self) {
        self.release();
        for arbiter in self.owned.lock().drain(..) {
            if arbiter.join().is_err() {
                tracing::error!("an arbiter thread ended with a panic");
            }
        }
    }
}
