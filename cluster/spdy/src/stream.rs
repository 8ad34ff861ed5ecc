//! The ends of a stream.

use crate::codes::ResetStatus;
use crate::connection::Connection;
use crate::error::StreamError;
use crate::headers::Headers;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream, both directions of it. The errors that reading and writing give have a [`StreamError`] inside.
///
/// Dropped before both directions have ended, it is reset.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    writer: Writer,
    headers: Headers,
}

/// What the peer sends on a stream.
///
/// Its end is the peer's end of the stream. What came before a reset is read before the reset is told. Dropped, it
/// holds nothing up: what still comes is thrown away.
#[derive(Debug)]
pub struct Reader(End);

/// What is sent to the peer on a stream.
///
/// It ends with [`finish`](Self::finish) or with `shutdown`. Dropped without, it resets the stream: the peer must not
/// take what was broken off for the whole. So keep the writer of a stream on which nothing is written for as long as the
/// stream shall live. `kubectl` takes the end of that direction of `stdin` for a wish that it sends no more.
#[derive(Debug)]
pub struct Writer(End);

struct End {
    connection: Arc<Mutex<Connection>>,
    id: u32,
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stream {}", self.id)
    }
}

impl Stream {
    pub(crate) fn new(connection: Arc<Mutex<Connection>>, id: u32, headers: Headers) -> Self {
        let reader = Reader(End { connection: connection.clone(), id });
        Self { reader, writer: Writer(End { connection, id }), headers }
    }

    /// What the peer said when it opened the stream or, of one that was opened here, in its reply.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Its number in the session.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.writer.0.id
    }

    /// Both directions apart.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// As [`Writer::finish`].
    pub fn finish(&mut self) {
        self.writer.finish();
    }

    /// Ends both directions at once. What is not sent yet is dropped.
    pub fn reset(self, status: ResetStatus) {
        self.writer.0.connection.lock().reset(self.id(), status);
    }

    pub(crate) fn accept(&self, headers: Headers) -> Result<(), StreamError> {
        self.writer.0.connection.lock().accept(self.id(), headers)
    }

    /// The peer's reply to a stream that was opened here.
    pub(crate) async fn reply(mut self) -> Result<Self, crate::error::OpenError> {
        let end = &self.reader.0;
        self.headers = poll_fn(|cx| end.connection.lock().poll_reply(end.id, cx)).await?;
        Ok(self)
    }
}

impl Writer {
    /// Says that nothing more is written; what was written is sent before. Unlike `shutdown` it does not wait for that.
    pub fn finish(&mut self) {
        self.0.connection.lock().finish(self.0.id);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.connection.lock().drop_reader(self.0.id);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.connection.lock().drop_writer(self.0.id);
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = &self.0;
        end.connection.lock().poll_read(end.id, cx, buffer).map_err(io::Error::from)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let end = &self.0;
        end.connection.lock().poll_write(end.id, cx, bytes).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = &self.0;
        end.connection.lock().poll_flush(end.id, cx).map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = &self.0;
        let mut connection = end.connection.lock();
        connection.finish(end.id);
        connection.poll_finished(end.id, cx).map_err(io::Error::from)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
