//! Bytes over the binary messages of a WebSocket, however they are cut.

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Bytes of one message of ours at most.
const MOST: usize = 32 * 1024;

/// A WebSocket as a connection: the client's end of it is the end of what is read.
pub struct Tunnel<S> {
    socket: WebSocketStream<S>,
    unread: Bytes,
}

impl<S> Tunnel<S> {
    /// Through this one.
    pub fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, unread: Bytes::new() }
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            self.unread = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => bytes,
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(Message::Text(_))) => {
                    let why = "text came where bytes are spoken";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            };
        }
        let size = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..size]);
        self.unread.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let piece = &bytes[..bytes.len().min(MOST)];
        socket.start_send(Message::Binary(Bytes::copy_from_slice(piece))).map_err(broken)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_and_end_with_the_socket() {
        let (near, far) = tokio::io::duplex(1000);
        let near = Tunnel::new(WebSocketStream::from_raw_socket(near, Role::Client, None).await);
        let far = Tunnel::new(WebSocketStream::from_raw_socket(far, Role::Server, None).await);
        let ((mut near, mut to), (mut from, mut back)) =
            (tokio::io::split(near), tokio::io::split(far));
        let all: Vec<u8> = (0..200_000_u32).map(|one| (one % 251) as u8).collect();
        let sent = all.clone();
        let sending = async move {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let answering = async move {
            let mut heard = vec![0; 200_000];
            from.read_exact(&mut heard).await.unwrap();
            assert_eq!(from.read(&mut [0]).await.unwrap(), 0);
            // What a closed socket says is only its farewell.
            back.shutdown().await.unwrap();
            heard
        };
        let (answer, heard) = tokio::join!(sending, answering);
        assert!(heard == all && answer.is_empty());
    }

    #[tokio::test]
    async fn text_is_no_bytes() {
        use futures_util::SinkExt;
        let (near, far) = tokio::io::duplex(1000);
        let mut near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let far = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        near.send(Message::Text("hello".into())).await.unwrap();
        let error = Tunnel::new(far).read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
