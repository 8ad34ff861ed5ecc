//! Bulk: every large ask and every stream of items on a QUIC stream of its own.
//!
//! They have the lowest priority and do not wait for one another. Each is read as its bytes arrive, however slow the one
//! who takes them is, so that no reader stalls what else the connection carries: [`flow`] bounds what waits, and all of it
//! is on the account of who sent it before memory is taken for it, requests and answers alike.

mod flow;
mod serve;

use impresario_ambient::random;
pub(crate) use serve::accept;

use super::{
    enter,
    frame::{BULK_FRAME_LIMIT_BYTES, Envelope, Request, Response, Taken, prefixed},
    link::Link,
    network::Network,
    peer::Peer,
    wire::{FrameReader, WireError, finish, reset},
};
use crate::{
    budget::Hold,
    door::{Failure, Undelivered},
    fault::Direction,
    refusals::Cause,
    stream::{Item, Items, Piece, StreamError},
};
use bytes::Bytes;
use flow::{ITEMS_AHEAD, Shelf};
use quinn::{SendStream, WriteError};
use std::sync::Arc;
use tokio::{sync::mpsc, task::JoinSet};

/// What an answer takes besides its bytes.
const ANSWER_BYTES: usize = 128;

/// Opens a stream to the peer and writes the request, through the fault hook.
async fn request(
    network: &Network,
    peer: &Peer,
    request: Request,
) -> Result<(Arc<Link>, SendStream, FrameReader), Undelivered> {
    let link = peer.linked().await.map_err(Undelivered::Unreachable)?;
    let unreachable = |error: WireError| Undelivered::Unreachable(error.to_string());
    network.faults.pass(&peer.name, peer.is_healer(), Direction::Send).await;
    if network.faults.fate(&peer.name, peer.is_healer(), Direction::Send, random::random).dropped {
        link.break_off();
    }
    let bytes =
        prefixed(&request).map_err(|error| Failure::Decode { detail: error.to_string() })?;
    drop(request);
    let (mut send, receive) = link
        .connection
        .open_bi()
        .await
        .map_err(|error| Undelivered::Unreachable(error.to_string()))?;
    let mut responses = FrameReader::new(receive, BULK_FRAME_LIMIT_BYTES);
    let written = tokio::select! {
        written = link.urgent.write_after(&mut send, &bytes) => written,
        // It wants no more of it: its answer says why. That it reads no more may never be heard: quinn looks for that
        // only while the connection has room for what is written.
        () = responses.begun() => Ok(()),
    };
    match written {
        Ok(()) | Err(WriteError::Stopped(_)) => {}
        Err(error) => return Err(unreachable(error.into())),
    }
    Ok((link, send, responses))
}

/// Runs `reading` as a task, so that it goes on while its owner is busy; dropping this ends it.
async fn in_a_task<T: Send + 'static>(
    network: &Network,
    reading: impl Future<Output = Result<T, Undelivered>> + Send + 'static,
) -> Result<T, Undelivered> {
    let mut task = JoinSet::new();
    task.spawn_on(reading, &network.tasks);
    match task.join_next().await {
        Some(Ok(outcome)) => outcome,
        _ => Err(Undelivered::Unreachable("this node is stopping".to_owned())),
    }
}

/// A tell on a stream of its own: ends when it has been delivered, or with the reason why not.
pub(crate) async fn tell(
    network: &Network,
    peer: &Peer,
    envelope: Envelope,
) -> Result<(), Undelivered> {
    let (link, send, mut responses) = request(network, peer, Request::Tell(envelope)).await?;
    finish(send);
    match response(network, peer, &link, &mut responses).await?.0 {
        Response::Reply(outcome) => Ok(outcome.map(drop)?),
        other => Err(unexpected(&other).into()),
    }
}

/// An ask on a stream of its own. Dropping the future resets the stream.
pub(crate) async fn ask(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    envelope: Envelope,
    deadline_ms: u32,
) -> Result<Piece, Undelivered> {
    let (link, send, mut responses) =
        request(network, peer, Request::Ask { deadline_ms, envelope }).await?;
    finish(send);
    let (reader, peer) = (network.clone(), peer.clone());
    let replier = link.clone();
    let reply = async move { response(&reader, &peer, &replier, &mut responses).await };
    match in_a_task(network, reply).await? {
        (Response::Reply(outcome), hold) => {
            Ok(Piece::from_peer(outcome?, Some(hold), &link.terms.account))
        }
        (other, _) => Err(unexpected(&other).into()),
    }
}

/// The answer to an ask from a lane, too large to go back on it.
pub(crate) async fn answer(
    network: &Network,
    peer: &Peer,
    id: u64,
    reply: Bytes,
) -> Result<(), WireError> {
    // An answer that cannot be brought leaves the asker to its deadline, or to the loss of the connection.
    if let Ok((_, send, _)) = request(network, peer, Request::Answer { id, reply }).await {
        let delivered = send.stopped();
        finish(send);
        // An asker that has gone hears nothing.
        let _ = delivered.await;
    }
    Ok(())
}

fn unexpected(response: &Response) -> Failure {
    let what = match response {
        Response::Reply(_) => "a reply",
        Response::Item(_) => "an item",
        Response::End(_) => "an end",
    };
    Failure::Decode { detail: format!("{what} came where something else was expected") }
}

async fn response(
    network: &Network,
    peer: &Peer,
    link: &Link,
    responses: &mut FrameReader,
) -> Result<(Response, Hold), Undelivered> {
    let (account, limit) = (&link.terms.account, network.timing.lost_after);
    let frame = match responses.next_held(account, ANSWER_BYTES, limit).await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(WireError::Torn),
        Err(WireError::NoRoom { length }) => {
            enter::over(network, link, Cause::Bytes, "runtime.Reply");
            return Err(Failure::Unsent { bytes: length as u64 }.into());
        }
        Err(error) => Err(error),
    };
    let (frame, hold) = frame.map_err(|error| Undelivered::Unreachable(error.to_string()))?;
    let response =
        Response::read(&frame).map_err(|error| Failure::Decode { detail: error.to_string() })?;
    network.faults.pass(&peer.name, peer.is_healer(), Direction::Receive).await;
    peer.hear();
    Ok((response, hold))
}

/// Opens a stream of items.
pub(crate) async fn open(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    envelope: Envelope,
    deadline_ms: u32,
) -> Result<Items<Piece>, Undelivered> {
    let (link, send, mut responses) =
        request(network, peer, Request::Open { deadline_ms, envelope }).await?;
    match response(network, peer, &link, &mut responses).await?.0 {
        Response::Reply(outcome) => outcome.map(drop)?,
        other => return Err(unexpected(&other).into()),
    }
    let (items, taken) = mpsc::channel(ITEMS_AHEAD + 1);
    let (network, peer) = (network.clone(), peer.clone());
    network.tasks.clone().spawn(async move {
        let shelf = Arc::new(Shelf::default());
        let mut send = send;
        tokio::select! {
            () = items.closed() => {}
            () = forward(&network, &peer, &link, &mut responses, &items, &shelf) => {}
            () = tell_taken(&link, &mut send, &shelf) => {}
        }
        // Ends our half last: the sender takes its end for our leaving.
        reset(send);
    });
    Ok(taken)
}

/// Puts items on the shelf as they arrive, whether somebody takes them or not.
async fn forward(
    network: &Network,
    peer: &Peer,
    link: &Link,
    responses: &mut FrameReader,
    items: &mpsc::Sender<Item<Piece>>,
    shelf: &Arc<Shelf>,
) {
    loop {
        let item = match response(network, peer, link, responses).await {
            Ok((Response::Item(bytes), hold)) => match shelf.put(bytes.len()) {
                Some(place) => {
                    Ok(Piece::from_peer(bytes, Some(hold), &link.terms.account).placed(place))
                }
                None => Err(StreamError::Decode {
                    detail: "it was sent faster than it was taken".to_owned(),
                }),
            },
            Ok((Response::End(None), _)) => return,
            Ok((Response::End(Some(ending)), _)) => Err(ending.into()),
            Ok((Response::Reply(_), _)) => {
                Err(StreamError::Decode { detail: "a second reply".to_owned() })
            }
            Err(Undelivered::Failure(Failure::Unsent { bytes })) => Err(StreamError::Lost {
                detail: format!(
                    "there is no room for an item of {bytes} bytes: take those that came"
                ),
            }),
            Err(Undelivered::Failure(failure)) => {
                Err(StreamError::Decode { detail: format!("{failure:?}") })
            }
            Err(Undelivered::Unreachable(detail)) => Err(StreamError::Lost { detail }),
        };
        let over = item.is_err();
        // The channel has room for all that fits on the shelf, and for the error after it.
        if items.send(item).await.is_err() || over {
            return;
        }
    }
}

/// Tells the sender what has been taken. Ends only with the stream; that is [`forward`]'s to report.
async fn tell_taken(link: &Link, send: &mut SendStream, shelf: &Shelf) {
    loop {
        let bytes = u32::try_from(shelf.due().await).unwrap_or(u32::MAX);
        let written = match prefixed(&Taken { bytes }) {
            Ok(taken) => link.urgent.write_after(send, &taken).await.is_ok(),
            Err(_) => false,
        };
        if !written {
            return std::future::pending().await;
        }
    }
}
