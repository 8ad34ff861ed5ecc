//! What goes to the peer: answers first, then the data of all streams in turn.

use super::Connection;
use super::slot::trim;
use crate::encode::data_head;

/// Of one data frame: as much as one stream sends before the next one's turn.
const FRAME_BYTES: usize = 16 << 10;

/// What is handed out at once, give or take a frame.
const BATCH_BYTES: usize = 64 << 10;

impl Connection {
    /// Puts what has to be sent into `out`, up to a batch.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.control);
        while out.len() < BATCH_BYTES
            && let Some(id) = self.ready.pop_front()
        {
            self.fill_from(id, out);
        }
        if self.is_starved && self.unsent_bytes < self.limits.session_send_bytes.max(1) {
            self.is_starved = false;
            for slot in self.slots.values_mut() {
                slot.wake_writer();
            }
        }
    }

    /// One data frame of a stream.
    fn fill_from(&mut self, id: u32, out: &mut Vec<u8>) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.is_queued = false;
        if slot.reset.is_some() || slot.local_done {
            return;
        }
        let length = slot.unsent.len().min(FRAME_BYTES);
        let fin = slot.is_finished && length == slot.unsent.len();
        if length == 0 && !fin {
            return;
        }
        data_head(id, fin, length, out);
        out.extend(slot.unsent.drain(..length));
        self.unsent_bytes -= length;
        slot.local_done = fin;
        trim(&mut slot.unsent);
        if !slot.unsent.is_empty() {
            slot.is_queued = true;
            self.ready.push_back(id);
        }
        slot.wake_writer();
        if fin {
            self.settle(id);
        }
    }

    /// A stream has something to send.
    pub(super) fn queue(&mut self, id: u32) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !slot.is_queued
        {
            slot.is_queued = true;
            self.ready.push_back(id);
            super::wake(&mut self.driver);
        }
    }
}
