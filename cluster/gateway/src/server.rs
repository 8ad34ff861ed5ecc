//! The HTTPS server: sockets, TLS, connections and their limits.
//!
//! Guarantees: a connection costs one of a bounded number of places, which strangers keep from each
//! other alone; the handshake, the header, the body and the reading of an answer each have a deadline; a
//! connection that stays silent, before its first request or between two, is closed, and so is one
//! whose certificate has expired or is revoked. Several processes may serve one address
//! ([`SharedListener`]), so that any one of them can die or be stopped. [`Server::stop`] ends
//! everything that was started here.

mod connection;
mod metered;
mod places;
mod sending;
mod shared;

use crate::authenticate::Certificate;
use crate::budget::Holder;
use crate::gateway::Gateway;
use crate::limits::Limits;
use crate::takeover::{self, Watched};
use crate::tls::Tls;
use connection::{Connection, Verdict};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use impresario_runtime::{clock, tasks};
use metered::Metered;
use places::{Place, Places};
use sending::{Sending, Working};
use shared::HandedOn;
pub use shared::{ListenError, SharedListener, Sharer};
use socket2::TcpKeepalive;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long a connection that was asked to go may take for it.
const DRAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether who took a connection over is trusted, though nothing was heard.
const LOOK: Duration = Duration::from_mins(1);
/// Most bytes of a request's header.
const HEADER_BYTES: u32 = 64 * 1024;
/// Bytes that a client may send on a stream before they are read, and on a whole HTTP/2 connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// Bytes of answers that one HTTP/2 stream holds ready to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    handed_on: Option<HandedOn>,
}

impl Server {
    /// Listens on an address that nobody else uses, and serves the gateway there.
    pub fn start(
        address: SocketAddr,
        tls: Tls,
        gateway: Arc<Gateway>,
    ) -> Result<Self, ListenError> {
        Self::serve(SharedListener::alone(address)?, tls, gateway)
    }

    /// Serves the gateway on a socket from which other processes may take connections too.
    pub fn serve(
        shared: SharedListener,
        tls: Tls,
        gateway: Arc<Gateway>,
    ) -> Result<Self, ListenError> {
        let SharedListener { listener, handed_on } = shared;
        let address = listener.local_addr().map_err(ListenError::Socket)?;
        let listener = TcpListener::from_std(listener).map_err(ListenError::Socket)?;
        let (stop, stopping) = watch::channel(false);
        let task = tasks::spawn(accept(listener, tls, gateway, stopping));
        Ok(Self { address, stop, task, handed_on })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets answers finish until the deadline, then closes the rest.
    pub async fn stop(self, deadline: Duration) {
        drop(self.handed_on);
        let _ = self.stop.send(true);
        let mut task = self.task;
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            task.abort(); // drops the set of connections, which aborts each of them
        }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Tls,
    gateway: Arc<Gateway>,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Places::of(gateway.limits().clone());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let connection = Arc::new(Connection::begin(clock::now()));
                let place = match places.take(from.ip(), &connection) {
                    Ok(place) => place,
                    Err(full) => {
                        let unsaid = gateway.count_refusal("connection", "", "Places");
                        if let Some(unsaid) = unsaid {
                            tracing::warn!(%from, %full, unsaid, "one more connection was closed");
                        }
                        continue;
                    }
                };
                let (tls, gateway, stopping) =
                    (tls.clone(), Arc::clone(&gateway), stopping.clone());
                connections.spawn(async move {
                    let place = Arc::new(place);
                    tokio::select! {
                        () = serve(stream, from, &connection, &place, &tls, gateway, stopping) => {}
                        () = connection.evicted() => {}
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: accepting again at once would only spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    connection: &Arc<Connection>,
    place: &Arc<Place>,
    tls: &Tls,
    gateway: Arc<Gateway>,
    mut stopping: watch::Receiver<bool>,
) {
    let limits = gateway.limits().clone();
    // Where the kernel does not have these, answers come later and a peer that went is noticed by its deadlines.
    let _ = stream.set_nodelay(true);
    let alive = TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(15));
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&alive);
    let stream = match tokio::time::timeout(limits.handshake, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "no TLS"),
        Err(_) => return tracing::debug!(%from, "the TLS handshake took too long"),
    };
    let session = stream.get_ref().1;
    let speaks_http2 = session.alpn_protocol() == Some(b"h2");
    connection.greeted(session.peer_certificates(), speaks_http2, clock::now());
    let mut trusted = tls.changes();
    let began_good = matches!(*connection.certificate(tls), Certificate::Of(_));
    place.reached(&connection.stage());

    let (takeover, watched) = takeover::watched();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(takeover.clone());
        let (gateway, connection, place, tls) =
            (Arc::clone(&gateway), Arc::clone(connection), Arc::clone(place), tls.clone());
        let working = Working::begin(&connection);
        async move {
            let bodiless = request.method() == Method::HEAD;
            let recognise = |user: &Holder| {
                if connection.recognise(user) {
                    place.reached(&connection.stage());
                }
            };
            let certificate = connection.certificate(&tls);
            let answered = gateway.answer(&certificate, request, &recognise).await;
            let answer = Sending::watch(answered.response, working, answered.share, bodiless);
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = builder(&limits, speaks_http2);
    let stream = TokioIo::new(Metered::new(stream, Arc::clone(connection)));
    let running = builder.serve_connection_with_upgrades(stream, service);
    let mut running = std::pin::pin!(running);
    let mut draining: Option<Instant> = None;
    loop {
        let mut wait = match connection.judge(&limits, clock::now()) {
            Verdict::Wait(wait) => wait,
            Verdict::Drain if draining.is_none() => Duration::ZERO,
            Verdict::Drain => DRAIN,
            Verdict::Close(why) => {
                return tracing::debug!(%from, why, "the connection was closed");
            }
        };
        let is_good = matches!(*connection.certificate(tls), Certificate::Of(_));
        let distrusted = began_good && !is_good;
        if let Some(end) = connection.certificate_ends_in() {
            wait = wait.min(end.max(Duration::from_millis(100)));
        }
        if let Some(since) = draining {
            let left = DRAIN.saturating_sub(since.elapsed());
            let idle = !matches!(connection.judge(&limits, clock::now()), Verdict::Wait(_));
            if left.is_zero() && (distrusted || idle) {
                return; // it did not go when asked: dropped with its socket
            }
            wait = wait.min(left.max(Duration::from_millis(100)));
        } else if wait.is_zero() || distrusted || *stopping.borrow() {
            if distrusted {
                tracing::info!(%from, "a connection ends: its certificate is not good any more");
            }
            draining = Some(clock::now());
            running.as_mut().graceful_shutdown();
            continue;
        }
        tokio::select! {
            ended = running.as_mut() => {
                if let Err(error) = ended { return tracing::debug!(%from, %error, "the connection broke"); }
                break;
            }
            () = tokio::time::sleep(wait) => {}
            Ok(()) = trusted.changed() => {}
            Ok(_) = stopping.wait_for(|stop| *stop), if draining.is_none() => {}
        }
    }
    // What an answer has taken over goes on, in its place, as long as who has it is trusted.
    while_taken_over(watched, from, connection, tls, stopping, began_good).await;
}

/// Until whoever took the connection over has given it back, or has to.
async fn while_taken_over(
    mut watched: Watched,
    from: SocketAddr,
    connection: &Connection,
    tls: &Tls,
    mut stopping: watch::Receiver<bool>,
    began_good: bool,
) {
    // It is no idle connection, whose place others may be given.
    connection.ask(clock::now());
    let mut trusted = tls.changes();
    loop {
        if began_good && !matches!(*connection.certificate(tls), Certificate::Of(_)) {
            let why = "its certificate is not good any more";
            return tracing::info!(%from, why, "a connection ends that was taken over");
        }
        let look = connection.certificate_ends_in().unwrap_or(LOOK);
        tokio::select! {
            () = watched.given_back() => return,
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(look.clamp(Duration::from_millis(100), LOOK)) => {}
            Ok(()) = trusted.changed() => {}
        }
    }
}

/// What a connection speaks, and within which bounds. The deadline for a header is ours: hyper's also
/// counts the time before its first byte, in which a client that will come back says nothing.
fn builder(limits: &Limits, speaks_http2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if speaks_http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_BYTES);
    builder
}
