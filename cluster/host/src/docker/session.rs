//! A further command in a container that somebody writes to and reads from, run by the engine.
//!
//! The engine has no way to end one command of a container: when nobody listens any more, what the command reads is at its
//! end and what it writes goes nowhere, and it is up to the command to end by that.

use super::{
    DockerDriver,
    call::{CALL_LIMIT, call},
};
use crate::container::{
    Attached, ContainerId, DriverError, Size, Typed, Wanted, Written,
    session::{PIECE, PIECES},
};
use bollard::{
    Docker,
    container::LogOutput,
    errors::Error,
    exec::{ResizeExecOptions, StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use impresario_ambient::tasks;
use std::pin::Pin;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

type Input = Pin<Box<dyn AsyncWrite + Send>>;
type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

impl DockerDriver {
    pub(super) async fn run_for_somebody(
        &self,
        id: &ContainerId,
        wanted: Wanted,
    ) -> Result<Attached, DriverError> {
        let takes_input = wanted.stdin || wanted.tty;
        let config = ExecConfig {
            cmd: Some(wanted.command),
            attach_stdin: Some(takes_input),
            attach_stdout: Some(true),
            attach_stderr: Some(!wanted.tty),
            tty: Some(wanted.tty),
            ..ExecConfig::default()
        };
        let create = self.docker.create_exec(&id.0, config);
        let exec = call("prepare a command in a container", CALL_LIMIT, create).await;
        let exec = exec.map_err(|refused| match refused.code {
            409 => DriverError::NotRunning { id: id.clone() },
            _ => refused.about(id),
        })?;
        let options = StartExecOptions { tty: wanted.tty, ..StartExecOptions::default() };
        let start = self.docker.start_exec(&exec.id, Some(options));
        let started = call("run a command in a container", CALL_LIMIT, start).await?;
        let StartExecResults::Attached { output, input } = started else {
            let what = "attach to a command in a container".to_owned();
            return Err(DriverError::Engine { what, cause: "it was detached".into() });
        };
        let (typed, comes) = mpsc::channel(PIECES);
        let (written, heard) = mpsc::channel(PIECES);
        let docker = self.docker.clone();
        tasks::spawn(async move {
            tokio::select! {
                () = written.closed() => {}
                () = carry(&docker, &exec.id, (input, output), comes, &written) => {}
            }
        });
        Ok(Attached { input: takes_input.then_some(typed), output: heard })
    }
}

async fn carry(
    docker: &Docker,
    exec: &str,
    (input, mut output): (Input, Output),
    comes: mpsc::Receiver<Typed>,
    written: &mpsc::Sender<Written>,
) {
    let feeding = feed(docker, exec, input, comes);
    let listening = async {
        while let Some(piece) = output.next().await {
            let (bytes, is_error) = match piece {
                Ok(LogOutput::StdErr { message }) => (message, true),
                Ok(other) => (other.into_bytes(), false),
                Err(error) => {
                    return tracing::debug!(%error, "the engine sends no more of a command's output");
                }
            };
            for start in (0..bytes.len()).step_by(PIECE) {
                let piece: Bytes = bytes.slice(start..bytes.len().min(start + PIECE));
                let piece = if is_error { Written::Stderr(piece) } else { Written::Stdout(piece) };
                if written.send(piece).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::pin!(feeding, listening);
    let mut is_fed = false;
    loop {
        tokio::select! {
            () = &mut feeding, if !is_fed => is_fed = true,
            () = &mut listening => break,
        }
    }
    let inspect = docker.inspect_exec(exec);
    match call("look at a command in a container", CALL_LIMIT, inspect).await {
        Ok(ended) => {
            let code = ended.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
            // Nobody may be there any more to hear it.
            let _ = written.send(Written::Ended(code)).await;
        }
        Err(refused) => {
            tracing::warn!(error = %DriverError::from(refused), "a command's end is not known");
        }
    }
}

async fn feed(docker: &Docker, exec: &str, mut input: Input, mut comes: mpsc::Receiver<Typed>) {
    while let Some(typed) = comes.recv().await {
        match typed {
            Typed::Bytes(bytes) => {
                let sent = async {
                    input.write_all(&bytes).await?;
                    input.flush().await
                };
                if sent.await.is_err() {
                    return;
                }
            }
            Typed::Resize(Size { width, height }) => {
                let resize = docker.resize_exec(exec, ResizeExecOptions { height, width });
                // One whose command has ended needs none.
                let _ = call("resize a terminal", CALL_LIMIT, resize).await;
            }
        }
    }
    // Its end may be there already.
    let _ = input.shutdown().await;
}
