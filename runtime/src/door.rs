//! Doors: one for each message that a name answers, found by wire tag.
//!
//! From inside the process a door is entered with the typed message (no copy); from the wire with bytes, which are
//! decoded and weighed, shown to the gate, and then take the same way. A door knows neither peers nor lanes.

use crate::{
    budget::Account,
    codec::{self, DecodeError, weigh::Scale},
    error::{Refusal, SpawnError},
    mailbox::{Blocked, Mailbox, Takes},
    message::{Message, StreamMessage, tag_of},
    stream::{self, ItemSink, Items, Open, Piece},
};
use actix::{Actor, Context, Handler};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, LazyLock},
};

/// Why a message got no answer, as it travels to the asker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    NoSuchActor,
    Overloaded,
    Refused {
        reason: String,
    },
    UnknownMessage,
    Decode {
        detail: String,
    },
    Stopped,
    Deadline,
    /// The message was handled, but its answer found no room among what is held for the asker.
    Unsent {
        bytes: u64,
    },
}

/// Why an encoded message got no answer.
pub(crate) enum Undelivered {
    Failure(Failure),
    Unreachable(String),
}

impl From<Failure> for Undelivered {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Blocked> for Failure {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::Full => Self::Overloaded,
            Blocked::Stopped => Self::Stopped,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { reason: refusal.reason }
    }
}

/// Judges a decoded message before it is delivered.
pub(crate) type Permit<'a> =
    &'a (dyn Fn(&'static str, &dyn Any) -> Result<(), Refusal> + Send + Sync);

/// How a message comes in from the wire.
pub(crate) struct Entry<'a> {
    pub(crate) permit: Permit<'a>,
    /// Weighs what it becomes.
    pub(crate) scale: &'a Scale<'a>,
}

/// Whether the handler of a stream takes the request.
pub(crate) type Verdict = BoxFuture<'static, Result<(), Failure>>;

pub(crate) type WireReply = BoxFuture<'static, Result<Bytes, Failure>>;

/// The end of what an actor does with a message that it was told. While it waits in a mailbox it must not be dropped:
/// actix handles nothing that nobody waits for.
pub(crate) type End = BoxFuture<'static, ()>;

/// What an opened stream gives: the handler's verdict, and the encoded items.
pub(crate) struct WireStream {
    pub(crate) verdict: Verdict,
    pub(crate) items: Items<Piece>,
}

pub(crate) trait Door: Send + Sync {
    fn name(&self) -> &'static str;
    fn as_any(&self) -> &dyn Any;
    /// The most bytes that the message may have.
    fn limit(&self) -> usize;
    /// Waits until the mailbox may have room for what it just refused.
    fn room(&self) -> BoxFuture<'static, ()>;
    /// Who found room says that there may be more: one who waits looks next.
    fn more_room(&self);
    /// Whether the actor may go on with a message after it has handled it.
    fn goes_on(&self) -> bool;
    /// Gives the end of the work, if that is on somebody's account and not over with the handling.
    fn tell(&self, body: &[u8], entry: &Entry<'_>) -> Result<Option<End>, Failure>;
    fn ask(&self, body: &[u8], entry: &Entry<'_>) -> Result<WireReply, Failure>;
    /// `account` bounds the items that wait for a reader on another node.
    fn open(
        &self,
        body: &[u8],
        entry: &Entry<'_>,
        account: Option<&Arc<Account>>,
    ) -> Result<WireStream, Failure>;
}

/// The message, if it is permitted.
fn permitted<T: serde::de::DeserializeOwned + 'static>(
    name: &'static str,
    body: &[u8],
    entry: &Entry<'_>,
) -> Result<T, Failure> {
    let message = codec::decode_weighed(body, entry.scale).map_err(|error| match error {
        DecodeError::Heavy => Failure::Overloaded,
        error => Failure::Decode { detail: error.to_string() },
    })?;
    (entry.permit)(name, &message)?;
    Ok(message)
}

pub(crate) struct AskDoor<M: Message>(pub(crate) Arc<dyn Takes<M>>);

impl<M: Message> Door for AskDoor<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn limit(&self) -> usize {
        M::MAX_BYTES
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.0.room()
    }

    fn more_room(&self) {
        self.0.more_room();
    }

    fn goes_on(&self) -> bool {
        self.0.goes_on()
    }

    fn tell(&self, body: &[u8], entry: &Entry<'_>) -> Result<Option<End>, Failure> {
        let message: M = permitted(M::NAME, body, entry).map_err(|failure| match failure {
            // It would wait for room in the mailbox, and be read again and again.
            Failure::Overloaded => Failure::Decode { detail: DecodeError::Heavy.to_string() },
            failure => failure,
        })?;
        let scale = entry.scale;
        if scale.holds() || (scale.is_on_account() && self.goes_on()) {
            return Ok(self.0.put_for_end(message, body.len())?);
        }
        self.0.put(message, body.len())?;
        Ok(None)
    }

    fn ask(&self, body: &[u8], entry: &Entry<'_>) -> Result<WireReply, Failure> {
        let message: M = permitted(M::NAME, body, entry)?;
        let reply = self.0.put_for_result(message, body.len())?;
        Ok(async move {
            let reply = reply.await.ok_or(Failure::Stopped)?;
            match codec::encode(&reply) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(Failure::Decode { detail: error.to_string() }),
            }
        }
        .boxed())
    }

    fn open(
        &self,
        _: &[u8],
        _: &Entry<'_>,
        _: Option<&Arc<Account>>,
    ) -> Result<WireStream, Failure> {
        Err(Failure::UnknownMessage)
    }
}

pub(crate) struct StreamDoor<M: StreamMessage>(pub(crate) Arc<dyn Takes<Open<M>>>);

impl<M: StreamMessage> StreamDoor<M> {
    /// Opens from inside the process: items stay what they are.
    pub(crate) fn open_local(&self, message: M) -> Result<(Verdict, Items<M::Item>), Failure> {
        let (sink, items) = stream::channel();
        Ok((self.enter(message, sink, size_of::<M>())?, items))
    }

    fn enter(&self, message: M, sink: ItemSink<M::Item>, bytes: usize) -> Result<Verdict, Failure> {
        let verdict = self.0.put_for_result(Open { message, sink }, bytes)?;
        Ok(async move {
            match verdict.await {
                Some(Ok(())) => Ok(()),
                Some(Err(refusal)) => Err(refusal.into()),
                None => Err(Failure::Stopped),
            }
        }
        .boxed())
    }
}

impl<M: StreamMessage> Door for StreamDoor<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn limit(&self) -> usize {
        M::MAX_BYTES
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.0.room()
    }

    fn more_room(&self) {
        self.0.more_room();
    }

    fn goes_on(&self) -> bool {
        self.0.goes_on()
    }

    fn tell(&self, _: &[u8], _: &Entry<'_>) -> Result<Option<End>, Failure> {
        Err(Failure::UnknownMessage)
    }

    fn ask(&self, _: &[u8], _: &Entry<'_>) -> Result<WireReply, Failure> {
        Err(Failure::UnknownMessage)
    }

    fn open(
        &self,
        body: &[u8],
        entry: &Entry<'_>,
        account: Option<&Arc<Account>>,
    ) -> Result<WireStream, Failure> {
        let message: M = permitted(M::NAME, body, entry)?;
        let (sink, items) = stream::encoding_channel(account);
        Ok(WireStream { verdict: self.enter(message, sink, body.len())?, items })
    }
}

/// The doors of one name.
#[derive(Default)]
pub struct Doors {
    by_tag: HashMap<u64, Box<dyn Door>>,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_tag.values().map(|door| door.name())).finish()
    }
}

impl Doors {
    /// Adds the door for the message `M`.
    pub fn ask<M, A>(&mut self, mailbox: &Mailbox<A>)
    where
        M: Message,
        A: Actor<Context = Context<A>> + Handler<M>,
    {
        self.by_tag.insert(tag_of(M::NAME), Box::new(AskDoor::<M>(Arc::new(mailbox.clone()))));
    }

    /// Adds the door for the stream `M`.
    pub fn stream<M, A>(&mut self, mailbox: &Mailbox<A>)
    where
        M: StreamMessage,
        A: Actor<Context = Context<A>> + Handler<Open<M>>,
    {
        self.by_tag.insert(tag_of(M::NAME), Box::new(StreamDoor::<M>(Arc::new(mailbox.clone()))));
    }

    /// The most bytes that a message through any of them may have.
    pub(crate) fn largest(&self) -> usize {
        self.by_tag.values().map(|door| door.limit()).max().unwrap_or_default()
    }

    pub(crate) fn get(&self, tag: u64) -> Option<&dyn Door> {
        self.by_tag.get(&tag).map(|door| &**door)
    }

    pub(crate) fn typed<D: 'static>(&self, tag: u64) -> Option<&D> {
        self.get(tag)?.as_any().downcast_ref()
    }
}

/// The messages of this program that an actor was made for, by tag.
static SEEN: LazyLock<Mutex<HashMap<u64, &'static str>>> = LazyLock::new(Mutex::default);

/// The name of a message by its tag, if an actor of this program serves it.
pub(crate) fn message_of_tag(tag: u64) -> Option<&'static str> {
    SEEN.lock().get(&tag).copied()
}

/// Refuses a role of which a name collides with a name of another message of this program.
pub(crate) fn claim_tags(names: &'static [&'static str]) -> Result<(), SpawnError> {
    let mut seen = SEEN.lock();
    for name in names {
        let one = *seen.entry(tag_of(name)).or_insert(name);
        if one != *name {
            return Err(SpawnError::TagCollision { one, other: name });
        }
    }
    Ok(())
}
