//! The container driver that a node was set up with.

use crate::cli::Driver;
use crate::layout::{NodeDir, NodeFile};
use impresario_host::ContainerDriver;
use impresario_host::container::DriverError;
use impresario_host::docker::{DockerConfig, DockerDriver};
use impresario_host::process::{ProcessConfig, ProcessDriver};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Where Docker Engine listens unless `DOCKER_HOST` says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Why containers cannot be run.
#[derive(Debug, Error)]
pub enum DriverSetupError {
    /// The program cannot find itself.
    #[error("cannot find the program's own file: {0}")]
    Program(std::io::Error),
    /// The driver cannot work here.
    #[error("the {driver} driver cannot be used: {source}")]
    Driver {
        /// Which one.
        driver: &'static str,
        /// What it said.
        source: DriverError,
    },
}

/// Opens the driver of this node, over what an earlier process may have left.
pub async fn open(
    dir: &NodeDir,
    node: &NodeFile,
) -> Result<Arc<dyn ContainerDriver>, DriverSetupError> {
    match node.driver {
        Driver::Process => {
            let program = std::env::current_exe().map_err(DriverSetupError::Program)?;
            let config = ProcessConfig {
                data: dir.path().to_owned(),
                shim: vec![program.into(), "__shim".into()],
                hidden: vec![dir.credential(), dir.registry()],
            };
            let driver = ProcessDriver::new(config)
                .map_err(|source| DriverSetupError::Driver { driver: "process", source })?;
            Ok(Arc::new(driver))
        }
        Driver::Docker => {
            let host = std::env::var("DOCKER_HOST").ok();
            let socket = host.as_deref().and_then(|host| host.strip_prefix("unix://"));
            let config = DockerConfig {
                socket: PathBuf::from(socket.unwrap_or(DOCKER_SOCKET)),
                cluster: node.cluster.clone(),
                node: node.name.clone(),
                network: "bridge".into(),
            };
            let driver = DockerDriver::connect(config)
                .await
                .map_err(|source| DriverSetupError::Driver { driver: "docker", source })?;
            Ok(Arc::new(driver))
        }
    }
}
