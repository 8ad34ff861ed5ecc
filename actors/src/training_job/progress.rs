//! What a job has learned about itself: losses, speeds, evaluations, and what they predict.

use super::spec::StopRule;
use crate::auction::{in_hall, model_of};
use impresario_auction::loss_curve::{self, LossCurve};
use impresario_auction::speed::{self, Measured, Speed};
use impresario_client::protocol::training::{Evaluated, Progress, Size, SpeedModel};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Losses that are kept for the curve.
const HISTORY: usize = 2_000;
/// The mean of so many losses is what people see.
const RECENT: usize = 50;
/// A speed counts once it has been measured for so long without a change of size.
const SETTLED: Duration = Duration::from_millis(1_500);
/// And it is measured over this window, or over [`STEPS_EACH`] if those take longer.
const WINDOW: Duration = Duration::from_secs(4);
/// The least steps of each trainer that speeds are measured over.
const STEPS_EACH: usize = 8;
/// No more steps are remembered for it.
const MOST_STEPS: usize = 1 << 14;
/// Who waits so many times as long as steps take does something else.
const PAUSE: u32 = 4;
/// What a change of size is taken to cost before one has been seen.
const FIRST_RESCALE_SECONDS: f64 = 0.5;
/// A curve is fitted anew after so many steps.
const REFIT: u64 = 25;
/// So many curves are kept to tell how sure they are.
const CURVES: usize = 8;
/// What is said of a prediction before there are curves to compare.
const FIRST_UNCERTAINTY: f64 = 0.5;
/// More says nothing more.
const MOST_UNCERTAINTY: f64 = 10.0;
/// What is said of a speed that one size was measured of.
const ONE_SIZE_UNCERTAINTY: f64 = 0.2;

/// The job's own measurements.
#[derive(Debug, Default)]
pub struct ProgressBook {
    losses: VecDeque<(u64, f64)>,
    /// The latest curves, the newest last: how far their predictions lie apart says how sure they are.
    curves: VecDeque<LossCurve>,
    fitted_at: u64,
    steps: u64,
    finished: VecDeque<Instant>,
    size: Size,
    size_since: Option<Instant>,
    measured: Measured,
    batch_seconds: Option<f64>,
    evaluated: Option<Evaluated>,
    /// What changes of size cost: mean and variance, the latest counting most.
    rescale: Option<(f64, f64)>,
    gradient_square: f64,
    /// Samples in one step of all trainers, if they compute each together.
    batch: Option<u64>,
    /// Of the latest step: its number, losses as often as there were samples, and samples.
    latest: (u64, f64, u64),
}

impl ProgressBook {
    /// A batch is done.
    pub fn step(&mut self, progress: &Progress, now: Instant) {
        self.steps += 1;
        if let Some(loss) = progress.loss.map(f64::from) {
            if self.losses.len() == HISTORY {
                // Every second of the older half goes: the curve needs its beginning.
                let kept = self.losses.iter().enumerate();
                self.losses = kept
                    .filter(|(index, _)| *index >= HISTORY / 2 || index % 2 == 0)
                    .map(|(_, point)| *point)
                    .collect();
            }
            let at = self.losses.partition_point(|(step, _)| *step < progress.step);
            self.losses.insert(at, (progress.step, loss));
            self.latest = (progress.step, loss * progress.samples as f64, progress.samples);
        }
        let seconds = f64::from(progress.seconds);
        // Who finds a step done by others says nothing of how long one takes.
        if seconds > 0.0 {
            self.batch_seconds =
                Some(self.batch_seconds.map_or(seconds, |mean| mean * 0.9 + seconds * 0.1));
        }
        if let Some(square) = progress.gradient_square.map(f64::from) {
            self.gradient_square = self.gradient_square * 0.95 + square * 0.05;
        }
        let trainers = self.size.trainers as usize;
        let least = trainers.max(1).saturating_mul(STEPS_EACH);
        if self.has_paused(least, now) {
            self.finished.clear();
        }
        self.finished.push_back(now);
        let is_old = |at: &Instant| now.duration_since(*at) > WINDOW;
        while self.finished.len() > MOST_STEPS
            || self.finished.len() > least && self.finished.front().is_some_and(is_old)
        {
            self.finished.pop_front();
        }
        let settled = self.size_since.is_some_and(|since| now.duration_since(since) > SETTLED);
        if settled && trainers > 0 {
            let speed = self.steps_per_second(now);
            if speed > 0.0 {
                self.measured.insert(in_hall(self.size), speed);
            }
        }
        if self.steps >= self.fitted_at + REFIT {
            self.fitted_at = self.steps;
            let history: Vec<(u64, f64)> = self.losses.iter().copied().collect();
            match loss_curve::fit(&history) {
                Some(curve) => {
                    self.curves.push_back(curve);
                    let many = self.curves.len().saturating_sub(CURVES);
                    self.curves.drain(..many);
                }
                None => self.curves.clear(),
            }
        }
    }

    /// Trainers compute each step together, of so many samples.
    pub fn is_synchronous(&mut self, batch: u64) {
        self.batch = Some(batch);
    }

    /// Another trainer tells of its part of a step that is done.
    pub fn joins(&mut self, progress: &Progress) {
        let (step, sum, samples) = &mut self.latest;
        let Some(loss) = progress.loss.map(f64::from).filter(|_| *step == progress.step) else {
            return;
        };
        *sum += loss * progress.samples as f64;
        *samples = samples.saturating_add(progress.samples);
        let mean = *sum / (*samples).max(1) as f64;
        let at = self.losses.partition_point(|(step, _)| *step < progress.step);
        if let Some((step, known)) = self.losses.get_mut(at)
            && *step == progress.step
        {
            *known = mean;
        }
    }

    /// The model of speed that fits this job's way to train.
    fn fitted(&self) -> Speed {
        match self.batch {
            Some(batch) => speed::fit_synchronous(&self.measured, batch as f64),
            None => speed::fit_asynchronous(&self.measured),
        }
    }

    /// Whether the last step was so much longer ago than a trainer takes for one that something else was in between:
    /// nothing was there to be done, or the machine stood still. With fewer steps than `least` nobody can say.
    fn has_paused(&self, least: usize, now: Instant) -> bool {
        if self.finished.len() < least {
            return false;
        }
        let (Some(first), Some(last)) = (self.finished.front(), self.finished.back()) else {
            return false;
        };
        let between = u32::try_from(self.finished.len() - 1).unwrap_or(u32::MAX);
        let of_one = (last.duration_since(*first) / between).saturating_mul(self.size.trainers);
        now.duration_since(*last) > WINDOW.max(of_one.saturating_mul(PAUSE))
    }

    /// The parameters were evaluated.
    pub fn evaluated(&mut self, evaluated: Evaluated) {
        self.evaluated = Some(evaluated);
    }

    /// The size is this now.
    pub fn size_is(&mut self, size: Size, now: Instant) {
        if self.size != size {
            self.size = size;
            self.size_since = Some(now);
            self.finished.clear();
        }
    }

    /// A change of size took so long.
    pub fn rescaled(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.rescale = Some(match self.rescale {
            // One change says nothing of how they differ: it may be off by half.
            None => (took, (took / 2.0).powi(2)),
            Some((mean, variance)) => {
                let off = took - mean;
                (mean + off / 2.0, f64::midpoint(variance, off * off / 2.0))
            }
        });
    }

    /// What a change of size costs, in seconds of work, and the standard deviation of that.
    pub fn rescale_seconds(&self) -> (f64, f64) {
        let before_any = (FIRST_RESCALE_SECONDS, FIRST_RESCALE_SECONDS);
        self.rescale.map_or(before_any, |(mean, variance)| (mean, variance.sqrt()))
    }

    /// Mean loss lately.
    pub fn loss(&self) -> Option<f64> {
        let count = self.losses.len().min(RECENT);
        let recent = self.losses.iter().rev().take(count).map(|(_, loss)| loss);
        (count > 0).then(|| recent.sum::<f64>() / count as f64)
    }

    /// The latest evaluation.
    pub fn evaluation(&self) -> Option<Evaluated> {
        self.evaluated
    }

    /// How long one trainer takes for one batch.
    pub fn seconds_per_batch(&self) -> f64 {
        self.batch_seconds.unwrap_or(0.2).max(1e-4)
    }

    /// Steps a second in the last few seconds, or over the last few steps where those take longer.
    pub fn steps_per_second(&self, now: Instant) -> f64 {
        let Some(first) = self.finished.front() else { return 0.0 };
        // Trainers that began together end together: the first step of each says nothing yet.
        if self.finished.len() <= self.size.trainers as usize {
            return 0.0;
        }
        let span = now.duration_since(*first).as_secs_f64().max(0.05);
        (self.finished.len() - 1) as f64 / span
    }

    /// Whether anything is known of how fast it is.
    pub fn knows_speed(&self) -> bool {
        self.batch_seconds.is_some()
    }

    /// Whether the speed of any size is known.
    pub fn is_measured(&self) -> bool {
        !self.measured.is_empty()
    }

    /// The most trainers that a speed is known of.
    pub fn measured_trainers(&self) -> u32 {
        self.measured.keys().map(|size| size.workers).max().unwrap_or(0)
    }

    /// Relative standard deviation of what the model says of the sizes that were measured. One size alone is
    /// met exactly and says nothing of others.
    pub fn speed_uncertainty(&self) -> f64 {
        let speed = self.fitted();
        let few = if self.measured.len() < 2 { ONE_SIZE_UNCERTAINTY } else { 0.0 };
        speed::error_on(&speed, &self.measured).max(few)
    }

    /// Speed as a function of size; before a size has been measured by the batches so far alone.
    pub fn speed_model(&self) -> SpeedModel {
        match self.batch_seconds {
            Some(seconds) if self.measured.is_empty() => {
                let first = match self.batch.map(|batch| batch.max(1) as f64) {
                    None => Speed::Asynchronous { a: [seconds, 0.0, 0.0, 0.0] },
                    Some(batch) => {
                        let all = seconds * f64::from(self.size.trainers.max(1));
                        Speed::Synchronous { batch, a: [all / batch, 0.0, 0.0, 0.0, 0.0] }
                    }
                };
                model_of(first)
            }
            _ => model_of(self.fitted()),
        }
    }

    /// Mean loss over the steps of one epoch that are remembered.
    fn epoch_loss(&self, epoch: u64, batches: u64) -> Option<f64> {
        let (first, end) = (epoch * batches, (epoch + 1) * batches);
        let losses: Vec<f64> = self
            .losses
            .iter()
            .filter(|(step, _)| (first..end).contains(step))
            .map(|(_, loss)| *loss)
            .collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// Whether a rule other than the number of epochs says that it is enough.
    pub fn reached(&self, stop: &StopRule, batches: u64, epochs_done: u64) -> bool {
        let last = epochs_done.checked_sub(1).and_then(|epoch| self.epoch_loss(epoch, batches));
        let loss = stop.target_loss.zip(last).is_some_and(|(target, loss)| loss <= target);
        let metric = stop
            .target_metric
            .zip(self.evaluated)
            .is_some_and(|(target, evaluated)| f64::from(evaluated.accuracy) >= target);
        let converged = stop.convergence.is_some_and(|(threshold, epochs)| {
            let largest = self.losses.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
            let falls = epochs_done.checked_sub(epochs).filter(|first| *first > 0);
            falls.is_some_and(|first| {
                (first..epochs_done).all(|epoch| {
                    let fall = self
                        .epoch_loss(epoch - 1, batches)
                        .zip(self.epoch_loss(epoch, batches))
                        .map(|(before, after)| before - after);
                    fall.is_some_and(|fall| fall < threshold * largest)
                })
            })
        });
        loss || metric || converged
    }

    /// Steps that the loss curve predicts until a rule is met.
    pub fn remaining_steps(&self, stop: &StopRule, batches: u64, done: u64) -> Option<f64> {
        let end = end_by(self.curves.back()?, stop, batches)?;
        Some((end - done as f64).max(0.0))
    }

    /// Relative standard deviation of [`Self::remaining_steps`]: how far the ends lie apart that the latest
    /// curves predict.
    pub fn remaining_uncertainty(&self, stop: &StopRule, batches: u64, done: u64) -> f64 {
        let ends: Vec<f64> =
            self.curves.iter().filter_map(|curve| end_by(curve, stop, batches)).collect();
        let Some(last) = ends.last().filter(|_| ends.len() > 2) else { return FIRST_UNCERTAINTY };
        let mean = ends.iter().sum::<f64>() / ends.len() as f64;
        let square = ends.iter().map(|end| (end - mean).powi(2)).sum::<f64>() / ends.len() as f64;
        (square.sqrt() / (last - done as f64).max(1.0)).min(MOST_UNCERTAINTY)
    }

    /// Square of the gradient's norm, lately.
    pub fn gradient_square(&self) -> f64 {
        self.gradient_square
    }
}

/// The step at which a rule is met by this curve.
fn end_by(curve: &LossCurve, stop: &StopRule, batches: u64) -> Option<f64> {
    let target = stop.target_loss.and_then(|target| curve.step_of(target));
    let converged = stop.convergence.map(|(threshold, epochs)| {
        curve.step_of_convergence(batches as f64, threshold) + (epochs * batches) as f64
    });
    [target, converged].into_iter().flatten().reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::clock;

    fn progress(step: u64, loss: f32) -> Progress {
        Progress {
            step,
            samples: 8,
            loss: Some(loss),
            seconds: 0.01,
            compute_seconds: 0.005,
            gradient_square: Some(1.0),
        }
    }

    #[test]
    fn a_speed_counts_only_after_the_size_has_settled() {
        let start = clock::now();
        let mut book = ProgressBook::default();
        let size = Size { parameter_servers: 1, trainers: 1 };
        book.size_is(size, start);
        for step in 0..400 {
            book.step(&progress(step, 1.0), start + Duration::from_millis(10 * step));
        }
        let speed = book.measured[&in_hall(size)];
        assert!((speed - 100.0).abs() < 2.0, "{speed}");
        book.size_is(Size { trainers: 2, ..size }, start + Duration::from_secs(4));
        book.step(&progress(400, 1.0), start + Duration::from_millis(4_010));
        assert_eq!(book.measured.len(), 1);
    }

    #[test]
    fn steps_that_take_longer_than_the_window_are_measured_too() {
        for (trainers, batch) in [(1, 6), (1, 90), (4, 5)] {
            let start = clock::now();
            let mut book = ProgressBook::default();
            let size = Size { parameter_servers: 1, trainers };
            book.size_is(size, start);
            let slow = |step| Progress { seconds: batch as f32, ..progress(step, 1.0) };
            for step in 0..30 * u64::from(trainers) {
                // All begin together, and end some milliseconds apart.
                let (turn, who) = (step / u64::from(trainers), step % u64::from(trainers));
                let now = start + Duration::from_secs((turn + 1) * batch);
                book.step(&slow(step), now + Duration::from_millis(10 * who));
                let SpeedModel::Asynchronous { a } = book.speed_model() else { panic!() };
                assert!(a[0] > 0.4 * batch as f64, "taken for faster than it is: {a:?}");
            }
            assert!(book.is_measured());
            let (speed, truth) =
                (book.measured[&in_hall(size)], f64::from(trainers) / batch as f64);
            assert!((speed / truth - 1.0).abs() < 0.15, "{speed} for {truth}");
        }
    }

    #[test]
    fn a_pause_without_a_change_of_size_is_no_part_of_the_speed() {
        let start = clock::now();
        let mut book = ProgressBook::default();
        let size = Size { parameter_servers: 1, trainers: 1 };
        book.size_is(size, start);
        let tenths = |many: u64| start + Duration::from_millis(100 * many);
        for step in 0..60 {
            book.step(&progress(step, 1.0), tenths(step));
        }
        let before = book.measured[&in_hall(size)];
        for step in 60..63 {
            book.step(&progress(step, 1.0), tenths(step) + Duration::from_secs(60));
            let speed = book.measured[&in_hall(size)];
            assert!((speed - before).abs() < before * 0.2, "{speed} after {before}");
        }
    }

    #[test]
    fn what_is_remembered_of_steps_has_a_bound() {
        let start = clock::now();
        let mut book = ProgressBook::default();
        book.size_is(Size { parameter_servers: 1, trainers: u32::MAX }, start);
        let quick = Progress { loss: None, ..progress(0, 1.0) };
        (0..2 * MOST_STEPS).for_each(|_| book.step(&quick, start));
        assert_eq!(book.finished.len(), MOST_STEPS);
    }

    #[test]
    fn a_loss_that_falls_as_no_curve_does_makes_the_prediction_unsure() {
        let start = clock::now();
        let mut book = ProgressBook::default();
        let stop = StopRule { target_loss: Some(0.1), ..StopRule::default() };
        assert!((book.remaining_uncertainty(&stop, 10, 0) - FIRST_UNCERTAINTY).abs() < 1e-9);
        for step in 0..200u64 {
            // Slowly at first, then all at once.
            let loss = if step < 120 { 1.0 - 0.001 * step as f32 } else { 0.4 };
            book.step(&progress(step, loss), start);
        }
        let unsure = book.remaining_uncertainty(&stop, 10, 200);
        assert!(unsure > 0.3 && unsure <= MOST_UNCERTAINTY, "{unsure}");
    }

    #[test]
    fn what_changes_of_size_cost_is_measured_with_how_much_it_varies() {
        let mut book = ProgressBook::default();
        let (mean, sd) = book.rescale_seconds();
        assert!(mean > 0.0 && sd >= mean, "nothing is known: {mean}, {sd}");
        for _ in 0..12 {
            book.rescaled(Duration::from_millis(80));
        }
        let (mean, sd) = book.rescale_seconds();
        assert!((mean - 0.08).abs() < 1e-6 && sd < 0.005, "{mean}, {sd}");
        book.rescaled(Duration::from_millis(480));
        let (mean, sd) = book.rescale_seconds();
        assert!((mean - 0.28).abs() < 1e-6 && sd > 0.1, "{mean}, {sd}");
    }

    #[test]
    fn a_falling_loss_predicts_its_target_and_reaches_it() {
        let start = clock::now();
        let mut book = ProgressBook::default();
        let loss = |k: f64| 1.0 / (0.05 * k + 0.5) + 0.05;
        for step in 0..100 {
            book.step(&progress(step, loss(step as f64) as f32), start);
        }
        let stop = StopRule { target_loss: Some(0.1), ..StopRule::default() };
        let left = book.remaining_steps(&stop, 10, 100).unwrap();
        assert!((left - 290.0).abs() < 90.0, "{left}");
        // The loss keeps to the curve: the predictions agree.
        let unsure = book.remaining_uncertainty(&stop, 10, 100);
        assert!(unsure < 0.1, "{unsure}");
        assert!(!book.reached(&stop, 10, 10));
        let easy = StopRule { target_loss: Some(0.3), ..StopRule::default() };
        assert!(book.reached(&easy, 10, 10));
        let flat = StopRule { convergence: Some((0.02, 3)), ..StopRule::default() };
        assert!(book.reached(&flat, 10, 10) && !book.reached(&flat, 10, 3));
    }
}
