//! What those who hold the ends of streams do with them.

use super::slot::{Slot, trim};
use super::{Connection, register, wake};
use crate::codes::ResetStatus;
use crate::error::{OpenError, StreamError};
use crate::frame::{Control, STREAM_BITS};
use crate::headers::Headers;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

impl Connection {
    /// Opens a stream. Its ends are the caller's to let go of.
    pub(crate) fn open(&mut self, headers: Headers) -> Result<u32, OpenError> {
        if let Some(end) = &self.end {
            return Err(end.clone().into());
        }
        let id = self.next_out;
        if self.is_closing || self.peer_away || id > STREAM_BITS {
            return Err(OpenError::GoingAway);
        }
        let open = self.slots.len();
        let of_ours = self.slots.keys().filter(|one| **one % 2 == id % 2).count();
        if open >= self.limits.streams || of_ours >= self.peer_streams {
            return Err(OpenError::TooMany { open });
        }
        headers.within(self.limits.header_bytes(), self.limits.header_pairs)?;
        self.next_out += 2;
        let slot =
            Slot { awaits_reply: true, has_reader: true, has_writer: true, ..Slot::default() };
        self.slots.insert(id, slot);
        self.say(&Control::SynStream { id, fin: false, unidirectional: false, headers });
        Ok(id)
    }

    /// The headers of the peer's reply to a stream that was opened here.
    pub(crate) fn poll_reply(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<Headers, OpenError>> {
        let end = self.end.clone();
        let Some(slot) = self.slots.get_mut(&id) else {
            return Poll::Ready(Err(OpenError::GoingAway));
        };
        if let Some(headers) = slot.headers.take() {
            return Poll::Ready(Ok(headers));
        }
        if let Some(status) = slot.reset {
            return Poll::Ready(Err(OpenError::Refused { status }));
        }
        if let Some(end) = end {
            return Poll::Ready(Err(end.into()));
        }
        register(&mut slot.reader, cx);
        Poll::Pending
    }

    /// The next stream that the peer opened; `None` when it opens no more. Its ends are the caller's to let go of.
    pub(crate) fn poll_take(&mut self, cx: &Context<'_>) -> Poll<Option<(u32, Headers)>> {
        while let Some(id) = self.waiting.pop_front() {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.is_waiting = false;
                (slot.has_reader, slot.has_writer) = (true, true);
                return Poll::Ready(Some((id, slot.headers.take().unwrap_or_default())));
            }
        }
        if self.end.is_some() || self.is_closing || self.peer_away {
            return Poll::Ready(None);
        }
        register(&mut self.taker, cx);
        Poll::Pending
    }

    /// Replies to a stream that the peer opened.
    pub(crate) fn accept(&mut self, id: u32, headers: Headers) -> Result<(), StreamError> {
        if let Err(error) = headers.within(self.limits.header_bytes(), self.limits.header_pairs) {
            self.reset(id, ResetStatus::InternalError);
            return Err(error.into());
        }
        self.is_usable(id)?;
        // One that goes one way only has no reply (draft, 2.3.6).
        if self.slots.get(&id).is_some_and(|slot| !slot.local_done) {
            self.say(&Control::SynReply { id, fin: false, headers });
        }
        Ok(())
    }

    /// Whether something can still go to the peer on it.
    fn is_usable(&self, id: u32) -> Result<(), StreamError> {
        if let Some(status) = self.slots.get(&id).and_then(|slot| slot.reset) {
            return Err(StreamError::Reset { status });
        }
        match &self.end {
            Some(end) => Err(end.clone().into()),
            None => Ok(()),
        }
    }

    /// Reads what has come. What came before a reset or the session's end is read before that is told.
    pub(crate) fn poll_read(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let may_receive = self.may_receive();
        let usable = self.is_usable(id);
        let Some(slot) = self.slots.get_mut(&id) else { return Poll::Ready(usable) };
        let before = slot.received.len();
        if before == 0 {
            if slot.remote_done {
                return Poll::Ready(Ok(()));
            }
            usable?;
            register(&mut slot.reader, cx);
            return Poll::Pending;
        }
        let length = before.min(buffer.remaining());
        let (first, second) = slot.received.as_slices();
        let from_first = length.min(first.len());
        buffer.put_slice(&first[..from_first]);
        buffer.put_slice(&second[..length - from_first]);
        slot.received.drain(..length);
        let after = slot.received.len();
        trim(&mut slot.received);
        let most = self.limits.stream_bytes.max(1);
        if before >= most && after < most {
            self.full -= 1;
        }
        self.received_bytes -= length;
        if !may_receive && self.may_receive() {
            wake(&mut self.driver);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes some of `bytes` to be sent.
    pub(crate) fn poll_write(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        self.is_usable(id)?;
        let Some(slot) = self.slots.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::Finished));
        };
        if slot.is_finished {
            return Poll::Ready(Err(StreamError::Finished));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let of_stream = self.limits.stream_send_bytes.max(1).saturating_sub(slot.unsent.len());
        let of_session = self.limits.session_send_bytes.max(1).saturating_sub(self.unsent_bytes);
        let length = bytes.len().min(of_stream).min(of_session);
        if length == 0 {
            self.is_starved |= of_session == 0;
            register(&mut slot.writer, cx);
            return Poll::Pending;
        }
        slot.unsent.extend(&bytes[..length]);
        self.unsent_bytes += length;
        self.queue(id);
        Poll::Ready(Ok(length))
    }

    /// Waits until what was written has been handed to the transport.
    pub(crate) fn poll_flush(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        self.poll_sent(id, cx, |slot| slot.unsent.is_empty())
    }

    /// Waits until the end of the stream has been handed to the transport.
    pub(crate) fn poll_finished(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        self.poll_sent(id, cx, |slot| slot.local_done)
    }

    fn poll_sent(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        is_sent: impl Fn(&Slot) -> bool,
    ) -> Poll<Result<(), StreamError>> {
        let usable = self.is_usable(id);
        let Some(slot) = self.slots.get_mut(&id) else { return Poll::Ready(usable) };
        if slot.local_done {
            return Poll::Ready(Ok(()));
        }
        usable?;
        if is_sent(slot) {
            return Poll::Ready(Ok(()));
        }
        register(&mut slot.writer, cx);
        Poll::Pending
    }

    /// Says that nothing more is written here.
    pub(crate) fn finish(&mut self, id: u32) {
        let is_over = self.end.is_some();
        if let Some(slot) = self.slots.get_mut(&id)
            && !slot.is_finished
            && !slot.is_closed()
            && !is_over
        {
            slot.is_finished = true;
            self.queue(id);
        }
    }

    /// Nobody reads it any more: what comes is thrown away.
    pub(crate) fn drop_reader(&mut self, id: u32) {
        let may_receive = self.may_receive();
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.has_reader = false;
            slot.reader = None;
        }
        self.forget_received(id);
        self.settle(id);
        if !may_receive && self.may_receive() {
            wake(&mut self.driver);
        }
    }

    /// Nobody writes to it any more. Without [`finish`](Self::finish) it is reset: the peer must not take what
    /// was broken off for the whole.
    pub(crate) fn drop_writer(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.has_writer = false;
        slot.writer = None;
        if slot.is_finished {
            self.settle(id);
        } else {
            self.reset(id, ResetStatus::Cancel);
        }
    }
}
