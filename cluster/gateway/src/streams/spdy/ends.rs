//! The ends of streams: what is written is held back by the client, what is read by the session.

use crate::sessions::Typed;
use crate::streams::line::{IDLE_LIMIT, PIECE};
use impresario_spdy::{ResetStatus, Stream};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a client may take to open the streams that belong together.
pub const STREAMS_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take to end what has ended here.
pub const LINGER: Duration = Duration::from_secs(5);

/// Writes it all; a client that takes none of it for too long is as good as gone.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    timeout(IDLE_LIMIT, to.write_all(bytes)).await.unwrap_or_else(|_| Err(stuck()))
}

/// Ends this direction, when all of it is on its way.
pub async fn finish(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    timeout(IDLE_LIMIT, to.shutdown()).await.unwrap_or_else(|_| Err(stuck()))
}

fn stuck() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing any more")
}

/// Types what comes on a stream, and last that it was all; `Err` where the stream breaks off.
pub async fn type_in(
    from: &mut (impl AsyncRead + Unpin),
    typed: &mpsc::Sender<Typed>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let size = from.read(&mut piece).await?;
        let next = if size == 0 { Typed::End } else { Typed::Bytes(piece[..size].to_vec()) };
        // One that takes no more may have more to say: the rest is thrown away.
        let _ = typed.send(next).await;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Lets go of a stream that has ended here; one that the client does not end is reset.
pub async fn let_go(mut stream: Stream) {
    let mut rest = tokio::io::sink();
    let ended = timeout(LINGER, tokio::io::copy(&mut stream, &mut rest)).await;
    if ended.is_err() {
        stream.reset(ResetStatus::Cancel);
    }
}
