//! A further command in a container: a child of the node that enters it ([`crate::shim`]).

use super::Inner;
use crate::container::{ContainerId, ContainerState, DriverError, Executed, Heard};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{io, os::unix::process::ExitStatusExt, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

/// How long output is read when the command has ended but something else holds its pipes.
const DRAIN_LIMIT: Duration = Duration::from_millis(200);

impl Inner {
    pub(super) async fn exec(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        limit: Duration,
    ) -> Result<Executed, DriverError> {
        let folder = self.folder(id)?;
        if !matches!(self.state(id)?, ContainerState::Running { .. }) {
            return Err(DriverError::NotRunning { id: id.clone() });
        }
        let failed = DriverError::io(format!("running a command in {id}"));
        let asked = serde_json::to_vec(&command).map_err(io::Error::from);
        let spawned = asked.and_then(|asked| {
            let child = Command::from(self.config.shim.command("exec")?)
                .arg(&folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()?;
            Ok((Running(child), asked))
        });
        let (mut child, asked) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return Err(failed(error)),
        };
        match timeout(limit, child.run(&asked)).await {
            Ok(ended) => ended.map_err(failed),
            Err(_) => Err(DriverError::TooLong { id: id.clone(), waited: limit }),
        }
    }
}

/// A command that is ended, with its children, when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Without an id it was waited for, and the number may be another's.
        let group = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // One that has ended meanwhile needs no signal; tokio reaps it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Running {
    async fn run(&mut self, asked: &[u8]) -> io::Result<Executed> {
        let heard = Mutex::new(Heard::default());
        let (out, err) = (self.0.stdout.take(), self.0.stderr.take());
        if let Some(mut input) = self.0.stdin.take() {
            // One that ends before it has read says why itself.
            let _ = input.write_all(asked).await;
        }
        let status = {
            let listening = async { tokio::join!(listen(out, &heard), listen(err, &heard)) };
            tokio::pin!(listening);
            tokio::select! {
                status = self.0.wait() => {
                    let status = status?;
                    let _ = timeout(DRAIN_LIMIT, listening).await;
                    status
                }
                _ = &mut listening => self.0.wait().await?,
            }
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Executed { code, output: heard.into_inner().text() })
    }
}

/// Reads to the end, so that nobody who writes is held up.
async fn listen(from: Option<impl AsyncRead + Unpin>, heard: &Mutex<Heard>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 4096];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        heard.lock().push(&buffer[..size]);
    }
}
