//! What a bid is worth, as far as it can be believed. What a job reports of itself is its own business until it
//! asks for others' resources with it: a bid that cannot be true is not priced by what it says.

use super::wire::{in_hall, speed_of};
use impresario_auction::hall::{Size, Worth};
use impresario_auction::speed::Speed;
use impresario_client::protocol::training::{Bid, SpeedModel};

/// No job has more steps before it, or samples in one.
const MOST_STEPS: f64 = 1e15;
/// No coefficient of a speed is more, in seconds.
const LONGEST_STEP_SECONDS: f64 = 1e9;
/// No change of size costs more, in seconds.
const LONGEST_RESCALE_SECONDS: f64 = 86_400.0;
/// How much less sure a speed is with e times the trainers that were measured.
const BEYOND: f64 = 0.1;
/// Who is less sure of a prediction knows nothing.
const MOST_UNCERTAINTY: f64 = 1e3;
/// No trainer does a step in less, in seconds.
const SHORTEST_STEP_SECONDS: f64 = 1e-6;
/// What is taken of a job whose bid makes no sense: so many steps of a second each.
const UNKNOWN_STEPS: f64 = 1_000.0;
const UNKNOWN_RESCALE_SECONDS: f64 = 0.5;

/// What is believed of a bid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Believed {
    doubt: Option<&'static str>,
    remaining: f64,
    remaining_uncertainty: f64,
    speed: Speed,
    speed_uncertainty: f64,
    /// The most trainers that the speed was measured with.
    measured: u32,
    rescale_seconds: f64,
    attained_service: f64,
}

impl Believed {
    /// Reads a bid.
    pub(super) fn of(bid: &Bid) -> Self {
        if let Some(doubt) = doubt(bid) {
            return Self {
                doubt: Some(doubt),
                remaining: UNKNOWN_STEPS,
                remaining_uncertainty: 0.0,
                speed: Speed::Asynchronous { a: [1.0, 0.0, 0.0, 0.0] },
                speed_uncertainty: 0.0,
                measured: u32::MAX,
                rescale_seconds: UNKNOWN_RESCALE_SECONDS,
                attained_service: f64::INFINITY,
            };
        }
        let speed = speed_of(&bid.speed);
        let size = in_hall(if bid.current.trainers > 0 { bid.current } else { bid.min });
        let rate = speed.steps_per_second(size);
        let attained = bid.done_steps as f64 * f64::from(size.workers) / rate;
        Self {
            doubt: None,
            remaining: bid.remaining_steps,
            remaining_uncertainty: bid.remaining_uncertainty,
            speed,
            speed_uncertainty: bid.speed_uncertainty,
            measured: bid.measured_trainers,
            // What it may well cost: a change is made for a gain that is sure.
            rescale_seconds: bid.rescale_seconds + bid.rescale_uncertainty,
            attained_service: if rate > 0.0 { attained } else { 0.0 },
        }
    }

    /// What cannot be in the bid, in words.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        self.doubt
    }

    /// What a change of size costs, in seconds.
    pub(super) fn rescale_seconds(&self) -> f64 {
        self.rescale_seconds
    }

    /// The trainer-seconds that its steps took, by its own speed.
    pub(super) fn attained_service(&self) -> f64 {
        self.attained_service
    }
}

impl Worth for Believed {
    fn remaining(&self) -> Option<f64> {
        Some(self.remaining)
    }

    fn uncertainty(&self, size: Size) -> f64 {
        let ratio = f64::from(size.workers) / f64::from(self.measured.max(1));
        let beyond = if ratio > 1.0 { BEYOND * ratio.ln() } else { 0.0 };
        self.remaining_uncertainty.hypot(self.speed_uncertainty + beyond)
    }

    fn rate(&self, size: Size) -> Option<f64> {
        Some(self.speed.steps_per_second(size))
    }
}

fn doubt(bid: &Bid) -> Option<&'static str> {
    let (coefficients, batch): (&[f64], f64) = match &bid.speed {
        SpeedModel::Asynchronous { a } => (a, 1.0),
        SpeedModel::Synchronous { a, batch } => (a, *batch),
    };
    let is_amount = |value: f64, most: f64| (0.0..=most).contains(&value);
    let alone = Size { servers: 1, workers: 1 };
    if !is_amount(bid.remaining_steps, MOST_STEPS)
        || !is_amount(bid.remaining_uncertainty, MOST_UNCERTAINTY)
    {
        Some("its remaining steps cannot be")
    } else if !coefficients.iter().all(|value| is_amount(*value, LONGEST_STEP_SECONDS))
        || !is_amount(batch, MOST_STEPS)
        || !is_amount(bid.speed_uncertainty, MOST_UNCERTAINTY)
        || speed_of(&bid.speed).steps_per_second(alone) * SHORTEST_STEP_SECONDS > 1.0
    {
        Some("its speed cannot be")
    } else if !is_amount(bid.rescale_seconds, LONGEST_RESCALE_SECONDS)
        || !is_amount(bid.rescale_uncertainty, LONGEST_RESCALE_SECONDS)
    {
        Some("what it says that a change of size costs cannot be")
    } else {
        None
    }
}
