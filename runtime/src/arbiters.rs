//! The threads that a node's actors run on: a few, taken in turn.

use actix::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct Arbiters {
    handles: Vec<ArbiterHandle>,
    owned: Mutex<Vec<Arbiter>>,
    next: AtomicUsize,
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
