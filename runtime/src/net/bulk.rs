//! Bulk: every ask and every stream of items on a QUIC stream of its own.
//!
//! They have the lowest priority, do not wait for one another, and feel the reader's pace through flow control: an item is
//! taken from the actor's sink only when the stream has room.

use super::{
    dispatch,
    frame::{BULK_FRAME_LIMIT_BYTES, Envelope, Request, Response, prefixed},
    link::Link,
    network::Network,
    peer::Peer,
    wire::{FrameReader, WireError, finish, reset, send_value},
};
use crate::{
    door::{Failure, WireStream},
    fault::Direction,
    reference::Undelivered,
    stream::{Items, StreamError},
};
use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use std::{future::pending, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

/// How much of a stream's items is written at a time.
const COALESCE_BYTES: usize = 32 << 10;
/// Items that wait for the asker beyond what QUIC holds.
const ITEMS_AHEAD: usize = 16;

// --- the asker's end

/// Opens a stream to the peer and writes the request, through the fault hook.
async fn request(
    network: &Network,
    peer: &Peer,
    request: &Request,
) -> Result<(SendStream, FrameReader), Undelivered> {
    let link = peer.linked().await.map_err(Undelivered::Unreachable)?;
    let unreachable = |error: WireError| Undelivered::Unreachable(error.to_string());
    network.faults.pass(&peer.name, peer.is_healer(), Direction::Send).await;
    if network.faults.fate(&peer.name, peer.is_healer(), Direction::Send, rand::random).dropped {
        pending::<()>().await;
    }
    let bytes = prefixed(request).map_err(|error| Failure::Decode { detail: error.to_string() })?;
    let (mut send, receive) = link
        .connection
        .open_bi()
        .await
        .map_err(|error| Undelivered::Unreachable(error.to_string()))?;
    send.write_all(&bytes).await.map_err(|error| unreachable(error.into()))?;
    Ok((send, FrameReader::new(receive, BULK_FRAME_LIMIT_BYTES)))
}

/// A tell on a stream of its own.
pub(crate) async fn tell(
    network: &Network,
    peer: &Peer,
    envelope: Envelope,
) -> Result<(), Undelivered> {
    let (send, _) = request(network, peer, &Request::Tell(envelope)).await?;
    finish(send);
    Ok(())
}

/// An ask on a stream of its own. Dropping the future resets the stream.
pub(crate) async fn ask(
    network: &Network,
    peer: &Peer,
    envelope: Envelope,
    deadline_ms: u32,
) -> Result<Bytes, Undelivered> {
    let (send, mut responses) =
        request(network, peer, &Request::Ask { deadline_ms, envelope }).await?;
    finish(send);
    match response(network, peer, &mut responses).await? {
        Response::Reply(outcome) => Ok(outcome?),
        other => Err(Failure::Decode { detail: format!("expected a reply, not {other:?}") }.into()),
    }
}

/// The answer to an ask from a lane, too large to go back on it.
pub(crate) async fn answer(
    network: &Network,
    peer: &Peer,
    id: u64,
    reply: Bytes,
) -> Result<(), WireError> {
    // An answer that cannot be brought leaves the asker to its deadline, as a lost frame does.
    if let Ok((send, _)) = request(network, peer, &Request::Answer { id, reply }).await {
        let delivered = send.stopped();
        finish(send);
        let _ = delivered.await;
    }
    Ok(())
}

async fn response(
    network: &Network,
    peer: &Peer,
    responses: &mut FrameReader,
) -> Result<Response, Undelivered> {
    let response = responses.value().await.map_err(|error| match error {
        WireError::Decode(error) => {
            Undelivered::Failure(Failure::Decode { detail: error.to_string() })
        }
        error => Undelivered::Unreachable(error.to_string()),
    })?;
    network.faults.pass(&peer.name, peer.is_healer(), Direction::Receive).await;
    peer.hear();
    Ok(response)
}

/// Opens a stream of items.
pub(crate) async fn open(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    envelope: Envelope,
    deadline_ms: u32,
) -> Result<Items<Bytes>, Undelivered> {
    let (send, mut responses) =
        request(network, peer, &Request::Open { deadline_ms, envelope }).await?;
    match response(network, peer, &mut responses).await? {
        Response::Reply(outcome) => outcome.map(drop)?,
        other => {
            return Err(
                Failure::Decode { detail: format!("expected a reply, not {other:?}") }.into()
            );
        }
    }
    let (items, taken) = mpsc::channel(ITEMS_AHEAD);
    let (network, peer) = (network.clone(), peer.clone());
    network.tasks.clone().spawn(async move {
        tokio::select! {
            () = items.closed() => {}
            () = forward(&network, &peer, &mut responses, &items) => {}
        }
        // Ends our half last: the sender takes its end for our leaving.
        reset(send);
    });
    Ok(taken)
}

async fn forward(
    network: &Network,
    peer: &Peer,
    responses: &mut FrameReader,
    items: &mpsc::Sender<Result<Bytes, StreamError>>,
) {
    loop {
        let item = match response(network, peer, responses).await {
            Ok(Response::Item(bytes)) => Ok(bytes),
            Ok(Response::End(None)) => return,
            Ok(Response::End(Some(ending))) => Err(ending.into()),
            Ok(Response::Reply(_)) => {
                Err(StreamError::Decode { detail: "a second reply".to_owned() })
            }
            Err(Undelivered::Failure(failure)) => {
                Err(StreamError::Decode { detail: format!("{failure:?}") })
            }
            Err(Undelivered::Unreachable(detail)) => Err(StreamError::Lost { detail }),
        };
        let over = item.is_err();
        if items.send(item).await.is_err() || over {
            return;
        }
    }
}

// --- the actor's end

/// Serves the peer's streams, each in a task of the link. QUIC bounds their number.
pub(crate) async fn accept(network: &Arc<Network>, peer: &Arc<Peer>, link: &Arc<Link>) {
    let mut streams = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = link.connection.accept_bi() => stream,
            Some(_) = streams.join_next() => continue,
        };
        let Ok((send, receive)) = stream else { return };
        let everything = (network.clone(), peer.clone(), link.clone());
        streams.spawn(async move {
            let (network, peer, link) = everything;
            if let Err(error) = serve(&network, &peer, &link, send, receive).await {
                tracing::debug!(peer = %peer.name, %error, "bulk stream ended");
            }
        });
    }
}

async fn serve(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Link,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), WireError> {
    // Fails only on a stream that is closed already, which the first write will say.
    let _ = send.set_priority(0);
    let mut requests = FrameReader::new(receive, BULK_FRAME_LIMIT_BYTES);
    let request: Request = requests.value().await?;
    network.faults.pass(&peer.name, peer.is_healer(), Direction::Receive).await;
    if network.faults.fate(&peer.name, peer.is_healer(), Direction::Receive, rand::random).dropped {
        // Lost on the way: no answer, and no error either, until the asker gives up.
        requests.abandoned().await;
        let _ = send.stopped().await;
        return Ok(());
    }
    peer.hear();
    match request {
        Request::Tell(envelope) => dispatch::tell(network, link, &envelope),
        Request::Answer { id, reply } => peer.answer(id, Ok(reply)),
        Request::Ask { deadline_ms, envelope } => {
            let entered = dispatch::enter(network, link, &envelope, |door, gate| {
                door.ask(&envelope.body, gate)
            });
            drop(envelope);
            let outcome = match entered {
                Ok(reply) => {
                    match timeout(Duration::from_millis(deadline_ms.into()), reply).await {
                        Ok(outcome) => outcome,
                        Err(_) => Err(Failure::Deadline),
                    }
                }
                Err(failure) => Err(failure),
            };
            network.faults.pass(&peer.name, peer.is_healer(), Direction::Send).await;
            send_value(&mut send, &Response::Reply(outcome)).await?;
            let delivered = send.stopped();
            finish(send);
            let _ = delivered.await;
        }
        Request::Open { deadline_ms, envelope } => {
            let deadline = Duration::from_millis(deadline_ms.into());
            let entered = dispatch::enter(network, link, &envelope, |door, gate| {
                door.open(&envelope.body, gate)
            });
            drop(envelope);
            match entered {
                Ok(stream) => {
                    tokio::select! {
                        () = requests.abandoned() => reset(send),
                        outcome = items(network, peer, &mut send, stream, deadline) => {
                            outcome?;
                            let delivered = send.stopped();
                            finish(send);
                            let _ = delivered.await;
                        }
                    }
                }
                Err(failure) => send_value(&mut send, &Response::Reply(Err(failure))).await?,
            }
        }
    }
    Ok(())
}

/// Writes the verdict and the items, as many at a time as wait.
async fn items(
    network: &Network,
    peer: &Peer,
    send: &mut SendStream,
    stream: WireStream,
    deadline: Duration,
) -> Result<(), WireError> {
    let WireStream { mut verdict, mut items } = stream;
    // A handler may send before, or while, it decides: the first item says yes as well.
    let first = tokio::select! {
        biased;
        outcome = timeout(deadline, &mut verdict) => match outcome {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => return send_value(send, &Response::Reply(Err(failure))).await,
            Err(_) => return send_value(send, &Response::Reply(Err(Failure::Deadline))).await,
        },
        Some(item) = items.recv() => Some(item),
    };
    let mut buffer = prefixed(&Response::Reply(Ok(Bytes::new())))?;
    let mut next = first;
    loop {
        while let Some(item) = next.take().or_else(|| items.try_recv().ok()) {
            match item {
                Ok(bytes) => buffer.extend(prefixed(&Response::Item(bytes))?),
                Err(error) => {
                    buffer.extend(prefixed(&Response::End(Some(error.into())))?);
                    return Ok(send.write_all(&buffer).await?);
                }
            }
            if buffer.len() >= COALESCE_BYTES {
                break;
            }
        }
        network.faults.pass(&peer.name, peer.is_healer(), Direction::Send).await;
        send.write_all(&buffer).await?;
        buffer.clear();
        match items.recv().await {
            Some(item) => next = Some(item),
            None => return send_value(send, &Response::End(None)).await,
        }
    }
}
