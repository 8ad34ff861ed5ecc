//! Frames that arrive, brought to what they are for.
//!
//! In the reader's own task and in order, up to the mailbox; only what waits (a reply, an actor's end) gets a task, and
//! their number per peer is bounded by its budget.

use super::{
    bulk,
    enter::{held, in_time, over, put_ask},
    frame::{Envelope, Frame, LANE_FRAME_LIMIT_BYTES, open_lane_frame},
    link::Link,
    network::Network,
    parked,
    peer::{Peer, SendError},
    watches,
    wire::WireError,
    work::Work,
};
use crate::{
    cell::Cell, door::Failure, error::Refusal, message::Lane, name::ActorName, refusals::Cause,
    stream::Piece, watch::Reason,
};
use bytes::Bytes;
use impresario_ambient::clock;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The name under which the gate is asked for a death watch.
const WATCH: &str = "runtime.Watch";

pub(crate) fn lane_frame(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Arc<Link>,
    lane: Lane,
    bytes: &Bytes,
) -> Result<(), WireError> {
    let (sequence, frame) = open_lane_frame(bytes)?;
    if !peer.is_new(lane, sequence) {
        return Ok(());
    }
    match frame {
        Frame::Tell(envelope) => parked::tell(network, peer, link, envelope),
        Frame::Ask { id, deadline_ms, envelope } => {
            ask(network, peer, link, lane, id, deadline_ms, &envelope);
        }
        Frame::Answer { id, outcome } => {
            peer.answer(id, outcome.and_then(|reply| brought(link, reply)));
        }
        Frame::Heartbeat => {}
        Frame::Watch { id, actor, life } => {
            let answer = watch(network, peer, link, id, &actor, life);
            // Asked again with a heartbeat when the lane has no room.
            say(network, peer, &answer);
        }
        Frame::Unwatch { id } => peer.watchers.remove(id),
        Frame::Terminated { id, reason } => {
            peer.watches.answer(id, Ok(reason));
            // Said again with the next heartbeat when this finds no room.
            say(network, peer, &Frame::Unwatch { id });
        }
        Frame::Watching { id, life } => {
            if !peer.watches.confirmed(id, life) {
                say(network, peer, &Frame::Unwatch { id });
            }
        }
        Frame::NotWatched { id, failure } => {
            peer.watches.answer(id, Err(watches::refused(failure)));
        }
        Frame::Full { actor } => {
            if peer.has_told() {
                peer.full.full(actor, clock::now(), network.timing.suspect_after, |bytes| {
                    link.terms.account.take(bytes)
                });
            }
        }
        Frame::Room { actor } => peer.full.room(&actor),
        Frame::Lost { to, message, count, failure } => {
            network.tells_lost(peer, link.terms.role, to, &message, count, failure);
        }
    }
    Ok(())
}

/// Says something that will be said again if the control lane has no room for it.
pub(crate) fn say(network: &Network, peer: &Peer, frame: &Frame) -> bool {
    match peer.send(&network.faults, Lane::Control, frame) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(peer = %peer.name, %error, "to be said again");
            false
        }
    }
}

/// What an answer takes that is not worth an entry on the account.
const FREE_ANSWER_BYTES: usize = 4 << 10;

/// An answer from a lane, held on the account of who sent it.
fn brought(link: &Link, reply: Bytes) -> Result<Piece, Failure> {
    let account = &link.terms.account;
    let hold = match reply.len() {
        bytes if bytes <= FREE_ANSWER_BYTES => None,
        bytes => Some(account.take(bytes).ok_or(Failure::Unsent { bytes: bytes as u64 })?),
    };
    Ok(Piece::from_peer(reply, hold, account))
}

fn ask(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Arc<Link>,
    lane: Lane,
    id: u64,
    deadline_ms: u32,
    envelope: &Envelope,
) {
    let deadline = link.terms.deadline(deadline_ms);
    let entered = if peer.parked.holds(&envelope.to) {
        // Behind tells that wait for room: it may not overtake them.
        Err(Failure::Overloaded)
    } else {
        put_ask(network, link, envelope)
    };
    match entered {
        Ok(work) => {
            let (network, peer, link) = (network.clone(), peer.clone(), link.clone());
            network.tasks.clone().spawn(async move {
                answer(&network, &peer, &link, lane, id, work, deadline).await;
            });
        }
        Err(failure) => {
            if let Err(error) =
                peer.send(&network.faults, lane, &Frame::Answer { id, outcome: Err(failure) })
            {
                tracing::debug!(peer = %peer.name, %error, "an answer was not sent");
            }
        }
    }
}

/// Brings the answer back; past the deadline nobody waits for it.
async fn answer(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Link,
    lane: Lane,
    id: u64,
    work: Work<Result<Bytes, Failure>>,
    deadline: Duration,
) {
    let begun = clock::now();
    // What the message takes is held until it is answered, or its work has ended if that is later.
    let (outcome, _work) = in_time(work, deadline).await;
    let outcome = match send_answer(network, peer, lane, id, outcome) {
        Ok(()) => return,
        Err(outcome) => outcome,
    };
    let (outcome, _hold) = held(network, link, outcome);
    let left = deadline.saturating_sub(begun.elapsed());
    let sending = async {
        match outcome {
            Ok(reply) if reply.len() > LANE_FRAME_LIMIT_BYTES => {
                bulk::answer(network, peer, id, reply).await.map_err(|error| error.to_string())
            }
            outcome => peer
                .send_when_room(&network.faults, lane, &Frame::Answer { id, outcome })
                .await
                .map_err(|error| error.to_string()),
        }
    };
    if let Ok(Err(error)) = timeout(left, sending).await {
        tracing::debug!(peer = %peer.name, error, "an answer was not sent");
    }
}

/// Puts an answer on the lane at once, as most go; gives it back when it is too large for that, or finds no room.
fn send_answer(
    network: &Network,
    peer: &Peer,
    lane: Lane,
    id: u64,
    outcome: Result<Bytes, Failure>,
) -> Result<(), Result<Bytes, Failure>> {
    if outcome.as_ref().is_ok_and(|reply| reply.len() > LANE_FRAME_LIMIT_BYTES) {
        return Err(outcome);
    }
    let frame = Frame::Answer { id, outcome };
    match peer.send(&network.faults, lane, &frame) {
        Err(SendError::Full) => match frame {
            Frame::Answer { outcome, .. } => Err(outcome),
            _ => Ok(()),
        },
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::debug!(peer = %peer.name, %error, "an answer was not sent");
            Ok(())
        }
    }
}

/// Begins to watch an actor for the peer, or goes on; gives what it is told now.
fn watch(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Link,
    id: u64,
    actor: &ActorName,
    life: Option<u64>,
) -> Frame {
    if let Some(known) = peer.watchers.known(id) {
        return known;
    }
    if let Err(Refusal { reason }) = network.gate.permit(&link.identity, actor, WATCH, &()) {
        network.refusals.count(link.terms.role, Cause::Gate, WATCH, &link.identity.node);
        return Frame::NotWatched { id, failure: Failure::Refused { reason } };
    }
    if peer.watchers.len() >= link.terms.budget.watches {
        let failure = over(network, link, Cause::Watches, WATCH);
        return Frame::NotWatched { id, failure };
    }
    let cell = network.cells.get(actor);
    match (cell, life) {
        (Some(cell), None) => watch_cell(network, peer, id, cell),
        (Some(cell), Some(life)) if cell.life == life => watch_cell(network, peer, id, cell),
        (_, Some(life)) => Frame::Terminated { id, reason: network.cells.end_of(life) },
        (None, None) => Frame::Terminated { id, reason: Reason::NoSuchActor },
    }
}

/// Tells the peer when the actor ends.
fn watch_cell(network: &Arc<Network>, peer: &Arc<Peer>, id: u64, cell: Arc<Cell>) -> Frame {
    let life = cell.life;
    peer.watchers.add(id, life, || {
        let (network, peer) = (network.clone(), peer.clone());
        let tasks = network.tasks.clone();
        let task = tasks.spawn(async move {
            let reason = cell.ended().await;
            if let Some(told) = peer.watchers.ended(id, reason) {
                // Said again with every heartbeat until the watcher has heard.
                say(&network, &peer, &told);
            }
        });
        task.abort_handle()
    })
}
