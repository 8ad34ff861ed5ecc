//! Streams of items: a request, its sink at the actor's end, and the stream at the asker's.
//!
//! The sink is bounded: a reader that is slow makes `send` wait, across nodes through QUIC's flow control. Dropping the
//! sink ends the stream; dropping the stream closes the sink.

use crate::{codec, error::Refusal, message::StreamMessage};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;
use std::{
    fmt,
    pin::Pin,
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

enum Target<T> {
    Local(mpsc::Sender<Item<T>>),
    Wire {
        sender: mpsc::Sender<Item<Bytes>>,
        encode: fn(&T) -> Result<Vec<u8>, codec::EncodeError>,
    },
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
            Target::Wire { sender, encode } => {
                let item = match encode(&item) {
                    Ok(bytes) => Ok(bytes.into()),
                    Err(error) => Err(StreamError::Decode { detail: error.to_string() }),
                };
                sender.send(item).await.map_err(|_| Closed)
            }
        }
    }

    /// Ends the stream with a reason.
    pub async fn fail(self, refusal: Refusal) {
        let error = StreamError::Refused { reason: refusal.reason };
        // The reader may be gone: then there is nobody to tell.
        let _ = match self.0 {
            Target::Local(sender) => sender.send(Err(error)).await.is_ok(),
            Target::Wire { sender, .. } => sender.send(Err(error)).await.is_ok(),
        };
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Target::Local(sender) => sender.is_closed(),
            Target::Wire { sender, .. } => sender.is_closed(),
        }
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        match &self.0 {
            Target::Local(sender) => sender.closed().await,
            Target::Wire { sender, .. } => sender.closed().await,
        }
    }
}

pub(crate) fn channel<T>() -> (ItemSink<T>, Items<T>) {
    let (sender, items) = mpsc::channel(ITEMS_IN_FLIGHT);
    (ItemSink(Target::Local(sender)), items)
}

pub(crate) fn encoding_channel<T: Serialize>() -> (ItemSink<T>, Items<Bytes>) {
    let (sender, items) = mpsc::channel(ITEMS_IN_FLIGHT);
    (ItemSink(Target::Wire { sender, encode: |item| codec::encode(item) }), items)
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
