//! References: location-transparent addresses of actors.
//!
//! A reference is a path and this process's node; it holds nothing of the actor and stays valid over restarts. On this
//! node a message goes straight into the mailbox, uncopied; to another node as a frame. Messages from one reference to
//! one actor on one lane arrive in the order of their `tell`s.

use crate::{
    codec::{self, DecodeError, EncodeError},
    door::{AskDoor, Failure, StreamDoor, Undelivered},
    error::{AskError, TellError},
    mailbox::Blocked,
    message::{Message, StreamMessage, tag_of},
    name::{ActorName, ActorPath},
    node::ActorNode,
    role::{Accepts, Role, Streams},
    stream::{ItemStream, Piece, StreamError},
};
use serde::Serialize;
use std::{fmt, future::Future, marker::PhantomData, time::Duration};
use tokio::time::timeout;

/// The address of an actor that serves the role `R`.
pub struct ActorRef<R: Role> {
    node: ActorNode,
    path: ActorPath,
    role: PhantomData<fn() -> R>,
}

impl<R: Role> Clone for ActorRef<R> {
    fn clone(&self) -> Self {
        Self { node: self.node.clone(), path: self.path.clone(), role: PhantomData }
    }
}

impl<R: Role> fmt::Debug for ActorRef<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorRef<{}>({})", R::NAME, self.path)
    }
}

impl<R: Role> ActorRef<R> {
    pub(crate) fn new(node: ActorNode, path: ActorPath) -> Self {
        Self { node, path, role: PhantomData }
    }

    /// Where the actor is: what can be stored, sent, and made a reference again with `ActorNode::actor`.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }

    fn is_local(&self) -> bool {
        self.path.node == *self.node.name()
    }

    /// Sends without waiting for anything: at most once, in order.
    pub fn tell<M: Message>(&self, message: M) -> Result<(), TellError>
    where
        R: Accepts<M>,
    {
        let actor = &self.path.actor;
        if self.is_local() && !self.node.forces_wire() {
            let cell = self
                .node
                .cell(actor)
                .ok_or_else(|| TellError::NoSuchActor { actor: actor.clone() })?;
            let door = cell.doors.typed::<AskDoor<M>>(tag_of(M::NAME)).ok_or_else(|| {
                TellError::UnknownMessage { actor: actor.clone(), message: M::NAME.to_owned() }
            })?;
            return door.0.put(message, size_of::<M>()).map_err(|blocked| match blocked {
                Blocked::Full => TellError::Overloaded { actor: actor.clone() },
                Blocked::Stopped => TellError::Stopped { actor: actor.clone() },
            });
        }
        let body = encoded(&message, M::MAX_BYTES).map_err(|error| TellError::Encode {
            message: M::NAME.to_owned(),
            detail: error.to_string(),
        })?;
        self.node.tell_encoded(&self.path, M::NAME, M::LANE, body)
    }

    /// Sends and waits for the reply, at most until `deadline` has passed.
    ///
    /// The message leaves when the future is first polled.
    pub fn ask<M: Message>(
        &self,
        message: M,
        deadline: Duration,
    ) -> impl Future<Output = Result<M::Reply, AskError>> + Send + use<R, M>
    where
        R: Accepts<M>,
    {
        let this = self.clone();
        async move {
            match timeout(deadline, this.ask_without_limit(message, deadline)).await {
                Ok(outcome) => outcome.map_err(|failure| match failure {
                    Undelivered::Failure(failure) => this.error(failure, M::NAME, deadline),
                    Undelivered::Unreachable(detail) => this.unreachable(detail),
                }),
                Err(_) => Err(AskError::Deadline { waited: deadline }),
            }
        }
    }

    async fn ask_without_limit<M: Message>(
        &self,
        message: M,
        deadline: Duration,
    ) -> Result<M::Reply, Undelivered> {
        if self.is_local() && !self.node.forces_wire() {
            let cell = self.node.cell(&self.path.actor).ok_or(Failure::NoSuchActor)?;
            let door =
                cell.doors.typed::<AskDoor<M>>(tag_of(M::NAME)).ok_or(Failure::UnknownMessage)?;
            let reply = door.0.put_for_result(message, size_of::<M>()).map_err(Failure::from)?;
            return Ok(reply.await.ok_or(Failure::Stopped)?);
        }
        let body = encoded(&message, M::MAX_BYTES)
            .map_err(|error| Failure::Decode { detail: error.to_string() })?;
        drop(message);
        let reply = self.node.ask_encoded(&self.path, M::NAME, M::LANE, body, deadline).await?;
        let bytes = reply.bytes.len() as u64;
        Ok(reply.decode().map_err(|error| match error {
            DecodeError::Heavy => Failure::Unsent { bytes },
            error => Failure::Decode { detail: error.to_string() },
        })?)
    }

    /// Opens a stream: waits at most `deadline` for the actor to take the request; the items then come as they come.
    pub fn open<M: StreamMessage>(
        &self,
        message: M,
        deadline: Duration,
    ) -> impl Future<Output = Result<ItemStream<M::Item>, AskError>> + Send + use<R, M>
    where
        R: Streams<M>,
    {
        let this = self.clone();
        async move {
            match timeout(deadline, this.open_without_limit(message, deadline)).await {
                Ok(outcome) => outcome.map_err(|failure| match failure {
                    Undelivered::Failure(failure) => this.error(failure, M::NAME, deadline),
                    Undelivered::Unreachable(detail) => this.unreachable(detail),
                }),
                Err(_) => Err(AskError::Deadline { waited: deadline }),
            }
        }
    }

    async fn open_without_limit<M: StreamMessage>(
        &self,
        message: M,
        deadline: Duration,
    ) -> Result<ItemStream<M::Item>, Undelivered> {
        if self.is_local() && !self.node.forces_wire() {
            let cell = self.node.cell(&self.path.actor).ok_or(Failure::NoSuchActor)?;
            let door = cell
                .doors
                .typed::<StreamDoor<M>>(tag_of(M::NAME))
                .ok_or(Failure::UnknownMessage)?;
            let (verdict, items) = door.open_local(message)?;
            verdict.await?;
            return Ok(ItemStream::local(items));
        }
        let body = encoded(&message, M::MAX_BYTES)
            .map_err(|error| Failure::Decode { detail: error.to_string() })?;
        drop(message);
        let items = self.node.open_encoded(&self.path, M::NAME, body, deadline).await?;
        Ok(ItemStream::decoding(items, |item: Piece| {
            item.decode().map_err(|error| StreamError::Decode { detail: error.to_string() })
        }))
    }

    fn unreachable(&self, detail: String) -> AskError {
        AskError::Unreachable { node: self.path.node.clone(), detail }
    }

    fn error(&self, failure: Failure, message: &'static str, waited: Duration) -> AskError {
        ask_error(failure, self.path.actor.clone(), message, waited)
    }
}

/// The bytes of a message, if it is no larger than one of its type may be.
fn encoded<M: Serialize>(message: &M, limit: usize) -> Result<Vec<u8>, EncodeError> {
    let bytes = codec::encode(message)?;
    if bytes.len() > limit {
        return Err(EncodeError::TooLarge { size: bytes.len(), limit });
    }
    Ok(bytes)
}

/// A failure as its asker sees it.
pub(crate) fn ask_error(
    failure: Failure,
    actor: ActorName,
    message: &str,
    waited: Duration,
) -> AskError {
    let message = || message.to_owned();
    match failure {
        Failure::NoSuchActor => AskError::NoSuchActor { actor },
        Failure::Overloaded => AskError::Overloaded { actor },
        Failure::Refused { reason } => AskError::Refused { reason },
        Failure::UnknownMessage => AskError::UnknownMessage { actor, message: message() },
        Failure::Decode { detail } => AskError::Decode { message: message(), detail },
        Failure::Stopped => AskError::Stopped { actor },
        Failure::Deadline => AskError::Deadline { waited },
        Failure::Unsent { bytes } => AskError::Unsent { actor, bytes },
    }
}
