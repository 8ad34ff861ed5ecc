//! What goes both ways between a client and a pod, whatever it is carried by.
//!
//! ```text
//!            what is typed (bounded)
//!  client ──────────────────────────> a session with the pod
//!   wire  <──────────────────────────  (crate::sessions)
//!            what it says, last a Status
//! ```
//!
//! A [`Line`] is a session seen from here; a [`Transport`] carries lines over a connection that was HTTP before. Each
//! transport is a module of its own, and knows neither pods nor rules.

mod line;
mod offered;
mod spdy;
mod tunnel;
mod websocket;

pub use line::{Dial, HELD_BYTES, Line, Load, PIECE, PIECES};

use crate::answer::{self, Body};
use crate::takeover::Taken;
use futures_util::future::BoxFuture;
use hyper::header::{CONNECTION, HeaderMap, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use impresario_api::status::Status;
use impresario_runtime::tasks;
use std::time::Duration;

/// How long a connection may take to become something else.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);

/// What carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket (RFC 6455).
    WebSocket(websocket::Agreed),
    /// SPDY/3.1.
    Spdy(spdy::Agreed),
}

impl Transport {
    /// The transport that these headers ask for, of those that can carry it.
    pub fn wanted(headers: &HeaderMap, ports: bool) -> Result<Self, Status> {
        if spdy::is_asked_for(headers) {
            return spdy::wanted(headers, ports).map(Self::Spdy);
        }
        websocket::wanted(headers, ports).map(Self::WebSocket)
    }

    /// Whether it carries connections to ports that are asked for while it lasts, or else those that the request names.
    pub fn dials(&self) -> bool {
        match self {
            Self::WebSocket(agreed) => agreed.dials(),
            Self::Spdy(agreed) => agreed.is_of_ports(),
        }
    }

    /// The name of what the connection becomes.
    fn upgrade(&self) -> &'static str {
        match self {
            Self::WebSocket(_) => "websocket",
            Self::Spdy(_) => impresario_spdy::UPGRADE,
        }
    }

    fn carry(self, wire: line::Wire, load: Load) -> BoxFuture<'static, ()> {
        match self {
            Self::WebSocket(agreed) => Box::pin(websocket::carry(agreed, wire, load)),
            Self::Spdy(_) => Box::pin(spdy::carry(wire, load)),
        }
    }
}

/// What a stream holds as long as it lasts, and what ends it.
pub struct Terms {
    /// The connection that it takes over.
    pub taken: Taken,
    /// Resolves when who opened it is trusted no more.
    pub distrusts: BoxFuture<'static, ()>,
    /// Given back with it.
    pub share: Box<dyn Send>,
}

/// Answers that the connection becomes something else, and carries the load over it then.
pub fn begin(transport: Transport, upgrade: OnUpgrade, load: Load, terms: Terms) -> Response<Body> {
    let mut response = answer::text(200, "");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, hyper::header::HeaderValue::from_static(transport.upgrade()));
    match &transport {
        Transport::WebSocket(agreed) => agreed.answer(headers),
        Transport::Spdy(agreed) => agreed.answer(headers),
    }
    // Ends by itself, with the connection, or by the terms.
    tasks::spawn(async move {
        let Terms { taken, distrusts, share } = terms;
        let carrying = async move {
            match tokio::time::timeout(UPGRADE_LIMIT, upgrade).await {
                Ok(Ok(upgraded)) => transport.carry(TokioIo::new(upgraded), load).await,
                Ok(Err(error)) => tracing::debug!(%error, "a connection stays what it is"),
                Err(_) => tracing::debug!("a connection takes too long to become something else"),
            }
        };
        tokio::select! {
            () = carrying => {}
            () = taken.over() => {}
            () = distrusts => {}
        }
        drop((share, taken));
    });
    response
}
