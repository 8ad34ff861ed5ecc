//! Streams of items: a request, its sink at the actor's end, and the stream at the asker's.
//!
//! The sink is bounded in items and, towards another node, in bytes: a reader that is slow makes `send` wait. Dropping the
//! sink ends the stream; dropping the stream closes the sink.

use crate::{
    budget::{Account, Hold, StreamAccount},
    codec::{self, weigh::Scale},
    error::Refusal,
    message::StreamMessage,
};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use thiserror::Error;
use tokio::sync::mpsc;

/// How many items a sink takes before it waits for the reader.
const ITEMS_IN_FLIGHT: usize = 32;

/// The actor's end of a stream: the request, and where the items go.
///
/// The handler answers `Ok(())` when it takes the request, and may send from a task of its own.
pub struct Open<M: StreamMessage> {
    /// The request.
    pub message: M,
    /// Where the items go.
    pub sink: ItemSink<M::Item>,
}

impl<M: StreamMessage> actix::Message for Open<M> {
    type Result = Result<(), Refusal>;
}

impl<M: StreamMessage + fmt::Debug> fmt::Debug for Open<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("message", &self.message).finish_non_exhaustive()
    }
}

/// Nobody reads the stream any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("nobody reads this stream any more: stop sending")]
pub struct Closed;

/// Why a stream ended other than by its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The sender ended it with a reason.
    #[error("the stream was ended by its sender: {reason}")]
    Refused {
        /// The sender's words.
        reason: String,
    },
    /// The connection or the actor was lost; more items may have followed.
    #[error("the stream was lost ({detail}): open it again from where you are")]
    Lost {
        /// What went wrong.
        detail: String,
    },
    /// An item could not be read or written.
    #[error("an item of the stream could not be read or written: {detail}")]
    Decode {
        /// What the codec said.
        detail: String,
    },
}

pub(crate) type Item<T> = Result<T, StreamError>;
pub(crate) type Items<T> = mpsc::Receiver<Item<T>>;

/// An encoded item, and what is held for it until it is let go.
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    hold: Option<Hold>,
    /// Whose account what it becomes is weighed on, if it came from another node.
    account: Option<Arc<Account>>,
    /// Its place in the window of its stream.
    _place: Option<Hold>,
}

impl Piece {
    pub(crate) fn new(bytes: Bytes, hold: Option<Hold>) -> Self {
        Self { bytes, hold, account: None, _place: None }
    }

    /// One that another node sent.
    pub(crate) fn from_peer(bytes: Bytes, hold: Option<Hold>, account: &Arc<Account>) -> Self {
        Self { bytes, hold, account: Some(account.clone()), _place: None }
    }

    /// With its place in the window of its stream.
    pub(crate) fn placed(self, place: Hold) -> Self {
        Self { _place: Some(place), ..self }
    }

    /// The value that it is, as far as there is room for it on the account of who sent it.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, codec::DecodeError> {
        codec::decode_weighed(&self.bytes, &Scale::new(self.account.as_ref()))
    }

    pub(crate) fn into_parts(self) -> (Bytes, Option<Hold>) {
        (self.bytes, self.hold)
    }
}

enum Target<T> {
    Local(mpsc::Sender<Item<T>>),
    Wire(WireTarget<T>),
}

struct WireTarget<T> {
    sender: mpsc::Sender<Item<Piece>>,
    encode: fn(&T) -> Result<Vec<u8>, codec::EncodeError>,
    /// What the reader's node may hold here; `None` within the process.
    account: Option<Arc<StreamAccount>>,
}

impl<T> WireTarget<T> {
    /// Encodes an item as soon as its bytes may be held; bytes that found no room are not kept meanwhile.
    async fn encoded(&self, item: &T) -> Result<Item<Piece>, Closed> {
        let encode = || match (self.encode)(item) {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => Err(StreamError::Decode { detail: error.to_string() }),
        };
        let Some(account) = &self.account else {
            return Ok(encode().map(|bytes| Piece::new(bytes, None)));
        };
        let mut known: Option<usize> = None;
        let mut attempt = || -> Option<Item<Piece>> {
            if !account.has_room() {
                return None;
            }
            let early = match known {
                Some(size) => Some(account.take(size)?),
                None => None,
            };
            let bytes = match encode() {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error)),
            };
            if bytes.len() > account.most() {
                let detail = format!("{} bytes are over what its reader may hold", bytes.len());
                return Some(Err(StreamError::Decode { detail }));
            }
            known = Some(bytes.len());
            let hold = match early {
                Some(hold) => hold,
                None => account.take(bytes.len())?,
            };
            Some(Ok(Piece::new(bytes, Some(hold))))
        };
        match attempt() {
            Some(item) => Ok(item),
            None => account.when_room(attempt, self.sender.closed()).await.ok_or(Closed),
        }
    }
}

/// Where an actor puts the items of a stream. Dropping it ends the stream.
pub struct ItemSink<T>(Target<T>);

impl<T> fmt::Debug for ItemSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemSink").field("closed", &self.is_closed()).finish()
    }
}

impl<T> ItemSink<T> {
    /// Sends one item; waits while the reader is behind.
    ///
    /// An item that cannot be encoded ends the stream with [`StreamError::Decode`] at the reader.
    pub async fn send(&self, item: T) -> Result<(), Closed> {
        match &self.0 {
            Target::Local(sender) => sender.send(Ok(item)).await.map_err(|_| Closed),
            Target::Wire(wire) => {
                let piece = wire.encoded(&item).await?;
                drop(item);
                wire.sender.send(piece).await.map_err(|_| Closed)
            }
        }
    }

    /// Ends the stream with a reason.
    pub async fn fail(self, refusal: Refusal) {
        let error = StreamError::Refused { reason: refusal.reason };
        // The reader may be gone: then there is nobody to tell.
        let _ = match self.0 {
            Target::Local(sender) => sender.send(Err(error)).await.is_ok(),
            Target::Wire(wire) => wire.sender.send(Err(error)).await.is_ok(),
        };
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Target::Local(sender) => sender.is_closed(),
            Target::Wire(wire) => wire.sender.is_closed(),
        }
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        match &self.0 {
            Target::Local(sender) => sender.closed().await,
            Target::Wire(wire) => wire.sender.closed().await,
        }
    }
}

pub(crate) fn channel<T>() -> (ItemSink<T>, Items<T>) {
    let (sender, items) = mpsc::channel(ITEMS_IN_FLIGHT);
    (ItemSink(Target::Local(sender)), items)
}

/// For a reader on another node, whose account bounds the bytes that wait.
pub(crate) fn encoding_channel<T: Serialize>(
    account: Option<&Arc<Account>>,
) -> (ItemSink<T>, Items<Piece>) {
    let (sender, items) = mpsc::channel(ITEMS_IN_FLIGHT);
    let account = account.map(StreamAccount::new);
    let target = WireTarget { sender, encode: |item| codec::encode(item), account };
    (ItemSink(Target::Wire(target)), items)
}

/// The asker's end of a stream. After an error nothing follows.
pub struct ItemStream<T>(BoxStream<'static, Item<T>>);

impl<T> fmt::Debug for ItemStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ItemStream")
    }
}

impl<T: Send + 'static> ItemStream<T> {
    pub(crate) fn local(items: Items<T>) -> Self {
        Self::decoding(items, Ok)
    }

    /// The items, each passed through `decode`; the first error is the last element.
    pub(crate) fn decoding<W: Send + 'static>(items: Items<W>, decode: fn(W) -> Item<T>) -> Self {
        Self(
            stream::unfold(Some(items), move |items| async move {
                let mut items = items?;
                let item = items.recv().await?.and_then(decode);
                let rest = item.is_ok().then_some(items);
                Some((item, rest))
            })
            .boxed(),
        )
    }
}

impl<T> Stream for ItemStream<T> {
    type Item = Item<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}
