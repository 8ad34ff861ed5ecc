//! What a job's actor reads and writes: the one door to its object, pods, status and events.
//!
//! A narrow trait, so that a test can stand in for a cluster.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use impresario_runtime::NodeName;
use serde_json::Value;
use std::net::SocketAddr;
use thiserror::Error;

/// Why something was not written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeskError {
    /// It may work later.
    #[error("{cause}: it is tried again")]
    Later {
        /// What was in the way.
        cause: String,
    },
    /// The job's object is gone, is another by now, or is being deleted.
    #[error("the job is deleted: nothing is made for it any more")]
    JobDeleted,
}

/// What can be seen from a desk. Each is a whole picture, never a difference.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// The job's object.
    Job(Value),
    /// All pods that name the job as an owner.
    Pods(Vec<Value>),
}

/// Pods, status and events of one job.
pub trait Desk: Send + Sync + 'static {
    /// The job and its pods now, and again whenever they change.
    fn follow(&self) -> BoxStream<'static, Sight>;

    /// Makes a pod, unless the job's object is being deleted: what was seen of the two may be old, and pods
    /// that lose their owner look like pods that are missing. Gives its uid.
    fn create_pod(&self, pod: Value) -> BoxFuture<'static, Result<String, DeskError>>;

    /// Removes a pod; one that is gone, or is another by now, is fine.
    fn delete_pod(&self, name: String, uid: String) -> BoxFuture<'static, Result<(), DeskError>>;

    /// Reaches the registry, as it is agreed on by a majority. Without that nobody can know whether this
    /// activation still holds the job.
    fn confirm(&self) -> BoxFuture<'static, Result<(), DeskError>>;

    /// The control members and where they are reached, as far as this one knows.
    fn control_members(&self) -> Vec<(NodeName, SocketAddr)>;

    /// Writes the job's status.
    fn write_status(&self, status: Value) -> BoxFuture<'static, Result<(), DeskError>>;

    /// Tells people something about the job.
    fn record(&self, job: &Value, warning: bool, reason: &str, message: &str);
}
