//! How a gradient changes parameters. Pure arithmetic on one shard; its state moves with the shard.

use serde::{Deserialize, Serialize};

/// Which rule, with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Momentum {
        /// Step length.
        rate: f32,
        /// Part of the previous step that goes on.
        momentum: f32,
    },
    /// Adam (Kingma and Ba, 2015).
    Adam {
        /// Step length.
        rate: f32,
        /// Memory of the mean.
        beta1: f32,
        /// Memory of the mean square.
        beta2: f32,
    },
}

impl OptimizerKind {
    /// Adam with its usual memory.
    pub fn adam(rate: f32) -> Self {
        Self::Adam { rate, beta1: 0.9, beta2: 0.99 }
    }
}

/// A rule and what it remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Optimizer {
    kind: OptimizerKind,
    steps: u64,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Optimizer {
    /// Remembers nothing yet.
    pub fn new(kind: OptimizerKind, length: usize) -> Self {
        let second = match kind {
            OptimizerKind::Momentum { .. } => Vec::new(),
            OptimizerKind::Adam { .. } => vec![0.0; length],
        };
        Self { kind, steps: 0, first: vec![0.0; length], second }
    }

    pub fn set_rate(&mut self, new: f32) {
        match &mut self.kind { OptimizerKind::Momentum { rate, .. } | OptimizerKind::Adam { rate, .. } => *rate = new }
    }

    /// Applies one gradient. Values that are no numbers are taken as zero, so that one bad batch
    /// cannot poison the parameters.
    pub fn apply(&mut self, parameters: &mut [f32], gradient: &[f32]) {
        self.steps += 1;
        let clean = |value: f32| if value.is_finite() { value } else { 0.0 };
        match self.kind {
            OptimizerKind::Momentum { rate, momentum } => {
                for ((value, step), slope) in parameters.iter_mut().zip(&mut self.first).zip(gradient) {
                    *step = *step * momentum - rate * clean(*slope);
                    *value += *step;
                }
            }
            OptimizerKind::Adam { rate, beta1, beta2 } => {
                let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
                let unbias1 = 1.0 / (1.0 - beta1.powi(steps));
                let unbias2 = 1.0 / (1.0 - beta2.powi(steps));
                let moments = self.first.iter_mut().zip(&mut self.second);
                for ((value, (mean, square)), slope) in parameters.iter_mut().zip(moments).zip(gradient) {
                    let slope = clean(*slope);
                    *mean = beta1 * *mean + (1.0 - beta1) * slope;
                    *square = beta2 * *square + (1.0 - beta2) * slope * slope;
                    *value -= rate * (*mean * unbias1) / ((*square * unbias2).sqrt() + 1e-8);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rules_find_the_bottom_of_a_bowl() {
        for kind in [OptimizerKind::adam(0.05), OptimizerKind::Momentum { rate: 0.05, momentum: 0.8 }] {
            let mut at = vec![3.0, -2.0];
            let mut optimizer = Optimizer::new(kind, 2);
            for _ in 0..400 {
                let slope: Vec<f32> = at.iter().map(|x| 2.0 * (x - 1.0)).collect();
                optimizer.apply(&mut at, &slope);
            }
            assert!(at.iter().all(|x| (x - 1.0).abs() < 0.05), "{kind:?} ends at {at:?}");
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing() {
        let mut at = vec![1.0];
        Optimizer::new(OptimizerKind::adam(0.1), 1).apply(&mut at, &[f32::NAN]);
        assert_eq!(at, [1.0]);
    }
}
