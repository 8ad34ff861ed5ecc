//! One question to one webhook, over HTTPS, within its time.

use super::places::{Held, Places, SMALL};
use super::target::{Place, Target};
use crate::Reader;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use impresario_api::catalog::find;
use impresario_api::wire;
use impresario_client::objects::stored::text;
use impresario_registry_api::Consistency;
use impresario_runtime::tasks;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// The most bytes of an answer: a patch as large as a body may be, in base64, and some words.
const MAX_ANSWER: usize = wire::MAX_BODY_BYTES / 3 * 4 + (256 << 10);

/// The most addresses of a host that are tried.
const MOST_ADDRESSES: usize = 8;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("service {service:?} has no port {port}")]
    NoPort { service: String, port: u16 },
    #[error("service {0:?} has no address of its own: give it one, or use a url")]
    NoAddress(String),
    #[error("{0}")]
    Read(String),
    #[error("dial tcp: {0}")]
    Connect(std::io::Error),
    #[error("tls: {0}")]
    Tls(std::io::Error),
    #[error("{0:?} is no name that a certificate can have")]
    Name(String),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    #[error("the server answered with status {0}")]
    Status(StatusCode),
    #[error("the answer cannot be read: {0}")]
    Body(String),
    #[error("there is no room for its answer")]
    Room,
}

/// An answer, and the room that it takes until it has been read.
pub(super) struct Body {
    /// Its bytes.
    pub(super) bytes: Bytes,
    _room: Option<Held>,
}

/// Ends the task that drives a connection, however its question ended.
struct Driven(JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Posts a body and reads the answer, where there is room for it. The caller keeps the time.
pub(super) async fn post(
    objects: &Reader,
    target: &Target,
    body: Vec<u8>,
    (own, all): (&Places, &Places),
) -> Result<Body, CallError> {
    let (address, port) = address(objects, &target.place).await?;
    let host = target.host();
    let addresses = look_up(address, port, own, all).await?;
    let stream = TcpStream::connect(&addresses[..]).await.map_err(CallError::Connect)?;
    let name = ServerName::try_from(host.clone()).map_err(|_| CallError::Name(host.clone()))?;
    let connector = TlsConnector::from(target.tls.clone());
    let stream = connector.connect(name, stream).await.map_err(CallError::Tls)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driven = Driven(tasks::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a webhook ended");
        }
    }));
    let shown = if host.contains(':') { format!("[{host}]") } else { host };
    let request = Request::post(&target.path)
        .header(HOST, shown)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("impresario-admission/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    // A redirect is no answer: it would take what is asked to whom nobody configured.
    if response.status() != StatusCode::OK {
        return Err(CallError::Status(response.status()));
    }
    read(response.into_body(), own, all).await
}

/// Reads an answer; what is large waits for room before it is there.
async fn read(body: Incoming, own: &Places, all: &Places) -> Result<Body, CallError> {
    let mut body = Limited::new(body, MAX_ANSWER);
    let (mut bytes, mut room) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CallError::Body(error.to_string()))?;
        let Ok(piece) = frame.into_data() else { continue };
        if room.is_none() && bytes.len() + piece.len() > SMALL {
            room = Some(own.take_large(all).await.ok_or(CallError::Room)?);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Body { bytes: bytes.freeze(), _room: room })
}

/// The addresses of a host. Who is no longer waited for keeps its right to look up until the system has answered it: so
/// look-ups never take more threads than there are rights.
async fn look_up(
    host: String,
    port: u16,
    own: &Places,
    all: &Places,
) -> Result<Vec<SocketAddr>, CallError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let right = own.take_name(all).await.ok_or(CallError::Room)?;
    let found = tasks::spawn_blocking(move || {
        let _right = right;
        let found = (host.as_str(), port).to_socket_addrs();
        found.map(|found| found.take(MOST_ADDRESSES).collect::<Vec<_>>())
    });
    let found = found.await.map_err(|error| CallError::Connect(std::io::Error::other(error)))?;
    let found = found.map_err(CallError::Connect)?;
    if found.is_empty() {
        let why = std::io::Error::new(std::io::ErrorKind::NotFound, "no such host");
        return Err(CallError::Connect(why));
    }
    Ok(found)
}

async fn address(objects: &Reader, place: &Place) -> Result<(String, u16), CallError> {
    let (namespace, name, port) = match place {
        Place::Url { host, port } => return Ok((host.clone(), *port)),
        Place::Service { namespace, name, port } => (namespace, name, *port),
    };
    let service = format!("{namespace}/{name}");
    let Some(services) = find("", "v1", "services") else {
        return Err(CallError::NoService(service));
    };
    let found = objects.find(&services, namespace, name, Consistency::Local).await;
    let found = found.map_err(|status| CallError::Read(status.message))?;
    let Some(found) = found else { return Err(CallError::NoService(service)) };
    if text(&found.object, "/spec/type") == "ExternalName" {
        return Ok((text(&found.object, "/spec/externalName").to_owned(), port));
    }
    let ports = found.object.pointer("/spec/ports").and_then(Value::as_array);
    if !ports.into_iter().flatten().any(|one| one["port"].as_u64() == Some(port.into())) {
        return Err(CallError::NoPort { service, port });
    }
    match text(&found.object, "/spec/clusterIP") {
        "" | "None" => Err(CallError::NoAddress(service)),
        address => Ok((address.to_owned(), port)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn who_may_look_up_no_more_names_waits_and_an_address_needs_no_look_up() {
        let (all, own) = (Places::of_all(), Places::of_one());
        let mut rights = Vec::new();
        while let Some(right) = own.take_name(&all).now_or_never() {
            rights.push(right.unwrap());
        }
        assert_eq!(rights.len(), 4);
        let named = || look_up("localhost".to_owned(), 1, &own, &all);
        assert!(named().now_or_never().is_none(), "it waits for a right");
        let plain = look_up("::1".to_owned(), 1, &own, &all).now_or_never().unwrap();
        assert_eq!(plain.unwrap(), ["[::1]:1".parse().unwrap()]);
        drop(rights);
        let found = named().await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert!(own.take_name(&all).now_or_never().is_some(), "it is given back");
    }
}
