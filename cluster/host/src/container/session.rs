//! What goes both ways between somebody and a container: bytes in, bytes out, and how it ended.
//!
//! Both directions are bounded: who does not read holds up who writes. Dropping the input ends it (what runs reads its
//! end); dropping the output cuts the session, and what was started for it is ended with all its processes.

use super::error::DriverError;
use super::output::{LogStream, Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use impresario_ambient::tasks;
use tokio::sync::mpsc;

/// Bytes of one piece at most.
pub const PIECE: usize = 16 * 1024;
/// Pieces that wait in one direction.
pub(crate) const PIECES: usize = 4;

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// Bytes for the standard input.
    Bytes(Bytes),
    /// The terminal has this size from now on.
    Resize(Size),
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Bytes of the standard output, or of the terminal.
    Stdout(Bytes),
    /// Bytes of the standard error.
    Stderr(Bytes),
    /// It has ended with this exit code; nothing follows.
    Ended(i32),
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether it reads what goes in; else its input is at its end from the beginning.
    pub stdin: bool,
    /// Whether it has a terminal, on which both outputs are one.
    pub tty: bool,
}

/// Both ends of a session.
#[derive(Debug)]
pub struct Attached {
    /// What goes in; `None` where nothing is read.
    pub input: Option<mpsc::Sender<Typed>>,
    /// What comes out.
    pub output: mpsc::Receiver<Written>,
}

/// What a container writes from now on, as the output of a session that has no input.
pub(crate) fn followed(mut lines: LogStream) -> Attached {
    let (written, output) = mpsc::channel(PIECES);
    tasks::spawn(async move {
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = written.closed() => return,
            };
            let line = match line {
                Some(Ok(line)) => line,
                Some(Err(error)) => {
                    // Without the end that a reader waits for: it was cut.
                    return tracing::debug!(%error, "what a container writes cannot be followed any more");
                }
                None => {
                    // Nobody may be there any more to hear it.
                    let _ = written.send(Written::Ended(0)).await;
                    return;
                }
            };
            let mut bytes = line.bytes.to_vec();
            if !line.partial {
                bytes.push(b'\n');
            }
            let piece = |bytes: &[u8]| match line.stream {
                Stream::Stdout => Written::Stdout(Bytes::copy_from_slice(bytes)),
                Stream::Stderr => Written::Stderr(Bytes::copy_from_slice(bytes)),
            };
            for bytes in bytes.chunks(PIECE) {
                if written.send(piece(bytes)).await.is_err() {
                    return;
                }
            }
        }
    });
    Attached { input: None, output }
}

/// Why a driver that only follows the output does not take an input.
pub(crate) fn no_input(driver: &str) -> DriverError {
    DriverError::NotDone {
        what: format!(
            "the {driver} driver gives a container no standard input: attach without it (no -i), or use exec"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::output::LogLine;
    use futures_util::stream;
    use jiff::Timestamp;

    #[tokio::test]
    async fn what_is_followed_comes_line_by_line_on_its_own_output() {
        let line = |stream, text: &'static str, partial| {
            let (time, bytes) = (Timestamp::UNIX_EPOCH, Bytes::from(text));
            Ok(LogLine { time, stream, bytes, partial })
        };
        let lines = vec![
            line(Stream::Stdout, "one", false),
            line(Stream::Stderr, "two", false),
            line(Stream::Stdout, "thr", true),
        ];
        let mut attached = followed(stream::iter(lines).boxed());
        assert!(attached.input.is_none());
        let mut seen = Vec::new();
        while let Some(written) = attached.output.recv().await {
            seen.push(written);
        }
        let expected = [
            Written::Stdout("one\n".into()),
            Written::Stderr("two\n".into()),
            Written::Stdout("thr".into()),
            Written::Ended(0),
        ];
        assert_eq!(seen, expected);
    }
}
