//! What the peer's frames do.

use super::{Connection, Role, Slot, wake};
use crate::codes::ResetStatus;
use crate::error::{SessionError, Violation};
use crate::frame::{Control, MAX_CONCURRENT_STREAMS, Received, Setting};
use crate::headers::Headers;

impl Connection {
    /// Takes what has arrived, as far as it may; what is left of `input` has to be given again.
    pub(crate) fn receive(&mut self, input: &mut &[u8]) {
        while self.may_receive() {
            let done = match self.decoder.next(input) {
                Ok(None) => return,
                Ok(Some(received)) => self.take(received),
                Err(violation) => Err(violation),
            };
            if let Err(violation) = done {
                self.fail(SessionError::Violation(violation));
            }
        }
    }

    fn take(&mut self, received: Received<'_>) -> Result<(), Violation> {
        match received {
            Received::Data { id, piece, fin } => self.data(id, piece, fin),
            Received::Control(control) => return self.control(control),
            Received::Unknown => {}
        }
        Ok(())
    }

    fn control(&mut self, control: Control) -> Result<(), Violation> {
        match control {
            Control::SynStream { id, fin, unidirectional, headers } => {
                return self.opened(id, fin, unidirectional, headers);
            }
            Control::SynReply { id, fin, headers } => self.replied(id, fin, headers),
            Control::Reset { id, status } => self.was_reset(id, status),
            Control::Settings(settings) => self.settings(&settings),
            Control::Ping { id } => {
                // Those of this end's parity would be answers, and this end asks none.
                if self.is_of_peer(id) {
                    self.say(&Control::Ping { id });
                }
            }
            Control::GoAway { last, .. } => self.goes_away(last),
            Control::Headers { id, fin, .. } => self.data(id, &[], fin),
            // There are no windows: see the crate's documentation.
            Control::WindowUpdate { .. } => {}
        }
        Ok(())
    }

    /// Whether a number is one that the peer gives.
    fn is_of_peer(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Server)
    }

    /// Whether a stream was ever opened.
    fn ever_was(&self, id: u32) -> bool {
        if self.is_of_peer(id) { id <= self.last_in } else { id < self.next_out }
    }

    /// A frame came for a stream that there is not.
    fn strays(&mut self, id: u32) {
        if !self.ever_was(id) && self.last_stray != id {
            self.last_stray = id;
            self.say(&Control::Reset { id, status: ResetStatus::InvalidStream });
        }
    }

    fn opened(
        &mut self,
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), Violation> {
        if !self.is_of_peer(id) {
            return Err(Violation::Parity { id });
        }
        if id <= self.last_in {
            return Err(Violation::StreamGoesBack { id, last: self.last_in });
        }
        self.last_in = id;
        let is_refused = !self.takes_in
            || self.is_closing
            || self.peer_away
            || self.slots.len() >= self.limits.streams;
        if is_refused {
            self.say(&Control::Reset { id, status: ResetStatus::RefusedStream });
            return Ok(());
        }
        let slot = Slot {
            headers: Some(headers),
            is_waiting: true,
            remote_done: fin,
            is_finished: unidirectional,
            local_done: unidirectional,
            ..Slot::default()
        };
        self.slots.insert(id, slot);
        self.waiting.push_back(id);
        wake(&mut self.taker);
        Ok(())
    }

    fn data(&mut self, id: u32, piece: &[u8], fin: bool) {
        let Some(slot) = self.slots.get_mut(&id) else {
            self.strays(id);
            return;
        };
        if slot.reset.is_some() {
            return; // it was on its way
        }
        if slot.remote_done {
            self.reset(id, ResetStatus::StreamAlreadyClosed);
            return;
        }
        if slot.is_read() {
            let (most, before) = (self.limits.stream_bytes.max(1), slot.received.len());
            slot.received.extend(piece);
            self.received_bytes += piece.len();
            if before < most && slot.received.len() >= most {
                self.full += 1;
            }
        }
        slot.remote_done = fin;
        slot.wake_reader();
        self.settle(id);
    }

    fn replied(&mut self, id: u32, fin: bool, headers: Headers) {
        let Some(slot) = self.slots.get_mut(&id) else {
            self.strays(id);
            return;
        };
        if slot.reset.is_some() {
            return;
        }
        if !slot.awaits_reply {
            // A second reply, or one to a stream that the peer itself opened.
            self.reset(id, ResetStatus::StreamInUse);
            return;
        }
        slot.awaits_reply = false;
        slot.headers = Some(headers);
        slot.remote_done |= fin;
        slot.wake();
        self.settle(id);
    }

    fn was_reset(&mut self, id: u32, status: ResetStatus) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.reset.is_none() {
            self.unsent_bytes -= slot.unsent.len();
            slot.reset_by(status);
        }
        if slot.is_waiting {
            slot.is_waiting = false;
            self.waiting.retain(|one| *one != id);
        }
        self.settle(id);
    }

    fn settings(&mut self, settings: &[Setting]) {
        for setting in settings {
            if setting.id == MAX_CONCURRENT_STREAMS {
                self.peer_streams = setting.value as usize;
            }
        }
    }

    /// The peer takes no streams above `last`, and opens none.
    fn goes_away(&mut self, last: u32) {
        self.peer_away = true;
        let is_lost = |id: &u32| !self.is_of_peer(*id) && *id > last;
        let lost: Vec<u32> = self.slots.keys().copied().filter(|id| is_lost(id)).collect();
        for id in lost {
            self.was_reset(id, ResetStatus::RefusedStream);
        }
    }
}
