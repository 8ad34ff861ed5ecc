//! Starting a node's process.

use super::error::UpError;
use crate::layout::NodeDir;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Starts the process of a node, in a process group of its own and with nothing inherited but its
/// log.
pub fn start(node: &NodeDir) -> Result<(), UpError> {
    start_as("node", node)
}

/// Starts the process of this folder, as this command.
pub(super) fn start_as(command: &str, node: &NodeDir) -> Result<(), UpError> {
    let program = std::env::current_exe()
        .map_err(|source| UpError::Start { program: "imp".into(), source })?;
    let failed = |source| UpError::Start { program: program.clone(), source };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(node.log())
        .map_err(failed)?;
    let child = Command::new(&program)
        .arg(command)
        .arg("--data-dir")
        .arg(node.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // It writes its pid when it has claimed the folder, and is init's child when we are gone, and is not waited for: while we live, we look at its lock.
    drop(child);
    Ok(())
}
