//! Lines over SPDY/3.1, as kubectl speaks it: each stream that the client opens says with `streamtype` what it is.
//!
//! | | streams that the client opens | at the end |
//! |---|---|---|
//! | a session | once each `error`, what is wanted of `stdin`, `stdout`, `stderr`, and `resize` of a terminal | a Status as JSON on `error` |
//! | ports | for each connection `error` and `data` of one `requestid` and `port`, while the client likes | on `error` what went wrong |
//!
//! What the peer sends on one stream is held back by holding back all of them: SPDY as Kubernetes speaks it has no windows.

mod command;
mod connections;
mod ends;

use super::line::{IDLE_LIMIT, Load, PIECE};
use super::offered::has;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use impresario_api::status::Status;
use impresario_spdy::{Limits, Session, SessionError};
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// The header in which versions of what is spoken are offered, and one is chosen.
const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What is spoken of a session, and of ports.
pub const OF_A_SESSION: &str = "v4.channel.k8s.io";
pub const OF_PORTS: &str = "portforward.k8s.io";

/// What client and server have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    version: &'static str,
}

impl Agreed {
    /// Says it in the answer.
    pub fn answer(&self, headers: &mut HeaderMap) {
        headers.insert(VERSION, HeaderValue::from_static(self.version));
    }

    /// Whether it is about ports.
    pub fn is_of_ports(&self) -> bool {
        self.version == OF_PORTS
    }
}

/// Whether SPDY is asked for.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    has(headers, CONNECTION, "upgrade") && has(headers, UPGRADE, impresario_spdy::UPGRADE)
}

/// What can be agreed on of what is asked for.
pub fn wanted(headers: &HeaderMap, ports: bool) -> Result<Agreed, Status> {
    let version = if ports { OF_PORTS } else { OF_A_SESSION };
    if !has(headers, VERSION, version) {
        return Err(Status::bad_request(format!(
            "no version of what is spoken over SPDY is known to both sides: it is {version} here, \
             to be offered in X-Stream-Protocol-Version"
        )));
    }
    Ok(Agreed { version })
}

/// Within [`HELD_BYTES`](super::HELD_BYTES); what a connection to a port holds is counted by itself.
fn limits() -> Limits {
    Limits {
        control_frame_bytes: 8 << 10,
        header_bytes: 4 << 10,
        header_pairs: 16,
        streams: 2 * connections::MOST + 2,
        stream_bytes: 64 << 10,
        session_bytes: 256 << 10,
        stream_send_bytes: PIECE,
        session_send_bytes: 128 << 10,
        idle: IDLE_LIMIT,
        linger: ends::LINGER,
        ..Limits::default()
    }
}

/// Carries the load until it is over, or the client is gone.
pub async fn carry<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, load: Load) {
    let (session, driver, incoming) = Session::server(io, limits());
    let serving = async {
        let served = match load {
            Load::Session(line) => command::serve(incoming, line).await,
            Load::Dial(dial) => connections::serve(incoming, dial).await,
            Load::Ports(_) => Err(io::Error::other("ports are dialled, one by one, over SPDY")),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "what is carried over SPDY was cut");
        }
        session.close();
        // The driver sends the rest.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        driven = driver => match driven {
            Ok(()) => {}
            Err(error @ SessionError::Idle { .. }) => tracing::info!(%error, "a SPDY session ends"),
            Err(error) => tracing::debug!(%error, "a SPDY session broke"),
        },
    }
}
