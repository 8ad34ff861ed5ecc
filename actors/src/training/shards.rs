//! The shards that one parameter server holds, and the rules of their moves. No IO.
//!
//! ```text
//!             accept                    start_move               moved
//!   (absent) ───────> Serving{epoch} ────────────> Leaving ─────────────> Moved{epoch, to}
//!                         ^                           │ keep{later epoch}
//!                         └───────────────────────────┘
//! ```
//! A gradient is applied only while `Serving`, and only once for each step. While a shard is
//! `Leaving` its state does not change, so that what arrives at the other server is what was left
//! here. Orders older than the shard's latest are refused.

mod parts;

use super::gathering::Beside;
use super::optimizer;
use impresario_client::protocol::training::{
    Elsewhere, HandoverError, HeldShard, Place, Pulled, Pushed, ShardState,
};
use std::collections::BTreeMap;

/// A gradient of a step so far beyond the first that is missing is not taken: what is remembered of steps
/// stays small, whatever is pushed.
const STEPS_AHEAD: u64 = 1 << 20;

/// The shards of one parameter server.
#[derive(Debug, Default)]
pub struct Shards {
    slots: BTreeMap<u32, Slot>,
    /// What there is of a shard besides its state, while trainers compute each step together.
    beside: BTreeMap<u32, Beside>,
}

#[derive(Debug)]
enum Slot {
    Serving { epoch: u64, state: ShardState },
    Leaving { epoch: u64, to: Place, state: ShardState },
    Moved { epoch: u64, to: Place },
}

impl Slot {
    fn epoch(&self) -> u64 {
        match self {
            Self::Serving { epoch, .. }
            | Self::Leaving { epoch, .. }
            | Self::Moved { epoch, .. } => *epoch,
        }
    }
}

impl Shards {
    /// Values for a trainer or an evaluation. A shard that is leaving can still be read.
    pub fn pull(&self, shard: u32, averaged: bool) -> Pulled {
        match self.slots.get(&shard) {
            Some(Slot::Serving { state, .. } | Slot::Leaving { state, .. }) => Pulled::Values {
                shard,
                version: state.version,
                applied: state.applied.clone(),
                values: if averaged { state.average.clone() } else { state.values.clone() },
            },
            Some(Slot::Moved { epoch, to }) => {
                Pulled::Elsewhere { shard, to: Some((*epoch, to.clone())) }
            }
            None => Pulled::Elsewhere { shard, to: None },
        }
    }

    /// A shard as it is, for a checkpoint. One that is leaving does not change any more.
    pub fn copy(&self, shard: u32) -> Option<ShardState> {
        match self.slots.get(&shard)? {
            Slot::Serving { state, .. } | Slot::Leaving { state, .. } => Some(state.clone()),
            Slot::Moved { .. } => None,
        }
    }

    /// Applies a gradient once.
    pub fn push(&mut self, step: u64, shard: u32, gradient: &[f32]) -> Pushed {
        match self.slots.get_mut(&shard) {
            Some(Slot::Serving { state, .. }) => {
                if gradient.len() != state.values.len() {
                    return Pushed::Misfit { expected: state.values.len() as u64 };
                }
                if step > state.applied.first_missing().saturating_add(STEPS_AHEAD) {
                    // Nobody is given a step so far ahead: nothing of it is kept.
                    return Pushed::Moving;
                }
                if !state.applied.insert(step) {
                    return Pushed::Already { version: state.version };
                }
                optimizer::apply(state, gradient);
                Pushed::Applied { version: state.version }
            }
            Some(Slot::Leaving { .. }) => Pushed::Moving,
            Some(Slot::Moved { epoch, to }) => Pushed::Moved { to: Some((*epoch, to.clone())) },
            None => Pushed::Moved { to: None },
        }
    }

    /// Freezes a shard for its move. `Ok(None)`: the move has been completed before.
    pub fn start_move(
        &mut self,
        shard: u32,
        to: &Place,
        epoch: u64,
    ) -> Result<Option<ShardState>, HandoverError> {
        let slot = self.slots.remove(&shard).ok_or(HandoverError::NotHere { shard })?;
        let current = slot.epoch();
        let (slot, outcome) = match slot {
            Slot::Serving { state, .. } if epoch > current => {
                (Slot::Leaving { epoch, to: to.clone(), state: state.clone() }, Ok(Some(state)))
            }
            // The same order again, or another receiver after the first was given up.
            Slot::Leaving { state, to: before, .. }
                if epoch > current || (epoch == current && before == *to) =>
            {
                (Slot::Leaving { epoch, to: to.clone(), state: state.clone() }, Ok(Some(state)))
            }
            Slot::Moved { to: before, .. } if epoch == current && before == *to => {
                (Slot::Moved { epoch, to: before }, Ok(None))
            }
            Slot::Moved { epoch: before, to } if epoch > before => {
                (Slot::Moved { epoch: before, to }, Err(HandoverError::NotHere { shard }))
            }
            other => (other, Err(HandoverError::Stale { shard, current })),
        };
        self.slots.insert(shard, slot);
        outcome
    }

    /// The receiver has confirmed the move that was started with this epoch.
    pub fn moved(&mut self, shard: u32, epoch: u64) {
        if let Some(slot) = self.slots.get_mut(&shard)
            && let Slot::Leaving { epoch: started, to, .. } = slot
            && *started == epoch
        {
            *slot = Slot::Moved { epoch, to: to.clone() };
            self.beside.remove(&shard);
        }
    }

    /// Another serves these since: what is here is old, and whoever comes is sent there.
    pub fn left_behind(&mut self, elsewhere: Vec<Elsewhere>) {
        for Elsewhere { shard, epoch, to } in elsewhere {
            let Some(slot) = self.slots.get_mut(&shard) else { continue };
            let is_old = match &*slot {
                Slot::Serving { epoch: own, .. } => *own < epoch,
                // It has arrived there, and only the answer was lost.
                Slot::Leaving { epoch: own, to: there, .. } => {
                    *own < epoch || (*own == epoch && *there == to)
                }
                Slot::Moved { .. } => false,
            };
            if is_old {
                *slot = Slot::Moved { epoch, to };
                self.beside.remove(&shard);
            }
        }
    }

    /// The epoch in which each shard came here.
    pub fn epochs(&self) -> BTreeMap<u32, u64> {
        self.slots.iter().map(|(shard, slot)| (*shard, slot.epoch())).collect()
    }

    /// Every step below this counts as applied from now on: the job is done with it. Only in shards that have been here
    /// since these epochs: the job said it before it heard of the others, which may be of an earlier time.
    pub fn settle(&mut self, below: u64, since: &BTreeMap<u32, u64>) {
        for (shard, slot) in &mut self.slots {
            if let Slot::Serving { state, epoch } = slot
                && since.get(shard) == Some(epoch)
            {
                state.applied.settle(below);
            }
        }
    }

    /// Serves a shard from now on. The same shard in the same epoch again changes nothing.
    pub fn accept(&mut self, epoch: u64, state: ShardState) -> Result<(), HandoverError> {
        let shard = state.range.shard;
        if let Some(field) = optimizer::misfit(&state) {
            return Err(HandoverError::Invalid { shard, field: field.to_owned() });
        }
        match self.slots.get(&shard) {
            Some(Slot::Serving { epoch: current, .. }) if *current == epoch => Ok(()),
            Some(slot) if slot.epoch() >= epoch => {
                Err(HandoverError::Stale { shard, current: slot.epoch() })
            }
            _ => {
                self.beside.remove(&shard);
                self.slots.insert(shard, Slot::Serving { epoch, state });
                Ok(())
            }
        }
    }

    /// Serves a shard again whose receiver is gone.
    pub fn keep(&mut self, shard: u32, epoch: u64) -> Result<(), HandoverError> {
        let slot = self.slots.remove(&shard).ok_or(HandoverError::NotHere { shard })?;
        let current = slot.epoch();
        let (slot, outcome) = match slot {
            Slot::Leaving { state, .. } if epoch > current => {
                (Slot::Serving { epoch, state }, Ok(()))
            }
            Slot::Serving { state, .. } if epoch >= current => {
                (Slot::Serving { epoch, state }, Ok(()))
            }
            moved @ Slot::Moved { .. } => (moved, Err(HandoverError::NotHere { shard })),
            other => (other, Err(HandoverError::Stale { shard, current })),
        };
        self.slots.insert(shard, slot);
        outcome
    }

    /// What is served here, for a job whose actor has moved.
    pub fn held(&self) -> Vec<HeldShard> {
        self.slots.values().filter_map(Slot::held).collect()
    }

    /// Gradients applied to each shard that is served here.
    pub fn versions(&self) -> Vec<(u32, u64)> {
        self.held().into_iter().map(|held| (held.range.shard, held.version)).collect()
    }
}

impl Slot {
    fn held(&self) -> Option<HeldShard> {
        let (epoch, state, leaving) = match self {
            Self::Serving { epoch, state } => (epoch, state, None),
            Self::Leaving { epoch, state, to } => (epoch, state, Some(to.clone())),
            Self::Moved { .. } => return None,
        };
        Some(HeldShard {
            range: state.range,
            epoch: *epoch,
            version: state.version,
            applied: state.applied.clone(),
            leaving,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::training::{Applied, OptimizerKind, ShardRange};
    use impresario_runtime::ActorPath;
    use proptest::prelude::*;

    pub(super) fn place(name: &str) -> Place {
        Place {
            path: ActorPath::new(name, "parameterserver/x"),
            address: ([127, 0, 0, 1], 1).into(),
        }
    }

    fn zero() -> ShardState {
        let range = ShardRange { shard: 0, start: 0, length: 1 };
        let rule = OptimizerKind::Momentum { rate: 1.0, decay: 0.0, momentum: 0.0 };
        optimizer::fresh(range, vec![0.0], 0, Applied::default(), rule)
    }

    #[test]
    fn a_shard_that_is_leaving_takes_no_gradient_and_one_that_left_says_where_it_is() {
        let mut shards = Shards::default();
        shards.accept(1, zero()).unwrap();
        assert_eq!(shards.push(0, 0, &[1.0]), Pushed::Applied { version: 1 });
        assert_eq!(shards.push(0, 0, &[1.0]), Pushed::Already { version: 1 });
        assert_eq!(shards.held()[0].leaving, None);
        let state = shards.start_move(0, &place("b"), 2).unwrap().unwrap();
        assert_eq!(state.values, [-1.0]);
        assert_eq!(shards.held()[0].leaving, Some(place("b")));
        assert_eq!(shards.push(1, 0, &[1.0]), Pushed::Moving);
        shards.moved(0, 2);
        assert_eq!(shards.push(1, 0, &[1.0]), Pushed::Moved { to: Some((2, place("b"))) });
        assert_eq!(shards.start_move(0, &place("b"), 2), Ok(None));
        assert_eq!(shards.accept(2, state), Err(HandoverError::Stale { shard: 0, current: 2 }));
    }

    #[test]
    fn a_shard_whose_receiver_is_gone_is_served_again_by_a_later_order_only() {
        let mut shards = Shards::default();
        shards.accept(1, zero()).unwrap();
        shards.start_move(0, &place("b"), 2).unwrap();
        assert_eq!(shards.keep(0, 2), Err(HandoverError::Stale { shard: 0, current: 2 }));
        assert_eq!(shards.keep(0, 3), Ok(()));
        assert_eq!(shards.push(1, 0, &[1.0]), Pushed::Applied { version: 1 });
        assert!(shards.start_move(0, &place("b"), 2).is_err());
    }

    #[test]
    fn a_shard_takes_no_state_that_cannot_be_one_and_no_step_from_nowhere() {
        type Spoil = fn(&mut ShardState);
        let mut shards = Shards::default();
        let bad: [(&str, Spoil); 7] = [
            ("range", |state| state.range.length = 2),
            ("range", |state| state.range.start = u64::MAX),
            ("values", |state| state.values = vec![f32::NAN]),
            ("average", |state| state.average = vec![f32::INFINITY]),
            ("first", |state| state.first = Vec::new()),
            ("second", |state| state.second = vec![1.0]),
            ("version", |state| state.version = 7),
        ];
        for (part, spoil) in bad {
            let mut state = zero();
            spoil(&mut state);
            let field = part.to_owned();
            assert_eq!(shards.accept(1, state), Err(HandoverError::Invalid { shard: 0, field }));
        }
        assert!(shards.held().is_empty());
        shards.accept(1, zero()).unwrap();
        assert_eq!(shards.push(u64::MAX, 0, &[1.0]), Pushed::Moving);
        shards.settle(1 << 40, &shards.epochs());
        assert_eq!(shards.push((1 << 40) + 3, 0, &[1.0]), Pushed::Applied { version: 1 });
        assert_eq!(shards.push(5, 0, &[1.0]), Pushed::Already { version: 1 });
    }

    #[test]
    fn what_the_job_said_before_a_shard_was_taken_back_settles_nothing_of_it() {
        let mut shards = Shards::default();
        shards.accept(1, zero()).unwrap();
        let reported = shards.epochs();
        // All is taken from a checkpoint while the answer is on its way.
        shards.accept(5, zero()).unwrap();
        shards.settle(1_000, &reported);
        assert_eq!(shards.push(0, 0, &[1.0]), Pushed::Applied { version: 1 });
        shards.settle(1_000, &shards.epochs());
        assert_eq!(shards.push(1, 0, &[1.0]), Pushed::Already { version: 1 });
    }

    #[test]
    fn what_another_serves_since_takes_no_gradient_here_and_what_came_later_stays() {
        let mut shards = Shards::default();
        shards.accept(5, zero()).unwrap();
        let elsewhere = |epoch: u64, name: &str| Elsewhere { shard: 0, epoch, to: place(name) };
        shards.left_behind(vec![elsewhere(4, "b"), elsewhere(5, "b")]);
        assert_eq!(shards.push(0, 0, &[1.0]), Pushed::Applied { version: 1 });
        shards.start_move(0, &place("b"), 6).unwrap();
        shards.left_behind(vec![elsewhere(6, "c")]);
        assert_eq!(shards.push(1, 0, &[1.0]), Pushed::Moving, "it is on its way to another");
        shards.left_behind(vec![elsewhere(6, "b")]);
        assert_eq!(shards.push(1, 0, &[1.0]), Pushed::Moved { to: Some((6, place("b"))) });
        shards.accept(7, zero()).unwrap();
        shards.left_behind(vec![elsewhere(9, "c")]);
        assert_eq!(shards.push(2, 0, &[1.0]), Pushed::Moved { to: Some((9, place("c"))) });
        assert!(shards.held().is_empty());
    }

    proptest! {
        /// Pushes and moves in any order, each order lost or repeated: the shard is served at one
        /// place at most, and its value is the sum of the steps that were acknowledged.
        #[test]
        fn nothing_is_lost_or_counted_twice_while_a_shard_moves(
            events in prop::collection::vec((0u8..4, 0u64..12, any::<bool>()), 1..80)
        ) {
            let mut servers = [Shards::default(), Shards::default()];
            servers[0].accept(1, zero()).unwrap();
            let (mut at, mut epoch) = (0usize, 1u64);
            let mut acknowledged = std::collections::BTreeSet::new();
            for (kind, step, lost) in events {
                match kind {
                    0 | 1 => for server in &mut servers {
                        if let Pushed::Applied { .. } = server.push(step, 0, &[-1.0]) {
                            prop_assert!(acknowledged.insert(step), "step {} twice", step);
                        }
                    },
                    2 => {
                        let to = 1 - at;
                        epoch += 1;
                        let name = ["a", "b"][to];
                        for _ in 0..=usize::from(lost) {
                            if let Ok(Some(state)) = servers[at].start_move(0, &place(name), epoch) {
                                servers[to].accept(epoch, state).unwrap();
                            }
                        }
                        servers[at].moved(0, epoch);
                        at = to;
                    }
                    _ => {
                        // The transfer is lost and given up.
                        epoch += 1;
                        servers[at].start_move(0, &place("nowhere"), epoch).unwrap();
                        epoch += 1;
                        servers[at].keep(0, epoch).unwrap();
                    }
                }
                let serving = servers.iter().filter(|s| !s.held().is_empty()).count();
                prop_assert_eq!(serving, 1);
            }
            match servers[at].pull(0, false) {
                Pulled::Values { values, version, .. } => {
                    prop_assert_eq!(values[0] as usize, acknowledged.len());
                    prop_assert_eq!(version as usize, acknowledged.len());
                }
                Pulled::Elsewhere { .. } => prop_assert!(false, "the shard is not where it is"),
            }
        }
    }
}
