//! Steps a second as a function of parameter servers and workers (Optimus, EuroSys 2018, section 3.2), fitted to
//! what a job has measured.
//!
//! Every size that a job really ran in counts once, with its latest speed, and errors are relative.
//! Before anything is known, and for the first size, more is taken to be proportionally faster: a
//! job finds out by growing.

use crate::hall::Size;
use crate::nnls;
use std::collections::BTreeMap;

/// Steps a second for p parameter servers and w workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// `w / (a0 + a1·w/p + a2·w + a3·p)`
    Asynchronous {
        /// The coefficients, none negative.
        a: [f64; 4],
    },
    /// `1 / (a0·batch/w + a1 + a2·w/p + a3·w + a4·p)`
    Synchronous {
        /// Samples in one step of all workers.
        batch: f64,
        /// The coefficients, none negative.
        a: [f64; 5],
    },
}

/// The latest speed for each size, in steps a second.
pub type Measured = BTreeMap<Size, f64>;

/// The model of an asynchronous job.
#[must_use]
pub fn fit_asynchronous(measured: &Measured) -> Speed {
    let rows: Vec<_> = usable(measured)
        .map(|(p, w, speed)| {
            let time = w / speed;
            ([1.0, w / p, w, p].map(|term| term / time), 1.0)
        })
        .collect();
    let mut a = nnls::solve(&rows);
    if a.iter().all(|value| *value <= 0.0) {
        a[0] = 1.0;
    }
    Speed::Asynchronous { a }
}

/// The model of a job whose trainers compute each step together, of so many samples.
#[must_use]
pub fn fit_synchronous(measured: &Measured, batch: f64) -> Speed {
    let batch = batch.max(1.0);
    let rows: Vec<_> = usable(measured)
        .map(|(p, w, speed)| ([batch / w, 1.0, w / p, w, p].map(|term| term * speed), 1.0))
        .collect();
    let mut a = nnls::solve(&rows);
    if a.iter().all(|value| *value <= 0.0) {
        a[0] = 1.0 / batch;
    }
    Speed::Synchronous { batch, a }
}

/// Relative standard deviation of what the model says of the sizes that were measured: the root mean square of
/// the logarithm of predicted over measured.
#[must_use]
pub fn error_on(speed: &Speed, measured: &Measured) -> f64 {
    let mut squares = Vec::new();
    for (p, w, seen) in usable(measured) {
        let size = Size { servers: p as u32, workers: w as u32 };
        squares.push((speed.steps_per_second(size) / seen).ln().powi(2));
    }
    let mean = squares.iter().sum::<f64>() / squares.len().max(1) as f64;
    if mean.is_finite() { mean.sqrt() } else { 1.0 }
}

fn usable(measured: &Measured) -> impl Iterator<Item = (f64, f64, f64)> + '_ {
    measured
        .iter()
        .filter(|(size, speed)| size.workers > 0 && speed.is_finite() && **speed > 0.0)
        .map(|(size, speed)| (f64::from(size.servers.max(1)), f64::from(size.workers), *speed))
}

impl Speed {
    /// Steps a second with this size; none without a worker.
    #[must_use]
    pub fn steps_per_second(&self, size: Size) -> f64 {
        if size.workers == 0 {
            return 0.0;
        }
        // A job without parameter servers moves nothing between them.
        let (p, w) = (f64::from(size.servers.max(1)), f64::from(size.workers));
        let (work, time) = match self {
            Self::Asynchronous { a } => (w, a[0] + a[1] * w / p + a[2] * w + a[3] * p),
            Self::Synchronous { batch, a } => {
                (1.0, a[0] * batch / w + a[1] + a[2] * w / p + a[3] * w + a[4] * p)
            }
        };
        if time > 0.0 { work / time } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "these are exact")]

    use super::*;

    fn size(servers: u32, workers: u32) -> Size {
        Size { servers, workers }
    }

    #[test]
    fn a_few_sizes_predict_the_others() {
        let truth = Speed::Asynchronous { a: [0.1, 0.03, 0.01, 0.002] };
        let measured = [(1, 1), (1, 2), (2, 2), (1, 4), (2, 4), (4, 4)]
            .map(|(p, w)| (size(p, w), truth.steps_per_second(size(p, w))));
        let model = fit_asynchronous(&measured.into_iter().collect());
        for (p, w) in [(3, 3), (4, 8), (2, 6)] {
            let (seen, real) =
                (model.steps_per_second(size(p, w)), truth.steps_per_second(size(p, w)));
            assert!((seen / real - 1.0).abs() < 0.02, "{p},{w}: {seen} for {real}");
        }
    }

    #[test]
    fn a_few_sizes_predict_the_others_of_a_job_that_computes_each_step_together() {
        let truth = Speed::Synchronous { batch: 64.0, a: [0.01, 0.02, 0.005, 0.004, 0.001] };
        let sizes = [(1, 1), (1, 2), (2, 2), (1, 4), (2, 4), (4, 4), (1, 8)];
        let measured = sizes.map(|(p, w)| (size(p, w), truth.steps_per_second(size(p, w))));
        let model = fit_synchronous(&measured.into(), 64.0);
        for (p, w) in [(3, 3), (4, 8), (2, 6)] {
            let (seen, real) =
                (model.steps_per_second(size(p, w)), truth.steps_per_second(size(p, w)));
            assert!((seen / real - 1.0).abs() < 0.02, "{p},{w}: {seen} for {real}");
        }
        let first = fit_synchronous(&[(size(1, 1), 8.0)].into(), 64.0);
        assert!(
            (first.steps_per_second(size(1, 2)) - 16.0).abs() < 1e-6,
            "it finds out by growing"
        );
    }

    #[test]
    fn the_error_is_what_the_model_is_off_by_on_what_was_measured() {
        let speed = Speed::Asynchronous { a: [0.1, 0.0, 0.0, 0.0] };
        let measured = |factor: f64| Measured::from([(size(1, 2), 20.0 * factor)]);
        assert!(error_on(&speed, &measured(1.0)) < 1e-9);
        assert!((error_on(&speed, &measured(1.1)) - 1.1f64.ln()).abs() < 1e-9);
        assert_eq!(error_on(&speed, &Measured::new()), 0.0);
    }

    #[test]
    fn after_one_size_more_trainers_are_hoped_to_be_faster() {
        let model = fit_asynchronous(&[(size(1, 1), 8.0)].into());
        assert!((model.steps_per_second(size(1, 2)) - 16.0).abs() < 1e-9);
        assert_eq!(model.steps_per_second(size(1, 0)), 0.0);
    }

    #[test]
    fn trainers_that_bring_nothing_are_seen_to_bring_nothing() {
        let measured = [(size(1, 1), 10.0), (size(1, 2), 11.0), (size(1, 3), 11.0)];
        let model = fit_asynchronous(&measured.into());
        let (three, four) =
            (model.steps_per_second(size(1, 3)), model.steps_per_second(size(1, 4)));
        assert!(four / three < 1.03, "{three} to {four}");
    }
}
