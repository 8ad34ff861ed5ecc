//! What one server allows: times, counts and bytes, each with a default that a busy cluster needs.
//!
//! Whoever it is that asks, nothing is kept, waited for or worked on without one of these limits.

use std::time::Duration;

/// What one server allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. Over it a stranger makes room for the newcomer; where there is none, the user
    /// with most connections does. An eighth is not for known users, but for newcomers, strangers and the system.
    pub connections: usize,
    /// Connections at a time of one user. Over it the one that has been idle longest makes room.
    pub per_user: usize,
    /// Connections at a time of strangers: of whom has shown no credential that is good. Over it one
    /// of those from the address with most of them makes room: the one idle longest, else the one
    /// that has been busy longest.
    pub strangers: usize,
    /// Connections at a time whose handshake is not over; over it the oldest of those from the address
    /// with most of them makes room.
    pub handshakes: usize,
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
    /// Time for a stranger's request, and in which a stranger must read on.
    pub stranger_answer: Duration,
    /// Time for finding out who asks.
    pub identify: Duration,
    /// Time for an answer that is not a stream.
    pub answer: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being received or answered, of all connections together. One user
    /// gets at most as much as it leaves to others; a part is for who holds little, and one for the system.
    pub bodies: usize,
    /// Memory that all requests being worked on may take, in bytes, where a body counts several times
    /// its own. Further ones wait for their turn.
    pub work: usize,
    /// Bytes of all answers that wait to be read, of all connections together; small ones and streams
    /// aside. Shared as `bodies` are.
    pub answers: usize,
    /// Watches and logs that are sent at a time. Shared as `bodies` are.
    pub watches: usize,
    /// The same of one user at most.
    pub watches_per_user: usize,
}

/// The time over which requests that were taken back are counted.
pub const CANCEL_WINDOW: Duration = Duration::from_secs(10);
/// Bytes a second, of an answer that is no stream, that a client must read on average, once
/// [`Limits::write`] has passed.
pub const LEAST_RATE: u64 = 64 * 1024;

const MIB: usize = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            per_user: 2_048,
            strangers: 512,
            handshakes: 512,
            streams: 250,
            cancelled: 500,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_mins(2),
            stranger_idle: Duration::from_secs(15),
            stranger_answer: Duration::from_secs(5),
            identify: Duration::from_secs(10),
            answer: Duration::from_mins(1),
            body_bytes: 3 * MIB,
            bodies: 48 * MIB,
            work: 128 * MIB,
            answers: 256 * MIB,
            watches: 16_384,
            watches_per_user: 10_240,
        }
    }
}
