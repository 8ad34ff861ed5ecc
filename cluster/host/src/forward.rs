//! A connection to a port of a pod, as a session: what goes in is sent, what is received comes out.

use crate::container::{
    Attached, Typed, Written,
    session::{PIECE, PIECES},
};
use bytes::Bytes;
use impresario_ambient::tasks;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Connects. The session ends when the pod has closed its side; when its input ends, the pod reads the end.
pub async fn forward(to: SocketAddr) -> io::Result<Attached> {
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(to)).await;
    let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    // Without it answers only come later.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (typed, comes) = mpsc::channel(PIECES);
    let (written, output) = mpsc::channel(PIECES);
    tasks::spawn(async move {
        let sending = send(writer, comes);
        let receiving = receive(reader, &written);
        tokio::pin!(sending, receiving);
        let mut is_sent = false;
        loop {
            tokio::select! {
                () = written.closed() => return,
                () = &mut sending, if !is_sent => is_sent = true,
                received = &mut receiving => match received {
                    Ok(()) => break,
                    // Cut, not ended: whoever reads is not told of an end.
                    Err(error) => return tracing::debug!(%to, %error, "a forwarded connection broke"),
                }
            }
        }
        // Nobody may be there any more to hear it.
        let _ = written.send(Written::Ended(0)).await;
    });
    Ok(Attached { input: Some(typed), output })
}

async fn send(mut writer: OwnedWriteHalf, mut comes: mpsc::Receiver<Typed>) {
    while let Some(typed) = comes.recv().await {
        match typed {
            Typed::Bytes(bytes) if writer.write_all(&bytes).await.is_err() => return,
            Typed::Bytes(_) | Typed::Resize(_) => {}
        }
    }
    // It may have been closed by the other side.
    let _ = writer.shutdown().await;
}

async fn receive(mut reader: OwnedReadHalf, written: &mpsc::Sender<Written>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let size = reader.read(&mut buffer).await?;
        let piece = Written::Stdout(Bytes::copy_from_slice(&buffer[..size]));
        if size == 0 || written.send(piece).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    /// For a busy machine; a passing test does not spend it.
    const LIMIT: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn what_goes_in_is_sent_and_what_is_answered_comes_out_until_both_have_ended() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to = server.local_addr().unwrap();
        tasks::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.unwrap();
            asked.make_ascii_uppercase();
            stream.write_all(&asked).await.unwrap();
        });
        let Attached { input, mut output } = forward(to).await.unwrap();
        let input = input.unwrap();
        for piece in ["one ", "two"] {
            input.send(Typed::Bytes(piece.into())).await.unwrap();
        }
        drop(input);
        let mut heard = Vec::new();
        loop {
            match timeout(LIMIT, output.recv()).await.unwrap() {
                Some(Written::Stdout(bytes)) => heard.extend_from_slice(&bytes),
                Some(Written::Ended(0)) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, b"ONE TWO");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_refused_at_once() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to = free.local_addr().unwrap();
        drop(free);
        assert_eq!(forward(to).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
