//! What the harness needs of a cluster: to start and to break its processes, and to use it as any
//! program does, through the SDK.

use futures_util::future::BoxFuture;
use impresario_registry::RegistryHandle;
use impresario_runtime::ActorNode;
use std::path::PathBuf;
use thiserror::Error;

/// The harness could not do its work: no verdict on the cluster.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// The cluster did not start, or a process could not be reached.
    #[error("{what}: {reason}")]
    Cluster {
        /// What was tried.
        what: String,
        /// What happened.
        reason: String,
    },
    /// What drives the cluster could not be set up before the first fault.
    #[error("the workload could not be set up ({reason}): the cluster was broken before any fault")]
    Workload {
        /// What happened.
        reason: String,
    },
}

/// A way into the cluster. Used with a credential that may write anything.
#[derive(Clone)]
pub struct Session {
    /// Asks actors.
    pub node: ActorNode,
    /// Reads and writes.
    pub registry: RegistryHandle,
}

/// A cluster of real processes.
pub trait Cluster: Send + Sync + 'static {
    /// The nodes' names; the numbers of a schedule are places here.
    fn nodes(&self) -> Vec<String>;
    /// A way in.
    fn session(&self) -> Session;
    /// kill -9.
    fn kill(&self, node: &str) -> Result<(), HarnessError>;
    /// Starts the process of a node that is not running.
    fn start(&self, node: &str) -> Result<(), HarnessError>;
    /// SIGSTOP.
    fn pause(&self, node: &str) -> Result<(), HarnessError>;
    /// SIGCONT.
    fn resume(&self, node: &str) -> Result<(), HarnessError>;
    /// The name of the leader of the registry, if there is one.
    fn leader(&self) -> BoxFuture<'_, Option<String>>;
    /// Where the logs are.
    fn logs(&self) -> Vec<PathBuf>;
}
