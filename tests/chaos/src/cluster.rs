//! What the harness needs of a cluster: to start and to break its processes, and to use it as any
//! program does, through the SDK.

use futures_util::future::BoxFuture;
use impresario_registry_api::{RegistryHandle, RemoteRegistry};
use impresario_runtime::{ActorNode, NodeName};
use std::path::PathBuf;
use std::sync::Arc;
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

impl HarnessError {
    /// That a task of the harness came to no good end: what it was to do to the cluster was not done, and what it was to see
    /// not seen.
    pub(crate) fn lost(what: &str) -> impl Fn(tokio::task::JoinError) -> Self {
        move |error| Self::Cluster { what: what.to_owned(), reason: error.to_string() }
    }
}

/// Ends a task that goes on for ever; told where it had come to no good end by itself.
pub(crate) async fn end(
    task: &mut tokio::task::JoinHandle<()>,
    what: &str,
) -> Result<(), HarnessError> {
    task.abort();
    match task.await {
        Err(error) if !error.is_cancelled() => Err(HarnessError::lost(what)(error)),
        _ => Ok(()),
    }
}

/// A way into the cluster. Used with a credential that may write anything.
#[derive(Clone)]
pub struct Session {
    /// Asks actors.
    pub node: ActorNode,
    /// Reads and writes, wherever it is answered.
    pub registry: RegistryHandle,
    /// The control members.
    pub members: Vec<String>,
}

impl Session {
    /// The registry through whichever member answers, remembered apart from all others.
    pub(crate) fn roaming(&self) -> RegistryHandle {
        let members = self.members.iter().map(|name| NodeName::from(name.as_str())).collect();
        Arc::new(RemoteRegistry::fixed(self.node.clone(), members))
    }

    /// The registry through one member and no other.
    pub(crate) fn through(&self, member: &str) -> RegistryHandle {
        Arc::new(RemoteRegistry::fixed(self.node.clone(), vec![NodeName::from(member)]))
    }
}

/// A cluster of real processes.
pub trait Cluster: Send + Sync + 'static {
    /// The nodes' names; the numbers of a schedule are places here.
    fn nodes(&self) -> Vec<String>;
    /// A way in.
    fn session(&self) -> Session;
    /// kill -9; done when the process is gone.
    fn kill<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<(), HarnessError>>;
    /// Starts the process of a node that is not running; done when it runs, ready or not.
    fn start<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<(), HarnessError>>;
    /// SIGSTOP.
    fn pause(&self, node: &str) -> Result<(), HarnessError>;
    /// SIGCONT.
    fn resume(&self, node: &str) -> Result<(), HarnessError>;
    /// The name of the leader of the registry, if there is one.
    fn leader(&self) -> BoxFuture<'_, Option<String>>;
    /// A folder of this machine in which containers may write.
    fn scratch(&self) -> PathBuf;
    /// Where the logs are.
    fn logs(&self) -> Vec<PathBuf>;
}
