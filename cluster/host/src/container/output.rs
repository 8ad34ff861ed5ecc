//! What a container writes, line by line.

use super::error::DriverError;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or one piece of a line that was longer than the log's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub time: Timestamp,
    /// On which output.
    pub stream: Stream,
    /// Its bytes, without the line feed.
    pub bytes: bytes::Bytes,
    /// Whether the line goes on in the next one.
    pub partial: bool,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only that many of the last lines that there are.
    pub tail: Option<usize>,
    /// Only lines of this time or later.
    pub since: Option<Timestamp>,
    /// End when this many bytes were given; the last line is cut there.
    pub limit_bytes: Option<u64>,
}

/// Lines in order; dropping it ends the reading.
pub type LogStream = BoxStream<'static, Result<LogLine, DriverError>>;
