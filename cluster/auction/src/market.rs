//! `goodput`, the default: resources go where they take most from the sum of completion times.
//!
//! Each job offers, for each size that it could have, its predicted speed. The market values a
//! unit of a job's work by how much is left of it (shortest first), and buys the sizes of the
//! upper hull of value over dominant share in the order of value a share: the exact answer of the relaxed
//! problem, then fills what is left over. A change of size has to earn what its pause costs.

use crate::climb::{MOST_RUNGS, climb};
use crate::decision::Decision;
use crate::hall::{Bid, Draft, Hall, Size};
use crate::picture::Picture;
use crate::placement::{fewest_nodes, gangs};
use crate::policy::Policy;
use crate::strides::Strides;
use crate::trades;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The policy and its constants.
#[derive(Clone, Copy, Debug)]
pub struct Market {
    /// The value of a job's work is `(worker-seconds left)^-urgency`: 0 is throughput, 1 is the
    /// sum of `1 / remaining time`.
    pub urgency: f64,
    /// Seconds for which a size is believed to last, against which a pause is set.
    pub horizon: f64,
    /// Worker-seconds left that are assumed of a job of which nothing is known.
    pub unknown: f64,
    /// How many times the most workers that a job has measured it may get.
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
    size: Size,
    /// Its dominant share.
    cost: f64,
    value: f64,
}

impl Policy for Market {
    fn name(&self) -> &'static str {
        "goodput"
    }

    fn chooses_batch(&self) -> bool {
        true
    }

    fn clear(&self, hall: &Hall<'_>) -> Vec<Size> {
        let strides = Strides::within(hall, MOST_RUNGS);
        let stands: Vec<Stand> =
            (0..hall.bids.len()).map(|job| self.stand(hall, job, strides)).collect();
        let offers = || stands.iter().map(|stand| stand.offers.clone()).collect();
        let mut draft = hall.floors();
        buy(hall, offers(), &mut draft);
        let value = |job: usize, size| stands[job].value(self, &hall.bids[job], size);
        // What a job is worth depends less than all else on how much is left of it.
        let unsure = |job: usize, size| self.urgency * hall.bids[job].worth.uncertainty(size);
        let grow = |draft: &mut Draft<'_>| buy(hall, offers(), draft);
        let mut draft = trades::settled(hall, draft, grow, value, unsure);
        if hall.pieces.is_some() {
            draft.spare_needless_changes();
        }
        draft.into_sizes()
    }

    fn place(&self, picture: &Picture, _: &Hall<'_>, sizes: &[Size]) -> Decision {
        let wanted: Vec<u32> = sizes.iter().map(|size| size.workers).collect();
        place(picture, &wanted)
    }
}

impl Market {
    /// What the job offers for each size, cheapest first: each is worth more than the one before.
    fn stand(&self, hall: &Hall<'_>, job: usize, strides: Strides) -> Stand {
        let bid = &hall.bids[job];
        let offer = |size, value| Offer { size, cost: hall.share(job, size), value };
        let Some(known) = bid.known else {
            // The least to measure with, as urgent as a short job.
            let offers = vec![offer(bid.min, self.unknown.powf(-self.urgency))];
            return Stand { offers, ..Stand::default() };
        };
        let known = known.saturating_mul(self.growth).max(bid.min.workers);
        let rates: Vec<(Size, f64)> = bid
            .ladder
            .clone()
            .unwrap_or_else(|| climb(hall, job, strides))
            .into_iter()
            .filter(|size| size.workers <= known && hall.allows(job, *size))
            .filter_map(|size| Some((size, rate(bid, size)?)))
            .collect();
        let Some((first, base)) = rates.first().copied() else { return Stand::default() };
        let base = base / f64::from(first.workers.max(1));
        let steps = bid.worth.remaining();
        let work = steps.map_or(self.unknown, |steps| (steps / base).clamp(1.0, 1e12));
        let mut stand = Stand { work, base, offers: Vec::new() };
        let mut best = offer(Size::default(), 0.0);
        for (size, rate) in rates {
            let offer = offer(size, stand.value_of(self, bid, size, rate));
            if offer.value > best.value && offer.cost > best.cost {
                best = offer;
                stand.offers.push(offer);
            }
        }
        stand
    }

    /// The part of its time that a job keeps with a size that it could have for so many seconds.
    fn kept(&self, bid: &Bid<'_>, size: Size, seconds: f64) -> f64 {
        let pause = bid.rescale_seconds;
        let lasts = seconds.min(self.horizon).max(pause);
        let moves = if size == bid.keeps { 0.0 } else { pause };
        (1.0 - moves / (lasts + moves)).max(0.05)
    }
}

/// A job at the market.
#[derive(Debug, Default)]
struct Stand {
    /// Worker-seconds left, with the least that it works with.
    work: f64,
    /// Its progress a second with that, for each worker.
    base: f64,
    offers: Vec<Offer>,
}

impl Stand {
    /// What a size is worth.
    fn value(&self, market: &Market, bid: &Bid<'_>, size: Size) -> f64 {
        let rate = rate(bid, size).filter(|_| self.base > 0.0);
        rate.map_or(0.0, |rate| self.value_of(market, bid, size, rate))
    }

    fn value_of(&self, market: &Market, bid: &Bid<'_>, size: Size, rate: f64) -> f64 {
        let weight = self.work.powf(-market.urgency);
        weight * rate / self.base * market.kept(bid, size, self.work * self.base / rate)
    }
}

/// Progress a second, where it is any.
fn rate(bid: &Bid<'_>, size: Size) -> Option<f64> {
    bid.worth.rate(size).filter(|rate| rate.is_finite() && *rate > 0.0)
}

/// The sizes on the upper hull of value over cost, from what a job has anyhow on: each further step is worth
/// less for its cost than the one before.
fn hull(start: Offer, offers: &[Offer]) -> Vec<Offer> {
    let mut hull = vec![start];
    for offer in offers.iter().filter(|offer| offer.cost > start.cost) {
        while let [.., before, last] = hull[..] {
            if slope(before, last) > slope(last, *offer) {
                break;
            }
            hull.pop();
        }
        if offer.value > start.value {
            hull.push(*offer);
        }
    }
    hull
}

fn slope(from: Offer, to: Offer) -> f64 {
    (to.value - from.value) / (to.cost - from.cost)
}

fn buy(hall: &Hall<'_>, mut offers: Vec<Vec<Offer>>, draft: &mut Draft<'_>) {
    let mut has: Vec<Offer> = (0..offers.len())
        .map(|job| {
            let size = draft.size(job);
            let same = offers[job].iter().find(|offer| offer.size == size);
            let value = same.map_or(0.0, |offer| offer.value);
            Offer { size, cost: hall.share(job, size), value }
        })
        .collect();
    let mut steps: Vec<(f64, usize, Offer)> = Vec::new();
    for (job, offers) in offers.iter().enumerate() {
        let hull = hull(has[job], offers);
        steps.extend(hull.windows(2).map(|pair| (slope(pair[0], pair[1]), job, pair[1])));
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.size.cmp(&b.2.size)));
    let mut left = hall.most_additions;
    for (_, job, offer) in steps {
        if left > 0 && draft.has_room(job, offer.size) {
            left -= 1;
            if draft.give(job, offer.size) {
                has[job] = offer;
            }
        }
    }
    // What the hull's steps were too large for: the best step of any size that fits.
    let best = |offers: &[Offer], has: Offer| {
        let all = offers.iter().enumerate();
        let better = all.filter(|(_, it)| it.cost > has.cost && it.value > has.value);
        let slopes = better.map(|(at, offer)| (slope(has, *offer), at));
        slopes.max_by(|(a, _), (b, _)| a.total_cmp(b))
    };
    // Numbers that are not negative are in the order of their bits. Ties go to the job that came first.
    let step = |(slope, at): (f64, usize), job| (slope.to_bits(), Reverse(job), at);
    let mut rest = BinaryHeap::new();
    for (job, offers) in offers.iter().enumerate() {
        rest.extend(best(offers, has[job]).map(|best| step(best, job)));
    }
    while left > 0 {
        let Some((_, Reverse(job), at)) = rest.pop() else { break };
        let offer = offers[job][at];
        let has_room = draft.has_room(job, offer.size);
        left -= usize::from(has_room);
        if has_room && draft.give(job, offer.size) {
            has[job] = offer;
        } else {
            // There is not enough left, or no place for its pods: nor will there be.
            offers[job].remove(at);
        }
        rest.extend(best(&offers[job], has[job]).map(|best| step(best, job)));
    }
}

/// The largest first, each on as few nodes as there are.
fn place(picture: &Picture, wanted: &[u32]) -> Decision {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|job| Reverse(wanted[*job]));
    gangs(picture, &order, wanted, fewest_nodes)
}
