//! What a trainer has computed of a step that trainers compute together, and how far it has come with it.

use impresario_client::protocol::training::{Held, StepState};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// The parts of one step that a trainer has computed.
#[derive(Debug)]
pub struct InHand {
    pub(super) step: u64,
    pub(super) of: u32,
    /// Samples and mean gradient, by part.
    pub(super) parts: BTreeMap<u32, (u64, Vec<f32>)>,
    /// Which shard has said that it has which part.
    pub(super) there: BTreeSet<(u32, u32)>,
    /// The shards that have applied the step.
    pub(super) applied: BTreeSet<u32>,
    /// The shards that have said in this round that they have all parts.
    pub(super) confirmed: BTreeSet<u32>,
    /// All shards said so in the last round.
    pub(super) everywhere: bool,
    /// Rounds in a row that brought nothing.
    pub(super) vain: u32,
    /// When a round brought something last.
    pub(super) news: Instant,
}

impl InHand {
    /// Nothing yet of a step that is cut into so many parts.
    pub fn new(step: u64, of: u32) -> Self {
        let (parts, there, applied) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (confirmed, everywhere) = (BTreeSet::new(), false);
        let (vain, news) = (0, Instant::now());
        Self { step, of, parts, there, applied, confirmed, everywhere, vain, news }
    }

    /// Whether it is of this step, cut like this.
    pub fn is_of(&self, step: u64, of: u32) -> bool {
        (self.step, self.of) == (step, of)
    }

    /// Whether this part has been computed.
    pub fn has(&self, part: u32) -> bool {
        self.parts.contains_key(&part)
    }

    /// A part has been computed.
    pub fn add(&mut self, part: u32, samples: u64, gradient: Vec<f32>) {
        self.parts.insert(part, (samples, gradient));
        (self.everywhere, self.news) = (false, Instant::now());
    }

    /// What the job is told of it.
    pub fn held(&self) -> Held {
        let (step, everywhere) = (self.step, self.everywhere);
        Held { step, parts: self.parts.keys().copied().collect(), everywhere }
    }

    /// What a shard says. Whether it is any further; `None` where a gradient is not of its length.
    pub(super) fn hears(&mut self, shard: u32, state: &StepState) -> Option<bool> {
        match state {
            StepState::Applied => {
                self.confirmed.insert(shard);
                Some(self.applied.insert(shard))
            }
            StepState::Waiting { parts } => {
                // One that came anew may be of before the step, though it had it.
                self.applied.remove(&shard);
                if self.parts.keys().all(|part| parts.contains(part)) {
                    self.confirmed.insert(shard);
                } else {
                    self.confirmed.remove(&shard);
                }
                let before = self.there.len();
                // It may have come there anew, without what it was sent elsewhere.
                self.there.retain(|(other, part)| *other != shard || parts.contains(part));
                let own = parts.iter().filter(|part| self.parts.contains_key(part));
                self.there.extend(own.map(|part| (shard, *part)));
                Some(self.there.len() > before)
            }
            StepState::Moving | StepState::Moved { .. } => {
                self.there.retain(|(other, _)| *other != shard);
                self.confirmed.remove(&shard);
                Some(false)
            }
            StepState::Misfit { .. } => None,
        }
    }
}
