//! Gives what a container wrote, as a stream of bytes.

use super::{PodActor, life::Life};
use actix::prelude::*;
use futures_util::StreamExt;
use impresario_client::protocol::pod::{LogChunk, Logs, LogsError};
use impresario_host::{ContainerId, LogLine, LogOptions, container::WholeLines};
use impresario_runtime::{ItemSink, Open, Refusal, tasks};
use jiff::Timestamp;
use std::time::Duration;

/// Lines are gathered until there are so many bytes, or none is waiting.
const CHUNK: usize = 16 * 1024;
/// How long a follower waits for the rest of a line while the other output has lines to give.
const REST_OF_A_LINE: Duration = Duration::from_secs(1);

impl PodActor {
    fn log_of(&self, logs: &Logs) -> Result<ContainerId, LogsError> {
        let pod = self.name().to_owned();
        let container = if let Some(name) = &logs.container {
            self.life.container(name).ok_or_else(|| LogsError::NoSuchContainer {
                pod: pod.clone(),
                container: name.clone(),
            })?
        } else {
            let default = self.object.metadata.annotations.as_ref();
            let default =
                default.and_then(|all| all.get("kubectl.kubernetes.io/default-container"));
            let main: Vec<_> =
                self.life.containers.iter().filter(|c| c.part == super::life::Part::Main).collect();
            match (default.and_then(|name| self.life.container(name)), main.as_slice()) {
                (Some(default), _) => default,
                (None, [only]) => *only,
                (None, several) => {
                    let names: Vec<_> = several.iter().map(|c| c.name.as_str()).collect();
                    return Err(LogsError::Ambiguous { pod, containers: names.join(" ") });
                }
            }
        };
        let last = container.last.as_ref().and_then(|last| last.id.clone());
        let name = container.name.clone();
        if logs.previous {
            return last.ok_or(LogsError::NoPrevious { pod, container: name });
        }
        match &container.life {
            Life::Running { id, .. } => Ok(id.clone()),
            Life::Ended(ended) => ended.id.clone().ok_or(LogsError::Waiting {
                pod,
                container: name,
                reason: ended.exit.message.clone(),
            }),
            // Until the next life begins, the last one is the current one.
            Life::Waiting { reason, .. } => last.ok_or_else(|| LogsError::Waiting {
                pod,
                container: name,
                reason: reason.clone(),
            }),
            Life::Starting => last.ok_or_else(|| LogsError::Waiting {
                pod,
                container: name,
                reason: "ContainerCreating".to_owned(),
            }),
        }
    }
}

impl Handler<Open<Logs>> for PodActor {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, open: Open<Logs>, _: &mut Self::Context) -> Self::Result {
        let Open { message: logs, sink } = open;
        let found = self.log_of(&logs).map_err(|error| Refusal::new(error.to_string()));
        let driver = self.kit.driver.clone();
        Box::pin(async move {
            let id = found?;
            let options = LogOptions {
                follow: logs.follow,
                tail: logs.tail_lines.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
                since: logs
                    .since_unix_nanos
                    .and_then(|nanos| Timestamp::from_nanosecond(nanos.into()).ok()),
                // With timestamps the bytes that count are not those of the driver.
                limit_bytes: logs.limit_bytes.filter(|_| !logs.timestamps),
            };
            let lines =
                driver.logs(&id, options).await.map_err(|error| Refusal::new(error.to_string()))?;
            // Ends with the log, or when nobody reads any more.
            tasks::spawn(async move {
                tokio::pin!(lines);
                let ended = give(lines, &logs, &sink).await;
                if let Err(refusal) = ended {
                    sink.fail(refusal).await;
                }
            });
            Ok(())
        })
    }
}

async fn give(
    lines: impl futures_util::Stream<Item = Result<LogLine, impresario_host::container::DriverError>>
    + Unpin,
    logs: &Logs,
    sink: &ItemSink<LogChunk>,
) -> Result<(), Refusal> {
    let mut lines = lines.ready_chunks(256);
    let mut left =
        logs.limit_bytes.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut starts_a_line = true;
    let mut whole = WholeLines::default();
    loop {
        let is_holding = whole.is_holding();
        let batch = tokio::select! {
            batch = lines.next() => batch,
            () = tokio::time::sleep(REST_OF_A_LINE), if is_holding => Some(Vec::new()),
            () = sink.closed() => return Ok(()),
        };
        let mut is_over = batch.is_none();
        let (mut given, mut failed) = (Vec::new(), None);
        if batch.as_ref().is_none_or(Vec::is_empty) {
            whole.release(&mut given);
        }
        for line in batch.into_iter().flatten() {
            match line {
                Ok(line) => whole.push(line, &mut given),
                Err(error) => failed = Some(Refusal::new(error.to_string())),
            }
        }
        let mut bytes = Vec::new();
        for line in given {
            if logs.timestamps && starts_a_line {
                bytes.extend_from_slice(format!("{:.9} ", line.time).as_bytes());
            }
            bytes.extend_from_slice(&line.bytes);
            starts_a_line = !line.partial;
            if starts_a_line {
                bytes.push(b'\n');
            }
        }
        is_over |= bytes.len() >= left;
        bytes.truncate(left);
        left -= bytes.len();
        for chunk in bytes.chunks(CHUNK) {
            if sink.send(LogChunk { bytes: chunk.to_vec() }).await.is_err() {
                return Ok(());
            }
        }
        match failed {
            Some(refusal) => return Err(refusal),
            None if is_over => return Ok(()),
            None => {}
        }
    }
}
