//! What a job's actor writes to: the one door to pods, status and events.
//!
//! A narrow trait, so that a test can stand in for a cluster.

use futures_util::future::BoxFuture;
use serde_json::Value;
use thiserror::Error;

/// Why something was not written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeskError {
    /// Another member holds the job's shard.
    #[error("another member holds this job's shard: stop")]
    Fenced,
    /// It may work later.
    #[error("{cause}: it is tried again")]
    Later {
        /// What was in the way.
        cause: String,
    },
}

/// Pods, status and events of one job.
pub trait Desk: Send + Sync + 'static {
    /// Makes a pod.
    fn create_pod(&self, pod: Value) -> BoxFuture<'static, Result<(), DeskError>>;

    /// Removes a pod; one that is gone, or is another by now, is fine.
    fn delete_pod(&self, name: String, uid: String) -> BoxFuture<'static, Result<(), DeskError>>;

    /// Writes the job's status.
    fn write_status(&self, status: Value) -> BoxFuture<'static, Result<(), DeskError>>;

    /// Tells people something about the job.
    fn record(&self, job: &Value, warning: bool, reason: &str, message: &str);
}
