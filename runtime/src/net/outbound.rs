//! Messages to other nodes: which lane, which peer, and what becomes of each failure.
//!
//! What is too large for a lane goes as a bulk ask of its own accord; a tell, whose order a lane keeps, must say so by
//! its type.

use super::{
    bulk,
    frame::{Envelope, Frame, LANE_FRAME_LIMIT_BYTES},
    network::Network,
    peer::SendError,
};
use crate::{
    door::Failure,
    error::TellError,
    message::{Lane, tag_of},
    name::{ActorPath, NodeName},
    reference::Undelivered,
    stream::Items,
    trace::Trace,
    watch::Reason,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

impl Network {
    /// Queues a frame; a peer that was let go in this moment is made anew.
    fn send(self: &Arc<Self>, to: &NodeName, lane: Lane, frame: &Frame) -> Result<(), SendError> {
        match self.peer(to).send(&self.faults, lane, frame) {
            Err(SendError::Closed) => self.peer(to).send(&self.faults, lane, frame),
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
        let envelope = envelope(path, message, body);
        if lane != Lane::Bulk {
            if large {
                let detail = format!(
                    "over {LANE_FRAME_LIMIT_BYTES} bytes: make it an ask, or a message of the bulk lane"
                );
                return Err(TellError::Encode { message: message.to_owned(), detail });
            }
            return self.send(&path.node, lane, &Frame::Tell(envelope)).map_err(
                |error| match error {
                    SendError::Full => TellError::Overloaded { actor },
                    SendError::Closed => TellError::Stopped { actor },
                    SendError::Encode(error) => {
                        TellError::Encode { message: message.to_owned(), detail: error.to_string() }
                    }
                },
            );
        }
        let peer = self.peer(&path.node);
        let permit = peer
            .bulk_tells
            .clone()
            .try_acquire_owned()
            .map_err(|_| TellError::Overloaded { actor })?;
        let network = self.clone();
        self.tasks.spawn(async move {
            let told =
                timeout(network.timing.lost_after, bulk::tell(&network, &peer, envelope)).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::debug!(peer = %peer.name, message, "a bulk message was not sent");
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
    ) -> Result<Bytes, Undelivered> {
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
    ) -> Result<Items<Bytes>, Undelivered> {
        let peer = self.peer(&path.node);
        bulk::open(self, &peer, envelope(path, message, body), millis(deadline)).await
    }

    pub(crate) fn watch_at_peer(
        self: &Arc<Self>,
        path: &ActorPath,
        mut tell: oneshot::Sender<Reason>,
    ) {
        let id = self.next_id();
        let mut peer = self.peer(&path.node);
        let watch = Frame::Watch { id, actor: path.actor.clone() };
        let (answer, answered) = oneshot::channel();
        peer.add_watch(id, path.actor.clone(), answer);
        let mut sent = peer.send(&self.faults, Lane::Control, &watch);
        if let Err(SendError::Closed) = sent {
            let answer = peer.take_watch(id);
            peer = self.peer(&path.node);
            if let Some(answer) = answer {
                peer.add_watch(id, path.actor.clone(), answer);
            }
            sent = peer.send(&self.faults, Lane::Control, &watch);
        }
        if let Err(error) = sent {
            // The lane is full: the watch is said again with the next connection, or ends as `NodeLost`.
            tracing::warn!(peer = %peer.name, %error, "a death watch waits for the next connection");
        }
        let network = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                reason = answered => drop(tell.send(reason.unwrap_or(Reason::NodeLost))),
                () = tell.closed() => {
                    if peer.remove_watch(id) {
                        let unwatch = Frame::Unwatch { id };
                        if let Err(error) = peer.send(&network.faults, Lane::Control, &unwatch) {
                            tracing::debug!(peer = %peer.name, %error, "the end of a watch was not told");
                        }
                    }
                }
            }
        });
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
