//! Messages of a peer, let in to the actors that they are for.
//!
//! Every message passes the gate twice: by its name before it is decoded, and by what it says before it is delivered.

use super::{
    frame::Envelope,
    link::Link,
    network::Network,
    work::{Held, Work},
};
use crate::{
    budget::Hold,
    cell::Cell,
    codec::weigh::Scale,
    door::{Door, Entry, Failure},
    error::Refusal,
    name::ActorName,
    refusals::Cause,
    stream::{Items, Piece},
};
use bytes::Bytes;
use std::{any::Any, sync::Arc, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

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
