//! The HTTPS server: sockets, TLS, connections and their limits.
//!
//! Guarantees: a connection costs one of a bounded number of places; the handshake, the header and
//! the body each have a deadline; a connection that stays silent, before its first request or between
//! two, is closed. Several processes may listen on one address (`SO_REUSEPORT`), so that any one of
//! them can die. [`Server::stop`] ends everything that was started here.

use crate::answer::Body;
use crate::authenticate::Certificate;
use crate::gateway::Gateway;
use crate::tls::Tls;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// What one server allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for a request's header.
    pub header: Duration,
    /// Time for a request's body.
    pub body: Duration,
    /// Time until the first request of a connection, and between two of them.
    pub idle: Duration,
    /// Time for an answer that is not a stream.
    pub answer: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2_000,
            streams: 250,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(30),
            idle: Duration::from_mins(2),
            answer: Duration::from_mins(1),
            body_bytes: 3 * 1024 * 1024,
        }
    }
}

/// Why the server does not listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}: choose another port or stop what uses it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on an address, which others may share, and serves the gateway there.
    pub fn start(
        address: SocketAddr,
        tls: Tls,
        gateway: Arc<Gateway>,
    ) -> Result<Self, ListenError> {
        let listener = listen(address).map_err(|source| ListenError::Bind { address, source })?;
        let address =
            listener.local_addr().map_err(|source| ListenError::Bind { address, source })?;
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(accept(listener, tls, gateway, stopping));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets answers finish until the deadline, then closes the rest.
    pub async fn stop(self, deadline: Duration) {
        let _ = self.stop.send(true);
        let mut task = self.task;
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            task.abort(); // drops the set of connections, which aborts each of them
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

async fn accept(
    listener: TcpListener,
    tls: Tls,
    gateway: Arc<Gateway>,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(gateway.limits().connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!(%from, "all connections are in use: one more was closed");
                    continue;
                };
                let (tls, gateway, stopping) =
                    (tls.clone(), Arc::clone(&gateway), stopping.clone());
                connections.spawn(async move {
                    serve(stream, from, &tls, gateway, stopping).await;
                    drop(place);
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
    tls: &Tls,
    gateway: Arc<Gateway>,
    mut stopping: watch::Receiver<bool>,
) {
    let limits = gateway.limits().clone();
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
    let connection = Arc::new(Connection {
        certificate: tls.examine(stream.get_ref().1.peer_certificates()),
        busy: AtomicUsize::new(0),
        idle_since: Mutex::new(Instant::now()),
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(64 * 1024);
    let state = Arc::clone(&connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let (gateway, connection) = (Arc::clone(&gateway), Arc::clone(&state));
        let working = Working::begin(&connection);
        async move {
            let answer = gateway.answer(&connection.certificate, request).await;
            Ok::<_, Infallible>(track(answer, working))
        }
    });
    let running = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut running = std::pin::pin!(running);
    let mut closing = false;
    loop {
        let wait = connection.until_idle(limits.idle);
        tokio::select! {
            ended = running.as_mut() => {
                if let Err(error) = ended { tracing::debug!(%from, %error, "the connection broke"); }
                return;
            }
            () = tokio::time::sleep(wait) => {
                if !connection.is_idle(limits.idle) { continue; }
                if closing { return; } // it did not go when asked: dropped with its socket
                closing = true;
                connection.touch();
                running.as_mut().graceful_shutdown();
            }
            _ = stopping.wait_for(|stop| *stop), if !closing => {
                closing = true;
                running.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What is known of one connection.
struct Connection {
    certificate: Certificate,
    busy: AtomicUsize,
    idle_since: Mutex<Instant>,
}

impl Connection {
    fn touch(&self) {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn until_idle(&self, limit: Duration) -> Duration {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        let left = limit.saturating_sub(since.elapsed());
        if self.busy.load(Ordering::Acquire) > 0 {
            limit
        } else {
            left.max(Duration::from_millis(10))
        }
    }

    fn is_idle(&self, limit: Duration) -> bool {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.busy.load(Ordering::Acquire) == 0 && since.elapsed() >= limit
    }
}

/// A request that is being answered; its connection is not idle until this is dropped.
struct Working(Arc<Connection>);

impl Working {
    fn begin(connection: &Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's body that keeps its connection busy until it has been sent.
struct Tracked {
    body: Body,
    _working: Working,
}

fn track(answer: Response<Body>, working: Working) -> Response<Tracked> {
    answer.map(|body| Tracked { body, _working: working })
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
