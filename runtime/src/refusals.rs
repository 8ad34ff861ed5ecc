//! Refusals, counted by who was refused, why, and what; each kind is logged once, further ones are only counted.
//!
//! So an operator sees that something is wrong and a flood of refusals does not become a flood of log lines.

use crate::{name::NodeName, pki::PeerRole};
use parking_lot::Mutex;
use std::{collections::HashMap, fmt, net::SocketAddr};

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// The gate does not permit it.
    Gate,
    /// More bytes than its budget would be held for the peer.
    Bytes,
    /// More asks than its budget would be open.
    Asks,
    /// More death watches than its budget would be kept.
    Watches,
    /// An answer found no room: the peer does not take those that it has.
    Reply,
    /// A tell was not delivered; its sender was told.
    Undelivered,
    /// A tell of ours was not delivered at the peer.
    Lost,
    /// A tell of ours waited for a peer that could not be reached.
    Unreached,
    /// It has no certificate of this cluster, or does not speak our protocol.
    Stranger,
    /// Its token was not good.
    Join,
    /// Too many connections are being made.
    Handshakes,
    /// Too many connections stand.
    Connections,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gate => "the gate does not permit it",
            Self::Bytes => "its budget of bytes is used up",
            Self::Asks => "its budget of open asks is used up",
            Self::Watches => "its budget of watches is used up",
            Self::Reply => "an answer found no room in its budget of bytes",
            Self::Undelivered => "a tell was not delivered",
            Self::Lost => "a tell of ours was not delivered there",
            Self::Unreached => "a tell of ours waited for it, and it could not be reached",
            Self::Stranger => "it is none of the cluster's",
            Self::Join => "it may not join",
            Self::Handshakes => "too many connections are being made",
            Self::Connections => "too many connections stand",
        })
    }
}

/// How often one kind of thing was refused since the node started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusalCount {
    /// The role of those refused: `control`, `node`, `guest`, `client`, `admin`, or `stranger` before it is known.
    pub role: &'static str,
    /// Why.
    pub cause: Cause,
    /// The name of the message, or what of the runtime's own it was.
    pub message: &'static str,
    /// How often.
    pub count: u64,
}

/// The refusals of a node.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<(&'static str, Cause, &'static str), u64>>);

/// The role of who has not said who it is.
pub(crate) const STRANGER: &str = "stranger";

impl Refusals {
    /// Counts one; the first of a kind is logged.
    pub(crate) fn count(
        &self,
        role: &'static str,
        cause: Cause,
        message: &'static str,
        peer: &NodeName,
    ) {
        if self.add(role, cause, message, 1) {
            tracing::warn!(role, %cause, message, %peer, "refused; further ones are only counted");
        }
    }

    /// Counts one of somebody who is known by address alone.
    pub(crate) fn count_stranger(&self, cause: Cause, message: &'static str, from: SocketAddr) {
        if self.add(STRANGER, cause, message, 1) {
            tracing::warn!(%cause, message, %from, "refused; further ones are only counted");
        }
    }

    /// Adds to a count; `true` for the first of its kind. The kinds are as many as the program's messages.
    pub(crate) fn add(
        &self,
        role: &'static str,
        cause: Cause,
        message: &'static str,
        more: u64,
    ) -> bool {
        let mut counts = self.0.lock();
        let count = counts.entry((role, cause, message)).or_default();
        let first = *count == 0;
        *count = count.saturating_add(more);
        first
    }

    /// All counts, in order.
    pub(crate) fn all(&self) -> Vec<RefusalCount> {
        let counts = self.0.lock();
        let mut all: Vec<_> = counts
            .iter()
            .map(|(&(role, cause, message), &count)| RefusalCount { role, cause, message, count })
            .collect();
        all.sort();
        all
    }
}

impl PeerRole {
    /// The role in a word, for counters and logs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Node => "node",
            Self::Guest { .. } => "guest",
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_and_only_its_first_is_news() {
        let refusals = Refusals::default();
        assert!(refusals.add("guest", Cause::Gate, "a.B", 1));
        assert!(!refusals.add("guest", Cause::Gate, "a.B", 2));
        assert!(refusals.add("node", Cause::Gate, "a.B", 1));
        let counts: Vec<_> = refusals.all().into_iter().map(|one| (one.role, one.count)).collect();
        assert_eq!(counts, [("guest", 3), ("node", 1)]);
    }
}
