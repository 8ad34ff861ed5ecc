//! A step whose gradient comes in parts: they are summed in their order, whoever computed them and whenever they come, so
//! that the same batches make the same parameters, bit for bit.

use std::collections::BTreeMap;

/// The most parts of one step.
pub const MOST_PARTS: u32 = 1_024;

/// What a server has of a shard besides its state. It does not move with the shard: parts are pushed again, and who
/// computes a part again of a step that a shard had before it moved reads there what the shard has now.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The epoch of the shard that the gathering belongs to.
    pub(super) epoch: u64,
    pub(super) gathering: Option<Gathering>,
    pub(super) before: Option<Before>,
}

/// A step of which not all parts have come.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) step: u64,
    pub(super) of: u32,
    /// The parts below are in the sum.
    next: u32,
    /// Of gradients, each as often as its part has samples.
    sum: Vec<f32>,
    samples: u64,
    /// Parts whose turn has not come.
    early: BTreeMap<u32, (u64, Vec<f32>)>,
}

/// The values before the newest step: who computes a part of it again needs them.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) step: u64,
    pub(super) version: u64,
    pub(super) values: Vec<f32>,
}

/// The mean gradient of a part.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Which one, from 0.
    pub number: u32,
    /// Its samples.
    pub samples: u64,
    /// The gradient.
    pub gradient: &'a [f32],
}

impl Gathering {
    pub(super) fn new(step: u64, of: u32, length: usize) -> Self {
        let (sum, early) = (vec![0.0; length], BTreeMap::new());
        Self { step, of, next: 0, sum, samples: 0, early }
    }

    pub(super) fn take(&mut self, part: Part<'_>) {
        if part.number < self.next || self.early.contains_key(&part.number) {
            return;
        }
        if part.number > self.next {
            self.early.insert(part.number, (part.samples, part.gradient.to_vec()));
            return;
        }
        self.add(part.samples, part.gradient);
        while let Some((samples, gradient)) = self.early.remove(&self.next) {
            self.add(samples, &gradient);
        }
    }

    fn add(&mut self, samples: u64, gradient: &[f32]) {
        let weight = samples as f32;
        for (sum, slope) in self.sum.iter_mut().zip(gradient) {
            *sum += slope * weight;
        }
        self.samples = self.samples.saturating_add(samples);
        self.next += 1;
    }

    pub(super) fn parts(&self) -> Vec<u32> {
        (0..self.next).chain(self.early.keys().copied()).collect()
    }

    /// The mean over all samples, once all parts are there.
    pub(super) fn gradient(&self) -> Option<Vec<f32>> {
        let weight = self.samples as f32;
        (self.next == self.of).then(|| self.sum.iter().map(|sum| sum / weight).collect())
    }
}
