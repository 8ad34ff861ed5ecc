//! A session inside something that carries bytes in messages, as the WebSocket of `kubectl port-forward` does: however
//! they are cut, and whenever it is not ready, what comes out is what went in.

use super::{LONG, headers};
use impresario_spdy::{Headers, Limits, Session};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, copy, duplex,
};

/// A pipe that takes and gives no more at once than the next of these sizes; at a 0 it is not ready.
struct Messages {
    pipe: DuplexStream,
    reads: Sizes,
    writes: Sizes,
}

/// Each direction has its own turn: else the same one could be told to wait for ever.
struct Sizes {
    sizes: Vec<usize>,
    next: usize,
}

impl Sizes {
    fn next(&mut self, cx: &Context<'_>) -> Poll<usize> {
        let size = self.sizes[self.next % self.sizes.len()];
        self.next += 1;
        if size == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(size)
    }
}

impl AsyncRead for Messages {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = std::task::ready!(self.reads.next(cx)).min(buffer.remaining());
        let mut part = buffer.take(size);
        std::task::ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut part))?;
        let read = part.filled().to_vec();
        buffer.put_slice(&read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let size = std::task::ready!(self.writes.next(cx)).min(bytes.len());
        Pin::new(&mut self.pipe).poll_write(cx, &bytes[..size])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Opens a stream for each text, sends it, and gives what the other end sends back.
async fn echoed(sizes: Vec<usize>, pipe: usize, texts: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let (near, far) = duplex(pipe);
    let limits = Limits { stream_bytes: 700, stream_send_bytes: 500, ..Limits::default() };
    let of = |next| Sizes { sizes: sizes.clone(), next };
    let near = Messages { pipe: near, reads: of(0), writes: of(1) };
    let far = Messages { pipe: far, reads: of(2), writes: of(3) };
    let (client, client_driver) = Session::client(near, limits);
    let (server, server_driver, mut incoming) = Session::server(far, limits);
    let drivers = [tokio::spawn(client_driver), tokio::spawn(server_driver)];
    tokio::spawn(async move {
        while let Some(request) = incoming.next().await {
            let stream = request.accept(Headers::new()).unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
    });
    let mut tasks = Vec::new();
    for text in texts {
        let request = headers([("streamtype", "data"), ("requestid", &text.len().to_string())]);
        let (mut reader, mut writer) = client.open(request).await.unwrap().split();
        tokio::spawn(async move {
            writer.write_all(&text).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        tasks.push(tokio::spawn(async move {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).await.unwrap();
            text
        }));
    }
    let mut texts = Vec::new();
    for task in tasks {
        texts.push(task.await.unwrap());
    }
    client.close();
    for driver in drivers {
        driver.await.unwrap().unwrap();
    }
    drop(server);
    texts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 8, ..ProptestConfig::default() })]
    #[test]
    fn what_goes_in_comes_out_however_it_is_cut(
        mut sizes in vec(0..40_usize, 1..20),
        pipe in 1..300_usize,
        texts in vec(vec(any::<u8>(), 0..3000), 1..5),
    ) {
        sizes.push(1); // now and then it is ready
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let again = runtime.block_on(async {
            tokio::time::timeout(LONG, echoed(sizes, pipe, texts.clone())).await
        });
        prop_assert!(again.expect("it comes to its end") == texts);
    }
}
