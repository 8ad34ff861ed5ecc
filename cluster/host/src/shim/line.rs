//! What a stage tells the one that started it.

use crate::process::record::Failed;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// One line to the first stage.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Line {
    /// Something cannot be given as asked; the command is executed all the same.
    Warning(String),
    /// The command is not executed.
    Failed(Failed),
    /// The command executes, below this process.
    Began,
    /// And has ended.
    Ended {
        /// Its exit code, as a shell tells it.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
    },
}

/// Tells it; who does not listen any more is not told.
pub(super) fn send(mut channel: &UnixStream, line: &Line) {
    if let Ok(mut bytes) = serde_json::to_vec(line) {
        bytes.push(b'\n');
        let _ = channel.write_all(&bytes);
    }
}

/// What the second stage says next; `None` when it has closed the channel.
pub(super) fn next_line(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Line>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// A call of the system that failed while this was done.
pub(super) fn system(what: &str) -> impl FnOnce(nix::Error) -> Failed {
    move |errno| Failed::System { what: what.to_owned(), cause: errno.to_string() }
}
