//! What a shard does with a step whose gradient comes in parts.

use super::{Shards, Slot};
use crate::training::gathering::{Before, Beside, Gathering, MOST_PARTS, Part};
use crate::training::optimizer;
use impresario_client::protocol::training::{Applied, Pulled, StepState};

impl Shards {
    /// Takes a part of a step's gradient; with the last one the step is applied, once.
    pub fn push_part(&mut self, step: u64, of: u32, shard: u32, part: Part<'_>) -> StepState {
        let Some(Slot::Serving { epoch, state }) = self.slots.get_mut(&shard) else {
            return self.step_state(step, of, shard);
        };
        let length = state.values.len();
        let fits = (1..=MOST_PARTS).contains(&of) && part.number < of && part.samples > 0;
        if part.gradient.len() != length || !fits {
            return StepState::Misfit { expected: length as u64 };
        }
        if step != state.applied.first_missing() {
            return self.step_state(step, of, shard);
        }
        let beside = self.beside.entry(shard).or_default();
        if beside.epoch != *epoch {
            // The values are those that were here before a move that came to nothing.
            let before = beside.before.take();
            *beside = Beside { epoch: *epoch, gathering: None, before };
        }
        let is_it = |one: &Gathering| one.step == step && one.of == of;
        if !beside.gathering.as_ref().is_some_and(is_it) {
            beside.gathering = Some(Gathering::new(step, of, length));
        }
        let Some(gathering) = &mut beside.gathering else { return StepState::Moving };
        gathering.take(part);
        let Some(gradient) = gathering.gradient() else {
            return StepState::Waiting { parts: gathering.parts() };
        };
        beside.gathering = None;
        beside.before = Some(Before { step, version: state.version, values: state.values.clone() });
        state.applied.insert(step);
        optimizer::apply(state, &gradient);
        StepState::Applied
    }

    /// How far a shard is with a step.
    pub fn step_state(&self, step: u64, of: u32, shard: u32) -> StepState {
        match self.slots.get(&shard) {
            Some(Slot::Serving { state, .. }) if state.applied.contains(step) => StepState::Applied,
            Some(Slot::Serving { state, .. }) if step != state.applied.first_missing() => {
                StepState::Moving
            }
            Some(Slot::Serving { epoch, .. }) => {
                let beside = self.beside.get(&shard).filter(|one| one.epoch == *epoch);
                let gathering = beside.and_then(|one| one.gathering.as_ref());
                let gathering = gathering.filter(|one| one.step == step && one.of == of);
                StepState::Waiting { parts: gathering.map_or(Vec::new(), Gathering::parts) }
            }
            Some(Slot::Leaving { .. }) => StepState::Moving,
            Some(Slot::Moved { epoch, to }) => StepState::Moved { to: Some((*epoch, to.clone())) },
            None => StepState::Moved { to: None },
        }
    }

    /// Values as they were before this step, where that is the next or the newest one; else as they are, which the
    /// answer says. A shard that is leaving does not change, and can still be read.
    pub fn pull_at(&self, step: u64, shard: u32) -> Pulled {
        if let Some(Slot::Serving { state, .. } | Slot::Leaving { state, .. }) =
            self.slots.get(&shard)
            && state.applied.first_missing() == step.saturating_add(1)
            && let Some(beside) = self.beside.get(&shard)
            && let Some(before) = beside.before.as_ref().filter(|one| one.step == step)
        {
            let (version, values) = (before.version, before.values.clone());
            return Pulled::Values { shard, version, applied: Applied::all_below(step), values };
        }
        self.pull(shard, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::training::{OptimizerKind, ShardRange};
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng as _, SeedableRng};

    const LENGTH: usize = 5;

    fn shards() -> Shards {
        let range = ShardRange { shard: 0, start: 0, length: LENGTH as u64 };
        let rule = OptimizerKind::Momentum { rate: 0.1, decay: 0.0, momentum: 0.5 };
        let state = optimizer::fresh(range, vec![0.3; LENGTH], 0, Applied::default(), rule);
        let mut shards = Shards::default();
        shards.accept(1, state).unwrap();
        shards
    }

    fn push(shards: &mut Shards, step: u64, number: u32, gradient: &[f32]) -> StepState {
        shards.push_part(step, 4, 0, Part { number, samples: 2 + u64::from(number), gradient })
    }

    #[test]
    fn the_order_in_which_parts_come_and_how_often_changes_no_bit() {
        let mut random = StdRng::seed_from_u64(7);
        let mut parts: Vec<(u32, Vec<f32>)> = (0..4)
            .map(|part| (part, (0..LENGTH).map(|_| random.random_range(-1e3..1e3)).collect()))
            .collect();
        let mut seen = None;
        for _ in 0..50 {
            parts.shuffle(&mut random);
            let mut shards = shards();
            for (count, (number, gradient)) in parts.iter().enumerate() {
                let is_last = count + 1 == parts.len();
                for _ in 0..random.random_range(1..3) {
                    let state = push(&mut shards, 0, *number, gradient);
                    assert_eq!(state == StepState::Applied, is_last, "{state:?}");
                }
            }
            let Pulled::Values { values, version, .. } = shards.pull(0, false) else { panic!() };
            assert_eq!(version, 1, "once");
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(*seen.get_or_insert(bits.clone()), bits);
        }
    }

    #[test]
    fn a_step_is_applied_with_its_last_part_and_none_before_its_turn() {
        let mut shards = shards();
        let gradient = [1.0; LENGTH];
        assert_eq!(
            push(&mut shards, 1, 0, &gradient),
            StepState::Moving,
            "the one before is missing"
        );
        assert_eq!(push(&mut shards, 0, 2, &gradient), StepState::Waiting { parts: vec![2] });
        assert_eq!(shards.step_state(0, 4, 0), StepState::Waiting { parts: vec![2] });
        for part in [0, 1] {
            push(&mut shards, 0, part, &gradient);
        }
        assert_eq!(push(&mut shards, 0, 3, &gradient), StepState::Applied);
        assert_eq!(push(&mut shards, 0, 3, &gradient), StepState::Applied);
        let Pulled::Values { values, .. } = shards.pull(0, false) else { panic!() };
        assert!(values.iter().all(|value| (value - 0.2).abs() < 1e-6), "{values:?}");
        let expected = LENGTH as u64;
        assert_eq!(push(&mut shards, 1, 0, &[1.0]), StepState::Misfit { expected });
        assert_eq!(push(&mut shards, 1, 4, &gradient), StepState::Misfit { expected });
    }

    #[test]
    fn who_computes_a_part_again_reads_what_the_others_read() {
        let mut shards = shards();
        for part in 0..4 {
            push(&mut shards, 0, part, &[1.0; LENGTH]);
        }
        let Pulled::Values { values, applied, version, .. } = shards.pull_at(0, 0) else {
            panic!()
        };
        assert_eq!((values, applied.first_missing(), version), (vec![0.3; LENGTH], 0, 0));
        let Pulled::Values { applied, .. } = shards.pull_at(1, 0) else { panic!() };
        assert_eq!(applied.first_missing(), 1);
    }

    #[test]
    fn a_shard_is_read_as_it_was_before_a_step_while_it_leaves_and_when_it_stays_after_all() {
        let mut shards = shards();
        for part in 0..4 {
            push(&mut shards, 0, part, &[1.0; LENGTH]);
        }
        let before = |shards: &Shards| match shards.pull_at(0, 0) {
            Pulled::Values { values, applied, .. } => (values, applied.first_missing()),
            elsewhere @ Pulled::Elsewhere { .. } => panic!("{elsewhere:?}"),
        };
        let place = crate::training::shards::tests::place("b");
        shards.start_move(0, &place, 2).unwrap();
        assert_eq!(before(&shards), (vec![0.3; LENGTH], 0));
        shards.keep(0, 3).unwrap();
        assert_eq!(before(&shards), (vec![0.3; LENGTH], 0));
        push(&mut shards, 1, 0, &[1.0; LENGTH]);
        assert_eq!(before(&shards), (vec![0.3; LENGTH], 0), "the next step is not complete");
        // What is not needed any more is not kept.
        shards.start_move(0, &place, 4).unwrap();
        shards.moved(0, 4);
        assert!(shards.beside.is_empty());
    }

    #[test]
    fn parts_of_a_shard_that_came_anew_are_asked_for_again() {
        let mut shards = shards();
        push(&mut shards, 0, 0, &[1.0; LENGTH]);
        let place = crate::training::shards::tests::place("b");
        shards.start_move(0, &place, 2).unwrap();
        assert_eq!(shards.step_state(0, 4, 0), StepState::Moving);
        shards.keep(0, 3).unwrap();
        assert_eq!(shards.step_state(0, 4, 0), StepState::Waiting { parts: Vec::new() });
    }
}
