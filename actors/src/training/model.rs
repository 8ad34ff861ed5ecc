//! What a program brings to be trained: a plain function of its parameters.
//!
//! The parameters are one flat vector, cut into named blocks. Nothing here knows where they are
//! kept, who computes, or how many do.

use thiserror::Error;

/// A named run of parameters, such as one layer's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What the model calls it.
    pub name: String,
    /// How many parameters it has.
    pub length: usize,
}

/// What one batch says about the parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// Mean loss over the batch.
    pub loss: f32,
    /// One value for each parameter, in the order of the blocks.
    pub values: Vec<f32>,
}

/// How good the parameters are on data that is never trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss.
    pub loss: f32,
    /// Part of the answers that is right, 0 to 1.
    pub accuracy: f32,
}

/// Why a model could not compute.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelError {
    /// The parameters are of another model.
    #[error(
        "{found} parameters for a model of {expected}: start the job with one version of the program"
    )]
    Shape {
        /// Parameters of the model.
        expected: usize,
        /// Parameters given.
        found: usize,
    },
    /// The data plan speaks of data that this process does not have.
    #[error("sample {index} of {samples}: give every trainer the same data set")]
    NoSuchSample {
        /// Which one was asked for.
        index: u64,
        /// How many there are.
        samples: u64,
    },
    /// The evaluation makes no sense.
    #[error("an accuracy of {accuracy} is not between 0 and 1: mend the model's `evaluate`")]
    NoAccuracy {
        /// What the model said.
        accuracy: f32,
    },
    /// The numeric library failed.
    #[error("the model cannot be computed: {reason}")]
    Compute {
        /// What it said.
        reason: String,
    },
}

/// A function of parameters: loss and gradient on some samples, quality on the rest.
pub trait Model: Send {
    /// The parameters in their order.
    fn blocks(&self) -> Vec<Block>;

    /// Values to begin with; the same for the same seed.
    fn initial(&self, seed: u64) -> Vec<f32>;

    /// Samples in one epoch.
    fn samples(&self) -> u64;

    /// Mean loss and gradient over the samples with these indices. `seed` decides all chance.
    fn gradient(
        &mut self,
        parameters: &[f32],
        samples: &[u64],
        seed: u64,
    ) -> Result<Gradient, ModelError>;

    /// Quality on data that is never trained on.
    fn evaluate(&mut self, parameters: &[f32]) -> Result<Evaluation, ModelError>;
}
