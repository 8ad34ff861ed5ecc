//! What a container wrote, as the engine has kept it.

use super::{DockerDriver, translate};
use crate::container::{ContainerId, DriverError, LogOptions, LogStream};
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{StreamExt, future};

impl DockerDriver {
    pub(super) async fn read_logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<LogStream, DriverError> {
        self.look(id).await?; // an error here, not in the stream, when there is none
        let seconds =
            options.since.map_or(0, |since| since.as_second().clamp(0, i64::from(i32::MAX)));
        let tail = options.tail.map_or("all".to_owned(), |count| count.to_string());
        let asked = LogsOptionsBuilder::new()
            .follow(options.follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(seconds as i32)
            .tail(&tail)
            .build();
        let lines = self.docker.logs(&id.0, Some(asked)).filter_map(move |output| {
            future::ready(match output {
                Ok(output) => translate::line(output)
                    .filter(|line| options.since.is_none_or(|since| line.time >= since))
                    .map(Ok),
                Err(error) => Some(Err(DriverError::Engine {
                    what: "read a log".into(),
                    cause: error.to_string(),
                })),
            })
        });
        let Some(limit) = options.limit_bytes else { return Ok(lines.boxed()) };
        let limited = lines.scan(limit, |left, line| {
            if *left == 0 {
                return future::ready(None);
            }
            future::ready(Some(line.map(|mut line| {
                let size = line.bytes.len() as u64 + u64::from(!line.partial);
                if size > *left {
                    line.bytes.truncate(*left as usize);
                    line.partial = true;
                }
                *left = left.saturating_sub(size);
                line
            })))
        });
        Ok(limited.boxed())
    }
}
