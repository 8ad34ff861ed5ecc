//! One round of the auction: bids and free resources in, a size for every job out.
//!
//! Jobs that run keep at least their minimum, then those that were granted theirs and make their pods, and
//! those that wait get theirs in the order of arrival while it fits: the whole of it or nothing, and then
//! they are told what is missing, so that no two jobs hold a half each and wait for the other's. A grant
//! whose pods find no place, because others took it, is taken back after a while. Then, again and again, the one addition with the largest gain, in seconds saved
//! per unit of its dominant resource, is granted, until nothing fits, no gain is left, or 128 were. At the end a
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
/// A grant that is not complete by then, and does not fit any more, is taken back.
const INCOMPLETE_SECONDS: u64 = 10;
/// The most pods that are given in one round beyond minimums: what a job may want does not say how long a
/// round takes. The next goes on from there.
const MOST_ADDITIONS: usize = 128;
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
    let (mut sizes, missing) = hall.minimums();
    hall.grow(&mut sizes);
    hall.spare_needless_changes(&mut sizes);
    let decided = bids.iter().zip(&sizes).zip(missing);
    decided
        .filter_map(|((bid, size), missing)| {
            let reason = match missing {
                Some(missing) => missing,
                None if *size == bid.current && *size == bid.wanted => return None,
                None if !within(*size, bid.min, bid.max) => return None,
                None => hall.reason(bid, *size, &sizes),
            };
            let (job, lease) = (bid.job.clone(), bid.lease);
            let scale = Scale { round: number, scheduler: 0, lease, size: *size, reason };
            Some(Outcome { job, scale })
        })
        .collect()
}

/// Whether a job has what must not be taken from it: what it has trained is in its members.
fn runs(bid: &Bid) -> bool {
    bid.done_steps > 0 || bid.current.trainers >= bid.min.trainers.max(1)
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

    /// The minimums that can be had, and for each job that cannot have its own what it lacks.
    fn minimums(&self) -> (Vec<Size>, Vec<Option<String>>) {
        let size = |bid: &&Bid| if runs(bid) { bid.min } else { Size::default() };
        let mut sizes: Vec<Size> = self.bids.iter().map(size).collect();
        let mut missing = vec![None; sizes.len()];
        // Nobody is put in before those whose pods are on their way already.
        let granted = |index: &usize| self.bids[*index].wanted != Size::default();
        let (first, then): (Vec<usize>, Vec<usize>) =
            (0..sizes.len()).filter(|index| !runs(self.bids[*index])).partition(granted);
        for index in first.into_iter().chain(then) {
            let bid = self.bids[index];
            sizes[index] = bid.min;
            let held = granted(&index) && bid.incomplete_seconds < INCOMPLETE_SECONDS;
            if !held && !self.fits(&sizes) {
                sizes[index] = Size::default();
                missing[index] = Some(self.missing(bid, &sizes));
            }
        }
        (sizes, missing)
    }

    /// What a job lacks for its minimum beside these sizes of the others, in words.
    fn missing(&self, bid: &Bid, sizes: &[Size]) -> String {
        let mut rest = self.capacity.clone();
        for (other, size) in self.bids.iter().zip(sizes) {
            rest.subtract(&taken(other, *size));
        }
        let needed = taken(bid, bid.min);
        let amount = |of: &Resources, name: &str| match name {
            "cpu" => format!("{}m", of.get(name)),
            _ => of.get(name).to_string(),
        };
        let short: Vec<String> = rest
            .short_of(&needed)
            .into_iter()
            .map(|name| format!("{name} {} of {}", amount(&rest, name), amount(&needed, name)))
            .collect();
        let Size { parameter_servers, trainers } = bid.min;
        let what = format!("{parameter_servers} parameter servers and {trainers} trainers at once");
        if short.is_empty() {
            format!("{what}: no nodes have room for pods of this size")
        } else {
            format!("{what}; there is only {}", short.join(", "))
        }
    }

    fn grow(&self, sizes: &mut [Size]) {
        for _ in 0..MOST_ADDITIONS {
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
    let mut all = times(&bid.parameter_server, size.parameter_servers);
    all.add(&times(&bid.trainer, size.trainers));
    all
}

/// What so many pods take.
fn times(pod: &Resources, count: u32) -> Resources {
    let all = |amount: u64| amount.saturating_mul(u64::from(count));
    Resources {
        cpu_milli: all(pod.cpu_milli),
        memory_bytes: all(pod.memory_bytes),
        pods: all(pod.pods),
        extended: pod.extended.iter().map(|(name, amount)| (name.clone(), all(*amount))).collect(),
    }
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
            lease: 0,
            incomplete_seconds: 0,
        }
    }

    /// A job that has not begun.
    fn fresh(name: &str, min: (u32, u32)) -> Bid {
        let min = Size { parameter_servers: min.0, trainers: min.1 };
        Bid { done_steps: 0, min, max: min, ..bid(name, 1_000.0, (0, 0)) }
    }

    #[test]
    fn of_two_jobs_of_which_one_fits_one_gets_its_whole_minimum_and_the_other_nothing() {
        // Each takes 200 + 2 · 500; a half of each would fit.
        let (mut a, mut b) = (fresh("a", (1, 2)), fresh("b", (1, 2)));
        b.created_unix_seconds = 5;
        let outcomes = round(1, &[b.clone(), a.clone()], &[node(1_400)]);
        assert_eq!(size_of(&outcomes, "a", (0, 0)), (1, 2));
        assert_eq!(size_of(&outcomes, "b", (9, 9)), (0, 0));
        let told = outcomes.iter().find(|one| one.job == "b").unwrap();
        assert!(told.scale.reason.contains("cpu 200m of 1200m"), "{}", told.scale.reason);
        // While the pods of the first are on their way nobody, however early it came, gets in between.
        a.wanted = a.min;
        a.current = Size { parameter_servers: 1, trainers: 1 };
        b.created_unix_seconds = -5;
        let outcomes = round(2, &[a.clone(), b.clone()], &[node(700)]);
        assert_eq!(size_of(&outcomes, "a", (1, 2)), (1, 2));
        assert_eq!(size_of(&outcomes, "b", (9, 9)), (0, 0));
        // Somebody else took the room: after a while the first gives back what it has of it.
        assert_eq!(size_of(&round(3, &[a.clone(), b.clone()], &[node(100)]), "a", (1, 2)), (1, 2));
        a.incomplete_seconds = 10;
        let outcomes = round(4, &[a, b], &[node(100)]);
        assert_eq!(size_of(&outcomes, "a", (9, 9)), (0, 0));
        assert_eq!(size_of(&outcomes, "b", (9, 9)), (0, 0), "what is held is not free yet");
    }

    #[test]
    fn a_minimum_that_no_cluster_has_is_told_and_costs_no_more_than_any_other() {
        let outcomes = round(1, &[fresh("a", (1, u32::MAX))], &[node(4_000)]);
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0].scale.size, Size::default());
        assert!(outcomes[0].scale.reason.contains("4294967295 trainers"));
        // Enough in all, and no node with room for one.
        let outcomes = round(1, &[fresh("a", (1, 1))], &[node(400), node(400)]);
        assert!(outcomes[0].scale.reason.contains("no nodes have room"), "{outcomes:?}");
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
                    let nothing = size == Size::default() && !runs(bid);
                    prop_assert!(nothing || within(size, bid.min, bid.max), "{:?}", size);
                }
            }
            prop_assert!(capacity.covers(&all), "{:?} of {:?}", all, capacity);
            let mut reversed = bids.clone();
            reversed.reverse();
            prop_assert_eq!(round(7, &reversed, &free), outcomes);
        }
    }
}
