//! Shards of the parameters, and which steps they have applied.

use super::place::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A run of the flat vector of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRange {
    /// The shard's number, from 0 without gaps.
    pub shard: u32,
    /// Its first parameter.
    pub start: u64,
    /// How many parameters it has.
    pub length: u64,
}

/// Which parameter server holds which shard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardMap {
    /// Rises with every change.
    pub epoch: u64,
    /// All shards, by number.
    pub shards: Vec<ShardRange>,
    /// For each shard where it is.
    pub places: Vec<Place>,
}

/// Steps that have been applied: all below a limit, and some above it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Received")]
pub struct Applied {
    below: u64,
    above: BTreeSet<u64>,
}

/// As it was received: whatever stands in it, [`Applied`] has one form for each set.
#[derive(Deserialize)]
struct Received {
    below: u64,
    above: BTreeSet<u64>,
}

impl From<Received> for Applied {
    fn from(Received { below, above }: Received) -> Self {
        let mut applied = Self::all_below(below);
        for step in above {
            applied.insert(step);
        }
        applied
    }
}

impl Applied {
    /// Everything below this step, nothing else.
    pub fn all_below(below: u64) -> Self {
        Self { below, above: BTreeSet::new() }
    }

    /// Whether this step is among them.
    pub fn contains(&self, step: u64) -> bool {
        step < self.below || self.above.contains(&step)
    }

    /// Adds a step; false when it was there.
    pub fn insert(&mut self, step: u64) -> bool {
        if step < self.below || !self.above.insert(step) {
            return false;
        }
        self.close();
        true
    }

    /// Every step below this counts as applied from now on.
    pub fn settle(&mut self, below: u64) {
        if below > self.below {
            self.below = below;
            self.above = self.above.split_off(&below);
            self.close();
        }
    }

    fn close(&mut self) {
        while self.above.remove(&self.below) {
            self.below += 1;
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.below.saturating_add(self.above.len() as u64)
    }

    /// The first step that is not among them.
    pub fn first_missing(&self) -> u64 {
        self.below
    }

    /// One more than the largest step among them.
    pub fn end(&self) -> u64 {
        self.above.last().map_or(self.below, |last| last.saturating_add(1))
    }

    /// Those beyond the first that is missing, in order.
    pub fn beyond(&self) -> impl Iterator<Item = u64> + '_ {
        self.above.iter().copied()
    }

    /// The steps that both have. The work is that of the steps beyond, whatever their numbers are.
    pub fn both(&self, other: &Self) -> Self {
        let (less, more) = if self.below <= other.below { (self, other) } else { (other, self) };
        let mut both = Self::all_below(less.below);
        for step in less.beyond().filter(|step| more.contains(*step)) {
            both.insert(step);
        }
        both
    }
}

/// How a gradient changes parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Momentum {
        /// Step length at the start; at step k it is `rate / (1 + decay·k)`.
        rate: f32,
        /// How fast it falls.
        decay: f32,
        /// Part of the previous step that goes on.
        momentum: f32,
    },
    /// Adam (Kingma and Ba, 2015).
    Adam {
        /// Step length at the start; at step k it is `rate / (1 + decay·k)`.
        rate: f32,
        /// How fast it falls.
        decay: f32,
        /// Memory of the mean.
        beta1: f32,
        /// Memory of the mean square.
        beta2: f32,
    },
    /// Adam with a decay of weights that is none of the gradient's (Loshchilov and Hutter, 2019).
    AdamW {
        /// Step length at the start; at step k it is `rate / (1 + decay·k)`.
        rate: f32,
        /// How fast it falls.
        decay: f32,
        /// Memory of the mean.
        beta1: f32,
        /// Memory of the mean square.
        beta2: f32,
        /// The part of each value that a step of length 1 takes away.
        weight_decay: f32,
    },
}

/// A shard with all that belongs to it; this is what moves between parameter servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardState {
    /// Which parameters.
    pub range: ShardRange,
    /// Their values.
    pub values: Vec<f32>,
    /// A running mean of the values over the latest steps, which is what is evaluated.
    pub average: Vec<f32>,
    /// Gradients applied since the job began.
    pub version: u64,
    /// Which ones.
    pub applied: Applied,
    /// The rule.
    pub optimizer: OptimizerKind,
    /// Steps since the rule's memory was empty.
    pub memory_steps: u64,
    /// Its memory: momentum, or the mean of gradients.
    pub first: Vec<f32>,
    /// Its memory: the mean of squares; empty for momentum.
    pub second: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_once_in_whatever_order_steps_arrive() {
        let mut applied = Applied::default();
        for step in [2, 0, 2, 1, 5, 0] {
            applied.insert(step);
        }
        assert_eq!(applied.count(), 4);
        assert_eq!((applied.first_missing(), applied.end()), (3, 6));
        assert!(!applied.insert(5) && !applied.insert(1) && applied.insert(3));
    }

    #[test]
    fn what_is_settled_is_applied_and_what_is_beyond_stays() {
        let mut applied = Applied::default();
        for step in [0, 3, 5, 6, 9] {
            applied.insert(step);
        }
        applied.settle(5);
        assert_eq!((applied.first_missing(), applied.end(), applied.count()), (7, 10, 8));
        assert_eq!(applied.beyond().collect::<Vec<_>>(), [9]);
        applied.settle(2);
        assert_eq!(applied.first_missing(), 7);
    }

    #[test]
    fn a_set_has_one_form_however_it_was_written() {
        let twisted = serde_json::json!({ "below": 3, "above": [0, 3, 4, 9] });
        let read: Applied = serde_json::from_value(twisted).unwrap();
        assert_eq!((read.first_missing(), read.count()), (5, 6));
    }

    #[test]
    fn what_both_have_is_what_each_has() {
        let of = |steps: &[u64]| {
            let mut applied = Applied::default();
            for step in steps {
                applied.insert(*step);
            }
            applied
        };
        let both = of(&[0, 1, 2, 5, 7]).both(&of(&[0, 2, 5, 6]));
        assert_eq!(both, of(&[0, 2, 5]));
    }
}
