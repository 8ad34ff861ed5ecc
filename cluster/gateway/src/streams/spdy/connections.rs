//! Connections to ports: two streams each, of which the one tells what goes wrong with the other.

use super::ends::{STREAMS_LIMIT, finish, let_go, type_in, write};
use crate::streams::line::{Dial, Line, Said};
use futures_util::stream::{FuturesUnordered, StreamExt};
use impresario_spdy::{Headers, Incoming, Request, Stream};
use std::collections::HashMap;
use std::io;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Connections at a time; one more is refused.
pub const MOST: usize = 32;

/// What a stream of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Data,
}

/// What a client says of one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    id: String,
    kind: Kind,
    port: u16,
}

/// A connection whose second stream is waited for, or that has both.
struct Begun {
    first: Asked,
    second: Option<oneshot::Sender<Stream>>,
}

fn asked(headers: &Headers) -> Option<Asked> {
    let kind = match headers.get("streamtype")? {
        "error" => Kind::Error,
        "data" => Kind::Data,
        _ => return None,
    };
    let port = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
    Some(Asked { id: headers.get("requestid")?.to_owned(), kind, port })
}

/// Connects as often as the client asks for it, until it asks no more and all connections have ended.
pub async fn serve(mut incoming: Incoming, dial: Dial) -> io::Result<()> {
    let mut begun: HashMap<String, Begun> = HashMap::new();
    let mut running = FuturesUnordered::new();
    let mut is_taking = true;
    while is_taking || !running.is_empty() {
        tokio::select! {
            request = incoming.next(), if is_taking => {
                let Some(request) = request else {
                    is_taking = false;
                    continue;
                };
                if let Some((first, stream, second)) = take(&mut begun, request) {
                    running.push(connection(first, stream, second, &dial));
                }
            }
            Some(id) = running.next(), if !running.is_empty() => {
                begun.remove(&id);
            }
        }
    }
    Ok(())
}

/// Takes a stream, as the first of a connection, which is given then, or as its second. One that is neither is refused.
fn take(
    begun: &mut HashMap<String, Begun>,
    request: Request,
) -> Option<(Asked, Stream, oneshot::Receiver<Stream>)> {
    let Some(asked) = asked(request.headers()) else {
        tracing::debug!(headers = ?request.headers(), "a stream to no port is refused");
        return None;
    };
    if let Some(begun) = begun.get_mut(&asked.id) {
        let fits = begun.first.kind != asked.kind && begun.first.port == asked.port;
        if fits && let Some(second) = begun.second.take() {
            // A session or a connection that is over meanwhile needs none.
            let _ = request.accept(Headers::new()).map(|stream| second.send(stream));
        }
        return None;
    }
    if begun.len() >= MOST {
        tracing::debug!(MOST, "a connection is refused: there are too many of its client's");
        return None;
    }
    let stream = request.accept(Headers::new()).ok()?;
    let (gives, second) = oneshot::channel();
    begun.insert(asked.id.clone(), Begun { first: asked.clone(), second: Some(gives) });
    Some((asked, stream, second))
}

/// One connection, from its first stream to its end; gives its name.
async fn connection(
    first: Asked,
    stream: Stream,
    second: oneshot::Receiver<Stream>,
    dial: &Dial,
) -> String {
    let Asked { id, kind, port } = first;
    // What is dropped is reset.
    let Ok(Ok(second)) = timeout(STREAMS_LIMIT, second).await else { return id };
    let (error, data) = match kind {
        Kind::Error => (stream, second),
        Kind::Data => (second, stream),
    };
    if let Err(error) = carry(error, data, dial(port).await).await {
        tracing::debug!(port, %error, "a connection was cut");
    }
    id
}

async fn carry(mut error: Stream, mut data: Stream, line: Result<Line, String>) -> io::Result<()> {
    let wrong = match line {
        Ok(line) => exchange(&mut data, line).await?,
        Err(why) => Some(why),
    };
    // First: the end of the data is the end of it all for the client.
    if let Some(why) = wrong {
        write(&mut error, why.as_bytes()).await?;
    }
    finish(&mut error).await?;
    finish(&mut data).await?;
    tokio::join!(let_go(error), let_go(data));
    Ok(())
}

/// Carries both directions until the port has said all; with what went wrong.
async fn exchange(data: &mut Stream, line: Line) -> io::Result<Option<String>> {
    let Line { typed, mut said, .. } = line;
    let (mut from, mut to) = tokio::io::split(data);
    let hearing = async {
        type_in(&mut from, &typed).await?;
        std::future::pending().await
    };
    let speaking = async {
        while let Some(said) = said.next().await {
            match said {
                Said::Stdout(bytes) | Said::Stderr(bytes) => write(&mut to, &bytes).await?,
                Said::Over(status) if status["status"] == "Success" => return Ok(None),
                Said::Over(status) => {
                    let why = status["message"].as_str().unwrap_or("the connection was cut");
                    return Ok(Some(why.to_owned()));
                }
            }
        }
        Ok(Some("the connection was cut".to_owned()))
    };
    tokio::select! {
        spoken = speaking => spoken,
        heard = hearing => heard,
    }
}
