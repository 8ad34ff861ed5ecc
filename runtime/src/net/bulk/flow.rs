//! Flow control of item streams: how far the sender may be ahead of whoever takes the items.
//!
//! QUIC's windows are not used for this. One that is full stops all that the connection carries, heartbeats too, so every
//! QUIC stream is read as its bytes arrive; what is read and not yet taken is bounded by [`ITEM_WINDOW_BYTES`] and one
//! item, and the asker says what it has taken with [`Taken`](super::super::frame::Taken).

use crate::budget::{Hold, Holds};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// How far the sender of items may be ahead of their taker: both ends must agree, it is part of the protocol.
pub(crate) const ITEM_WINDOW_BYTES: usize = 512 << 10;
/// What an item counts besides its bytes, so that empty ones are bounded too. Part of the protocol as well.
const ITEM_OVERHEAD_BYTES: usize = 64;
/// Items that fit into the window at most.
pub(super) const ITEMS_AHEAD: usize = ITEM_WINDOW_BYTES / ITEM_OVERHEAD_BYTES;
/// After how much is taken the sender is told.
const TELL_AFTER_BYTES: usize = ITEM_WINDOW_BYTES / 4;

/// What an item of so many bytes counts.
pub(crate) fn cost(bytes: usize) -> usize {
    bytes.saturating_add(ITEM_OVERHEAD_BYTES)
}

/// The sender's count of what is under way.
#[derive(Default)]
pub(super) struct Ahead {
    bytes: AtomicUsize,
    taken: Notify,
}

impl Ahead {
    /// Waits until an item may be sent.
    pub(super) async fn room(&self) {
        loop {
            // One waits, in `items`; a permit that is left over only makes it look once more.
            let taken = self.taken.notified();
            if self.bytes.load(Ordering::Acquire) < ITEM_WINDOW_BYTES {
                return;
            }
            taken.await;
        }
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(cost(bytes), Ordering::AcqRel);
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < ITEM_WINDOW_BYTES
    }

    /// The asker has taken so much; more than was sent is not believed.
    pub(super) fn taken(&self, bytes: usize) {
        let fewer = |ahead: usize| Some(ahead.saturating_sub(bytes));
        // Always an update.
        let _ = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
        self.taken.notify_one();
    }
}

/// The asker's shelf of items that have arrived and are not taken yet.
#[derive(Default)]
pub(super) struct Shelf {
    held: AtomicUsize,
    taken: AtomicUsize,
    due: Notify,
}

impl Shelf {
    /// Puts an item on the shelf; `None` when the sender did not keep to the window.
    pub(super) fn put(self: &Arc<Self>, bytes: usize) -> Option<Hold> {
        if self.held.load(Ordering::Acquire) >= ITEM_WINDOW_BYTES {
            return None;
        }
        let cost = cost(bytes);
        self.held.fetch_add(cost, Ordering::AcqRel);
        Some(Hold::new(cost, self.clone()))
    }

    /// Waits until the sender is to be told, and gives what was taken since.
    pub(super) async fn due(&self) -> usize {
        loop {
            let due = self.due.notified();
            if self.taken.load(Ordering::Acquire) >= TELL_AFTER_BYTES {
                return self.taken.swap(0, Ordering::AcqRel);
            }
            due.await;
        }
    }
}

impl Holds for Shelf {
    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        if self.taken.fetch_add(bytes, Ordering::AcqRel) + bytes >= TELL_AFTER_BYTES {
            self.due.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_sender_stops_at_the_window_and_goes_on_when_items_are_taken() {
        let (ahead, shelf) = (Ahead::default(), Arc::new(Shelf::default()));
        let mut held = Vec::new();
        while ahead.has_room() {
            ahead.sent(60 << 10);
            held.push(shelf.put(60 << 10).unwrap());
        }
        assert_eq!(held.len(), 9);
        assert!(ahead.room().now_or_never().is_none());
        assert!(shelf.put(1).is_none(), "beyond the window nothing is believed");
        held.pop();
        assert!(shelf.due().now_or_never().is_none(), "one item is not worth a frame");
        held.truncate(6);
        ahead.taken(shelf.due().await);
        ahead.room().await;
        held.clear();
        ahead.taken(shelf.due().await);
        ahead.taken(usize::MAX);
        ahead.room().await;
        assert!(shelf.put(60 << 10).is_some());
    }
}
