//! How much a session may hold, and how long it may wait.

use std::time::Duration;

/// The bounds of one session. The defaults suit `exec` and `port-forward`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a control frame, as it comes: its header block is compressed. A data frame is passed on in pieces while it
    /// arrives, so its length holds no memory and has no bound but the 24 bits of the protocol.
    pub control_frame_bytes: usize,
    /// Of the headers of one frame, decompressed; at most 1 MiB, whatever stands here.
    pub header_bytes: usize,
    /// Of the headers of one frame: names and values.
    pub header_pairs: usize,
    /// Streams that are open, or not yet let go of here. Whatever the peer opens beyond is refused.
    pub streams: usize,
    /// Of one stream, received and not read. At that many the session reads no more; the last piece may go
    /// beyond it by 16 KiB.
    pub stream_bytes: usize,
    /// Of all streams together, received and not read; likewise.
    pub session_bytes: usize,
    /// Of one stream, written and not sent.
    pub stream_send_bytes: usize,
    /// Of all streams together, written and not sent.
    pub session_send_bytes: usize,
    /// A session on which nothing passes for so long, in neither direction, is ended. Pings count: `kubectl` sends one
    /// every five seconds.
    pub idle: Duration,
    /// For the reply to a stream that this end opens.
    pub reply: Duration,
    /// For open streams to end after [`close`](crate::Session::close), and again for the farewell to be sent and
    /// the peer to close.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control_frame_bytes: 16 << 10,
            header_bytes: 16 << 10,
            header_pairs: 64,
            streams: 256,
            stream_bytes: 64 << 10,
            session_bytes: 1 << 20,
            stream_send_bytes: 64 << 10,
            session_send_bytes: 1 << 20,
            // Those of a kubelet.
            idle: Duration::from_hours(4),
            reply: Duration::from_secs(30),
            linger: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Compressed it still fits into the 24 bits of a frame's length.
    const MOST_HEADER_BYTES: usize = 1 << 20;

    pub(crate) fn header_bytes(&self) -> usize {
        self.header_bytes.min(Self::MOST_HEADER_BYTES)
    }
}
