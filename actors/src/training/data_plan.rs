//! Which samples make up which step, and who works on them. No IO.
//!
//! Step `k` is a batch of epoch `k / batches`; each epoch is a shuffled order of the whole data
//! set that seed and epoch alone decide, cut into batches. So each epoch is the data set exactly,
//! whoever computes and however often the members change: a batch that is handed back, or whose
//! trainer is gone, is given to the next that asks.

use impresario_client::protocol::training::{Applied, Batch};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs};
use std::collections::{BTreeMap, BTreeSet};

/// The order in which an epoch goes through the samples.
pub fn order(seed: u64, epoch: u64, samples: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..samples).collect();
    let mut random: rngs::StdRng = StdRng::seed_from_u64(mix(seed, epoch));
    order.shuffle(&mut random);
    order
}

/// A seed that differs for each pair.
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut value = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Into how many parts a batch is cut where it is to be so many: none is empty.
pub fn parts_of(batch: &Batch, wanted: u32) -> u32 {
    u32::try_from(batch.length).unwrap_or(u32::MAX).min(wanted).max(1)
}

/// One part of a batch that is cut into so many.
pub fn part(batch: &Batch, part: u32, of: u32) -> Batch {
    let at = |part: u32| {
        let share = u128::from(batch.length) * u128::from(part.min(of)) / u128::from(of.max(1));
        u64::try_from(share).unwrap_or(batch.length)
    };
    let (first, end) = (at(part), at(part.saturating_add(1)));
    Batch { start: batch.start.saturating_add(first), length: end - first, ..*batch }
}

/// What is done, in work and to do.
#[derive(Debug, Clone)]
pub struct DataPlan {
    samples: u64,
    batch: u64,
    /// Steps in all; without it the plan has no end of its own.
    total: Option<u64>,
    next: u64,
    returned: BTreeSet<u64>,
    working: BTreeMap<u64, String>,
    done: Applied,
    /// Nothing has been given out or finished since it was begun or resumed.
    untouched: bool,
}

impl DataPlan {
    /// A plan for `samples` samples in batches of `batch`, over `epochs` epochs if they are limited.
    pub fn new(samples: u64, batch: u64, epochs: Option<u64>) -> Self {
        let (samples, batch) = (samples.max(1), batch.max(1));
        let total = epochs.map(|epochs| epochs.saturating_mul(samples.div_ceil(batch)));
        Self {
            samples,
            batch,
            total,
            next: 0,
            returned: BTreeSet::new(),
            working: BTreeMap::new(),
            done: Applied::default(),
            untouched: true,
        }
    }

    /// Whether nothing has been given out or finished since it was begun or resumed.
    pub fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Whether nobody has a batch in hand.
    pub fn is_at_rest(&self) -> bool {
        self.working.is_empty()
    }

    /// The first step that has never been given out.
    pub fn next_step(&self) -> u64 {
        self.next
    }

    /// Every step below this is done.
    pub fn settled(&self) -> u64 {
        self.done.first_missing()
    }

    /// Goes on after these steps; what lies between them is to be done. The caller has seen to it that
    /// they do not lie far apart.
    pub fn resume(&mut self, done: Applied) {
        self.next = done.end();
        self.working.clear();
        self.returned =
            (done.first_missing()..self.next).filter(|step| !done.contains(*step)).collect();
        self.done = done;
        self.untouched = true;
    }

    /// The plan ends after so many epochs from now on. What is beyond is not done any more, what has
    /// been done beyond stays.
    pub fn limit(&mut self, epochs: Option<u64>) {
        self.total = epochs.map(|epochs| epochs.saturating_mul(self.batches()));
        if let Some(total) = self.total {
            self.returned.retain(|step| *step < total);
        }
    }

    /// Batches in one epoch.
    pub fn batches(&self) -> u64 {
        self.samples.div_ceil(self.batch)
    }

    /// The samples of a step, as a part of its epoch's order.
    pub fn batch(&self, step: u64) -> Batch {
        let (epoch, index) = (step / self.batches(), step % self.batches());
        let start = index.saturating_mul(self.batch);
        Batch { step, epoch, start, length: self.batch.min(self.samples.saturating_sub(start)) }
    }

    /// Up to `limit` batches for a trainer; those that others gave back first.
    pub fn take(&mut self, trainer: &str, limit: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        self.untouched = false;
        while batches.len() < limit {
            let step = match self.returned.pop_first() {
                Some(step) => step,
                None if self.total.is_none_or(|total| self.next < total) => {
                    self.next += 1;
                    self.next - 1
                }
                None => break,
            };
            // Reported by a trainer that got it from an earlier activation of the job.
            if self.done.contains(step) {
                continue;
            }
            self.working.insert(step, trainer.to_owned());
            batches.push(self.batch(step));
        }
        batches
    }

    /// A step is applied on every shard. False when that was known.
    pub fn finish(&mut self, step: u64) -> bool {
        self.untouched = false;
        self.working.remove(&step);
        self.returned.remove(&step);
        self.done.insert(step)
    }

    /// What a trainer has been given and has not done yet.
    pub fn in_work(&self, trainer: &str) -> Vec<Batch> {
        let wanted = |step: &u64| self.total.is_none_or(|total| *step < total);
        let of = |(step, holder): &(&u64, &String)| holder.as_str() == trainer && wanted(step);
        self.working.iter().filter(of).map(|(step, _)| self.batch(*step)).collect()
    }

    /// A trainer will not do this step.
    pub fn give_back(&mut self, trainer: &str, step: u64) {
        if self.working.get(&step).is_some_and(|holder| holder == trainer) {
            self.working.remove(&step);
            if self.total.is_none_or(|total| step < total) {
                self.returned.insert(step);
            }
        }
    }

    /// A trainer is gone: all that it worked on goes to others. How many batches that were.
    pub fn abandon(&mut self, trainer: &str) -> usize {
        let before = self.working.len();
        let returned = &mut self.returned;
        self.working.retain(|step, holder| {
            let keep = holder != trainer;
            if !keep {
                returned.insert(*step);
            }
            keep
        });
        let batches = before - self.working.len();
        if let Some(total) = self.total {
            self.returned.retain(|step| *step < total);
        }
        batches
    }

    /// Steps that are done.
    pub fn done(&self) -> u64 {
        self.done.count()
    }

    /// Samples in all steps that are done. Derived, so that no count can be lost with who counted.
    pub fn samples_done(&self) -> u64 {
        let batches = self.batches();
        let shorter = self.batch - self.batch(batches - 1).length;
        let last = |step: &u64| (step + 1).is_multiple_of(batches);
        let below = self.done.first_missing();
        let ends = below / batches + self.done.beyond().filter(last).count() as u64;
        self.done.count().saturating_mul(self.batch).saturating_sub(ends.saturating_mul(shorter))
    }

    /// Steps in all, if the plan has an end.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whole epochs that are done.
    pub fn epochs_done(&self) -> u64 {
        self.done.first_missing() / self.batches()
    }

    /// Whether every step is done.
    pub fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| self.done.first_missing() >= total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_epoch_is_the_data_set_whatever_happens_to_the_trainers(
            samples in 1u64..60,
            batch in 1u64..9,
            epochs in 1u64..4,
            events in prop::collection::vec((0u8..8, 0usize..3, 1usize..4), 0..200),
        ) {
            let mut plan = DataPlan::new(samples, batch, Some(epochs));
            let mut work: [Vec<Batch>; 3] = Default::default();
            let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            let mut finish = |plan: &mut DataPlan, one: Batch| {
                assert!(plan.finish(one.step), "step {} twice", one.step);
                let order = order(7, one.epoch, samples);
                let part = &order[one.start as usize..(one.start + one.length) as usize];
                seen.entry(one.epoch).or_default().extend(part);
            };
            for (kind, trainer, limit) in events {
                let name = trainer.to_string();
                match kind {
                    0..=2 => work[trainer].extend(plan.take(&name, limit)),
                    3..=5 => if let Some(one) = work[trainer].pop() { finish(&mut plan, one) },
                    6 => if let Some(one) = work[trainer].pop() { plan.give_back(&name, one.step) },
                    _ => {
                        prop_assert_eq!(plan.abandon(&name), work[trainer].len());
                        work[trainer].clear();
                    }
                }
            }
            let resumed = plan.done.clone();
            plan.resume(resumed);
            while let Some(one) = plan.take("last", 1).pop() { finish(&mut plan, one) }
            prop_assert!(plan.is_complete());
            prop_assert_eq!(plan.epochs_done(), epochs);
            for (epoch, mut samples_seen) in seen {
                samples_seen.sort_unstable();
                prop_assert_eq!(samples_seen, (0..samples).collect::<Vec<_>>(), "epoch {}", epoch);
            }
        }
    }

    #[test]
    fn the_parts_of_a_batch_are_the_batch() {
        for (length, wanted) in [(8, 4), (7, 3), (2, 5), (1, 1), (64, 1_024)] {
            let batch = Batch { step: 3, epoch: 0, start: 40, length };
            let of = parts_of(&batch, wanted);
            let parts: Vec<Batch> = (0..of).map(|number| part(&batch, number, of)).collect();
            assert!(parts.iter().all(|one| one.length > 0 && one.step == 3), "{parts:?}");
            let samples: Vec<u64> =
                parts.iter().flat_map(|one| one.start..one.start + one.length).collect();
            assert_eq!(samples, (40..40 + length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn samples_are_those_of_the_steps_that_are_done_in_whatever_order() {
        // Batches of 4, 4 and 2 in each epoch.
        let mut plan = DataPlan::new(10, 4, Some(3));
        plan.take("a", 9);
        for (step, samples) in [(0, 4), (2, 6), (5, 8), (1, 12), (5, 12), (8, 14)] {
            plan.finish(step);
            assert_eq!(plan.samples_done(), samples, "after step {step}");
        }
    }

    #[test]
    fn a_plan_that_is_cut_short_is_complete_once_its_first_part_is() {
        let mut plan = DataPlan::new(40, 10, Some(100));
        let work = plan.take("a", 7);
        plan.finish(work[6].step);
        plan.limit(Some(1));
        assert!(!plan.is_complete() && plan.take("b", 9).is_empty());
        plan.abandon("a");
        assert_eq!(plan.take("b", 9).iter().map(|one| one.step).collect::<Vec<_>>(), [0, 1, 2, 3]);
        (0..4).for_each(|step| assert!(plan.finish(step)));
        assert!(plan.is_complete());
    }

    #[test]
    fn every_trainer_computes_the_same_order_and_every_epoch_another() {
        assert_eq!(order(1, 2, 50), order(1, 2, 50));
        assert_ne!(order(1, 2, 50), order(1, 3, 50));
        assert_ne!(order(1, 2, 50), order(2, 2, 50));
    }
}
