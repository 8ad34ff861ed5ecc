//! How long a step takes (Pollux, OSDI 2021, section 3.2), fitted to what a job has measured.
//!
//! Computing a micro-batch of `m` takes `Tg = ac + bc·m`; synchronising `K` replicas takes
//! `Ts = a + b·max(K − 2, 0)`, with one pair for a single node and one for several; a step takes
//! `(Tg^γ + Ts^γ)^(1/γ)` after `s` more `Tg` for accumulation.
//!
//! For a given γ both parts are linear in what is sought, so each is a weighted least-squares
//! problem of two non-negative unknowns with an exact answer. γ is searched on a grid.

use crate::picture::Measurement;

/// The overlaps of computing and synchronising that are tried.
const GAMMAS: [f64; 8] = [1.0, 1.25, 1.6, 2.0, 3.0, 4.5, 7.0, 10.0];
/// No more measurements than this enter a fit: the latest.
const MOST_MEASUREMENTS: usize = 64;

/// A constant and a slope, both at least zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Line {
    constant: f64,
    slope: f64,
}

impl Line {
    fn at(self, x: f64) -> f64 {
        self.constant + self.slope * x
    }
}

/// The fitted model.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    compute: Line,
    one_node: Line,
    several_nodes: Line,
    gamma: f64,
    /// Root mean square of the logarithm of predicted over measured step time.
    error: f64,
    most_replicas: u32,
    knows_network: bool,
}

impl StepTime {
    /// Fits the model; `None` where no measurement can be true. Where nothing was measured it
    /// assumes perfect scaling, so that knowledge is sought.
    #[must_use]
    pub fn fit(profile: &[Measurement]) -> Option<Self> {
        let sane: Vec<Measurement> = profile
            .iter()
            .rev()
            .filter(|measured| measured.is_sane())
            .take(MOST_MEASUREMENTS)
            .copied()
            .collect();
        let compute = fit_compute(&sane)?;
        let network = |measured: &&Measurement| measured.nodes > 1;
        let knows_network = sane.iter().any(|measured| measured.nodes > 1);
        GAMMAS
            .iter()
            .map(|&gamma| {
                let alone: Vec<_> =
                    sane.iter().filter(|m| m.nodes == 1 && m.replicas > 1).collect();
                let apart: Vec<_> = sane.iter().filter(network).collect();
                let one_node = fit_sync(&alone, compute, gamma);
                let mut several_nodes = fit_sync(&apart, compute, gamma);
                if !knows_network {
                    several_nodes.constant = one_node.constant * 1.1;
                    several_nodes.slope = one_node.slope * 1.1;
                }
                let most_replicas = sane.iter().map(|m| m.replicas).max().unwrap_or(0);
                let mut model = Self {
                    compute,
                    one_node,
                    several_nodes,
                    gamma,
                    error: 0.0,
                    most_replicas,
                    knows_network,
                };
                model.error = model.error_on(&sane);
                (model.error + 1e-3 * (gamma - 1.0).powi(2), model)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, model)| model)
    }

    fn error_on(&self, profile: &[Measurement]) -> f64 {
        let sum: f64 = profile
            .iter()
            .map(|m| {
                let predicted = self.seconds(m.nodes, m.replicas, f64::from(m.local_batch), 0);
                (predicted / m.step_time).ln().powi(2)
            })
            .sum();
        (sum / profile.len() as f64).sqrt()
    }

    /// Seconds a step, with `accumulation` micro-batches before the one that synchronises.
    #[must_use]
    pub fn seconds(&self, nodes: u32, replicas: u32, local_batch: f64, accumulation: u32) -> f64 {
        let compute = self.compute.at(local_batch).max(1e-9);
        let sync = self.sync(nodes, replicas);
        let step = if sync <= 0.0 {
            compute
        } else {
            // Scaled by the larger, so that no power overflows.
            let (small, large) = if sync < compute { (sync, compute) } else { (compute, sync) };
            large * ((small / large).powf(self.gamma) + 1.0).powf(1.0 / self.gamma)
        };
        f64::from(accumulation) * compute + step
    }

    fn sync(&self, nodes: u32, replicas: u32) -> f64 {
        let more = f64::from(replicas.saturating_sub(2));
        match (nodes, replicas) {
            (_, 0 | 1) => 0.0,
            (0 | 1, _) => self.one_node.at(more),
            _ => self.several_nodes.at(more),
        }
    }

    /// Standard deviation of the relative error that the model states of itself: what it is off
    /// by on what was measured, and more the further a size lies beyond that.
    #[must_use]
    pub fn uncertainty(&self, nodes: u32, replicas: u32) -> f64 {
        let known = self.most_replicas.max(1);
        let beyond = if replicas > known {
            0.1 * (f64::from(replicas) / f64::from(known)).ln()
        } else {
            0.0
        };
        let network = if nodes > 1 && !self.knows_network { 0.2 } else { 0.0 };
        self.error.max(0.02) + beyond + network
    }

    /// The most replicas that a measurement was made with.
    #[must_use]
    pub fn most_replicas(&self) -> u32 {
        self.most_replicas
    }
}

fn fit_compute(profile: &[Measurement]) -> Option<Line> {
    let first = profile.first()?.local_batch;
    let seconds = |m: &Measurement| m.step_time - m.sync_time;
    if profile.iter().all(|m| m.local_batch == first) {
        // One size seen: half of its time is taken as constant, as the paper does.
        let log_mean = profile.iter().map(|m| seconds(m).ln()).sum::<f64>() / profile.len() as f64;
        let half = log_mean.exp() / 2.0;
        return Some(Line { constant: half, slope: half / f64::from(first) });
    }
    let rows = profile.iter().map(|m| {
        let time = seconds(m);
        (f64::from(m.local_batch), time, 1.0 / time)
    });
    Some(least_squares(rows))
}

fn fit_sync(profile: &[&Measurement], compute: Line, gamma: f64) -> Line {
    let Some(first) = profile.first() else { return Line::default() };
    let one_size = profile.iter().all(|m| m.replicas.max(2) == first.replicas.max(2));
    let rows = profile.iter().map(|m| {
        let ratio = (compute.at(f64::from(m.local_batch)) / m.step_time).min(1.0);
        let share = (1.0 - ratio.powf(gamma)).max(0.0).powf(1.0 / gamma);
        // How much the step's logarithm moves with the synchronisation: what is hidden behind
        // computing counts for little.
        let weight = (share.powf(gamma - 1.0) + 0.05) / m.step_time;
        let more = if one_size { 0.0 } else { f64::from(m.replicas.saturating_sub(2)) };
        (more, share * m.step_time, weight)
    });
    least_squares(rows)
}

/// Weighted least squares of `y = constant + slope·x` with both at least zero: the free answer
/// where it is allowed, else the better edge.
fn least_squares(rows: impl Iterator<Item = (f64, f64, f64)>) -> Line {
    let (mut w, mut wx, mut wxx, mut wy, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y, weight) in rows {
        let weight = weight * weight;
        w += weight;
        wx += weight * x;
        wxx += weight * x * x;
        wy += weight * y;
        wxy += weight * x * y;
    }
    let determinant = w * wxx - wx * wx;
    if determinant > 1e-12 * w * wxx {
        let slope = (w * wxy - wx * wy) / determinant;
        let constant = (wxx * wy - wx * wxy) / determinant;
        if slope >= 0.0 && constant >= 0.0 {
            return Line { constant, slope };
        }
        if slope >= 0.0 {
            return Line { constant: 0.0, slope: (wxy / wxx).max(0.0) };
        }
    }
    Line { constant: if w > 0.0 { (wy / w).max(0.0) } else { 0.0 }, slope: 0.0 }
}
