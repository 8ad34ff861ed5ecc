//! Cutting a QUIC stream into frames.
//!
//! The buffer grows as bytes arrive, not as a length promises, and a length over the limit ends the stream.

use super::frame::BULK_HEAD_BYTES;
use crate::codec;
use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use serde::de::DeserializeOwned;
use std::time::Duration;
use thiserror::Error;

/// How much is read at a time.
const CHUNK_BYTES: usize = 64 << 10;

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
    #[error("a request took longer than {limit:?}")]
    Late { limit: Duration },
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

    /// The length of the next frame, as soon as it has arrived; the end of the stream is an error. Cancel safe.
    pub(crate) async fn length(&mut self) -> Result<usize, WireError> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<BULK_HEAD_BYTES>() {
                let length = u32::from_le_bytes(*head) as usize;
                if length > self.limit {
                    return Err(WireError::TooLarge { length, limit: self.limit });
                }
                return Ok(length);
            }
            match self.stream.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None => return Err(WireError::Torn),
            }
        }
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
        let Some(head) = self.buffer.first_chunk::<BULK_HEAD_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > self.limit {
            return Err(WireError::TooLarge { length, limit: self.limit });
        }
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
