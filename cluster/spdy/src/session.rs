//! Where a session begins, and the handle by which streams are opened and the session is closed.

use crate::connection::{Connection, Role};
use crate::driver::Driver;
use crate::error::OpenError;
use crate::headers::Headers;
use crate::incoming::Incoming;
use crate::limits::Limits;
use crate::stream::Stream;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A session, as those see it who open streams or close it. When the last one and [`Incoming`] are dropped, the
/// session ends with its last stream.
pub struct Session {
    connection: Arc<Mutex<Connection>>,
    reply: Duration,
}

impl Session {
    /// The end that was connected to. Nothing happens until the [`Driver`] is polled.
    pub fn server<IO>(io: IO, limits: Limits) -> (Self, Driver<IO>, Incoming)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (session, driver) = Self::new(io, limits, Role::Server);
        let incoming = Incoming::new(session.connection.clone());
        (session, driver, incoming)
    }

    /// The end that connected. Streams that the other end opens are refused: Kubernetes' servers open none.
    pub fn client<IO>(io: IO, limits: Limits) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        Self::new(io, limits, Role::Client)
    }

    fn new<IO>(io: IO, limits: Limits, role: Role) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = Arc::new(Mutex::new(Connection::new(role, limits)));
        connection.lock().hold();
        let driver = Driver::new(io, connection.clone(), limits);
        (Self { connection, reply: limits.reply }, driver)
    }

    /// Opens a stream, and waits for the reply of the peer. Given up meanwhile, the stream is reset.
    pub async fn open(&self, headers: Headers) -> Result<Stream, OpenError> {
        let id = self.connection.lock().open(headers)?;
        let stream = Stream::new(self.connection.clone(), id, Headers::new());
        let reply = tokio::time::timeout(self.reply, stream.reply());
        reply.await.unwrap_or(Err(OpenError::NoReply { waited: self.reply }))
    }

    /// Opens and takes no more streams. When the open ones have ended, for which they have [`Limits::linger`], the
    /// session does: GOAWAY is sent, and the [`Driver`] comes to its end.
    pub fn close(&self) {
        self.connection.lock().close();
    }
}

impl Clone for Session {
    fn clone(&self) -> Self {
        self.connection.lock().hold();
        Self { connection: self.connection.clone(), reply: self.reply }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.lock().let_go();
    }
}
