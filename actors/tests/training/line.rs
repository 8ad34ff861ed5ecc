//! A model small enough to reason about: a line through points that lie on one.

use impresario_actors::training::model::{Block, Evaluation, Gradient, Model, ModelError};
use parking_lot::{Condvar, Mutex};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long a test waits for what must come: one that passes never does, on however slow a machine.
pub const LIMIT: Duration = Duration::from_mins(5);

pub const SAMPLES: u64 = 64;
const INPUTS: usize = 12;

/// Passes over the data of the jobs that count their gradients.
pub const COUNTED_EPOCHS: u64 = 80;
const COUNTED_STEPS: u64 = COUNTED_EPOCHS * SAMPLES / 8;

/// How long a gradient takes: long until the test has seen what it wants of the middle of a job.
#[derive(Clone, Default)]
pub struct Pace(Arc<Paces>);

#[derive(Default)]
struct Paces {
    hurry: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
}

impl Pace {
    /// On to the end.
    pub fn hurry(&self) {
        self.0.hurry.store(true, Ordering::Release);
    }

    /// While they are held, no gradient is done.
    pub fn hold(&self, held: bool) {
        *self.0.held.lock() = held;
        self.0.released.notify_all();
    }

    fn wait(&self) {
        let millis = if self.0.hurry.load(Ordering::Acquire) { 2 } else { 100 };
        std::thread::sleep(Duration::from_millis(millis));
        let mut held = self.0.held.lock();
        self.0.released.wait_while_for(&mut held, |held| *held, LIMIT);
    }
}

/// Finds twelve coefficients and an intercept.
pub struct Line {
    /// How long a gradient takes.
    pub pace: Pace,
}

fn truth(index: usize) -> f32 {
    (index as f32 * 0.7).sin()
}

fn point(sample: u64) -> ([f32; INPUTS], f32) {
    let mut x = [0.0; INPUTS];
    for (index, value) in x.iter_mut().enumerate() {
        *value = ((sample * 31 + index as u64 * 17) % 23) as f32 / 11.5 - 1.0;
    }
    let y = x.iter().enumerate().map(|(index, x)| x * truth(index)).sum::<f32>() + 0.5;
    (x, y)
}

impl Line {
    fn error(parameters: &[f32], sample: u64) -> (f32, [f32; INPUTS]) {
        let (x, y) = point(sample);
        let guess = x.iter().zip(parameters).map(|(x, w)| x * w).sum::<f32>() + parameters[INPUTS];
        (guess - y, x)
    }
}

/// Learns how many gradients have been applied, so that one that is lost or counted twice in any part of the
/// parameters shows in the values: each gradient is -1 everywhere, and the rate is 1.
pub struct Counter {
    /// How long a gradient takes.
    pub pace: Pace,
}

impl Counter {
    /// The running mean of 1, 2, 3 up to `steps`, as a parameter server keeps it.
    fn mean(steps: u64) -> f32 {
        (1..=steps).fold(0.0, |mean, step| {
            let keep = (1.0 - 1.0 / step as f32).min(0.98);
            mean * keep + step as f32 * (1.0 - keep)
        })
    }

    /// How far the parameters are from those after exactly so many gradients.
    pub fn error(parameters: &[f32], steps: u64) -> f32 {
        let expected = Self::mean(steps);
        parameters.iter().map(|value| (value - expected).abs()).fold(0.0, f32::max)
    }
}

impl Model for Counter {
    fn blocks(&self) -> Vec<Block> {
        vec![Block { name: "counts".into(), length: INPUTS + 1 }]
    }

    fn initial(&self, _: u64) -> Vec<f32> {
        vec![0.0; INPUTS + 1]
    }

    fn samples(&self) -> u64 {
        SAMPLES
    }

    fn gradient(&mut self, parameters: &[f32], _: &[u64], _: u64) -> Result<Gradient, ModelError> {
        self.pace.wait();
        Ok(Gradient { loss: 1.0, values: vec![-1.0; parameters.len()] })
    }

    /// The loss is how far the parameters are from those after the steps of the whole job.
    fn evaluate(&mut self, parameters: &[f32]) -> Result<Evaluation, ModelError> {
        Ok(Evaluation { loss: Self::error(parameters, COUNTED_STEPS), accuracy: 0.5 })
    }
}

impl Model for Line {
    fn blocks(&self) -> Vec<Block> {
        vec![
            Block { name: "coefficients".into(), length: INPUTS },
            Block { name: "intercept".into(), length: 1 },
        ]
    }

    fn initial(&self, _: u64) -> Vec<f32> {
        vec![0.0; INPUTS + 1]
    }

    fn samples(&self) -> u64 {
        SAMPLES
    }

    fn gradient(
        &mut self,
        parameters: &[f32],
        samples: &[u64],
        _: u64,
    ) -> Result<Gradient, ModelError> {
        self.pace.wait();
        let mut values = vec![0.0; parameters.len()];
        let mut loss = 0.0;
        for sample in samples {
            let (error, x) = Self::error(parameters, *sample);
            loss += error * error / samples.len() as f32;
            for (value, x) in values.iter_mut().zip(x.iter().chain(&[1.0])) {
                *value += 2.0 * error * x / samples.len() as f32;
            }
        }
        Ok(Gradient { loss, values })
    }

    fn evaluate(&mut self, parameters: &[f32]) -> Result<Evaluation, ModelError> {
        let errors = (0..SAMPLES).map(|sample| Self::error(parameters, sample).0.powi(2));
        let loss = errors.sum::<f32>() / SAMPLES as f32;
        Ok(Evaluation { loss, accuracy: 1.0 / (1.0 + loss) })
    }
}
