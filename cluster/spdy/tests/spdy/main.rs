//! SPDY/3.1 between two ends: what `kubectl` sent once, byte for byte, and sessions against each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kubectl;
mod recorded;
mod sessions;
mod tunnel;
mod violations;

use impresario_spdy::{Driver, Headers, Incoming, Limits, Session, SessionError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::task::JoinHandle;

/// For a busy machine: no test that passes spends it.
const LONG: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it does not come to its end")
}

fn headers<const N: usize>(pairs: [(&str, &str); N]) -> Headers {
    pairs
        .into_iter()
        .fold(Headers::new(), |headers, (name, value)| headers.with(name, value).unwrap())
}

type Driven = JoinHandle<Result<(), SessionError>>;

fn driven<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(driver: Driver<IO>) -> Driven {
    tokio::spawn(driver)
}

/// A server whose client is the test itself, byte by byte.
fn served(limits: Limits) -> (DuplexStream, Session, Driven, Incoming) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (session, driver, incoming) = Session::server(far, limits);
    (near, session, driven(driver), incoming)
}
