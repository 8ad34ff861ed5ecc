//! One round of the auction: bids and free resources in, a size for every job out.
//!
//! Jobs that run keep at least their minimum, and those that wait get theirs in the order of arrival
//! while it fits. Then, again and again, the one addition with the largest gain, in seconds saved
//! per unit of its dominant resource, is granted, until nothing fits or no gain is left. At the end a
//! change whose gain does not pay for what re-scaling costs the job is taken back.
//!
//! What is promised is never more than what is free and what the bidders hold together. The same
//! bids give the same outcome, in whatever order they came.

use super::speed::steps_per_second;
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::{Bid, Scale, Size};

/// Predictions from fewer steps than this count for less.
const YOUNG_STEPS: u64 = 100;
const YOUNG_FACTOR: f64 = 0.95;
/// A job with this much left cannot be told from one that will never end.
const LONGEST_SECONDS: f64 = 1e9;

/// What a round decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The job's uid.
    pub job: String,
    /// What it is told.
    pub scale: Scale,
}

/// Divides what there is. `free` is what nobody holds on each node that takes pods. Only jobs whose
/// size is, or is to be, another are in the answer.
pub fn round(number: u64, bids: &[Bid], free: &[Resources]) -> Vec<Outcome> {
    let mut bids: Vec<&Bid> = bids.iter().collect();
    bids.sort_by_key(|bid| (bid.created_unix_seconds, bid.job.as_str()));
    let hall = Hall::new(&bids, free);
    let mut sizes = hall.minimums();
    hall.grow(&mut sizes);
    hall.spare_needless_changes(&mut sizes);
    let decided = bids.iter().zip(&sizes);
    decided
        .filter(|(bid, size)| **size != bid.current || **size != bid.wanted)
        // A job that waits for its minimum hears nothing.
        .filter(|(bid, size)| within(**size, bid.min, bid.max))
        .map(|(bid, size)| Outcome {
            job: bid.job.clone(),
            scale: Scale { round: number, size: *size, reason: hall.reason(bid, *size, &sizes) },
        })
        .collect()
}

struct Hall<'a> {
    bids: &'a [&'a Bid],
    capacity: Resources,
    /// What the largest free piece is on a node: a pod larger than this can only replace another.
    nodes: &'a [Resources],
}

impl<'a> Hall<'a> {
    fn new(bids: &'a [&'a Bid], free: &'a [Resources]) -> Self {
        let mut capacity = Resources::default();
        for node in free {
            capacity.add(node);
        }
        for bid in bids {
            capacity.add(&taken(bid, bid.current));
        }
        Self { bids, capacity, nodes: free }
    }

    fn fits(&self, sizes: &[Size]) -> bool {
        let mut all = Resources::default();
        for (bid, size) in self.bids.iter().zip(sizes) {
            all.add(&taken(bid, *size));
        }
        self.capacity.covers(&all) && self.pieces_fit(sizes)
    }

    /// Whether the pods that jobs get beyond what they hold find whole places: on a node with room,
    /// or where another job's pod goes.
    fn pieces_fit(&self, sizes: &[Size]) -> bool {
        let mut pieces = self.nodes.to_vec();
        let mut wanted = Vec::new();
        for (bid, size) in self.bids.iter().zip(sizes) {
            let roles = [
                (&bid.parameter_server, bid.current.parameter_servers, size.parameter_servers),
                (&bid.trainer, bid.current.trainers, size.trainers),
            ];
            for (pod, has, gets) in roles {
                pieces.extend((gets..has).map(|_| pod.clone()));
                wanted.extend((has..gets).map(|_| pod));
            }
        }
        wanted.sort_by_key(|pod| std::cmp::Reverse((pod.gpus(), pod.cpu_milli, pod.memory_bytes)));
        wanted.into_iter().all(|pod| {
            let room = pieces.iter_mut().find(|piece| piece.covers(pod));
            room.map(|piece| piece.subtract(pod)).is_some()
        })
    }

    fn minimums(&self) -> Vec<Size> {
        let runs = |bid: &Bid| bid.current.trainers > 0;
        let mut sizes: Vec<Size> =
            self.bids.iter().map(|bid| if runs(bid) { bid.min } else { Size::default() }).collect();
        for index in 0..sizes.len() {
            if !runs(self.bids[index]) {
                sizes[index] = self.bids[index].min;
                if !self.fits(&sizes) {
                    sizes[index] = self.bids[index].current;
                }
            }
        }
        sizes
    }

    fn grow(&self, sizes: &mut [Size]) {
        loop {
            let mut best: Option<(f64, usize, Size)> = None;
            for (index, bid) in self.bids.iter().enumerate() {
                if sizes[index].trainers == 0 {
                    continue;
                }
                for (next, pod) in additions(bid, sizes[index]) {
                    let gain = self.gain(bid, sizes[index], next, pod);
                    if gain > best.map_or(0.0, |(gain, ..)| gain) {
                        let before = std::mem::replace(&mut sizes[index], next);
                        if self.fits(sizes) {
                            best = Some((gain, index, next));
                        }
                        sizes[index] = before;
                    }
                }
            }
            match best {
                Some((_, index, next)) => sizes[index] = next,
                None => return,
            }
        }
    }

    fn gain(&self, bid: &Bid, from: Size, to: Size, pod: &Resources) -> f64 {
        let saved = seconds(bid, from) - seconds(bid, to);
        let young = if bid.done_steps < YOUNG_STEPS { YOUNG_FACTOR } else { 1.0 };
        saved * young / self.dominant_share(pod).max(1e-9)
    }

    fn dominant_share(&self, pod: &Resources) -> f64 {
        let share =
            |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let extended =
            pod.extended.iter().map(|(name, part)| share(*part, self.capacity.get(name)));
        [
            share(pod.cpu_milli, self.capacity.cpu_milli),
            share(pod.memory_bytes, self.capacity.memory_bytes),
            share(pod.pods, self.capacity.pods),
        ]
        .into_iter()
        .chain(extended)
        .fold(0.0, f64::max)
    }

    /// Takes growth back that does not pay, then shrinking that nobody needs any more.
    fn spare_needless_changes(&self, sizes: &mut [Size]) {
        for (bid, size) in self.bids.iter().zip(sizes.iter_mut()) {
            let runs = bid.current.trainers > 0;
            let pays = seconds(bid, bid.current) - seconds(bid, *size) > bid.rescale_seconds;
            if runs && !pays && within(bid.current, bid.min, bid.max) && grows(bid.current, *size) {
                *size = bid.current;
            }
        }
        for index in 0..sizes.len() {
            let bid = self.bids[index];
            let shrinks = !grows(bid.current, sizes[index]) && sizes[index] != bid.current;
            if shrinks && within(bid.current, bid.min, bid.max) {
                let before = std::mem::replace(&mut sizes[index], bid.current);
                if !self.fits(sizes) {
                    sizes[index] = before;
                }
            }
        }
        // Taking one change back may have taken away what another was to use.
        while !self.fits(sizes) {
            let over = (0..sizes.len())
                .rev()
                .find(|index| grows(self.bids[*index].current, sizes[*index]));
            match over {
                Some(index) => sizes[index] = self.bids[index].current,
                None => return,
            }
        }
    }

    fn reason(&self, bid: &Bid, size: Size, sizes: &[Size]) -> String {
        if bid.current.trainers == 0 {
            return "the job arrived and there is room for it".to_owned();
        }
        if grows(bid.current, size) {
            let (now, then) = (seconds(bid, bid.current), seconds(bid, size));
            return format!("predicted to finish in {then:.1} s instead of {now:.1} s");
        }
        let winners: Vec<String> = self
            .bids
            .iter()
            .zip(sizes)
            .filter(|(other, size)| grows(other.current, **size))
            .map(|(other, _)| format!("{}/{}", other.namespace, other.name))
            .collect();
        if winners.is_empty() {
            "the job holds more than it may".to_owned()
        } else {
            format!("more is gained by giving to {}", winners.join(", "))
        }
    }
}

fn grows(from: Size, to: Size) -> bool {
    to.parameter_servers > from.parameter_servers || to.trainers > from.trainers
}

fn within(size: Size, min: Size, max: Size) -> bool {
    (min.parameter_servers..=max.parameter_servers).contains(&size.parameter_servers)
        && (min.trainers..=max.trainers).contains(&size.trainers)
}

fn additions(bid: &Bid, size: Size) -> impl Iterator<Item = (Size, &Resources)> {
    let server = Size { parameter_servers: size.parameter_servers + 1, ..size };
    let trainer = Size { trainers: size.trainers + 1, ..size };
    [(server, &bid.parameter_server), (trainer, &bid.trainer)]
        .into_iter()
        .filter(|(next, _)| within(*next, Size::default(), bid.max))
}

fn taken(bid: &Bid, size: Size) -> Resources {
    let mut all = Resources::default();
    for (pod, count) in
        [(&bid.parameter_server, size.parameter_servers), (&bid.trainer, size.trainers)]
    {
        for _ in 0..count {
            all.add(pod);
        }
    }
    all
}

/// Predicted seconds to the end with this size.
fn seconds(bid: &Bid, size: Size) -> f64 {
    let speed = steps_per_second(&bid.speed, size);
    if speed > 0.0 {
        (bid.remaining_steps.max(0.0) / speed).min(LONGEST_SECONDS)
    } else {
        LONGEST_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::training::SpeedModel;
    use proptest::prelude::*;

    fn cpu(milli: u64) -> Resources {
        Resources { cpu_milli: milli, pods: 1, ..Resources::default() }
    }

    fn node(milli: u64) -> Resources {
        Resources { cpu_milli: milli, pods: 100, ..Resources::default() }
    }

    fn bid(name: &str, remaining: f64, current: (u32, u32)) -> Bid {
        Bid {
            job: name.to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            created_unix_seconds: 0,
            remaining_steps: remaining,
            done_steps: 500,
            speed: SpeedModel::Asynchronous { a: [0.1, 0.02, 0.001, 0.001] },
            current: Size { parameter_servers: current.0, trainers: current.1 },
            wanted: Size { parameter_servers: current.0, trainers: current.1 },
            min: Size { parameter_servers: 1, trainers: 1 },
            max: Size { parameter_servers: 3, trainers: 6 },
            parameter_server: cpu(200),
            trainer: cpu(500),
            rescale_seconds: 0.5,
        }
    }

    fn size_of(outcomes: &[Outcome], job: &str, current: (u32, u32)) -> (u32, u32) {
        let found = outcomes.iter().find(|one| one.job == job).map(|one| one.scale.size);
        found.map_or(current, |size| (size.parameter_servers, size.trainers))
    }

    #[test]
    fn a_job_alone_grows_to_what_the_cluster_has() {
        let outcomes =
            round(1, &[bid("a", 5_000.0, (1, 1))], &[node(1_000), node(1_000), node(300)]);
        let (servers, trainers) = size_of(&outcomes, "a", (1, 1));
        assert!(trainers >= 4 && servers >= 2, "{servers},{trainers}");
        assert!(outcomes[0].scale.reason.contains("instead of"));
    }

    #[test]
    fn the_first_gives_to_the_second_and_gets_it_back() {
        let full = bid("a", 5_000.0, (2, 4));
        let outcomes = round(1, &[full.clone(), bid("b", 3_000.0, (0, 0))], &[]);
        let (a, b) = (size_of(&outcomes, "a", (2, 4)), size_of(&outcomes, "b", (0, 0)));
        assert!(b.1 >= 1 && a.1 < 4, "{a:?} {b:?}");
        assert!(outcomes.iter().any(|one| one.scale.reason.contains("default/b")));
        let outcomes = round(2, &[bid("a", 5_000.0, a)], &[node(u64::from(4 - a.1) * 500 + 200)]);
        assert_eq!(size_of(&outcomes, "a", a).1, 4);
    }

    #[test]
    fn a_change_that_costs_more_than_it_saves_is_not_made() {
        let mut costly = bid("a", 5.0, (1, 1));
        costly.rescale_seconds = 10.0;
        assert_eq!(round(1, &[costly], &[node(4_000)]), []);
    }

    #[test]
    fn a_pod_that_fits_on_no_node_is_not_promised() {
        let outcomes = round(1, &[bid("a", 5_000.0, (1, 1))], &[node(300), node(300), node(300)]);
        assert_eq!(size_of(&outcomes, "a", (1, 1)).1, 1);
    }

    prop_compose! {
        fn any_bid()(
            number in 0u32..1_000,
            remaining in 0.0f64..10_000.0,
            done in 0u64..300,
            a in prop::array::uniform4(0.0f64..0.2),
            current in (0u32..4, 0u32..6),
            cost in 0.0f64..5.0,
            milli in (50u64..400, 50u64..900),
            created in 0i64..3,
        ) -> Bid {
            let current = if current.0.min(current.1) == 0 { (0, 0) } else { current };
            Bid {
                created_unix_seconds: created,
                done_steps: done,
                speed: SpeedModel::Asynchronous { a },
                parameter_server: cpu(milli.0),
                trainer: cpu(milli.1),
                rescale_seconds: cost,
                ..bid(&format!("job-{number}"), remaining, current)
            }
        }
    }

    proptest! {
        #[test]
        fn a_round_never_promises_more_than_there_is(
            bids in prop::collection::vec(any_bid(), 0..6),
            free in prop::collection::vec(0u64..3_000, 0..4),
        ) {
            let free: Vec<Resources> = free.into_iter().map(node).collect();
            let mut bids = bids;
            bids.sort_by(|a, b| a.job.cmp(&b.job));
            bids.dedup_by(|a, b| a.job == b.job);
            let outcomes = round(7, &bids, &free);
            let (mut all, mut capacity) = (Resources::default(), Resources::default());
            for node in &free { capacity.add(node); }
            for bid in &bids {
                capacity.add(&taken(bid, bid.current));
                let found = outcomes.iter().find(|one| one.job == bid.job);
                let size = found.map_or(bid.current, |one| one.scale.size);
                all.add(&taken(bid, size));
                if found.is_some() {
                    prop_assert!(within(size, bid.min, bid.max), "{:?}", size);
                }
            }
            prop_assert!(capacity.covers(&all), "{:?} of {:?}", all, capacity);
            let mut reversed = bids.clone();
            reversed.reverse();
            prop_assert_eq!(round(7, &reversed, &free), outcomes);
        }
    }
}
