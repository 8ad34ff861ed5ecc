//! Tasks.
//!
//! In a simulation, what is spawned runs on the one thread that there is; what blocks has a thread of its own all the
//! same, so a simulated machine's disk must not block.

use std::future::Future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Runs this beside its caller, who owns the handle: whoever drops it without a word leaves a task that nobody ends.
///
/// # Panics
///
/// Outside a tokio runtime, as [`tokio::spawn`].
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(task)
}

/// Runs this on the threads of another runtime than its caller's, who owns the handle: an actor that serves many has a
/// thread of its own for its turns alone.
pub fn spawn_on<F>(runtime: &Handle, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    runtime.spawn(task)
}

/// Runs what blocks on a thread where it keeps nobody up.
///
/// # Panics
///
/// Outside a tokio runtime, as [`tokio::task::spawn_blocking`].
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}
