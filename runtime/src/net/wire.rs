//! Cutting a QUIC stream into frames.
//!
//! The buffer grows as bytes arrive, or to a length that is held on the sender's account, never as a length merely
//! promises; a length over the limit ends the stream.

use super::frame::BULK_HEAD_BYTES;
use crate::{
    budget::{Account, Hold},
    codec,
};
use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use serde::de::DeserializeOwned;
use std::{sync::Arc, time::Duration};
use thiserror::Error;
use tokio::time::timeout;

/// How much is read at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// How much of a frame that has begun must come within a limit of time: its sender may be slow, but not stand still.
const PROGRESS_BYTES: usize = 16 << 10;

/// Why no frame came.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    #[error("{0}")]
    Read(#[from] quinn::ReadError),
    #[error("{0}")]
    Write(#[from] quinn::WriteError),
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLarge { length: usize, limit: usize },
    #[error("the stream ended within a frame")]
    Torn,
    #[error("nothing more of a frame came within {limit:?}")]
    Late { limit: Duration },
    #[error("there is no room for a frame of {length} bytes on its sender's account")]
    NoRoom { length: usize },
    #[error("{0}")]
    Decode(#[from] codec::DecodeError),
    #[error("{0}")]
    Encode(#[from] codec::EncodeError),
}

/// The receiving half of a stream.
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit }
    }

    /// The next frame, or `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(WireError::Torn),
            }
        }
    }

    /// Reads until so many bytes are in the buffer; the end of the stream is an error. Each `PROGRESS_BYTES` must come
    /// within the limit. Cancel safe.
    async fn fill(&mut self, bytes: usize, limit: Duration) -> Result<(), WireError> {
        while self.buffer.len() < bytes {
            let step = bytes.min(self.buffer.len() + PROGRESS_BYTES);
            let progress = async {
                while self.buffer.len() < step {
                    match self.stream.read_chunk(CHUNK_BYTES, true).await? {
                        Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                        None => return Err(WireError::Torn),
                    }
                }
                Ok(())
            };
            timeout(limit, progress).await.unwrap_or(Err(WireError::Late { limit }))?;
        }
        Ok(())
    }

    /// Waits until there is something of a frame; of a stream that ends or breaks before that, for ever. Cancel safe.
    pub(crate) async fn begun(&mut self) {
        while self.buffer.is_empty() {
            match self.stream.read_chunk(CHUNK_BYTES, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                // Who reads next is told.
                Ok(None) | Err(_) => return std::future::pending().await,
            }
        }
    }

    /// The length of the next frame, which must begin within the limit.
    pub(crate) async fn length(&mut self, limit: Duration) -> Result<usize, WireError> {
        self.fill(BULK_HEAD_BYTES, limit).await?;
        self.known_length()?.ok_or(WireError::Torn)
    }

    /// The first bytes of the next frame, at most so many, or all of it.
    pub(crate) async fn beginning(
        &mut self,
        most: usize,
        limit: Duration,
    ) -> Result<&[u8], WireError> {
        let end = BULK_HEAD_BYTES + self.length(limit).await?.min(most);
        self.fill(end, limit).await?;
        self.buffer.get(BULK_HEAD_BYTES..end).ok_or(WireError::Torn)
    }

    /// The rest of the next frame, for which there is room: its bytes are held on an account.
    pub(crate) async fn rest(&mut self, _: &Hold, limit: Duration) -> Result<Bytes, WireError> {
        let length = self.length(limit).await?;
        let end = BULK_HEAD_BYTES + length;
        // Exactly: a buffer that grows as it needs to may be twice as large.
        self.buffer.reserve(end.saturating_sub(self.buffer.len()));
        self.fill(end, limit).await?;
        self.buffered()?.ok_or(WireError::Torn)
    }

    /// The next frame, held on the account of who sends it before memory is taken for it; `None` at the end of the stream.
    ///
    /// It may begin whenever it likes, and must then go on.
    pub(crate) async fn next_held(
        &mut self,
        account: &Arc<Account>,
        besides: usize,
        limit: Duration,
    ) -> Result<Option<(Bytes, Hold)>, WireError> {
        if self.buffer.is_empty() {
            match self.stream.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None => return Ok(None),
            }
        }
        let length = self.length(limit).await?;
        let hold = account.take(length + besides).ok_or(WireError::NoRoom { length })?;
        Ok(Some((self.rest(&hold, limit).await?, hold)))
    }

    /// The length of the next frame, if it is in the buffer.
    fn known_length(&self) -> Result<Option<usize>, WireError> {
        let Some(head) = self.buffer.first_chunk::<BULK_HEAD_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > self.limit {
            return Err(WireError::TooLarge { length, limit: self.limit });
        }
        Ok(Some(length))
    }

    /// From now on frames are at most so large.
    pub(crate) fn limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Reads no more, and tells the sender so.
    pub(crate) fn stop(&mut self) {
        self.buffer = BytesMut::new();
        // Fails only on a stream that has ended already.
        let _ = self.stream.stop(VarInt::from_u32(2));
    }

    /// The next frame if it has arrived already.
    fn buffered(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(length) = self.known_length()? else { return Ok(None) };
        if self.buffer.len() < BULK_HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(BULK_HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether another whole frame lies in the buffer.
    pub(crate) fn has_another(&self) -> bool {
        self.buffer.first_chunk::<BULK_HEAD_BYTES>().is_some_and(|head| {
            self.buffer.len() >= BULK_HEAD_BYTES + u32::from_le_bytes(*head) as usize
        })
    }

    /// The next frame's value; the end of the stream is an error.
    pub(crate) async fn value<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        let frame = self.next().await?.ok_or(WireError::Torn)?;
        Ok(codec::decode(&frame)?)
    }
}

/// Writes a value behind its length.
pub(crate) async fn send_value<T: serde::Serialize>(
    stream: &mut SendStream,
    value: &T,
) -> Result<(), WireError> {
    Ok(stream.write_all(&super::frame::prefixed(value)?).await?)
}

/// Tells the reader that no more comes; it may be gone.
pub(crate) fn finish(mut stream: SendStream) {
    let _ = stream.finish();
}

/// Breaks a stream off, so that the other end does not take its end for a whole.
pub(crate) fn reset(mut stream: SendStream) {
    let _ = stream.reset(VarInt::from_u32(1));
}
