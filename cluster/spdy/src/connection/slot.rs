//! What a session knows of one stream.

use crate::codes::ResetStatus;
use crate::headers::Headers;
use std::collections::VecDeque;
use std::task::Waker;

/// A stream as seen from this end.
#[derive(Default)]
pub(super) struct Slot {
    /// Received and not read.
    pub(super) received: VecDeque<u8>,
    /// Written and not sent.
    pub(super) unsent: VecDeque<u8>,
    /// What the peer said with the stream or with its reply, until somebody takes it.
    pub(super) headers: Option<Headers>,
    /// It was opened here, and the peer has not replied.
    pub(super) awaits_reply: bool,
    /// The peer opened it, and nobody took it yet.
    pub(super) is_waiting: bool,
    /// Somebody here reads it, or may.
    pub(super) has_reader: bool,
    /// Somebody here writes to it, or may.
    pub(super) has_writer: bool,
    /// The peer sends nothing more.
    pub(super) remote_done: bool,
    /// Nothing more is written here.
    pub(super) is_finished: bool,
    /// The peer has been sent all, and that it was all.
    pub(super) local_done: bool,
    /// It stands in the queue of those that have something to send.
    pub(super) is_queued: bool,
    /// It was reset by one of the ends.
    pub(super) reset: Option<ResetStatus>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// What a queue keeps room for, however little is in it.
const LEAST_ROOM: usize = 1 << 10;

/// Gives back the room of a queue that was long: the bounds are those of what is in the queues, and the room must not be
/// much more than that.
pub(super) fn trim(queue: &mut VecDeque<u8>) {
    if queue.capacity() > LEAST_ROOM && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(queue.len() * 2);
    }
}

impl Slot {
    /// Whether nothing more comes or goes on it.
    pub(super) fn is_closed(&self) -> bool {
        self.reset.is_some() || self.remote_done && self.local_done
    }

    /// Whether somebody here has an end of it, or will.
    pub(super) fn is_held(&self) -> bool {
        self.is_waiting || self.has_reader || self.has_writer
    }

    /// Whether what comes is kept.
    pub(super) fn is_read(&self) -> bool {
        self.is_waiting || self.has_reader
    }

    pub(super) fn reset_by(&mut self, status: ResetStatus) {
        self.reset = Some(status);
        self.unsent = VecDeque::new();
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}
