//! How the loss goes on falling: `l(k) = 1 / (b0·k + b1) + b2`, fitted to what was seen so far.
//!
//! Losses are divided by the largest, a point outside the range of its neighbours is replaced by
//! their mean, and a long history is thinned. For a fixed `b2` the curve is linear in
//! `1 / (l − b2)`, so `b2` is searched and the rest solved.

use crate::nnls;

/// Points that are kept of a history.
const POINTS: usize = 100;

/// A fitted curve. Losses are in units of `scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossCurve {
    b0: f64,
    b1: f64,
    b2: f64,
    scale: f64,
}

/// Fits the curve to (step, loss) in the order of steps. `None` before there is anything to see.
#[must_use]
pub fn fit(history: &[(u64, f64)]) -> Option<LossCurve> {
    let points = thin(&smooth(history));
    let scale = points.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
    let lowest = points.iter().map(|(_, loss)| *loss / scale).fold(f64::INFINITY, f64::min);
    if points.len() < 3 || scale <= 0.0 {
        return None;
    }
    let points: Vec<(f64, f64)> =
        points.iter().map(|(step, loss)| (*step as f64, loss / scale)).collect();
    let attempt = |b2: f64| -> (f64, LossCurve) {
        // An error in l is an error of its own size times 1/(l − b2)² in the reciprocal.
        let rows: Vec<([f64; 2], f64)> = points
            .iter()
            .map(|(step, loss)| {
                let above = (loss - b2).max(1e-6);
                ([step * above * above, above * above], above)
            })
            .collect();
        let [b0, b1] = nnls::solve(&rows);
        let curve = LossCurve { b0, b1, b2, scale };
        let error = points.iter().map(|(step, loss)| (curve.unscaled(*step) - loss).powi(2)).sum();
        (error, curve)
    };
    let (mut low, mut high) = (0.0, lowest * 0.999);
    let mut best = attempt(low);
    for _ in 0..4 {
        let width = (high - low) / 12.0;
        for part in 0..=12 {
            let tried = attempt(low + width * f64::from(part));
            if tried.0 < best.0 {
                best = tried;
            }
        }
        let centre = best.1.b2;
        (low, high) = ((centre - width).max(0.0), (centre + width).min(lowest * 0.999));
    }
    best.0.is_finite().then_some(best.1)
}

impl LossCurve {
    fn unscaled(&self, step: f64) -> f64 {
        1.0 / (self.b0 * step + self.b1).max(1e-9) + self.b2
    }

    /// The loss after so many steps.
    #[must_use]
    pub fn loss(&self, step: f64) -> f64 {
        self.unscaled(step) * self.scale
    }

    /// The step at which the loss reaches `target`; `None` if it never will.
    #[must_use]
    pub fn step_of(&self, target: f64) -> Option<f64> {
        let above = target / self.scale - self.b2;
        (above > 0.0 && self.b0 > 0.0).then(|| ((1.0 / above - self.b1) / self.b0).max(0.0))
    }

    /// The first step from which an epoch of `epoch_steps` lowers the loss by less than `threshold`
    /// of the largest loss.
    #[must_use]
    pub fn step_of_convergence(&self, epoch_steps: f64, threshold: f64) -> f64 {
        let fall = |step: f64| self.unscaled(step) - self.unscaled(step + epoch_steps);
        let (mut low, mut high) = (0.0, epoch_steps.max(1.0));
        while fall(high) > threshold && high < 1e12 {
            (low, high) = (high, high * 2.0);
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if fall(middle) > threshold { low = middle } else { high = middle }
        }
        high
    }
}

fn smooth(history: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let finite: Vec<(u64, f64)> = history.iter().copied().filter(|(_, l)| l.is_finite()).collect();
    (0..finite.len())
        .map(|index| {
            let (step, loss) = finite[index];
            // Two on each side: with one, a wild point would pull its neighbours along.
            let around =
                [index.checked_sub(2), index.checked_sub(1), Some(index + 1), Some(index + 2)];
            let near: Vec<f64> =
                around.into_iter().flatten().filter_map(|i| finite.get(i)).map(|p| p.1).collect();
            let low = near.iter().copied().fold(f64::INFINITY, f64::min);
            let high = near.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if near.len() == 4 && !(low..=high).contains(&loss) {
                (step, near.iter().sum::<f64>() / 4.0)
            } else {
                (step, loss)
            }
        })
        .collect()
}

/// Keeps about [`POINTS`] points, each the mean of those that it stands for.
fn thin(history: &[(u64, f64)]) -> Vec<(u64, f64)> {
    history
        .chunks(history.len().div_ceil(POINTS).max(1))
        .map(|part| {
            let mean = part.iter().map(|(_, loss)| loss).sum::<f64>() / part.len() as f64;
            (part[part.len() / 2].0, mean)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_curve_is_found_again_from_its_first_part(
            b0 in 0.005f64..0.1, b1 in 0.3f64..2.0, b2 in 0.0f64..0.3,
        ) {
            let truth = |k: f64| 1.0 / (b0 * k + b1) + b2;
            let history: Vec<_> = (0..400).map(|k| (k, truth(k as f64))).collect();
            let curve = fit(&history).unwrap();
            for step in [500.0, 1_000.0] {
                let (seen, real) = (curve.loss(step), truth(step));
                prop_assert!((seen - real).abs() < 0.05 * real + 0.01, "{} for {}", seen, real);
            }
        }
    }

    #[test]
    fn one_wild_point_does_not_bend_the_curve() {
        let truth = |k: f64| 1.0 / (0.02 * k + 0.5) + 0.1;
        let mut history: Vec<_> = (0..200).map(|k| (k, truth(k as f64))).collect();
        history[120].1 = 90.0;
        let curve = fit(&history).unwrap();
        assert!((curve.loss(300.0) - truth(300.0)).abs() < 0.02);
    }

    #[test]
    fn a_target_below_the_floor_is_never_reached() {
        let history: Vec<_> = (0..200).map(|k| (k, 1.0 / (0.05 * k as f64 + 1.0) + 0.4)).collect();
        let curve = fit(&history).unwrap();
        assert_eq!(curve.step_of(0.2), None);
        let step = curve.step_of(0.5).unwrap();
        assert!((step - 180.0).abs() < 20.0, "{step}");
        let early = curve.step_of_convergence(10.0, 0.01);
        let late = curve.step_of_convergence(10.0, 0.001);
        assert!(early < late);
    }

    #[test]
    fn nothing_is_said_about_nothing() {
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&[(0, f64::NAN), (1, 1.0), (2, f64::INFINITY)]), None);
    }
}
