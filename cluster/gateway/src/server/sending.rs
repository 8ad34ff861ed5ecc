//! Answers on their way out: each keeps its connection busy, and tells when it is not read.

use super::connection::Connection;
use crate::answer::{Body, Paced};
use crate::budget::Share;
use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use impresario_runtime::clock;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A request that is being answered; its connection is not idle until this is dropped.
pub struct Working {
    connection: Arc<Connection>,
    done: bool,
}

impl Working {
    /// A request came.
    pub fn begin(connection: &Arc<Connection>) -> Self {
        connection.ask(clock::now());
        Self { connection: Arc::clone(connection), done: false }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.connection.answered(!self.done, clock::now());
    }
}

/// An answer's body that is watched until it has been sent.
pub struct Sending {
    body: Body,
    number: u64,
    working: Working,
    _share: Option<Share>,
}

impl Sending {
    /// Watches an answer. `bodiless` says that only its header is sent.
    pub fn watch(
        answer: Response<Body>,
        mut working: Working,
        share: Option<Share>,
        bodiless: bool,
    ) -> Response<Self> {
        working.done = bodiless;
        let paced = answer.extensions().get::<Paced>().is_some();
        let no_stream = paced || answer.body().size_hint().exact().is_some();
        let number = working.connection.sends(no_stream);
        answer.map(|body| Self { body, number, working, _share: share })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.working.done |= self.body.is_end_stream();
        self.working.connection.sent(self.number);
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let waits = match &polled {
            Poll::Ready(Some(frame)) => {
                let data = frame.as_ref().ok().and_then(|frame| frame.data_ref());
                Some(data.map_or(0, |data| data.len() as u64))
            }
            // The source has nothing, or nothing more: whoever reads has read it all.
            Poll::Pending | Poll::Ready(None) => None,
        };
        self.working.done |= matches!(polled, Poll::Ready(None));
        self.working.connection.sending(self.number, waits, clock::now());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
