//! A session without its connection: bytes go in and come out, and the ends of streams are read and written between.
//!
//! Nothing here waits, reads a clock or touches a socket. The [`Driver`](crate::Driver) moves the bytes and keeps the
//! deadlines, the ends of streams call what stands in `streams`, and each leaves its waker where the other finds it.
//!
//! ```text
//!   bytes ─> receive ─> Slot.received ─> poll_read        may_receive() is false while too much lies here
//!   bytes <─ fill <──── Slot.unsent   <─ poll_write       Pending while too much lies here
//!              └─────── control: replies, resets, pings, GOAWAY; before all data
//! ```
//!
//! A slot is there until both directions of its stream are closed, or it is reset, *and* nobody here holds an end of it.

mod receiving;
mod sending;
mod slot;
mod streams;

use crate::codes::{GoAwayStatus, ResetStatus};
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::error::SessionError;
use crate::frame::Control;
use crate::limits::Limits;
use slot::Slot;
use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Waker};

/// Answers that wait to be sent: at that many, nothing more is read that may want one.
const MOST_CONTROL_BYTES: usize = 64 << 10;

/// Which end of the session this is. A client's streams have odd numbers, a server's even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// The state of a session.
pub(crate) struct Connection {
    role: Role,
    limits: Limits,
    decoder: Decoder,
    encoder: Encoder,
    slots: BTreeMap<u32, Slot>,
    /// The highest number of a stream that the peer opened.
    last_in: u32,
    /// The stream that never was for which a frame came last: it is told once, and not for each piece of a frame.
    last_stray: u32,
    /// The number of the next stream that is opened here.
    next_out: u32,
    /// Streams that the peer opened and nobody took yet.
    waiting: VecDeque<u32>,
    /// Whether somebody takes the streams that the peer opens.
    takes_in: bool,
    /// Streams with something to send, in turn.
    ready: VecDeque<u32>,
    /// Control frames to be sent before any data.
    control: Vec<u8>,
    /// Of all slots.
    received_bytes: usize,
    /// How many slots hold all that they may.
    full: usize,
    /// Of all slots.
    unsent_bytes: usize,
    /// Whether somebody waits for `unsent_bytes` to become less.
    is_starved: bool,
    /// How many streams the peer takes.
    peer_streams: usize,
    /// The peer opens and takes no more streams.
    peer_away: bool,
    /// This end was told to close.
    is_closing: bool,
    /// Those who may still open or take streams.
    handles: usize,
    /// Why it is over.
    end: Option<SessionError>,
    driver: Option<Waker>,
    taker: Option<Waker>,
}

impl Connection {
    pub(crate) fn new(role: Role, limits: Limits) -> Self {
        Self {
            role,
            limits,
            decoder: Decoder::new(limits),
            encoder: Encoder::new(),
            slots: BTreeMap::new(),
            last_in: 0,
            last_stray: 0,
            next_out: if role == Role::Client { 1 } else { 2 },
            waiting: VecDeque::new(),
            takes_in: role == Role::Server,
            ready: VecDeque::new(),
            control: Vec::new(),
            received_bytes: 0,
            full: 0,
            unsent_bytes: 0,
            is_starved: false,
            peer_streams: usize::MAX,
            peer_away: false,
            is_closing: false,
            handles: 0,
            end: None,
            driver: None,
            taker: None,
        }
    }

    /// Whether another frame may be read: so much lies here already, or so many answers wait to be sent, that the
    /// peer has to wait otherwise.
    pub(crate) fn may_receive(&self) -> bool {
        self.end.is_none()
            && self.full == 0
            && self.received_bytes < self.limits.session_bytes.max(1)
            && self.control.len() < MOST_CONTROL_BYTES
    }

    /// Why it is over, if it is.
    pub(crate) fn end(&self) -> Option<&SessionError> {
        self.end.as_ref()
    }

    /// Whether it was told to close and has not come to its end.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing && self.end.is_none()
    }

    /// Opens and takes no more streams; when the open ones have ended, it is over.
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
        self.refuse_the_waiting();
        wake(&mut self.driver);
    }

    /// Counts those who may open or take streams. Without them and without streams it is over.
    pub(crate) fn hold(&mut self) {
        self.handles += 1;
    }

    /// Takes one of them off.
    pub(crate) fn let_go(&mut self) {
        self.handles -= 1;
        wake(&mut self.driver);
    }

    /// Nobody takes the streams that the peer opens any more.
    pub(crate) fn take_no_more(&mut self) {
        self.takes_in = false;
        self.refuse_the_waiting();
    }

    fn refuse_the_waiting(&mut self) {
        while let Some(id) = self.waiting.pop_front() {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.is_waiting = false;
            }
            self.reset(id, ResetStatus::RefusedStream);
        }
        wake(&mut self.taker);
    }

    /// Whoever moves the bytes is woken when there is something to do for them.
    pub(crate) fn register_driver(&mut self, cx: &Context<'_>) {
        register(&mut self.driver, cx);
    }

    /// Ends it, if no stream is open and none will be.
    pub(crate) fn conclude(&mut self) {
        let none_will_be = self.is_closing || self.peer_away || self.handles == 0;
        if self.end.is_none() && none_will_be && self.open_streams() == 0 {
            self.fail(SessionError::Closed);
        }
    }

    /// The peer has closed the transport.
    pub(crate) fn peer_closed(&mut self) {
        let streams = self.open_streams();
        let is_whole = streams == 0 && self.decoder.is_between_frames();
        self.over(if is_whole {
            SessionError::Closed
        } else {
            SessionError::Truncated { streams }
        });
    }

    fn open_streams(&self) -> usize {
        self.slots.values().filter(|slot| !slot.is_closed()).count()
    }

    /// Ends it, and says so to the peer.
    pub(crate) fn fail(&mut self, error: SessionError) {
        if self.end.is_some() {
            return;
        }
        let status = match error {
            SessionError::Violation(_) => GoAwayStatus::ProtocolError,
            SessionError::Compressor => GoAwayStatus::InternalError,
            _ => GoAwayStatus::Ok,
        };
        let farewell = Control::GoAway { last: self.last_in, status };
        // It has no headers, which alone can fail.
        let _ = self.encoder.control(&farewell, &mut self.control);
        self.over(error);
    }

    /// Ends it. What was received can still be read, what was not sent is gone.
    pub(crate) fn over(&mut self, error: SessionError) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(error);
        self.ready.clear();
        self.unsent_bytes = 0;
        for id in std::mem::take(&mut self.waiting) {
            self.forget_received(id);
            self.slots.remove(&id);
        }
        // Those whose end was still to be sent have nobody here who would let go of them.
        self.slots.retain(|_, slot| slot.is_held());
        for slot in self.slots.values_mut() {
            slot.unsent = VecDeque::new();
            slot.wake();
        }
        wake(&mut self.taker);
        wake(&mut self.driver);
    }

    /// Sends a control frame, unless it is over.
    fn say(&mut self, control: &Control) {
        if self.end.is_some() {
            return;
        }
        match self.encoder.control(control, &mut self.control) {
            Ok(()) => wake(&mut self.driver),
            Err(error) => self.fail(error),
        }
    }

    /// Resets a stream, unless it is closed already.
    pub(crate) fn reset(&mut self, id: u32, status: ResetStatus) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if !slot.is_closed() && self.end.is_none() {
            self.unsent_bytes -= slot.unsent.len();
            slot.reset_by(status);
            self.say(&Control::Reset { id, status });
        }
        self.settle(id);
    }

    /// Lets go of a slot that nobody needs. A stream that nobody here reads or writes any more, and that the peer still
    /// sends on, is reset: it would be open to the end of the session else.
    fn settle(&mut self, id: u32) {
        let Some(slot) = self.slots.get(&id) else { return };
        if slot.is_held() {
            return;
        }
        if slot.is_closed() || self.end.is_some() {
            self.forget_received(id);
            self.slots.remove(&id);
            wake(&mut self.driver); // it may have been the last one
        } else if slot.local_done {
            self.reset(id, ResetStatus::Cancel);
        }
    }

    /// Throws away what a stream has received.
    fn forget_received(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        self.received_bytes -= slot.received.len();
        if slot.received.len() >= self.limits.stream_bytes.max(1) {
            self.full -= 1;
        }
        slot.received = VecDeque::new();
    }

    /// Bytes that all its queues have room for.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let slots =
            self.slots.values().map(|slot| slot.received.capacity() + slot.unsent.capacity());
        slots.sum::<usize>() + self.control.capacity() + self.decoder.held_bytes()
    }

    /// Streams that it keeps something about.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }
}

/// Wakes whoever waits there.
fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Whoever polls is woken from there on.
fn register(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests;
