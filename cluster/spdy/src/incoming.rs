//! The streams that the peer opens.

use crate::codes::ResetStatus;
use crate::connection::Connection;
use crate::error::StreamError;
use crate::headers::Headers;
use crate::stream::Stream;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The streams that the peer opens, in order. Dropped, it refuses those that nobody took and all that follow.
pub struct Incoming(Arc<Mutex<Connection>>);

/// A stream that the peer wants to open. Dropped, it is refused.
#[derive(Debug)]
pub struct Request(Option<Stream>);

impl Incoming {
    pub(crate) fn new(connection: Arc<Mutex<Connection>>) -> Self {
        connection.lock().hold();
        Self(connection)
    }

    /// The next one; `None` when the peer will open no more, since one of the two ends closes the session or it is over.
    pub async fn next(&mut self) -> Option<Request> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        let taken = self.0.lock().poll_take(cx);
        taken.map(|taken| {
            let (id, headers) = taken?;
            Some(Request(Some(Stream::new(self.0.clone(), id, headers))))
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut connection = self.0.lock();
        connection.take_no_more();
        connection.let_go();
    }
}

impl Request {
    /// What the peer said of it, as `streamtype`, `port` and `requestid`.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        static NONE: Headers = Headers::new();
        self.0.as_ref().map_or(&NONE, Stream::headers)
    }

    /// Replies. Nothing can be sent before, and `kubectl` waits for it.
    pub fn accept(mut self, headers: Headers) -> Result<Stream, StreamError> {
        // It is there until `self` is dropped.
        let Some(stream) = self.0.take() else { return Err(StreamError::Finished) };
        stream.accept(headers)?;
        Ok(stream)
    }

    /// Refuses it, with REFUSED_STREAM.
    pub fn refuse(self) {}
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset(ResetStatus::RefusedStream);
        }
    }
}
