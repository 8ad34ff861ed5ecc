//! Frames that arrive, brought to the actors they are for.
//!
//! In the reader's own task and in order, up to the mailbox; only what waits (a reply, an actor's end) gets a task, and
//! their number per peer is bounded. Every message passes the gate after it is decoded and before it is delivered.

use super::{
    bulk,
    frame::{Envelope, Frame, LANE_FRAME_LIMIT_BYTES, open_lane_frame},
    link::Link,
    network::Network,
    peer::{Peer, SendError},
    wire::WireError,
};
use crate::{
    cell::Cell,
    door::{Door, Failure, WireReply},
    error::Refusal,
    message::Lane,
    watch::Reason,
};
use bytes::Bytes;
use std::{any::Any, sync::Arc, time::Duration};
use tokio::time::timeout;

/// The name under which the gate is asked for a death watch.
const WATCH: &str = "runtime.Watch";
/// Watches that one peer may hold here.
const WATCHERS_PER_PEER: usize = 16384;

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
        Frame::Tell(envelope) => tell(network, link, &envelope),
        Frame::Ask { id, deadline_ms, envelope } => {
            ask(network, peer, link, lane, id, deadline_ms, &envelope);
        }
        Frame::Answer { id, outcome } => peer.answer(id, outcome),
        Frame::Heartbeat => {}
        Frame::Watch { id, actor } => {
            let permitted = network.gate.permit(&link.identity, &actor, WATCH, &());
            let cell = match permitted {
                Ok(()) if peer.watchers() < WATCHERS_PER_PEER => network.cells.get(&actor),
                _ => None,
            };
            watch(network, peer, id, cell);
        }
        Frame::Unwatch { id } => peer.remove_watcher(id),
        Frame::Terminated { id, reason } => peer.terminated(id, reason),
    }
    Ok(())
}

/// Finds the door that an envelope is for and enters it.
pub(crate) fn enter<T>(
    network: &Network,
    link: &Link,
    envelope: &Envelope,
    enter: impl FnOnce(&dyn Door, crate::door::Permit<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let cell = network.cells.get(&envelope.to).ok_or(Failure::NoSuchActor)?;
    let door = cell.doors.get(envelope.tag).ok_or(Failure::UnknownMessage)?;
    let permit = |message: &'static str, body: &dyn Any| -> Result<(), Refusal> {
        network.gate.permit(&link.identity, &envelope.to, message, body)
    };
    let span = envelope.trace.map(|trace| {
        tracing::debug_span!("message", name = door.name(), to = %envelope.to, %trace).entered()
    });
    let entered = enter(door, &permit);
    drop(span);
    if let Err(failure) = &entered {
        let (peer, to, message) = (&link.identity.node, &envelope.to, door.name());
        if let Failure::Refused { reason } = failure {
            tracing::warn!(%peer, %to, message, reason, "message refused");
        } else {
            tracing::debug!(%peer, %to, message, ?failure, "message not delivered");
        }
    }
    entered
}

pub(crate) fn tell(network: &Network, link: &Link, envelope: &Envelope) {
    // At most once: the sender is not told, `enter` has logged why.
    let _ = enter(network, link, envelope, |door, permit| door.tell(&envelope.body, permit));
}

fn ask(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Link,
    lane: Lane,
    id: u64,
    deadline_ms: u32,
    envelope: &Envelope,
) {
    let deadline = Duration::from_millis(deadline_ms.into());
    let entered = match peer.inbound_asks.clone().try_acquire_owned() {
        Ok(permit) => enter(network, link, envelope, |door, gate| door.ask(&envelope.body, gate))
            .map(|it| (it, permit)),
        Err(_) => Err(Failure::Overloaded),
    };
    match entered {
        Ok((reply, permit)) => {
            let (network, peer) = (network.clone(), peer.clone());
            network.tasks.clone().spawn(async move {
                // Past the deadline nobody waits for the answer.
                let answered = timeout(deadline, answer(&network, &peer, lane, id, reply)).await;
                if let Ok(Err(error)) = answered {
                    tracing::debug!(peer = %peer.name, %error, "an answer was not sent");
                }
                drop(permit);
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

async fn answer(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    lane: Lane,
    id: u64,
    reply: WireReply,
) -> Result<(), SendError> {
    let outcome = reply.await;
    match outcome {
        Ok(reply) if reply.len() > LANE_FRAME_LIMIT_BYTES => {
            if let Err(error) = bulk::answer(network, peer, id, reply).await {
                tracing::debug!(peer = %peer.name, %error, "a large answer was not sent");
            }
            Ok(())
        }
        outcome => peer.send_when_room(&network.faults, lane, &Frame::Answer { id, outcome }).await,
    }
}

/// Tells the peer when the actor ends.
fn watch(network: &Arc<Network>, peer: &Arc<Peer>, id: u64, cell: Option<Arc<Cell>>) {
    peer.add_watcher(id, || {
        let (network, peer) = (network.clone(), peer.clone());
        let tasks = network.tasks.clone();
        let task = tasks.spawn(async move {
            let reason = match cell {
                Some(cell) => cell.ended().await,
                None => Reason::NoSuchActor,
            };
            let told = Frame::Terminated { id, reason };
            if let Err(error) = peer.send_when_room(&network.faults, Lane::Control, &told).await {
                tracing::debug!(peer = %peer.name, %error, "the end of an actor was not told");
            }
            peer.watcher_done(id);
        });
        task.abort_handle()
    });
}
