//! The fault hook: every frame that is sent or received, and every stream and dial, asks here first.
//!
//! Faults act below the runtime's promises, as a bad network would: a frame that is doubled or overtaken is recognised by
//! its sequence number at the receiver, so `tell` stays at most once and ordered. QUIC loses no bytes of a connection that
//! lives; a `drop` therefore loses the connection, with what is under way on it. A `cut` holds all that is sent or has
//! arrived (heartbeats too) and refuses dials, without a word to the other end. Without rules the hook is one atomic load.

use crate::name::NodeName;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::sync::watch;

/// Which way a frame goes, seen from the node that holds the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From us to the peer.
    Send,
    /// From the peer to us.
    Receive,
}

/// What happens to the frames between us and a peer. Probabilities are within 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRule {
    /// The peer; `None` is every node and control member, but not clients and admins, who must be able to heal.
    pub peer: Option<NodeName>,
    /// The direction.
    pub direction: Direction,
    /// How likely a frame is lost, and its connection with it.
    pub drop: f32,
    /// How long each frame is held back.
    pub delay: Duration,
    /// How likely a frame arrives twice.
    pub duplicate: f32,
    /// How likely a frame is overtaken by the next.
    pub reorder: f32,
    /// Nothing passes.
    pub cut: bool,
}

impl FaultRule {
    /// A rule that does nothing yet.
    #[must_use]
    pub fn new(peer: Option<NodeName>, direction: Direction) -> Self {
        Self {
            peer,
            direction,
            drop: 0.0,
            delay: Duration::ZERO,
            duplicate: 0.0,
            reorder: 0.0,
            cut: false,
        }
    }
}

/// What the hook does to one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fate {
    pub(crate) dropped: bool,
    pub(crate) doubled: bool,
    pub(crate) overtaken: bool,
    pub(crate) delay: Duration,
}

/// The fault rules of a node. Empty unless a test or the chaos actor fills it.
#[derive(Debug)]
pub struct FaultTable {
    active: AtomicBool,
    rules: RwLock<Vec<FaultRule>>,
    changes: watch::Sender<u64>,
}

impl Default for FaultTable {
    fn default() -> Self {
        Self {
            active: AtomicBool::new(false),
            rules: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl FaultTable {
    /// Adds a rule; it replaces one for the same peer and direction.
    pub fn set(&self, rule: FaultRule) {
        self.change(|rules| {
            rules.retain(|held| held.peer != rule.peer || held.direction != rule.direction);
            rules.push(rule);
        });
    }

    /// Replaces all rules.
    pub fn replace(&self, rules: Vec<FaultRule>) {
        self.change(|held| *held = rules);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.change(Vec::clear);
    }

    /// The rules that hold now.
    pub fn rules(&self) -> Vec<FaultRule> {
        self.rules.read().clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<FaultRule>)) {
        let mut rules = self.rules.write();
        change(&mut rules);
        self.active.store(!rules.is_empty(), Ordering::Release);
        drop(rules);
        self.changes.send_modify(|serial| *serial += 1);
    }

    /// The fate of one frame, with `draw` giving numbers within 0..1.
    ///
    /// A `healer` is a client or admin: a rule for everyone does not concern it.
    pub(crate) fn fate(
        &self,
        peer: &NodeName,
        healer: bool,
        direction: Direction,
        mut draw: impl FnMut() -> f32,
    ) -> Fate {
        if !self.active.load(Ordering::Acquire) {
            return Fate::default();
        }
        let mut fate = Fate::default();
        for rule in self.rules.read().iter().filter(|rule| concerns(rule, peer, healer, direction))
        {
            fate.dropped |= draw() < rule.drop;
            fate.doubled |= draw() < rule.duplicate;
            fate.overtaken |= draw() < rule.reorder;
            fate.delay = fate.delay.max(rule.delay);
        }
        fate
    }

    /// Whether nothing passes.
    pub(crate) fn is_cut(&self, peer: &NodeName, healer: bool, direction: Direction) -> bool {
        self.active.load(Ordering::Acquire)
            && self
                .rules
                .read()
                .iter()
                .any(|rule| rule.cut && concerns(rule, peer, healer, direction))
    }

    /// Whether a node, known by name alone, is cut off in either direction: nobody is dialled through a cut.
    pub(crate) fn is_severed(&self, node: &NodeName) -> bool {
        self.active.load(Ordering::Acquire)
            && self
                .rules
                .read()
                .iter()
                .any(|rule| rule.cut && rule.peer.as_ref().is_none_or(|peer| peer == node))
    }

    /// Waits while the link is cut.
    pub(crate) async fn uncut(&self, peer: &NodeName, healer: bool, direction: Direction) {
        if !self.active.load(Ordering::Acquire) {
            return;
        }
        let mut changes = self.changes.subscribe();
        while self.is_cut(peer, healer, direction) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits while the link is cut, then for its delay: how streams feel faults.
    pub(crate) async fn pass(&self, peer: &NodeName, healer: bool, direction: Direction) {
        if !self.active.load(Ordering::Acquire) {
            return;
        }
        self.uncut(peer, healer, direction).await;
        let delay = self.fate(peer, healer, direction, || 1.0).delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

fn concerns(rule: &FaultRule, peer: &NodeName, healer: bool, direction: Direction) -> bool {
    rule.direction == direction && rule.peer.as_ref().map_or(!healer, |name| name == peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_everyone_spares_those_who_must_heal() {
        let table = FaultTable::default();
        table.set(FaultRule { cut: true, ..FaultRule::new(None, Direction::Send) });

        assert!(table.is_cut(&"a".into(), false, Direction::Send));
        assert!(!table.is_cut(&"a".into(), false, Direction::Receive));
        assert!(!table.is_cut(&"a".into(), true, Direction::Send));
    }

    #[test]
    fn the_last_rule_for_a_peer_and_direction_stands_until_cleared() {
        let table = FaultTable::default();
        let node = NodeName::from("a");
        table.set(FaultRule { drop: 1.0, ..FaultRule::new(Some("a".into()), Direction::Send) });
        assert!(table.fate(&node, false, Direction::Send, || 0.5).dropped);
        table
            .set(FaultRule { duplicate: 1.0, ..FaultRule::new(Some("a".into()), Direction::Send) });
        let fate = table.fate(&node, false, Direction::Send, || 0.5);
        assert_eq!(fate, Fate { doubled: true, ..Fate::default() });
        table.clear();
        assert_eq!(table.fate(&node, false, Direction::Send, || 0.0), Fate::default());
    }
}
