//! Brings tells into mailboxes, at once or as they get room.

use super::{ENTRY_BYTES, Waiting};
use crate::{
    door::{Failure, message_of_tag},
    message::Lane,
    name::ActorName,
    net::{
        enter,
        frame::{Envelope, Frame},
        link::Link,
        network::Network,
        peer::Peer,
    },
    refusals::Cause,
};
use impresario_ambient::clock;
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// For how long a tell waits for room in a mailbox before it is reported lost.
const PARKED_AT_MOST: Duration = Duration::from_mins(1);

/// Delivers a tell from a lane, or parks it, or reports it lost.
pub(crate) fn tell(network: &Arc<Network>, peer: &Arc<Peer>, link: &Arc<Link>, envelope: Envelope) {
    if !peer.parked.holds(&envelope.to) {
        match enter::deliver(network, link, &envelope) {
            Ok(()) => return,
            Err(Failure::Overloaded) => {}
            Err(failure) => return lost(network, peer, link, &envelope, failure),
        }
    }
    let bytes = envelope.body.len() + envelope.to.as_str().len() + ENTRY_BYTES;
    let Some(hold) = link.terms.account.take(bytes) else {
        network.refusals.count(link.terms.role, Cause::Bytes, "runtime.Tell", &peer.name);
        return lost(network, peer, link, &envelope, Failure::Overloaded);
    };
    let actor = envelope.to.clone();
    let waiting = Waiting { envelope, link: link.clone(), since: clock::now(), _hold: hold };
    if peer.parked.add(waiting) {
        network.tasks.spawn(deliver(network.clone(), peer.clone(), actor));
    }
}

/// Delivers what is parked for one actor as its mailbox gets room.
async fn deliver(network: Arc<Network>, peer: Arc<Peer>, actor: ActorName) {
    let say = |frame: &Frame| {
        // The next heartbeat's will do, or the sender's patience ends by itself.
        if let Err(error) = peer.send(&network.faults, Lane::Control, frame) {
            tracing::debug!(peer = %peer.name, %error, "not said that a mailbox is full");
        }
    };
    let mut again = interval(network.timing.heartbeat);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (mut tag, mut last) = (None, None);
        let free = peer.parked.try_all(&actor, |waiting| {
            match enter::deliver(&network, &waiting.link, &waiting.envelope) {
                Err(Failure::Overloaded) if waiting.since.elapsed() < PARKED_AT_MOST => {
                    tag = Some(waiting.envelope.tag);
                    return true;
                }
                Ok(()) => last = Some(waiting.envelope.tag),
                Err(failure) => {
                    lost(&network, &peer, &waiting.link, &waiting.envelope, failure);
                }
            }
            false
        });
        let cell = network.cells.get(&actor);
        let door =
            |tag: Option<u64>| cell.as_ref().zip(tag).and_then(|(cell, tag)| cell.doors.get(tag));
        if free {
            // There may be room for more: it is the turn of the next who waits.
            if let Some(door) = door(last) {
                door.more_room();
            }
            break;
        }
        let room = door(tag);
        match room {
            Some(door) => tokio::select! {
                () = door.room() => {}
                _ = again.tick() => say(&Frame::Full { actor: actor.clone() }),
            },
            // It ended in between: the next look says so to all.
            None => tokio::task::yield_now().await,
        }
    }
    say(&Frame::Room { actor });
}

/// A tell on a stream of its own waits for room by itself: it has no order to keep, and its sender waits.
pub(crate) async fn tell_when_room(
    network: &Network,
    link: &Link,
    envelope: &Envelope,
    limit: Duration,
) -> Result<(), Failure> {
    let waiting = async {
        loop {
            let cell = network.cells.get(&envelope.to).ok_or(Failure::NoSuchActor)?;
            let door = cell.doors.get(envelope.tag).ok_or(Failure::UnknownMessage)?;
            match enter::deliver(network, link, envelope) {
                Err(Failure::Overloaded) => door.room().await,
                Err(failure) => return Err(failure),
                Ok(()) => {
                    // There may be room for more: it is the turn of the next who waits.
                    door.more_room();
                    return Ok(());
                }
            }
        }
    };
    timeout(limit, waiting).await.unwrap_or(Err(Failure::Overloaded))
}

/// Counts a tell that was not delivered and remembers it for the report to its sender.
fn lost(network: &Network, peer: &Peer, link: &Link, envelope: &Envelope, failure: Failure) {
    let message = message_of_tag(envelope.tag).unwrap_or("(unknown)");
    // What the gate refused is counted there.
    if !matches!(failure, Failure::Refused { .. }) {
        network.refusals.count(link.terms.role, Cause::Undelivered, message, &peer.name);
    }
    peer.lost.add(&envelope.to, envelope.tag, failure, |bytes| link.terms.account.take(bytes));
}
