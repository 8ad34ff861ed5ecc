//! The network that tells digits apart, as a function of its parameters.
//!
//! Three convolutions over time, each reading a few neighbouring frames with all their channels at
//! once, then the mean and the maximum over time, then one linear layer. It is a plain [`Model`]:
//! parameters in, loss and gradient out, so that parameter servers and trainers need not know it.
//! A convolution is written as one matrix product over shifted copies of its input, which is what
//! a CPU does fastest.

use crate::features::{Augment, BANDS, FRAMES, Spectrograph};
use crate::recording::{DataSet, Recording};
use candle_core::{D, Device, Tensor, Var};
use impresario_actors::training::model::{Block, Evaluation, Gradient, Model, ModelError};
use impresario_client::protocol::training::OptimizerKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Samples in a batch.
pub const BATCH: usize = 32;

/// How its gradients are best applied.
pub const OPTIMIZER: OptimizerKind =
    OptimizerKind::Adam { rate: 0.004, decay: 0.003, beta1: 0.9, beta2: 0.99 };

/// A smaller data set is gone through several times, each time varied anew, to make one epoch.
const LEAST_SAMPLES: usize = 2_000;

const DIGITS: usize = 10;
const KEEP: f32 = 0.75;

/// Frames read at once, channels in, channels out; frames are halved after each.
const CONVOLUTIONS: [(usize, usize, usize); 3] = [(5, BANDS, 64), (3, 64, 96), (3, 96, 96)];
const PENULTIMATE: usize = 2 * CONVOLUTIONS[2].2;

/// The digits and the network that learns them.
pub struct Digits {
    training: Vec<Sample>,
    testing: Vec<Sample>,
    augment: Augment,
    device: Device,
}

struct Sample {
    picture: Vec<f32>,
    digit: u32,
}

impl Digits {
    /// Computes the pictures of all recordings.
    pub fn new(data: &DataSet) -> Self {
        let spectrograph = Spectrograph::default();
        let samples = |recordings: &[Recording]| -> Vec<Sample> {
            let sample = |one: &Recording| Sample {
                picture: spectrograph.picture(&one.samples),
                digit: u32::from(one.digit),
            };
            recordings.iter().map(sample).collect()
        };
        Self {
            training: samples(&data.training),
            testing: samples(&data.testing),
            augment: Augment::default(),
            device: Device::Cpu,
        }
    }

    fn copies(&self) -> usize {
        LEAST_SAMPLES.div_ceil(self.training.len().max(1))
    }

    fn shapes() -> Vec<(String, usize, usize)> {
        let mut shapes = Vec::new();
        for (layer, (width, inputs, outputs)) in CONVOLUTIONS.into_iter().enumerate() {
            shapes.push((format!("convolution{layer}.weight"), width * inputs, outputs));
            shapes.push((format!("convolution{layer}.bias"), 1, outputs));
        }
        shapes.push(("linear.weight".to_owned(), PENULTIMATE, DIGITS));
        shapes.push(("linear.bias".to_owned(), 1, DIGITS));
        shapes
    }

    fn variables(&self, parameters: &[f32]) -> Result<Vec<Var>, ModelError> {
        let shapes = Self::shapes();
        let expected: usize = shapes.iter().map(|(_, rows, columns)| rows * columns).sum();
        if parameters.len() != expected {
            return Err(ModelError::Shape { expected, found: parameters.len() });
        }
        let mut rest = parameters;
        let mut variables = Vec::with_capacity(shapes.len());
        for (_, rows, columns) in shapes {
            let (values, after) = rest.split_at(rows * columns);
            rest = after;
            let tensor = Tensor::from_slice(values, (rows, columns), &self.device);
            variables.push(tensor.and_then(|t| Var::from_tensor(&t)).map_err(compute)?);
        }
        Ok(variables)
    }

    /// Scores for each picture and digit; `random` switches dropout on.
    fn scores(
        &self,
        variables: &[Var],
        pictures: Vec<f32>,
        random: Option<&mut StdRng>,
    ) -> candle_core::Result<Tensor> {
        let count = pictures.len() / (FRAMES * BANDS);
        let mut layer = Tensor::from_vec(pictures, (count, FRAMES, BANDS), &self.device)?;
        for (index, (width, inputs, outputs)) in CONVOLUTIONS.into_iter().enumerate() {
            let frames = layer.dim(1)?;
            let padded = layer.pad_with_zeros(1, width / 2, width / 2)?;
            let shifted = (0..width)
                .map(|shift| padded.narrow(1, shift, frames))
                .collect::<candle_core::Result<Vec<_>>>()?;
            let rows = Tensor::cat(&shifted, 2)?.reshape((count * frames, width * inputs))?;
            let product = rows.matmul(&variables[2 * index])?;
            let active = product.broadcast_add(&variables[2 * index + 1])?.relu()?;
            layer = active.reshape((count, frames / 2, 2, outputs))?.max(2)?;
        }
        let mut pooled = Tensor::cat(&[layer.mean(1)?, layer.max(1)?], 1)?;
        if let Some(random) = random {
            let mask: Vec<f32> = (0..count * PENULTIMATE)
                .map(|_| if random.random::<f32>() < KEEP { 1.0 / KEEP } else { 0.0 })
                .collect();
            pooled = (pooled * Tensor::from_vec(mask, (count, PENULTIMATE), &self.device)?)?;
        }
        pooled.matmul(&variables[6])?.broadcast_add(&variables[7])
    }
}

fn compute(error: candle_core::Error) -> ModelError {
    ModelError::Compute { reason: error.to_string() }
}

impl Model for Digits {
    fn blocks(&self) -> Vec<Block> {
        Self::shapes()
            .into_iter()
            .map(|(name, rows, columns)| Block { name, length: rows * columns })
            .collect()
    }

    fn initial(&self, seed: u64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut values = Vec::new();
        for (_, rows, columns) in Self::shapes() {
            // Biases have one row and start at zero; weights as He et al. propose for rectifiers.
            let limit = if rows == 1 { 0.0 } else { (6.0 / rows as f32).sqrt() };
            values
                .extend((0..rows * columns).map(|_| (random.random::<f32>() * 2.0 - 1.0) * limit));
        }
        values
    }

    fn samples(&self) -> u64 {
        (self.training.len() * self.copies()) as u64
    }

    fn gradient(
        &mut self,
        parameters: &[f32],
        samples: &[u64],
        seed: u64,
    ) -> Result<Gradient, ModelError> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pictures = Vec::with_capacity(samples.len() * FRAMES * BANDS);
        let mut digits = Vec::with_capacity(samples.len());
        for index in samples {
            let sample = usize::try_from(*index)
                .ok()
                .filter(|index| *index < self.training.len() * self.copies())
                .and_then(|index| self.training.get(index % self.training.len()))
                .ok_or(ModelError::NoSuchSample { index: *index, samples: self.samples() })?;
            self.augment.vary(&sample.picture, &mut random, &mut pictures);
            digits.push(sample.digit);
        }
        let variables = self.variables(parameters)?;
        let count = digits.len();
        let (loss, gradients) = self
            .scores(&variables, pictures, Some(&mut random))
            .and_then(|scores| {
                let digits = Tensor::from_vec(digits, count, &self.device)?;
                let loss = candle_nn::loss::cross_entropy(&scores, &digits)?;
                let gradients = loss.backward()?;
                Ok((loss.to_scalar::<f32>()?, gradients))
            })
            .map_err(compute)?;
        let mut values = Vec::with_capacity(parameters.len());
        for variable in &variables {
            let gradient = gradients.get(variable).ok_or_else(|| ModelError::Compute {
                reason: "a parameter has no influence on the loss".to_owned(),
            })?;
            let flat = gradient.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
            values.extend(flat.map_err(compute)?);
        }
        Ok(Gradient { loss, values })
    }

    fn evaluate(&mut self, parameters: &[f32]) -> Result<Evaluation, ModelError> {
        let variables = self.variables(parameters)?;
        let (mut loss, mut right) = (0.0, 0);
        for part in self.testing.chunks(128) {
            let pictures = part.iter().flat_map(|sample| sample.picture.iter().copied()).collect();
            let digits: Vec<u32> = part.iter().map(|sample| sample.digit).collect();
            let scores = self.scores(&variables, pictures, None).map_err(compute)?;
            let guesses =
                scores.argmax(D::Minus1).and_then(|g| g.to_vec1::<u32>()).map_err(compute)?;
            right += guesses.iter().zip(&digits).filter(|(guess, digit)| guess == digit).count();
            let mean = Tensor::from_slice(&digits, digits.len(), &self.device)
                .and_then(|digits| {
                    candle_nn::loss::cross_entropy(&scores, &digits)?.to_scalar::<f32>()
                })
                .map_err(compute)?;
            loss += mean * part.len() as f32;
        }
        let count = self.testing.len().max(1) as f32;
        Ok(Evaluation { loss: loss / count, accuracy: right as f32 / count })
    }
}
