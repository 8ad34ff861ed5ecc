//! One session: a stream for each of its files.

use super::ends::{STREAMS_LIMIT, finish, type_in, write};
use crate::sessions::Typed;
use crate::streams::line::{Line, Said, Size};
use futures_util::StreamExt as _;
use impresario_spdy::{Headers, Incoming, Stream};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Most bytes of a terminal's size that has not come whole.
const SIZE_BYTES: usize = 1024;

const NAMES: [&str; 5] = ["error", "stdin", "stdout", "stderr", "resize"];

type Streams = [Option<Stream>; NAMES.len()];

/// Carries a session until it is over.
pub async fn serve(mut incoming: Incoming, line: Line) -> io::Result<()> {
    let Line { typed, mut said, outputs: [stdout, stderr], inputs: [stdin, resize] } = line;
    let wanted = [true, stdin, stdout, stderr, resize];
    let gathered = timeout(STREAMS_LIMIT, gather(&mut incoming, wanted)).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "streams of the session are missing");
    let [error, stdin, mut stdout, mut stderr, resize] = gathered.map_err(late)??;
    let Some(mut error) = error else { return Err(io::ErrorKind::NotConnected.into()) };
    // The other direction of what is typed stays open: kubectl takes its end for a wish that no more is typed.
    let (mut stdin, mut of_stdin) = stdin.map(Stream::split).unzip();
    let (mut resize, mut of_resize) = resize.map(Stream::split).unzip();
    let hearing = async {
        if let Some(stdin) = &mut stdin {
            type_in(stdin, &typed).await?;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let resizing = async {
        if let Some(resize) = &mut resize {
            sizes(resize, &typed).await?;
            // What nobody reads would hold the others up.
            tokio::io::copy(resize, &mut tokio::io::sink()).await?;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let speaking = async {
        while let Some(said) = said.next().await {
            match (said, &mut stdout, &mut stderr) {
                (Said::Stdout(bytes), Some(to), _) | (Said::Stderr(bytes), _, Some(to)) => {
                    write(to, &bytes).await?;
                }
                (Said::Stdout(_) | Said::Stderr(_), ..) => {}
                (Said::Over(status), ..) => {
                    for output in [&mut stdout, &mut stderr].into_iter().flatten() {
                        finish(output).await?;
                    }
                    write(&mut error, status.to_string().as_bytes()).await?;
                    return finish(&mut error).await;
                }
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    };
    let served = tokio::select! {
        spoken = speaking => spoken,
        heard = hearing => heard,
        sized = resizing => sized,
    };
    if served.is_ok() {
        for input in [&mut of_stdin, &mut of_resize].into_iter().flatten() {
            finish(input).await?;
        }
    }
    served
}

/// The streams that are wanted, once each; others are refused.
async fn gather(incoming: &mut Incoming, wanted: [bool; NAMES.len()]) -> io::Result<Streams> {
    let mut streams = Streams::default();
    while streams.iter().zip(wanted).any(|(stream, wanted)| wanted && stream.is_none()) {
        let request = incoming.next().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let name = request.headers().get("streamtype");
        let at = NAMES.iter().position(|known| name == Some(known));
        if let Some(at) = at.filter(|at| wanted[*at] && streams[*at].is_none()) {
            streams[at] = Some(request.accept(Headers::new()).map_err(io::Error::from)?);
        }
    }
    Ok(streams)
}

/// Tells of each size that comes. After one that cannot be read none is told.
async fn sizes(from: &mut (impl AsyncRead + Unpin), typed: &mpsc::Sender<Typed>) -> io::Result<()> {
    let (mut piece, mut unread) = ([0; SIZE_BYTES / 4], Vec::new());
    loop {
        let size = from.read(&mut piece).await?;
        if size == 0 {
            return Ok(());
        }
        unread.extend_from_slice(&piece[..size]);
        let mut values = serde_json::Deserializer::from_slice(&unread).into_iter::<Size>();
        let mut end = 0;
        while let Some(value) = values.next() {
            match value {
                Ok(Size { width, height }) => {
                    end = values.byte_offset();
                    // A session that is over has no size.
                    let _ = typed.send(Typed::Resize { width, height }).await;
                }
                Err(error) if error.is_eof() => break,
                Err(error) => {
                    tracing::debug!(%error, "a terminal's size cannot be read");
                    return Ok(());
                }
            }
        }
        unread.drain(..end);
        if unread.len() > SIZE_BYTES {
            tracing::debug!("a terminal's size is too long");
            return Ok(());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Vec<Typed> {
        let (typed, mut comes) = mpsc::channel(8);
        let mut from = bytes;
        sizes(&mut from, &typed).await.unwrap();
        drop(typed);
        let mut all = Vec::new();
        while let Some(typed) = comes.recv().await {
            all.push(typed);
        }
        all
    }

    #[tokio::test]
    async fn sizes_of_a_terminal_follow_each_other_until_one_cannot_be_read() {
        let first = Typed::Resize { width: 80, height: 25 };
        let second = Typed::Resize { width: 1, height: 2 };
        let two = b"{\"Width\":80,\"Height\":25}\n{\"Width\":1,\"Height\":2}\n";
        assert_eq!(read(two).await, [first.clone(), second]);
        let broken = b"{\"Width\":80,\"Height\":25}no{\"Width\":1,\"Height\":2}";
        assert_eq!(read(broken).await, std::slice::from_ref(&first));
        let long = [&b"{\"Width\":80,\"Height\":25}"[..], &[b' '; 3000], b"{\"Width\""].concat();
        assert_eq!(read(&long).await, [first]);
    }
}
