//! What lives on a node, and what waits for it: told to operators, decides nothing.
//!
//! actix says of a mailbox whether it is full and nothing else. So what enters is counted at the door, and nothing waits
//! any more each time that the actor has found its mailbox empty.

use crate::name::ActorName;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// An actor of a node, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorUsage {
    /// Its name on its node.
    pub name: ActorName,
    /// The name of the role that it serves.
    pub role: &'static str,
    /// How often its supervisor started it again.
    pub restarts: u64,
    /// For how long it has been there since it was last started.
    pub up: Duration,
    /// What waits for it; nothing of one that is only registered, whose mailbox is another's.
    pub mailbox: Option<MailboxUsage>,
}

/// What waits in a mailbox, and how much may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailboxUsage {
    /// Messages that wait, and those that the actor has taken since it last found nothing there.
    pub messages: u64,
    /// Their bytes: as they came from other nodes; of this node's own, those of their types.
    pub bytes: u64,
    /// With so many messages, senders get `Overloaded`.
    pub limit_messages: u64,
    /// What so many of the largest messages have that other nodes may send.
    pub limit_bytes: u64,
}

/// Some of the actors of a node, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActorPage {
    /// Those of this page.
    pub actors: Vec<ActorUsage>,
    /// How many the node has in all.
    pub all: usize,
    /// Whether more come after these.
    pub more: bool,
}

#[derive(Debug, Default)]
struct Total {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Total {
    fn get(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }
}

/// All that ever entered a mailbox, and all of that which was taken.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    entered: Total,
    taken: Total,
}

impl Throughput {
    /// One of so many bytes is about to enter: counted before it does, so that it is not taken before it is counted.
    pub(crate) fn enters(&self, bytes: usize) {
        self.entered.messages.fetch_add(1, Ordering::AcqRel);
        self.entered.bytes.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// It did not.
    pub(crate) fn did_not_enter(&self, bytes: usize) {
        self.entered.messages.fetch_sub(1, Ordering::AcqRel);
        self.entered.bytes.fetch_sub(bytes as u64, Ordering::AcqRel);
    }

    /// All that has entered was taken. What enters at this very moment makes the actor look again.
    pub(crate) fn is_drained(&self) {
        let (messages, bytes) = self.entered.get();
        self.taken.messages.store(messages, Ordering::Release);
        self.taken.bytes.store(bytes, Ordering::Release);
    }

    /// The messages that wait, and their bytes.
    pub(crate) fn waits(&self) -> (u64, u64) {
        let (taken, entered) = (self.taken.get(), self.entered.get());
        (entered.0.saturating_sub(taken.0), entered.1.saturating_sub(taken.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_turned_away_does_not_wait() {
        let through = Throughput::default();
        for bytes in [10, 20, 30] {
            through.enters(bytes);
        }
        through.did_not_enter(20);
        assert_eq!(through.waits(), (2, 40));
        through.is_drained();
        through.enters(5);
        assert_eq!(through.waits(), (1, 5));
    }
}
