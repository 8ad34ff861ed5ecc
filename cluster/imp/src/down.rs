//! `imp down`: ends the nodes, then the pods that they kept, so that nothing is left on the machine.

use crate::cli::Down;
use crate::layout::{CLAIM_LIMIT, ClusterDir, HollowDir, LayoutError, NodeDir};
use crate::node::drivers::{self, DriverSetupError};
use crate::output::say;
use crate::purge::{PurgeError, purge};
use impresario_host::container::DriverError;
use impresario_host::{ContainerState, Found, volumes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// How long a node has to stop by itself.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// How long a container has to stop by itself.
const CONTAINER_GRACE: Duration = Duration::from_secs(5);

/// What may be left, and why: everything that could be ended has been.
#[derive(Debug, Error)]
#[error("{}", lines(.0))]
pub struct DownFailed(Vec<DownError>);

fn lines(errors: &[DownError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n  ")
}

/// Why something may be left.
#[derive(Debug, Error)]
pub enum DownError {
    /// A file of the cluster is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A process does not end.
    #[error("node {name} (pid {pid}) does not end: end it by hand, then try again")]
    Stuck {
        /// The node.
        name: String,
        /// Its process.
        pid: i32,
    },
    /// The containers of a node cannot be reached.
    #[error(transparent)]
    Driver(#[from] DriverSetupError),
    /// A container could not be ended.
    #[error("a container of {node} is left: {source}; try `imp down` again")]
    Container {
        /// The node.
        node: String,
        /// What the driver said.
        source: DriverError,
    },
    /// A volume is still mounted.
    #[error("cannot unmount what is below {path}: {source}; try `imp down` again")]
    Unmount {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder could not be removed.
    #[error(transparent)]
    Purge(#[from] PurgeError),
}

/// Ends the cluster: as much of it as can be ended, whatever else fails.
pub async fn down(args: &Down) -> Result<(), DownFailed> {
    let dir = ClusterDir::new(args.dir.path());
    let failed = |error: LayoutError| DownFailed(vec![error.into()]);
    let _alone = dir.lock().await.map_err(failed)?;
    let mut nodes = dir.nodes().map_err(failed)?;
    // The folder of a node that joined by hand is one by itself.
    let joined = NodeDir::new(dir.path().to_owned());
    if joined.exists() {
        nodes.push(joined);
    } else if !dir.is_ours() {
        let path = dir.path().to_owned();
        return Err(DownFailed(vec![LayoutError::NoCluster { path }.into()]));
    }
    let hollow = dir.hollow().map_err(failed)?;
    let hollow = || hollow.iter().map(HollowDir::process);
    for process in nodes.iter().chain(hollow()) {
        signal(process, Signal::SIGTERM);
    }
    let deadline = Instant::now() + STOP_LIMIT;
    let mut failures = Vec::new();
    for process in hollow() {
        // Nothing of theirs is left when it has ended.
        failures.extend(end_process_by(process, deadline).await.err());
    }
    for node in &nodes {
        if let Err(error) = end_process_by(node, deadline).await {
            // Its containers are still its own.
            failures.push(error);
            continue;
        }
        end_containers(node, &mut failures).await;
    }
    if !failures.is_empty() {
        return Err(DownFailed(failures));
    }
    if args.purge {
        let left = purge(&dir).map_err(|error| DownFailed(vec![error.into()]))?;
        if !left.is_empty() {
            let left = left.join(", ");
            say!(
                "{} stays, since it holds what is not the cluster's: {left}",
                dir.path().display()
            );
        }
    }
    Ok(())
}

/// Ends the processes of nodes that were started a moment ago. One that has not claimed its folder yet is waited for
/// until it must have.
pub async fn end_started(nodes: &[NodeDir]) -> Result<(), DownError> {
    let deadline = Instant::now() + CLAIM_LIMIT;
    for node in nodes {
        while !node.is_running() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        end_process(node).await?;
    }
    Ok(())
}

/// Ends a node's process; its containers go on.
pub async fn end_process(node: &NodeDir) -> Result<(), DownError> {
    signal(node, Signal::SIGTERM);
    end_process_by(node, Instant::now() + STOP_LIMIT).await
}

async fn end_process_by(node: &NodeDir, deadline: Instant) -> Result<(), DownError> {
    if ended(node, deadline).await {
        return Ok(());
    }
    signal(node, Signal::SIGKILL);
    if ended(node, Instant::now() + STOP_LIMIT).await {
        return Ok(());
    }
    let name = node.path().display().to_string();
    Err(DownError::Stuck { name, pid: node.pid().unwrap_or(0) })
}

fn signal(node: &NodeDir, signal: Signal) {
    // Only while the lock is held is the pid surely that of the node.
    if node.is_running()
        && let Some(pid) = node.pid()
    {
        // A process that ended in between needs no signal.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

async fn ended(node: &NodeDir, deadline: Instant) -> bool {
    while node.is_running() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// Ends and removes every container that the node has left.
async fn end_containers(node: &NodeDir, failures: &mut Vec<DownError>) {
    if let Err(error) = try_end_containers(node, failures).await {
        failures.push(error);
    }
    // The folders of volumes stay, inside of ours. What is mounted on them does not.
    let path = node.pods();
    if let Err(source) = volumes::unmount_below(&path) {
        failures.push(DownError::Unmount { path, source });
    }
}

async fn try_end_containers(
    node: &NodeDir,
    failures: &mut Vec<DownError>,
) -> Result<(), DownError> {
    let file = node.load()?;
    let driver = drivers::open(node, &file).await?;
    let left = |source| DownError::Container { node: file.name.clone(), source };
    let found = driver.list().await.map_err(left)?;
    // What never ran cannot end: a node may have stopped between making and starting a container.
    let runs = |found: &&Found| matches!(found.state, ContainerState::Running { .. });
    let stops = found.iter().filter(runs).map(|found| driver.stop(&found.id, CONTAINER_GRACE));
    for outcome in futures_util::future::join_all(stops).await {
        match outcome {
            Ok(_) | Err(DriverError::NoContainer { .. }) => {}
            Err(error) => failures.push(left(error)),
        }
    }
    for pod in driver.pods().await.map_err(left)? {
        if let Err(error) = driver.remove_pod(&pod).await {
            failures.push(left(error));
        }
    }
    Ok(())
}
