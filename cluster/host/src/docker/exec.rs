//! A further command in a container, run by the engine.

use super::{
    DockerDriver,
    call::{CALL_LIMIT, call},
};
use crate::container::{ContainerId, DriverError, Executed, Heard};
use bollard::{
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

impl DockerDriver {
    pub(super) async fn run_in(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        limit: Duration,
    ) -> Result<Executed, DriverError> {
        let config = ExecConfig {
            cmd: Some(command),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let create = self.docker.create_exec(&id.0, config);
        let exec = call("prepare a command in a container", CALL_LIMIT, create).await;
        let exec = exec.map_err(|refused| match refused.code {
            409 => DriverError::NotRunning { id: id.clone() },
            _ => refused.about(id),
        })?;
        match timeout(limit, self.follow(&exec.id)).await {
            Ok(ended) => ended,
            // The engine has no way to end one command of a container: it goes on.
            Err(_) => Err(DriverError::TooLong { id: id.clone(), waited: limit }),
        }
    }

    async fn follow(&self, exec: &str) -> Result<Executed, DriverError> {
        let start = self.docker.start_exec(exec, None::<StartExecOptions>);
        let started = match call("run a command in a container", CALL_LIMIT, start).await {
            Ok(started) => started,
            // Some versions of the engine say so here, others as the command's output.
            Err(refused) if matches!(refused.code, 400 | 404) => {
                return Ok(Executed { code: not_run(&refused.message), output: refused.message });
            }
            Err(refused) => return Err(refused.into()),
        };
        let mut heard = Heard::default();
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(Ok(piece)) = output.next().await {
                heard.push(&piece.into_bytes());
            }
        }
        let inspect = self.docker.inspect_exec(exec);
        let ended = call("look at a command in a container", CALL_LIMIT, inspect).await?;
        let code = ended.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
        let output = heard.text();
        let was_run = !(matches!(code, 126 | 127) && output.starts_with("OCI runtime exec failed"));
        Ok(Executed { code: if was_run { code } else { not_run(&output) }, output })
    }
}

/// The exit code of a command that could not be run: engines give the one or the other for the same.
fn not_run(why: &str) -> i32 {
    if why.contains("permission denied") { 126 } else { 127 }
}
