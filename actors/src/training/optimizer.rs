//! How a gradient changes a shard's parameters. Pure arithmetic; the rule's memory is part of the
//! shard's state and moves with it.

use impresario_client::protocol::training::{Applied, OptimizerKind, ShardRange, ShardState};

/// The largest part of the running mean that one step keeps.
const KEEP: f32 = 0.98;

/// A shard whose parameters have these values, with nothing remembered.
pub fn fresh(
    range: ShardRange,
    values: Vec<f32>,
    version: u64,
    applied: Applied,
    optimizer: OptimizerKind,
) -> ShardState {
    let second = match optimizer {
        OptimizerKind::Momentum { .. } => Vec::new(),
        OptimizerKind::Adam { .. } | OptimizerKind::AdamW { .. } => vec![0.0; values.len()],
    };
    let (average, first) = (values.clone(), vec![0.0; values.len()]);
    ShardState {
        range,
        average,
        version,
        applied,
        optimizer,
        memory_steps: 0,
        first,
        second,
        values,
    }
}

/// Which part of a shard's state cannot be, if any.
pub fn misfit(state: &ShardState) -> Option<&'static str> {
    let length = state.values.len();
    let range = state.range.length == length as u64
        && length > 0
        && state.range.start.checked_add(state.range.length).is_some();
    let numbers = |values: &[f32]| values.len() == length && values.iter().all(|v| v.is_finite());
    let second = match state.optimizer {
        OptimizerKind::Momentum { .. } => state.second.is_empty(),
        OptimizerKind::Adam { .. } | OptimizerKind::AdamW { .. } => numbers(&state.second),
    };
    [
        ("range", range),
        ("values", numbers(&state.values)),
        ("average", numbers(&state.average)),
        ("first", numbers(&state.first)),
        ("second", second),
        ("optimizer", is_rule(&state.optimizer)),
        ("version", state.version <= state.applied.count()),
        ("memory_steps", state.memory_steps <= state.version),
    ]
    .into_iter()
    .find_map(|(field, fits)| (!fits).then_some(field))
}

/// Whether parameters can be found by this rule: rate and decay are finite and not negative, the
/// others from 0 to less than 1.
pub fn is_rule(optimizer: &OptimizerKind) -> bool {
    let amount = |value: f32| value.is_finite() && value >= 0.0;
    let part = |value: f32| (0.0..1.0).contains(&value);
    match *optimizer {
        OptimizerKind::Momentum { rate, decay, momentum } => {
            amount(rate) && amount(decay) && part(momentum)
        }
        OptimizerKind::Adam { rate, decay, beta1, beta2 } => {
            amount(rate) && amount(decay) && part(beta1) && part(beta2)
        }
        OptimizerKind::AdamW { rate, decay, beta1, beta2, weight_decay } => {
            let moments = part(beta1) && part(beta2);
            // A step never takes away more of a value than there is.
            let weights = amount(weight_decay) && (rate * weight_decay) <= 1.0;
            amount(rate) && amount(decay) && moments && weights
        }
    }
}

/// Applies one gradient, which has the shard's length. A value that is no number counts as zero,
/// so that one bad batch cannot poison the parameters; nor does a step that is too large for numbers
/// change anything.
pub fn apply(state: &mut ShardState, gradient: &[f32]) {
    let done = state.version as f32;
    state.version += 1;
    state.memory_steps += 1;
    match state.optimizer {
        OptimizerKind::Momentum { rate, decay, momentum } => {
            let rate = rate / (1.0 + decay * done);
            for ((value, step), slope) in
                state.values.iter_mut().zip(&mut state.first).zip(gradient)
            {
                let next = *step * momentum - rate * clean(*slope);
                if (*value + next).is_finite() {
                    *step = next;
                    *value += next;
                }
            }
        }
        OptimizerKind::Adam { rate, decay, beta1, beta2 } => {
            adam(state, gradient, rate / (1.0 + decay * done), [beta1, beta2], 0.0);
        }
        OptimizerKind::AdamW { rate, decay, beta1, beta2, weight_decay } => {
            adam(state, gradient, rate / (1.0 + decay * done), [beta1, beta2], weight_decay);
        }
    }
    let keep = (1.0 - 1.0 / state.version as f32).min(KEEP);
    for (mean, value) in state.average.iter_mut().zip(&state.values) {
        *mean = *mean * keep + value * (1.0 - keep);
    }
}

fn adam(
    state: &mut ShardState,
    gradient: &[f32],
    rate: f32,
    [beta1, beta2]: [f32; 2],
    weight_decay: f32,
) {
    let steps = i32::try_from(state.memory_steps).unwrap_or(i32::MAX);
    let unbias1 = 1.0 / (1.0 - beta1.powi(steps));
    let unbias2 = 1.0 / (1.0 - beta2.powi(steps));
    let kept = 1.0 - rate * weight_decay;
    let moments = state.first.iter_mut().zip(&mut state.second);
    for ((value, (mean, square)), slope) in state.values.iter_mut().zip(moments).zip(gradient) {
        let slope = clean(*slope);
        let next_mean = beta1 * *mean + (1.0 - beta1) * slope;
        let next_square = beta2 * *square + (1.0 - beta2) * slope * slope;
        let step = rate * (next_mean * unbias1) / ((next_square * unbias2).sqrt() + 1e-8);
        let next = *value * kept - step;
        if next.is_finite() && next_mean.is_finite() && next_square.is_finite() {
            (*mean, *square, *value) = (next_mean, next_square, next);
        }
    }
}

/// What is no number counts as nothing.
fn clean(value: f32) -> f32 {
    if value.is_finite() { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(optimizer: OptimizerKind, values: Vec<f32>) -> ShardState {
        let range = ShardRange { shard: 0, start: 0, length: values.len() as u64 };
        fresh(range, values, 0, Applied::default(), optimizer)
    }

    #[test]
    fn both_rules_find_the_bottom_of_a_bowl() {
        let adam = OptimizerKind::Adam { rate: 0.05, decay: 0.0, beta1: 0.9, beta2: 0.99 };
        let momentum = OptimizerKind::Momentum { rate: 0.05, decay: 0.0, momentum: 0.8 };
        for optimizer in [adam, momentum] {
            let mut state = shard(optimizer, vec![3.0, -2.0]);
            for _ in 0..600 {
                let slope: Vec<f32> = state.values.iter().map(|x| 2.0 * (x - 1.0)).collect();
                apply(&mut state, &slope);
            }
            assert_eq!(state.version, 600);
            let close = |values: &[f32]| values.iter().all(|x| (x - 1.0).abs() < 0.05);
            assert!(close(&state.values) && close(&state.average), "{optimizer:?}: {state:?}");
        }
    }

    #[test]
    fn weights_decay_beside_the_gradient_and_not_with_it() {
        let (rate, decay, beta1, beta2, weight_decay) = (0.1, 0.0, 0.9, 0.99, 0.5);
        let with = OptimizerKind::AdamW { rate, decay, beta1, beta2, weight_decay };
        let mut state = shard(with, vec![2.0, -4.0]);
        apply(&mut state, &[0.0, 0.0]);
        assert_eq!(state.values, [1.9, -3.8], "without a gradient, each by the same part");
        // Without decay it is Adam, bit for bit.
        let mut plain = shard(OptimizerKind::Adam { rate, decay, beta1, beta2 }, vec![2.0, -4.0]);
        let none = OptimizerKind::AdamW { rate, decay, beta1, beta2, weight_decay: 0.0 };
        let mut same = shard(none, vec![2.0, -4.0]);
        for _ in 0..50 {
            let slope: Vec<f32> = plain.values.iter().map(|x| 2.0 * (x - 1.0)).collect();
            apply(&mut plain, &slope);
            apply(&mut same, &slope);
        }
        assert_eq!(plain.values, same.values);
        assert!(misfit(&shard(none, vec![2.0])).is_none());
        let too_much = OptimizerKind::AdamW { rate, decay, beta1, beta2, weight_decay: 11.0 };
        assert!(is_rule(&with) && !is_rule(&too_much));
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing() {
        let momentum = OptimizerKind::Momentum { rate: 0.05, decay: 0.0, momentum: 0.8 };
        let mut state = shard(momentum, vec![1.0]);
        apply(&mut state, &[f32::NAN]);
        assert_eq!(state.values, [1.0]);
    }
}
