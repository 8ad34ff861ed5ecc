//! Messages to other nodes: which lane, which peer, and what becomes of each failure.
//!
//! What is too large for a lane goes as a bulk ask of its own accord; a tell, whose order a lane keeps, must say so by
//! its type.

use super::{
    bulk, dispatch,
    event::LostTells,
    frame::{Envelope, Frame, LANE_FRAME_LIMIT_BYTES},
    lane::Dropped,
    network::Network,
    peer::{Peer, SendError},
    watches::Word,
};
use crate::{
    door::{Failure, Undelivered},
    error::{AskError, TellError},
    message::{Lane, tag_of},
    name::{ActorName, ActorPath, NAME_BYTES, is_sayable},
    reference::ask_error,
    refusals::{Cause, STRANGER},
    stream::{Items, Piece},
    trace::Trace,
    watch::Reason,
};
use impresario_ambient::clock;
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

impl Network {
    /// Queues a tell; a peer that was let go in this moment is made anew.
    fn send_tell(
        self: &Arc<Self>,
        peer: &Peer,
        lane: Lane,
        tell: &Frame,
        message: &'static str,
    ) -> Result<(), SendError> {
        match peer.send_as(&self.faults, lane, tell, Some(message)) {
            Err(SendError::Closed) => {
                self.peer(&peer.name).send_as(&self.faults, lane, tell, Some(message))
            }
            sent => sent,
        }
    }

    pub(crate) fn tell_peer(
        self: &Arc<Self>,
        path: &ActorPath,
        message: &'static str,
        lane: Lane,
        body: Vec<u8>,
    ) -> Result<(), TellError> {
        let (actor, large) = (path.actor.clone(), body.len() > LANE_FRAME_LIMIT_BYTES);
        if !is_sayable(actor.as_str()) {
            return Err(TellError::NoSuchActor { actor });
        }
        let peer = self.peer(&path.node);
        if lane != Lane::Bulk {
            if peer.full.is_full(&actor, clock::now) {
                return Err(TellError::Overloaded { actor });
            }
            if large {
                let detail = format!(
                    "over {LANE_FRAME_LIMIT_BYTES} bytes: make it an ask, or a message of the bulk lane"
                );
                return Err(TellError::Encode { message: message.to_owned(), detail });
            }
            let tell = Frame::Tell(envelope(path, message, body));
            return self.send_tell(&peer, lane, &tell, message).map_err(|error| match error {
                SendError::Full => TellError::Overloaded { actor },
                SendError::Closed => TellError::Stopped { actor },
                SendError::Encode(error) => {
                    TellError::Encode { message: message.to_owned(), detail: error.to_string() }
                }
            });
        }
        let permit = peer
            .bulk_tells
            .clone()
            .try_acquire_owned()
            .map_err(|_| TellError::Overloaded { actor })?;
        let (network, to) = (self.clone(), path.clone());
        let envelope = envelope(path, message, body);
        self.tasks.spawn(async move {
            // The receiver waits for room in the mailbox for `lost_after` of its own.
            let limit = network.timing.lost_after * 3;
            let why = match timeout(limit, bulk::tell(&network, &peer, envelope)).await {
                Ok(Ok(())) => None,
                Ok(Err(Undelivered::Failure(failure))) => {
                    Some(ask_error(failure, to.actor.clone(), message, limit))
                }
                Ok(Err(Undelivered::Unreachable(detail))) => {
                    Some(AskError::Unreachable { node: to.node.clone(), detail })
                }
                Err(_) => Some(AskError::Deadline { waited: limit }),
            };
            if let Some(why) = why {
                network.lost(LostTells { to, message: message.to_owned(), count: 1, why });
            }
            drop(permit);
        });
        Ok(())
    }

    pub(crate) async fn ask_peer(
        self: &Arc<Self>,
        path: &ActorPath,
        message: &'static str,
        lane: Lane,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Piece, Undelivered> {
        if !is_sayable(path.actor.as_str()) {
            return Err(Failure::NoSuchActor.into());
        }
        let deadline_ms = millis(deadline);
        let large = body.len() > LANE_FRAME_LIMIT_BYTES;
        let envelope = envelope(path, message, body);
        let peer = self.peer(&path.node);
        if lane == Lane::Bulk || large {
            return bulk::ask(self, &peer, envelope, deadline_ms).await;
        }
        let id = self.next_id();
        let frame = Frame::Ask { id, deadline_ms, envelope };
        let expected = peer.expect(id).ok_or(Failure::Overloaded)?;
        let (sent, expected) = match peer.send(&self.faults, lane, &frame) {
            Err(SendError::Closed) => {
                let peer = self.peer(&path.node);
                let expected = peer.expect(id).ok_or(Failure::Overloaded)?;
                (peer.send(&self.faults, lane, &frame), expected)
            }
            sent => (sent, expected),
        };
        match sent {
            Ok(()) => expected.answer().await,
            Err(SendError::Full) => Err(Failure::Overloaded.into()),
            Err(SendError::Closed) => {
                Err(Undelivered::Unreachable("this node is stopping".to_owned()))
            }
            Err(SendError::Encode(error)) => {
                Err(Failure::Decode { detail: error.to_string() }.into())
            }
        }
    }

    pub(crate) async fn open_at_peer(
        self: &Arc<Self>,
        path: &ActorPath,
        message: &'static str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Items<Piece>, Undelivered> {
        if !is_sayable(path.actor.as_str()) {
            return Err(Failure::NoSuchActor.into());
        }
        let peer = self.peer(&path.node);
        bulk::open(self, &peer, envelope(path, message, body), millis(deadline)).await
    }

    pub(crate) fn watch_at_peer(
        self: &Arc<Self>,
        path: &ActorPath,
        mut tell: oneshot::Sender<Word>,
    ) {
        if !is_sayable(path.actor.as_str()) {
            // Its watcher may have left already.
            let _ = tell.send(Ok(Reason::NoSuchActor));
            return;
        }
        let id = self.next_id();
        let mut peer = self.peer(&path.node);
        let (answer, answered) = oneshot::channel();
        let mut watch = peer.watches.add(id, path.actor.clone(), answer);
        if let Err(SendError::Closed) = peer.send(&self.faults, Lane::Control, &watch) {
            let answer = peer.watches.take(id);
            peer = self.peer(&path.node);
            if let Some(answer) = answer {
                watch = peer.watches.add(id, path.actor.clone(), answer);
            }
            // Said again with a heartbeat if there is no room for it.
            dispatch::say(self, &peer, &watch);
        }
        let network = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                word = answered => drop(tell.send(word.unwrap_or(Ok(Reason::NodeLost)))),
                () = tell.closed() => {
                    let stood = peer.watches.take(id).is_some();
                    if stood && !dispatch::say(&network, &peer, &Frame::Unwatch { id }) {
                        peer.watches.not_said(id);
                    }
                }
            }
        });
    }

    /// The peer reports tells of ours that it did not deliver.
    pub(crate) fn tells_lost(
        &self,
        peer: &Peer,
        role: &'static str,
        to: ActorName,
        message: &str,
        count: u64,
        failure: Failure,
    ) {
        // What it says is its word alone: no more than it was told, and nothing that breaks a log line.
        let count = peer.believed_lost(count);
        if count == 0 {
            return;
        }
        let message: String = message.chars().take(NAME_BYTES).collect();
        let first = self.refusals.add(role, Cause::Lost, "runtime.Tell", count);
        if first {
            tracing::warn!(peer = %peer.name, %to, ?message, count, ?failure, "tells were not delivered; further ones are only counted");
        }
        let why = ask_error(failure, to.clone(), &message, Duration::ZERO);
        let to = ActorPath::new(peer.name.clone(), to);
        self.lost(LostTells { to, message, count, why });
    }

    /// Tells of ours waited for a peer that could not be reached, and were dropped.
    pub(super) fn tells_unreached(&self, peer: &Peer, dropped: Vec<Dropped>, detail: &str) {
        let role = peer.role().unwrap_or(STRANGER);
        for Dropped { to, message, count } in dropped {
            if self.refusals.add(role, Cause::Unreached, message, count) {
                tracing::warn!(peer = %peer.name, %to, message, count, detail, "tells were not sent; further ones are only counted");
            }
            let node = peer.name.clone();
            let to = ActorPath::new(node.clone(), to);
            let why = AskError::Unreachable { node, detail: detail.to_owned() };
            self.lost(LostTells { to, message: message.to_owned(), count, why });
        }
    }

    fn lost(&self, lost: LostTells) {
        // Fails only while nobody listens.
        let _ = self.lost_tells.send(lost);
    }
}

fn envelope(path: &ActorPath, message: &'static str, body: Vec<u8>) -> Envelope {
    Envelope {
        to: path.actor.clone(),
        tag: tag_of(message),
        trace: Trace::current(),
        body: body.into(),
    }
}

fn millis(deadline: Duration) -> u32 {
    u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX)
}
