//! The container driver that a node was set up with.

use crate::cli::Driver;
use crate::layout::{ClusterDir, NodeDir, NodeFile};
use impresario_host::container::DriverError;
use impresario_host::docker::{DockerConfig, DockerDriver};
use impresario_host::process::{ProcessConfig, ProcessDriver};
use impresario_host::{ContainerDriver, Program};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Where Docker Engine listens unless `DOCKER_HOST` says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Where users say so.
const DOCKER_HOST: &str = "DOCKER_HOST";

/// Why containers cannot be run.
#[derive(Debug, Error)]
pub enum DriverSetupError {
    /// The engine is on another machine, where pods' folders cannot be mounted.
    #[error(
        "DOCKER_HOST was {0:?} when this node was made: only unix:///PATH can be used, since pods \
         mount folders of this machine"
    )]
    DockerHost(String),
    /// The driver cannot work here.
    #[error("the {driver} driver cannot be used: {source}")]
    Driver {
        /// Which one.
        driver: &'static str,
        /// What it said.
        source: DriverError,
    },
}

/// Where the engine of a new node listens: it is written down, so that all later commands and
/// processes mean the same engine.
#[must_use]
pub fn docker_host(driver: Driver) -> Option<String> {
    let asked = std::env::var(DOCKER_HOST).ok().filter(|host| !host.is_empty());
    asked.filter(|_| driver == Driver::Docker)
}

fn socket(host: Option<&str>) -> Result<PathBuf, DriverSetupError> {
    let Some(host) = host else { return Ok(PathBuf::from(DOCKER_SOCKET)) };
    let path = host.strip_prefix("unix://").filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| DriverSetupError::DockerHost(host.to_owned()))?;
    Ok(PathBuf::from(path))
}

/// The word that makes this program keep a container.
pub const SHIM: &str = "__shim";

/// This very program, whatever is at its path by now: a pod may have replaced the file.
fn shim() -> Program {
    let program = Program::new(["/proc/self/exe", SHIM]);
    Program { env: vec![(EAGER_COMMIT.into(), "0".into())], ..program }
}

/// Our allocator's setting, which it reads before the first line of a program. It takes a gigabyte of address space, as
/// memory that may be written to: where there are no control groups a container is held to its limit of memory by a
/// limit of what may be written to (`RLIMIT_DATA`), under which a process that has so much could start nothing.
const EAGER_COMMIT: &str = "MIMALLOC_ARENA_EAGER_COMMIT";

/// Hides a new folder from the containers of other nodes of this machine, before keys are in it.
pub async fn hide_from_pods(folder: &Path) {
    let hidden = impresario_host::hide(shim(), folder.to_owned(), &engines()).await;
    if let Err(error) = hidden {
        tracing::warn!(?folder, %error, "pods of this user's other nodes on this machine can see these files");
    }
}

/// The sockets of the engines that run the pods of this user's nodes on this machine.
fn engines() -> Vec<PathBuf> {
    let unasked = |error: &dyn std::error::Error, folder: Option<&Path>| {
        tracing::warn!(%error, ?folder, "pods of its engine may see what is made now");
    };
    let folders = impresario_host::nodes_of_this_machine();
    let folders = folders.inspect_err(|error| unasked(error, None)).unwrap_or_default();
    let mut sockets = BTreeSet::new();
    for folder in folders {
        let of_cluster = ClusterDir::new(folder.clone()).nodes();
        let of_cluster = of_cluster.inspect_err(|error| unasked(error, Some(&folder)));
        let nodes = of_cluster.unwrap_or_default().into_iter().chain([NodeDir::new(folder)]);
        for node in nodes.filter(NodeDir::exists) {
            let driver = node.load().map(|file| (file.driver, file.docker_host));
            match driver.inspect_err(|error| unasked(error, Some(node.path()))) {
                Ok((Driver::Docker, host)) => {
                    let socket = socket(host.as_deref());
                    sockets.extend(socket.inspect_err(|error| unasked(error, Some(node.path()))));
                }
                Ok((Driver::Process, _)) | Err(_) => {}
            }
        }
    }
    sockets.into_iter().collect()
}

/// Opens the driver of this node, over what an earlier process may have left.
pub async fn open(
    dir: &NodeDir,
    node: &NodeFile,
) -> Result<Arc<dyn ContainerDriver>, DriverSetupError> {
    match node.driver {
        Driver::Process => {
            let config =
                ProcessConfig { data: dir.path().to_owned(), shim: shim(), hidden: dir.private() };
            let made = tokio::task::spawn_blocking(move || ProcessDriver::new(config)).await;
            let made = made.unwrap_or_else(|error| {
                let what = "looking at what is there".to_owned();
                Err(DriverError::Io { what, cause: io::Error::other(error) })
            });
            let driver =
                made.map_err(|source| DriverSetupError::Driver { driver: "process", source })?;
            Ok(Arc::new(driver))
        }
        Driver::Docker => {
            let config = DockerConfig {
                socket: socket(node.docker_host.as_deref())?,
                cluster: node.cluster.clone(),
                node: node.name.clone(),
                network: "bridge".into(),
                pods: dir.pods(),
                hidden: dir.private(),
            };
            let driver = DockerDriver::connect(config)
                .await
                .map_err(|source| DriverSetupError::Driver { driver: "docker", source })?;
            Ok(Arc::new(driver))
        }
    }
}
