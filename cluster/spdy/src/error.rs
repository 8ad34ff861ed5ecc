//! What may go wrong, by what has to be done about it.

use crate::codes::ResetStatus;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// How the peer broke the protocol, or what of the limits it broke. The session has ended with GOAWAY.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Another version of SPDY.
    #[error("a frame of version {found}, where 3 is spoken")]
    Version {
        /// What the frame says.
        found: u16,
    },

    /// A control frame above the limit.
    #[error("a control frame of {length} bytes, and the limit is {limit}")]
    ControlTooLong {
        /// What its head says.
        length: usize,
        /// `Limits::control_frame_bytes`.
        limit: usize,
    },

    /// A control frame whose length is not that of its kind.
    #[error("a frame {kind} of {length} bytes, which its fields do not have")]
    Length {
        /// The name of its kind.
        kind: &'static str,
        /// What its head says.
        length: usize,
    },

    /// A frame for stream 0, which there is not.
    #[error("a frame {kind} for stream 0")]
    ZeroStream {
        /// The name of its kind.
        kind: &'static str,
    },

    /// Headers above the limit when decompressed.
    #[error("headers of more than {limit} bytes")]
    HeadersTooLong {
        /// `Limits::header_bytes`.
        limit: usize,
    },

    /// More headers than the limit.
    #[error("{pairs} headers, and the limit is {limit}")]
    TooManyHeaders {
        /// What the block says.
        pairs: usize,
        /// `Limits::header_pairs`.
        limit: usize,
    },

    /// A header block that does not go on with the session's zlib stream.
    #[error("a header block that is not of the session's zlib stream")]
    Compression,

    /// A zlib stream that begins with another dictionary than SPDY/3's.
    #[error("a zlib stream with the dictionary {found:08x}, which is not SPDY/3's")]
    Dictionary {
        /// The checksum of the one that it asks for.
        found: u32,
    },

    /// Headers that are not as section 2.6.10 has them.
    #[error("headers that are malformed: {0}")]
    Headers(&'static str),

    /// A stream with a number below one that was opened before it.
    #[error("stream {id} opened after stream {last}")]
    StreamGoesBack {
        /// The stream's.
        id: u32,
        /// The highest so far.
        last: u32,
    },

    /// A stream with a number that is not the peer's to give: a client's are odd, a server's even.
    #[error("stream {id} opened, whose number is not the peer's to give")]
    Parity {
        /// The stream's.
        id: u32,
    },
}

/// Why headers cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// A name is of visible ASCII, and is not empty.
    #[error("{name:?} cannot be the name of a header: it must be of visible ASCII")]
    Name {
        /// As given.
        name: String,
    },

    /// The byte 0 stands between values, so none can have it; and one of several cannot be empty.
    #[error("the header {name} cannot have this value: it has a byte 0, or is empty beside others")]
    Value {
        /// The header's name.
        name: String,
    },

    /// More than the limits of the session allow.
    #[error("headers of {bytes} bytes and {pairs} names are over the session's limits")]
    TooLong {
        /// Of all names, values and their lengths.
        bytes: usize,
        /// How many names.
        pairs: usize,
    },
}

/// Why a session is over. Whoever wants it back connects again.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer's fault.
    #[error("the peer broke the protocol, and the session has ended: {0}")]
    Violation(#[from] Violation),

    /// The transport failed.
    #[error("the connection failed: {0}")]
    Io(#[source] Arc<io::Error>),

    /// The peer closed the connection while streams were open.
    #[error("the peer closed the connection while {streams} streams were open")]
    Truncated {
        /// How many.
        streams: usize,
    },

    /// Nothing passed for the time of `Limits::idle`.
    #[error("nothing passed for {waited:?}, so the session was ended")]
    Idle {
        /// That time.
        waited: Duration,
    },

    /// Streams were open, or not all was sent, for the time of `Limits::linger` after the
    /// session was closed.
    #[error("the session did not come to its end within {waited:?} after it was closed")]
    Lingered {
        /// That time.
        waited: Duration,
    },

    /// It was closed, here or by the peer, and came to its end.
    #[error("the session was closed")]
    Closed,

    /// The [`Driver`](crate::Driver) was dropped: nobody moves bytes any more.
    #[error("the session's driver was dropped")]
    DriverGone,

    /// The compressor failed, which is not the peer's doing.
    #[error("headers could not be compressed")]
    Compressor,
}

/// Why a stream cannot be read or written any more. It is inside the [`io::Error`] that reading and writing give.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// One of the two ends reset it.
    #[error("the stream was reset: {status}")]
    Reset {
        /// Why.
        status: ResetStatus,
    },

    /// It was written to after its end here.
    #[error("the stream has been finished here: nothing more can be written")]
    Finished,

    /// The session is over.
    #[error(transparent)]
    Session(#[from] SessionError),

    /// The headers of a reply cannot be sent; the stream has been reset.
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset { .. } => io::ErrorKind::ConnectionReset,
            StreamError::Finished => io::ErrorKind::BrokenPipe,
            StreamError::Session(_) => io::ErrorKind::ConnectionAborted,
            StreamError::Headers(_) => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// As many streams are open as this end or the peer allows: let go of one, or wait.
    #[error("{open} streams are open, and no more are allowed: let go of one first")]
    TooMany {
        /// How many.
        open: usize,
    },

    /// The peer refused it.
    #[error("the peer refused the stream: {status}")]
    Refused {
        /// Why.
        status: ResetStatus,
    },

    /// No reply came in the time of `Limits::reply`.
    #[error("no reply to the stream within {waited:?}")]
    NoReply {
        /// That time.
        waited: Duration,
    },

    /// One of the ends has said that it takes no more streams, or the numbers are used up: connect again.
    #[error("the session takes no more streams: connect again")]
    GoingAway,

    /// The session is over.
    #[error(transparent)]
    Session(#[from] SessionError),

    /// The headers cannot be sent.
    #[error(transparent)]
    Headers(#[from] HeaderError),
}
