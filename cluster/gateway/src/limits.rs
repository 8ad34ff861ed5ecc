//! What one server allows: times, counts and bytes, each with a default that a busy cluster needs.
//!
//! Whoever it is that asks, nothing is kept, waited for or worked on without one of these limits.

use std::time::Duration;

/// What one server allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. Over it, and over the next two, the connection of a stranger that has
    /// been idle longest makes room for the newcomer; where there is none, the newcomer is closed.
    pub connections: usize,
    /// Connections at a time from one address (of IPv6: from one network of 64 bits).
    pub per_address: usize,
    /// Connections at a time of strangers: of whom has shown no credential that is good.
    pub strangers: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Requests that a client may take back on one connection within `CANCEL_WINDOW`. Who takes
    /// back more asks for work and does not want it (CVE-2023-44487).
    pub cancelled: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for a request's header, from its first byte on.
    pub header: Duration,
    /// Time for a request's body.
    pub body: Duration,
    /// Time in which a client must read on while there is something for it to read.
    pub write: Duration,
    /// Time until the first request of a connection, and between two of them.
    pub idle: Duration,
    /// The same for strangers.
    pub stranger_idle: Duration,
    /// Time for an answer that is not a stream.
    pub answer: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being received or answered, of all connections together.
    pub bodies: usize,
    /// Memory that all requests being worked on may take, in bytes, where a body counts
    /// `WORK_PER_BYTE` times its own. Further ones wait for their turn.
    pub work: usize,
    /// Bytes of all answers that wait to be read, of all connections together; streams aside, which
    /// make nothing before it can be sent.
    pub answers: usize,
}

/// The time over which requests that were taken back are counted.
pub const CANCEL_WINDOW: Duration = Duration::from_secs(10);
/// Memory that working on a body takes, in multiples of its size: the parsed object is up to ten
/// times as large as its text, and stands there as read, as it was, as it becomes, and as bytes.
pub const WORK_PER_BYTE: usize = 32;

const MIB: usize = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            per_address: 2_048,
            strangers: 512,
            streams: 250,
            cancelled: 500,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_mins(2),
            stranger_idle: Duration::from_secs(15),
            answer: Duration::from_mins(1),
            body_bytes: 3 * MIB,
            bodies: 48 * MIB,
            work: 100 * MIB,
            answers: 256 * MIB,
        }
    }
}
