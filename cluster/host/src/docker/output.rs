//! What a container wrote, as the engine has kept it.
//!
//! The engine keeps a long line in pieces and counts these, where its reader asks for the last lines.

use super::{DockerDriver, translate};
use crate::container::{
    ContainerId, DriverError, LogLine, LogOptions, LogStream, last_lines::LastLines,
};
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{Stream, StreamExt, future, stream};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// Pieces that are asked for at first beside the lines that are wanted; then so many times as many.
const MORE: usize = 4;
/// How much older than what was written before it a piece may be: it has the time at which its line began.
const APART: SignedDuration = SignedDuration::from_mins(1);
/// More than an engine keeps of any log: whoever wants so many wants all.
const ALL: usize = 1 << 30;

impl DockerDriver {
    pub(super) async fn read_logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<LogStream, DriverError> {
        self.look(id).await?; // an error here, not in the stream, when there is none
        let LogOptions { follow, since, .. } = options;
        let lines = match options.tail {
            None => self.pieces(id, follow, since, None).boxed(),
            Some(0) if follow => self.pieces(id, true, since, Some(0)).boxed(),
            Some(count) => {
                let ask = |pieces| self.pieces(id, false, since, pieces);
                let lines = last_lines(count, ask).await?;
                let begin = lines.front().map(|line| line.time);
                if follow {
                    // The same lines once more, and those after them.
                    let from = begin.map(|begin| begin.saturating_sub(APART).unwrap_or(begin));
                    let again = self.pieces(id, true, from.max(since), None);
                    again
                        .skip_while(move |line| {
                            let is_before = line.as_ref().is_ok_and(|line| Some(line.time) < begin);
                            future::ready(is_before)
                        })
                        .boxed()
                } else {
                    stream::iter(lines).map(Ok).boxed()
                }
            }
        };
        let Some(limit) = options.limit_bytes else { return Ok(lines) };
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

    /// What the engine has kept and, with `follow`, keeps from now on; the last `count` pieces of it, where that is
    /// given.
    fn pieces(
        &self,
        id: &ContainerId,
        follow: bool,
        since: Option<Timestamp>,
        count: Option<usize>,
    ) -> impl Stream<Item = Result<LogLine, DriverError>> + Send + use<> {
        let seconds = since.map_or(0, |since| since.as_second().clamp(0, i64::from(i32::MAX)));
        let tail = count.map_or("all".to_owned(), |count| count.to_string());
        let asked = LogsOptionsBuilder::new()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(seconds as i32)
            .tail(&tail)
            .build();
        self.docker.logs(&id.0, Some(asked)).filter_map(move |output| {
            future::ready(match output {
                Ok(output) => translate::line(output)
                    .filter(|line| since.is_none_or(|since| line.time >= since))
                    .map(Ok),
                Err(error) => Some(Err(DriverError::Engine {
                    what: "read a log".into(),
                    cause: error.to_string(),
                })),
            })
        })
    }
}

/// The last `count` lines, each with all its pieces. `ask` gives the last so many pieces, or all: it is asked for more
/// until the oldest line that is wanted is known to be whole.
async fn last_lines<S>(
    count: usize,
    ask: impl Fn(Option<usize>) -> S,
) -> Result<VecDeque<LogLine>, DriverError>
where
    S: Stream<Item = Result<LogLine, DriverError>>,
{
    let mut asked = count.saturating_add(MORE);
    loop {
        let pieces = Some(asked).filter(|asked| *asked < ALL);
        let mut given = std::pin::pin!(ask(pieces));
        let (mut lines, mut number) = (LastLines::default(), 0);
        while let Some(piece) = given.next().await {
            lines.push(piece?, count);
            number += 1;
        }
        if lines.is_whole() || number < asked {
            return Ok(lines.into_lines());
        }
        asked = asked.saturating_mul(MORE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Stream as Output;
    use std::cell::Cell;

    fn piece(text: &str) -> LogLine {
        let partial = text.ends_with('+');
        let bytes = text.trim_end_matches('+').to_owned().into();
        LogLine { time: Timestamp::UNIX_EPOCH, stream: Output::Stdout, bytes, partial }
    }

    /// The last lines of a log that the engine has in these pieces, and how many of them were read.
    async fn last(pieces: &[LogLine], count: usize) -> (String, usize) {
        let read = Cell::new(0);
        let ask = |count: Option<usize>| {
            let given = pieces.len().min(count.unwrap_or(usize::MAX));
            read.set(read.get() + given);
            stream::iter(pieces[pieces.len() - given..].to_vec()).map(Ok)
        };
        let lines = last_lines(count, ask).await.unwrap();
        let text = |line: &LogLine| {
            let end = if line.partial { "" } else { " " };
            String::from_utf8_lossy(&line.bytes).into_owned() + end
        };
        (lines.iter().map(text).collect(), read.get())
    }

    #[tokio::test]
    async fn the_last_lines_are_whole_ones_and_not_the_pieces_that_the_engine_keeps_them_in() {
        let mut pieces: Vec<_> = ["first", "a+", "b+", "c", "last"].map(piece).to_vec();
        for (count, expected) in [
            (0, ""),
            (1, "last "),
            (2, "abc last "),
            (3, "first abc last "),
            (9, "first abc last "),
            (usize::MAX, "first abc last "),
        ] {
            assert_eq!(last(&pieces, count).await.0, expected, "{count}");
        }
        pieces.extend(std::iter::repeat_n(piece("x+"), 100));
        let open = "x".repeat(100);
        assert_eq!(last(&pieces, 1).await.0, open, "a line that has not ended yet is one");
        pieces.push(piece("x"));
        assert_eq!(last(&pieces, 1).await.0, open.clone() + "x ");
        assert_eq!(last(&pieces, 2).await.0, format!("last {open}x "));
        assert_eq!(last(&[], 3).await.0, "");
    }

    #[tokio::test]
    async fn for_the_last_lines_of_a_long_log_not_all_of_it_is_read() {
        let pieces = vec![piece("short"); 100_000];
        let (text, read) = last(&pieces, 10).await;
        assert_eq!(text, "short ".repeat(10));
        assert!(read < 100, "{read}");
    }
}
