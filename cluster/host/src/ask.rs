//! Asks what listens in a container how it is: HTTP, HTTPS, gRPC.
//!
//! Nothing here has a deadline: the caller knows how long it is willing to wait, and drops the future.

mod grpc;
mod http;

use impresario_ambient::tasks;
use std::io;
use thiserror::Error;
use tokio::task::JoinHandle;

pub use grpc::check_health;
pub use http::HttpGet;

/// Why there is no good answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody took the connection.
    #[error("{0}")]
    Connect(io::Error),
    /// Who took it speaks no TLS.
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    /// A header or the path cannot be sent.
    #[error("{0}: correct the path or the headers of the probe")]
    Request(#[from] hyper::http::Error),
    /// The answer is no HTTP, or there is none.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The answer is none of the health protocol.
    #[error("the answer is not of grpc.health.v1: {0}")]
    Health(String),
    /// The service says that it does not serve.
    #[error("service unhealthy (responded with {0:?})")]
    Unhealthy(&'static str),
}

/// The task that moves a connection's bytes; it ends with its owner.
struct Pump(JoinHandle<()>);

impl Pump {
    fn start(connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) -> Self {
        // What goes wrong is told by the request, too.
        Self(tasks::spawn(async move { drop(connection.await) }))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}
