//! The actor's end of bulk: requests that arrive, answered on their own streams.
//!
//! Of a request first its beginning is read: whom it is for and which message it is. The gate and the message's limit
//! speak on that. Then its bytes are held on the peer's account before memory is taken for them; over its budget the peer
//! is told `Overloaded`, and nobody else notices. A request may be slow, but each part of it has a deadline.

use super::flow::Ahead;
use crate::{
    budget::Hold,
    codec::{self, EncodeError},
    door::Failure,
    fault::Direction,
    net::{
        enter::{self, Opened},
        frame::{
            BEGINNING_BYTES, BULK_FRAME_LIMIT_BYTES, Beginning, ENVELOPE_BYTES, Request, Response,
            Taken, prefixed,
        },
        link::{Link, Runs},
        network::Network,
        parked,
        peer::Peer,
        wire::{FrameReader, WireError, finish, reset},
    },
    refusals::Cause,
    stream::Piece,
};
use bytes::Bytes;
use impresario_ambient::random;
use quinn::{RecvStream, SendStream};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::timeout};

/// How much of a stream's items is written at a time.
const COALESCE_BYTES: usize = 32 << 10;
/// The largest frame that follows an `Open`.
const TAKEN_LIMIT_BYTES: usize = 16;

/// Serves the peer's streams, each in a task of the link. QUIC bounds their number.
pub(crate) async fn accept(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Arc<Link>,
    runs: &Runs,
) {
    let mut streams = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = link.connection.accept_bi() => stream,
            Some(_) = streams.join_next() => continue,
        };
        let Ok((send, receive)) = stream else { return };
        let everything = (network.clone(), peer.clone(), link.clone(), runs.clone());
        streams.spawn(async move {
            let (network, peer, link, _runs) = everything;
            if let Err(error) = serve(&network, &peer, &link, send, receive).await {
                tracing::debug!(peer = %peer.name, %error, "bulk stream ended");
            }
        });
    }
}

/// Reads the request, or says why it is not wanted.
async fn read(
    network: &Network,
    peer: &Peer,
    link: &Link,
    requests: &mut FrameReader,
) -> Result<Result<(Request, Hold), Failure>, WireError> {
    let limit = network.timing.lost_after;
    let length = requests.length(limit).await?;
    let beginning = requests.beginning(BEGINNING_BYTES, limit).await?;
    let wanted = match codec::decode_beginning(beginning)? {
        Beginning::Tell(message)
        | Beginning::Ask { message, .. }
        | Beginning::Open { message, .. } => {
            // The exact length of the body is looked at when it is there.
            let body = length.saturating_sub(ENVELOPE_BYTES);
            enter::admit(network, link, &message.to, message.tag, body).map(drop)
        }
        Beginning::Answer { id } if peer.expects(id) => Ok(()),
        Beginning::Answer { .. } => Err(Failure::Deadline),
    };
    if let Err(failure) = wanted {
        return Ok(Err(failure));
    }
    let Some(hold) = link.terms.account.take(length) else {
        return Ok(Err(enter::over(network, link, Cause::Bytes, "runtime.Bulk")));
    };
    let frame = requests.rest(&hold, limit).await?;
    Ok(Ok((Request::read(&frame)?, hold)))
}

async fn serve(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Arc<Link>,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), WireError> {
    // Fails only on a stream that is closed already, which the first write will say.
    let _ = send.set_priority(0);
    let mut requests = FrameReader::new(receive, BULK_FRAME_LIMIT_BYTES);
    let (request, hold) = match read(network, peer, link, &mut requests).await? {
        Ok(request) => request,
        Err(failure) => {
            requests.stop();
            return last(link, send, Response::Reply(Err(failure))).await;
        }
    };
    network.faults.pass(&peer.name, peer.is_healer(), Direction::Receive).await;
    if network.faults.fate(&peer.name, peer.is_healer(), Direction::Receive, random::random).dropped
    {
        link.break_off();
        return Ok(());
    }
    peer.hear();
    match request {
        Request::Tell(envelope) => {
            let limit = network.timing.lost_after;
            let told = parked::tell_when_room(network, link, &envelope, limit).await;
            last(link, send, Response::Reply(told.map(|()| Bytes::new()))).await
        }
        Request::Answer { id, reply } => {
            peer.answer(id, Ok(Piece::from_peer(reply, Some(hold), &link.terms.account)));
            Ok(())
        }
        Request::Ask { deadline_ms, envelope } => {
            let deadline = link.terms.deadline(deadline_ms);
            let entered = enter::put_ask(network, link, &envelope);
            drop((envelope, hold));
            let outcome = match entered {
                Ok(work) => enter::in_time(work, deadline).await.0,
                Err(failure) => Err(failure),
            };
            let (outcome, _held) = enter::held(network, link, outcome);
            network.faults.pass(&peer.name, peer.is_healer(), Direction::Send).await;
            last(link, send, Response::Reply(outcome)).await
        }
        Request::Open { deadline_ms, envelope } => {
            let deadline = link.terms.deadline(deadline_ms);
            let entered = enter::put_open(network, link, &envelope);
            drop((envelope, hold));
            match entered {
                Ok(stream) => {
                    let ahead = Ahead::default();
                    requests.limit(TAKEN_LIMIT_BYTES);
                    tokio::select! {
                        () = taken(&mut requests, &ahead) => reset(send),
                        outcome = items(network, peer, link, &mut send, stream, deadline, &ahead) => {
                            outcome?;
                            let delivered = send.stopped();
                            finish(send);
                            // Whether it was taken is the asker's affair: one that has gone hears nothing.
                            let _ = delivered.await;
                        }
                    }
                    Ok(())
                }
                Err(failure) => last(link, send, Response::Reply(Err(failure))).await,
            }
        }
    }
}

/// The bytes of a response.
fn said(response: &Response) -> Result<Vec<u8>, EncodeError> {
    prefixed(response)
}

/// Writes the last response of a stream and waits until the peer has it.
async fn last(link: &Link, mut send: SendStream, response: Response) -> Result<(), WireError> {
    let bytes = said(&response)?;
    drop(response);
    link.urgent.write_after(&mut send, &bytes).await?;
    drop(bytes);
    let delivered = send.stopped();
    finish(send);
    // Whether it was taken is the asker's affair: one that has gone hears nothing.
    let _ = delivered.await;
    Ok(())
}

/// Hears what the asker has taken, until it leaves or breaks the protocol.
async fn taken(requests: &mut FrameReader, ahead: &Ahead) {
    while let Ok(Taken { bytes }) = requests.value().await {
        ahead.taken(bytes as usize);
    }
}

/// Writes the verdict and the items, as many at a time as wait and the asker has room for.
async fn items(
    network: &Network,
    peer: &Peer,
    link: &Link,
    send: &mut SendStream,
    stream: Opened,
    deadline: Duration,
    ahead: &Ahead,
) -> Result<(), WireError> {
    let Opened { mut verdict, mut items } = stream;
    // A handler may send before, or while, it decides: the first item says yes as well.
    let first = tokio::select! {
        biased;
        outcome = timeout(deadline, &mut verdict) => {
            let failure = match outcome {
                Ok((Ok(()), _)) => None,
                Ok((Err(failure), _)) => Some(failure),
                Err(_) => Some(Failure::Deadline),
            };
            if let Some(failure) = failure {
                let refused = said(&Response::Reply(Err(failure)))?;
                return Ok(link.urgent.write_after(send, &refused).await?);
            }
            None
        }
        Some(item) = items.recv() => Some(item),
    };
    let mut buffer = said(&Response::Reply(Ok(Bytes::new())))?;
    // What lies in the buffer is still held on the peer's account.
    let mut holds = Vec::new();
    let mut next = first;
    loop {
        while let Some(item) = next.take().or_else(|| items.try_recv().ok()) {
            match item {
                Ok(piece) => {
                    let (bytes, hold) = piece.into_parts();
                    ahead.sent(bytes.len());
                    buffer.extend(said(&Response::Item(bytes))?);
                    holds.extend(hold);
                }
                Err(error) => {
                    buffer.extend(said(&Response::End(Some(error.into())))?);
                    return Ok(link.urgent.write_after(send, &buffer).await?);
                }
            }
            if buffer.len() >= COALESCE_BYTES || !ahead.has_room() {
                break;
            }
        }
        network.faults.pass(&peer.name, peer.is_healer(), Direction::Send).await;
        link.urgent.write_after(send, &buffer).await?;
        // A large item's room is not kept for the small ones after it.
        buffer = Vec::new();
        holds.clear();
        ahead.room().await;
        match items.recv().await {
            Some(item) => next = Some(item),
            None => {
                let end = said(&Response::End(None))?;
                return Ok(link.urgent.write_after(send, &end).await?);
            }
        }
    }
}
