//! Frames that arrive, brought to the actors they are for.
//!
//! In the reader's own task and in order, up to the mailbox; only what waits (a reply, an actor's end) gets a task, and
//! their number per peer is bounded by its budget. Every message passes the gate twice: by its name before it is decoded,
//! and by what it says before it is delivered.

use super::{
    bulk,
    frame::{Envelope, Frame, LANE_FRAME_LIMIT_BYTES, open_lane_frame},
    link::Link,
    network::Network,
    parked,
    peer::{Peer, SendError},
    watches,
    wire::WireError,
    work::{Held, Work},
};
use crate::{
    budget::Hold,
    cell::Cell,
    codec::weigh::Scale,
    door::{Door, Entry, Failure},
    error::Refusal,
    message::Lane,
    name::ActorName,
    refusals::Cause,
    stream::{Items, Piece},
    watch::Reason,
};
use bytes::Bytes;
use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

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
                peer.full.full(actor, Instant::now(), network.timing.suspect_after, |bytes| {
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

/// The actor that a message is for, if the peer may send it such a message at all, and one of so many bytes. For this
/// nothing of the message needs to have been read.
pub(crate) fn admit(
    network: &Network,
    link: &Link,
    to: &ActorName,
    tag: u64,
    bytes: usize,
) -> Result<Arc<Cell>, Failure> {
    let cell = network.cells.get(to).ok_or(Failure::NoSuchActor)?;
    let door = cell.doors.get(tag).ok_or(Failure::UnknownMessage)?;
    let name = door.name();
    let admitted = match network.gate.admit(&link.identity, to, name) {
        Ok(()) if bytes > door.limit() => {
            Err(Failure::Decode { detail: over_limit(bytes, door.limit()) })
        }
        Ok(()) => Ok(()),
        Err(refusal) => Err(refusal.into()),
    };
    if let Err(failure) = admitted {
        note(network, link, to, name, &failure);
        return Err(failure);
    }
    Ok(cell)
}

/// A message is larger than any of its type.
pub(crate) fn over_limit(bytes: usize, limit: usize) -> String {
    format!("{bytes} bytes are over the {limit} that a message of this type may have")
}

/// Counts a refusal of the gate, and says what became of a message.
fn note(network: &Network, link: &Link, to: &ActorName, message: &'static str, failure: &Failure) {
    let peer = &link.identity.node;
    if let Failure::Refused { reason } = failure {
        network.refusals.count(link.terms.role, Cause::Gate, message, peer);
        tracing::debug!(%peer, %to, message, reason, "message refused");
    } else {
        tracing::debug!(%peer, %to, message, ?failure, "message not delivered");
    }
}

/// Finds the door that an envelope is for and enters it. Gives what is held on the peer's account for the message too.
pub(crate) fn enter<T>(
    network: &Network,
    link: &Link,
    envelope: &Envelope,
    enter: impl FnOnce(&dyn Door, &Entry<'_>) -> Result<T, Failure>,
) -> Result<(T, Vec<Hold>), Failure> {
    let cell = admit(network, link, &envelope.to, envelope.tag, envelope.body.len())?;
    let door = cell.doors.get(envelope.tag).ok_or(Failure::UnknownMessage)?;
    let scale = Scale::new(Some(&link.terms.account));
    let permit = |message: &'static str, body: &dyn Any| -> Result<(), Refusal> {
        network.gate.permit(&link.identity, &envelope.to, message, body)?;
        match &cell.guard {
            Some(guard) => guard.permit(&link.identity, &envelope.to, message, body),
            None => Ok(()),
        }
    };
    let span = envelope.trace.map(|trace| {
        tracing::debug_span!("message", name = door.name(), to = %envelope.to, %trace).entered()
    });
    let entered = enter(door, &Entry { permit: &permit, scale: &scale });
    drop(span);
    if scale.is_over() {
        over(network, link, Cause::Bytes, door.name());
    }
    match entered {
        Ok(entered) => Ok((entered, scale.into_holds())),
        Err(failure) => {
            note(network, link, &envelope.to, door.name(), &failure);
            Err(failure)
        }
    }
}

/// Puts a tell into its mailbox. What the actor goes on with is work like that of an ask.
pub(crate) fn deliver(network: &Network, link: &Link, envelope: &Envelope) -> Result<(), Failure> {
    let ((end, place), weight) = enter(network, link, envelope, |door, entry| {
        // Without a place it waits as for room in the mailbox.
        let place =
            if door.goes_on() { Some(link.terms.ask().ok_or(Failure::Overloaded)?) } else { None };
        Ok((door.tell(&envelope.body, entry)?, place))
    })?;
    if let Some(end) = end {
        // Runs by itself: nobody waits for it, and it is handled all the same.
        drop(Work::new(&network.tasks, end, place, weight, true));
    }
    Ok(())
}

/// Puts an ask into its mailbox.
pub(crate) fn put_ask(
    network: &Network,
    link: &Link,
    envelope: &Envelope,
) -> Result<Work<Result<Bytes, Failure>>, Failure> {
    let place = place(network, link, "runtime.Ask")?;
    let ((reply, goes_on), weight) = enter(network, link, envelope, |door, entry| {
        Ok((door.ask(&envelope.body, entry)?, door.goes_on()))
    })?;
    Ok(Work::new(&network.tasks, reply, Some(place), weight, goes_on))
}

/// A stream that an actor is asked to open.
pub(crate) struct Opened {
    /// Work until the handler has decided.
    pub(crate) verdict: Work<Result<(), Failure>>,
    pub(crate) items: Items<Piece>,
}

/// Puts the opening of a stream into its mailbox.
pub(crate) fn put_open(
    network: &Network,
    link: &Link,
    envelope: &Envelope,
) -> Result<Opened, Failure> {
    let place = place(network, link, "runtime.Open")?;
    let ((stream, goes_on), weight) = enter(network, link, envelope, |door, entry| {
        let stream = door.open(&envelope.body, entry, Some(&link.terms.account))?;
        Ok((stream, door.goes_on()))
    })?;
    let verdict = Work::new(&network.tasks, stream.verdict, Some(place), weight, goes_on);
    Ok(Opened { verdict, items: stream.items })
}

/// Room for more work for the peer.
fn place(
    network: &Network,
    link: &Link,
    message: &'static str,
) -> Result<OwnedSemaphorePermit, Failure> {
    link.terms.ask().ok_or_else(|| over(network, link, Cause::Asks, message))
}

/// The peer is over its budget.
pub(crate) fn over(network: &Network, link: &Link, cause: Cause, message: &'static str) -> Failure {
    network.refusals.count(link.terms.role, cause, message, &link.identity.node);
    Failure::Overloaded
}

/// Holds an answer on the peer's account until it is written; one that finds no room is let go, and the asker is told.
pub(crate) fn held(
    network: &Network,
    link: &Link,
    outcome: Result<Bytes, Failure>,
) -> (Result<Bytes, Failure>, Option<Hold>) {
    let Ok(reply) = outcome else { return (outcome, None) };
    match link.terms.account.take(reply.len()) {
        Some(hold) => (Ok(reply), Some(hold)),
        None => {
            let bytes = reply.len() as u64;
            over(network, link, Cause::Reply, "runtime.Reply");
            (Err(Failure::Unsent { bytes }), None)
        }
    }
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

/// The outcome of work, if it comes in time, and what it held.
pub(crate) async fn in_time<T: Send + 'static>(
    work: Work<Result<T, Failure>>,
    deadline: Duration,
) -> (Result<T, Failure>, Option<Held>) {
    match timeout(deadline, work).await {
        Ok((outcome, held)) => (outcome, Some(held)),
        Err(_) => (Err(Failure::Deadline), None),
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
    let begun = Instant::now();
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
