//! SPDY/3.1 as Kubernetes uses it: several streams over one connection, for `exec`, `attach` and `port-forward`.
//!
//! It runs over anything that reads and writes bytes: a connection after an HTTP/1.1 upgrade to [`UPGRADE`], or a
//! WebSocket that carries the same bytes. The protocol is draft 3 of SPDY
//! (<https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3>, section numbers below are its own), read as the
//! peer reads it: Go's `moby/spdystream`, which every `kubectl` and kubelet has.
//!
//! ```text
//!   Session::server(io, limits) ──> Session   close it, open streams of one's own
//!                               ──> Driver    a future: reads, writes, keeps the deadlines; whoever has it polls it
//!                               ──> Incoming  ──next()──> Request ──accept(headers)──> Stream ──split()──> Reader, Writer
//!   Session::client(io, limits) ──> Session, Driver;  Session::open(headers) ──> Stream
//! ```
//!
//! # What is done otherwise than the draft says, because the peer does
//!
//! - **No windows.** `spdystream` sends no WINDOW_UPDATE and ignores those that come, so neither is waited for. A
//!   reader that is slow stops the whole session from being read, once its stream holds [`Limits::stream_bytes`] or all
//!   streams together [`Limits::session_bytes`] that nobody took; the transport then slows the peer down. Pings are not
//!   answered meanwhile. A reader that is dropped holds nothing up: what comes for it is thrown away.
//! - **GOAWAY comes last.** `spdystream` reads nothing after it, so [`Session::close`] lets the open streams end first.
//! - **Nothing is sent on a stream before its reply**, since `spdystream` throws it away: [`Session::open`] waits for it.
//!
//! # Who breaks the protocol
//!
//! A [`Violation`] ends the session: GOAWAY is sent, and every stream fails with it. Three things cost only the stream
//! they concern, which is reset as the draft says: a frame for a stream that never was (INVALID_STREAM), one after the
//! peer's end of a stream (STREAM_ALREADY_CLOSED), a stream above [`Limits::streams`] (REFUSED_STREAM). What arrives for
//! a stream that is gone was on its way, and is ignored. So are control frames of an unknown kind (2.2.1), settings other
//! than the number of streams, and the headers of a HEADERS frame, which Kubernetes never sends.

mod codes;
mod compression;
mod connection;
mod decode;
mod dictionary;
mod driver;
mod encode;
mod error;
mod frame;
mod headers;
mod incoming;
mod limits;
mod session;
mod stream;

pub use codes::ResetStatus;
pub use driver::Driver;
pub use error::{HeaderError, OpenError, SessionError, StreamError, Violation};
pub use headers::Headers;
pub use incoming::{Incoming, Request};
pub use limits::Limits;
pub use session::Session;
pub use stream::{Reader, Stream, Writer};

/// What the `Upgrade` header of the HTTP request and of its answer says.
pub const UPGRADE: &str = "SPDY/3.1";
