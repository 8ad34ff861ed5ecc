//! Why a message was not delivered or not answered, and what to do about it.
//!
//! Callers match on [`AskError::remedy`], not on text. [`AskError::Deadline`] and [`AskError::Unreachable`] leave open
//! whether the message was handled; after [`AskError::Unsent`] it was; after any other error it was not (or, for
//! `Refused`, it was judged and denied).

use crate::name::{ActorName, ActorPath, NodeName};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};
use thiserror::Error;

/// A "no" with its reason: by a gate, a handler of a stream, or a join door.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{reason}")]
pub struct Refusal {
    /// What is not allowed, and what to do instead.
    pub reason: String,
}

impl Refusal {
    /// A refusal with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Why an `ask` or an `open` brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AskError {
    /// No answer in time.
    #[error(
        "no answer within {waited:?}: the message may have been handled, look before sending it again"
    )]
    Deadline {
        /// How long the caller waited.
        waited: Duration,
    },
    /// No connection to the node, or it was lost before the answer.
    #[error(
        "node {node} is unreachable ({detail}): the message may have been handled, look before sending it again"
    )]
    Unreachable {
        /// The node that was asked.
        node: NodeName,
        /// What went wrong.
        detail: String,
    },
    /// Nobody of that name.
    #[error("there is no actor {actor} there: look up its address again")]
    NoSuchActor {
        /// The name that was asked.
        actor: ActorName,
    },
    /// A queue on the way is full; nothing was delivered.
    #[error("{actor} has no room for more messages: wait and send again")]
    Overloaded {
        /// The name that was asked.
        actor: ActorName,
    },
    /// The receiver does not let this caller do this.
    #[error("refused: {reason}")]
    Refused {
        /// Why, in the words of the receiver.
        reason: String,
    },
    /// The actor does not handle this message.
    #[error(
        "{actor} does not know the message {message}: the two ends are of different versions or roles"
    )]
    UnknownMessage {
        /// The name that was asked.
        actor: ActorName,
        /// The message's name.
        message: String,
    },
    /// One end could not read or write the message or its reply.
    #[error("{message} could not be read or written: {detail}")]
    Decode {
        /// The message's name.
        message: String,
        /// What the codec said.
        detail: String,
    },
    /// The actor stopped, or failed, before it answered.
    #[error("{actor} stopped before it answered: look up its address again")]
    Stopped {
        /// The name that was asked.
        actor: ActorName,
    },
    /// The message was handled, but its answer was more than is held for this node there at a time.
    #[error(
        "{actor} answered with {bytes} bytes, for which there was no room: the message was handled; take other answers first, or ask for less"
    )]
    Unsent {
        /// The name that was asked.
        actor: ActorName,
        /// The size of the answer.
        bytes: u64,
    },
}

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Wait (with backoff) and send the same again: it was not handled.
    Retry,
    /// It may have been handled: look, or send it with the same idempotency key.
    LookFirst,
    /// The address is stale: resolve it anew.
    Resolve,
    /// Sending it again cannot help.
    GiveUp,
}

impl AskError {
    /// What to do next. No wildcard arm: a new variant does not compile until someone has decided.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Deadline { .. } | Self::Unreachable { .. } | Self::Unsent { .. } => {
                Remedy::LookFirst
            }
            Self::NoSuchActor { .. } | Self::Stopped { .. } => Remedy::Resolve,
            Self::Overloaded { .. } => Remedy::Retry,
            Self::Refused { .. } | Self::UnknownMessage { .. } | Self::Decode { .. } => {
                Remedy::GiveUp
            }
        }
    }
}

/// Why a `tell` did not leave. No error does not mean that it arrives: `tell` is at most once.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TellError {
    /// Nobody of that name on this node.
    #[error("there is no actor {actor} on this node: look up its address again")]
    NoSuchActor {
        /// The name that was told.
        actor: ActorName,
    },
    /// The mailbox or the lane to the node is full.
    #[error("{actor} has no room for more messages: wait and send again")]
    Overloaded {
        /// The name that was told.
        actor: ActorName,
    },
    /// The actor does not handle this message.
    #[error("{actor} does not know the message {message}: it serves another role")]
    UnknownMessage {
        /// The name that was told.
        actor: ActorName,
        /// The message's name.
        message: String,
    },
    /// The message could not be written.
    #[error("{message} could not be written: {detail}")]
    Encode {
        /// The message's name.
        message: String,
        /// What the codec said.
        detail: String,
    },
    /// The actor, or this node, has stopped.
    #[error("{actor} has stopped: look up its address again")]
    Stopped {
        /// The name that was told.
        actor: ActorName,
    },
}

/// Why an actor was not spawned or registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The name is taken.
    #[error("{path} exists already: stop it first, or choose another name")]
    NameTaken {
        /// The path that is taken.
        path: ActorPath,
    },
    /// Other nodes could not address it.
    #[error(
        "{name} cannot be a name: it is longer than {limit} bytes or has control characters in it"
    )]
    NoName {
        /// The name, escaped.
        name: String,
        /// The most bytes that it may have.
        limit: usize,
    },
    /// Two message names hash to one tag.
    #[error("the messages {one} and {other} have the same wire tag: rename one of them")]
    TagCollision {
        /// The name seen first.
        one: &'static str,
        /// The name seen now.
        other: &'static str,
    },
    /// The node, or its arbiters, have stopped.
    #[error("the actor node has stopped")]
    NodeStopped,
}

/// Why an actor node did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no actix system in this thread.
    #[error(
        "start an actor node inside an actix System (actix::System::with_tokio_rt(..).block_on(..))"
    )]
    NoSystem,
    /// The UDP address cannot be bound.
    #[error("cannot listen on udp {address}: {source}; choose another address, or port 0")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The credential does not serve.
    #[error(transparent)]
    Credential(#[from] crate::pki::PkiError),
    /// The chaos actor could not be spawned.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}
