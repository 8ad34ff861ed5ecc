//! `goodput`, the default: GPUs go where they take most from the sum of completion times.
//!
//! Each job offers, for each size that it could have, its predicted speed. The market values a
//! unit of a job's work by how much is left of it (shortest first), and buys the sizes of the
//! upper hull of value over GPUs in the order of value a GPU: the exact answer of the relaxed
//! problem, then fills what is left over. A change of size has to earn what its pause costs.

use crate::goodput;
use crate::model::{self, Model};
use crate::optimus::nodes_for;
use crate::picture::{Job, Picture};
use crate::placement::{fewest_nodes, free_after};
use crate::policy::{Decision, Policy};

/// The policy and its constants.
#[derive(Clone, Copy, Debug)]
pub struct Market {
    /// The value of a job's work is `(GPU-seconds left)^-urgency`: 0 is throughput, 1 is the
    /// sum of `1 / remaining time`.
    pub urgency: f64,
    /// Seconds for which a size is believed to last, against which a pause is set.
    pub horizon: f64,
    /// GPU-seconds left that are assumed of a job of which nothing is known.
    pub unknown: f64,
    /// How many times the most GPUs that a job has measured it may get.
    pub growth: u32,
}

impl Default for Market {
    fn default() -> Self {
        Self { urgency: 0.35, horizon: 240.0, unknown: 300.0, growth: 4 }
    }
}

/// A size and what it is worth.
#[derive(Clone, Copy, Debug)]
struct Offer {
    gpus: u32,
    value: f64,
}

impl Policy for Market {
    fn name(&self) -> &'static str {
        "goodput"
    }

    fn chooses_batch(&self) -> bool {
        true
    }

    fn decide(&self, picture: &Picture, models: &[Model]) -> Decision {
        let sizes = sizes(picture);
        let nothing = Model::default();
        let offers: Vec<Vec<Offer>> = picture
            .jobs
            .iter()
            .enumerate()
            .map(|(index, job)| {
                self.offers(picture, job, models.get(index).unwrap_or(&nothing), &sizes)
            })
            .collect();
        let wanted = buy(picture, &offers);
        place(picture, &wanted)
    }
}

/// The sizes that are looked at: any within a node, then whole nodes.
fn sizes(picture: &Picture) -> Vec<u32> {
    let cluster = picture.gpus();
    let node = picture.nodes.iter().map(|node| node.gpus).max().unwrap_or(0);
    let whole = (2..).map(|nodes| nodes * node).take_while(|size| *size <= cluster);
    if node == 0 { Vec::new() } else { (1..=node).chain(whole.take(63)).collect() }
}

impl Market {
    fn offers(&self, picture: &Picture, job: &Job, model: &Model, sizes: &[u32]) -> Vec<Offer> {
        let most = picture.most_replicas(job);
        let current = job.allocation.len() as u32;
        let Some(step_time) = &model.step_time else {
            // One GPU to measure with, as urgent as a short job.
            return vec![Offer { gpus: 1, value: self.unknown.powf(-self.urgency) }];
        };
        let known = step_time.most_replicas().saturating_mul(self.growth).max(1);
        let rates: Vec<(u32, f64)> = sizes
            .iter()
            .take_while(|size| **size <= most.min(known))
            .filter_map(|size| {
                let (rate, _) =
                    goodput::best(job, step_time, nodes_for(picture, *size), *size, 20)?;
                Some((*size, rate))
            })
            .filter(|(_, rate)| rate.is_finite() && *rate > 0.0)
            .collect();
        let Some((first, base)) = rates.first().copied() else { return Vec::new() };
        let base = base / f64::from(first);
        let steps = model::remaining(job).map(|left| left.steps);
        let work = steps.map_or(self.unknown, |steps| (steps / base).clamp(1.0, 1e12));
        let weight = work.powf(-self.urgency);
        let mut best = 0.0;
        rates
            .into_iter()
            .filter_map(|(gpus, rate)| {
                let lasts = (work * base / rate).min(self.horizon).max(picture.rescale_seconds);
                let moves = if gpus == current { 0.0 } else { picture.rescale_seconds };
                let value = weight * rate / base * (1.0 - moves / (lasts + moves)).max(0.05);
                (value > best).then(|| {
                    best = value;
                    Offer { gpus, value }
                })
            })
            .collect()
    }
}

/// The sizes on the upper hull of value over GPUs, from nothing on: each further step is worth
/// less a GPU than the one before.
fn hull(offers: &[Offer]) -> Vec<Offer> {
    let mut hull = vec![Offer { gpus: 0, value: 0.0 }];
    for offer in offers {
        while let [.., before, last] = hull[..] {
            if slope(before, last) > slope(last, *offer) {
                break;
            }
            hull.pop();
        }
        hull.push(*offer);
    }
    hull
}

fn slope(from: Offer, to: Offer) -> f64 {
    (to.value - from.value) / f64::from(to.gpus - from.gpus)
}

fn buy(picture: &Picture, offers: &[Vec<Offer>]) -> Vec<u32> {
    let mut left = picture.gpus();
    let mut has = vec![Offer { gpus: 0, value: 0.0 }; offers.len()];
    let mut steps: Vec<(f64, usize, Offer)> = Vec::new();
    for (job, offers) in offers.iter().enumerate() {
        let hull = hull(offers);
        steps.extend(hull.windows(2).map(|pair| (slope(pair[0], pair[1]), job, pair[1])));
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.gpus.cmp(&b.2.gpus)));
    for (_, job, offer) in steps {
        let more = offer.gpus - has[job].gpus;
        if more <= left {
            has[job] = offer;
            left -= more;
        }
    }
    // What the hull's steps were too large for: the best step of any size that fits.
    while left > 0 {
        let best = offers
            .iter()
            .enumerate()
            .flat_map(|(job, offers)| offers.iter().map(move |offer| (job, *offer)))
            .filter(|(job, offer)| {
                let has = has[*job];
                offer.gpus > has.gpus && offer.gpus - has.gpus <= left && offer.value > has.value
            })
            .max_by(|(a, to_a), (b, to_b)| {
                slope(has[*a], *to_a).total_cmp(&slope(has[*b], *to_b)).then(b.cmp(a))
            });
        let Some((job, offer)) = best else { break };
        left -= offer.gpus - has[job].gpus;
        has[job] = offer;
    }
    has.into_iter().map(|offer| offer.gpus).collect()
}

fn place(picture: &Picture, wanted: &[u32]) -> Decision {
    let mut allocations: Vec<Vec<usize>> = picture
        .jobs
        .iter()
        .zip(wanted)
        .map(|(job, wanted)| {
            let same = job.allocation.len() == *wanted as usize;
            if same { job.allocation.clone() } else { Vec::new() }
        })
        .collect();
    let mut free = free_after(picture, &mut allocations);
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|job| std::cmp::Reverse(wanted[*job]));
    for job in order {
        if allocations[job].is_empty() && wanted[job] > 0 {
            allocations[job] = fewest_nodes(&mut free, wanted[job]);
        }
    }
    Decision { allocations }
}
