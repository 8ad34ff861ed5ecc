//! Where an auction is held: the bids, and what there is to divide. Resources are amounts by index,
//! so that one rule divides the GPUs of a simulation and the pods of a cluster.

use crate::packing;

/// How many of each role. A job without parameter servers has workers alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// Parameter servers.
    pub servers: u32,
    /// What computes gradients: GPUs in a simulation, trainers on a cluster.
    pub workers: u32,
}

impl Size {
    /// So many workers, and no parameter servers.
    #[must_use]
    pub fn of_workers(workers: u32) -> Self {
        Self { servers: 0, workers }
    }

    /// Whether both roles lie between those of `min` and `max`.
    #[must_use]
    pub fn is_within(self, min: Self, max: Self) -> bool {
        (min.servers..=max.servers).contains(&self.servers)
            && (min.workers..=max.workers).contains(&self.workers)
    }

    /// Whether it has more of a role than `from`.
    #[must_use]
    pub fn grows_from(self, from: Self) -> bool {
        self.servers > from.servers || self.workers > from.workers
    }

    /// Nothing at all.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// What a job believes about itself.
pub trait Worth {
    /// Steps that are left; `None` where nothing can be said.
    fn remaining(&self) -> Option<f64>;

    /// Progress a second with this size, in those steps; `None` where nothing can be said.
    fn rate(&self, size: Size) -> Option<f64>;

    /// Relative standard deviation of [`Worth::seconds`] with this size, as far as the job knows.
    fn uncertainty(&self, size: Size) -> f64;

    /// Seconds to the end with this size.
    fn seconds(&self, size: Size) -> Option<f64> {
        let rate = self.rate(size)?;
        let seconds = self.remaining()? / rate;
        Some(if rate > 0.0 { seconds.min(LONGEST_SECONDS) } else { LONGEST_SECONDS })
    }
}

/// A job with this much left cannot be told from one that will never end.
pub const LONGEST_SECONDS: f64 = 1e9;

/// What may be taken from a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has trained, and what it has learned is in its members: its minimum is not taken.
    Runs,
    /// It was granted its minimum a moment ago and is about to take it.
    Promised,
    /// It was granted its minimum a while ago and has not all of it: it keeps the grant while it fits.
    Late,
    /// All of it may be taken.
    Waits,
}

/// What one job brings to the hall.
pub struct Bid<'a> {
    /// What may be taken from it.
    pub standing: Standing,
    /// What it has.
    pub current: Size,
    /// What it has and was not told to give up: that may be left as it is.
    pub keeps: Size,
    /// The least that it works with: it gets that, or nothing.
    pub min: Size,
    /// The most that it may have.
    pub max: Size,
    /// What one parameter server takes of each resource.
    pub server: Vec<u64>,
    /// What one worker takes of each resource.
    pub worker: Vec<u64>,
    /// When it was submitted, seconds on any one clock.
    pub submitted: f64,
    /// Worker-seconds that it has had.
    pub attained_service: f64,
    /// What a change of its size costs it, seconds without progress.
    pub rescale_seconds: f64,
    /// The most workers that its speed was measured with; `None` before any measurement.
    pub known: Option<u32>,
    /// The sizes from the least to the most that a market looks at; `None`: those that it finds by
    /// going up from the least.
    pub ladder: Option<Vec<Size>>,
    /// Whether its predictions are from too few steps to count in full.
    pub is_young: bool,
    /// Whether its reports cannot be true: it gets no more than a fair share for them.
    pub is_doubted: bool,
    /// What it believes about itself.
    pub worth: Box<dyn Worth + 'a>,
}

impl Bid<'_> {
    /// Whether it may be left as it is.
    pub(crate) fn may_stay(&self) -> bool {
        self.keeps.workers > 0 && self.keeps.is_within(self.min, self.max)
    }

    fn amount(&self, size: Size, resource: usize) -> u128 {
        let times = |each: &[u64], count: u32| {
            u128::from(each.get(resource).copied().unwrap_or(0)) * u128::from(count)
        };
        times(&self.server, size.servers) + times(&self.worker, size.workers)
    }
}

/// The bids, in the order of arrival, and what there is.
pub struct Hall<'a> {
    /// The bids. Their order is the order in which ties fall.
    pub bids: Vec<Bid<'a>>,
    /// Of each resource what is free and what the bidders hold, together.
    pub capacity: Vec<u128>,
    /// What is free on each node, one node's amounts after the other's. A pod that a job gets beyond what it
    /// has must find a whole place: there, or where another's pod goes. `None`: only sums count.
    pub pieces: Option<Vec<u64>>,
    /// The most additions that are granted beyond minimums. Where more of one worker or server could be made, the
    /// additions are larger.
    pub most_additions: usize,
}

impl Hall<'_> {
    /// The largest share of the cluster's capacity that this size of a job takes of any resource
    /// (its dominant share).
    #[must_use]
    pub fn share(&self, job: usize, size: Size) -> f64 {
        let share = |resource: usize, whole: u128| {
            let part = self.bids[job].amount(size, resource);
            if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
        };
        let shares = self.capacity.iter().enumerate().map(|(at, whole)| share(at, *whole));
        shares.fold(0.0, f64::max)
    }

    /// The dominant share of what `to` has beyond `from`, never zero.
    #[must_use]
    pub fn share_between(&self, job: usize, from: Size, to: Size) -> f64 {
        let more = Size {
            servers: to.servers.saturating_sub(from.servers),
            workers: to.workers.saturating_sub(from.workers),
        };
        self.share(job, more).max(1e-9)
    }

    /// Whether the job may have this size, if there is room: who is doubted gets no more than its minimum or
    /// a fair share.
    #[must_use]
    pub fn allows(&self, job: usize, size: Size) -> bool {
        let bid = &self.bids[job];
        let fair = || self.share(job, size) * self.bids.len() as f64 <= 1.0 + 1e-9;
        !bid.is_doubted || !size.grows_from(bid.min) || fair()
    }

    /// Whether the whole cluster, were it empty, has this size.
    #[must_use]
    pub fn could_hold(&self, job: usize, size: Size) -> bool {
        let mut capacity = self.capacity.iter().enumerate();
        capacity.all(|(at, whole)| self.bids[job].amount(size, at) <= *whole)
    }

    /// What nobody may take: of those that run and of those that were promised it, the minimum.
    #[must_use]
    pub fn floors(&self) -> Draft<'_> {
        let mut draft = Draft {
            hall: self,
            sizes: vec![Size::default(); self.bids.len()],
            taken: vec![0; self.capacity.len()],
        };
        let are = |standing| {
            let jobs = self.bids.iter().enumerate();
            jobs.filter(move |(_, bid)| bid.standing == standing)
        };
        for (job, bid) in are(Standing::Runs).chain(are(Standing::Promised)) {
            let (has, min) = (bid.current, bid.min);
            let held = Size {
                servers: has.servers.min(min.servers),
                workers: has.workers.min(min.workers),
            };
            draft.set(job, held);
        }
        // One whose minimum is not to be had (its only GPU is gone, or another's) keeps what it has of it until it is,
        // and stops nobody else.
        for (job, bid) in are(Standing::Runs).chain(are(Standing::Promised)) {
            draft.give(job, bid.min);
        }
        for (job, bid) in are(Standing::Late) {
            draft.give(job, bid.min);
        }
        draft
    }

    /// The floors, and for those that wait the whole of their minimum or nothing, in the order of arrival
    /// while it fits.
    #[must_use]
    pub fn minimums(&self) -> Draft<'_> {
        let mut draft = self.floors();
        for (job, bid) in self.bids.iter().enumerate() {
            if bid.standing == Standing::Waits {
                draft.give(job, bid.min);
            }
        }
        draft
    }
}

/// The sizes as they stand while the hall is cleared.
pub struct Draft<'h> {
    hall: &'h Hall<'h>,
    sizes: Vec<Size>,
    taken: Vec<u128>,
}

impl Draft<'_> {
    /// The size of a job so far.
    #[must_use]
    pub fn size(&self, job: usize) -> Size {
        self.sizes[job]
    }

    /// All sizes, in the order of the bids. Floors may be more than there is, and a change that was taken back
    /// may have been what another was to use: the growth of the latest is taken back until all fits.
    #[must_use]
    pub fn into_sizes(mut self) -> Vec<Size> {
        while !self.fits() {
            let grows = |job: &usize| self.sizes[*job].grows_from(self.hall.bids[*job].current);
            let Some(job) = (0..self.sizes.len()).rev().find(grows) else { break };
            self.set(job, self.hall.bids[job].current);
        }
        self.sizes
    }

    /// Gives the job this size if it may have it and all sizes together still fit; whether it did.
    pub fn give(&mut self, job: usize, size: Size) -> bool {
        let before = self.sizes[job];
        if size == before {
            return true;
        }
        // Less than the minimum is of no use.
        let is_useful = size.is_nothing() || !self.hall.bids[job].min.grows_from(size);
        if !is_useful || !self.hall.allows(job, size) || !self.has_room(job, size) {
            return false;
        }
        self.set(job, size);
        let fits = self.pieces_fit();
        if !fits {
            self.set(job, before);
        }
        fits
    }

    /// Whether the sums allow this size, wherever its pods find a place.
    #[must_use]
    pub fn has_room(&self, job: usize, size: Size) -> bool {
        let (bid, before) = (&self.hall.bids[job], self.sizes[job]);
        let mut amounts = self.taken.iter().zip(&self.hall.capacity).enumerate();
        amounts.all(|(at, (taken, capacity))| {
            taken - bid.amount(before, at) + bid.amount(size, at) <= *capacity
        })
    }

    fn set(&mut self, job: usize, size: Size) {
        let bid = &self.hall.bids[job];
        let before = std::mem::replace(&mut self.sizes[job], size);
        for (at, taken) in self.taken.iter_mut().enumerate() {
            *taken = *taken - bid.amount(before, at) + bid.amount(size, at);
        }
    }

    fn fits(&self) -> bool {
        let mut amounts = self.taken.iter().zip(&self.hall.capacity);
        amounts.all(|(taken, capacity)| taken <= capacity) && self.pieces_fit()
    }

    /// Whether the pods that jobs get beyond what they have find whole places: on a node with room, or
    /// where another job's pod goes.
    fn pieces_fit(&self) -> bool {
        let Some(pieces) = &self.hall.pieces else { return true };
        let (mut wanted, mut freed) = (Vec::new(), Vec::new());
        for (bid, size) in self.hall.bids.iter().zip(&self.sizes) {
            for (pod, has, gets) in [
                (&bid.server, bid.current.servers, size.servers),
                (&bid.worker, bid.current.workers, size.workers),
            ] {
                let all = if gets > has { &mut wanted } else { &mut freed };
                all.push((pod.as_slice(), u64::from(gets.abs_diff(has))));
            }
        }
        packing::fit(pieces, self.hall.capacity.len(), wanted, freed)
    }

    /// Takes growth back that does not pay for what the change costs, were it to save as much less as its
    /// prediction is unsure; then shrinking that nobody needs.
    pub fn spare_needless_changes(&mut self) {
        for (job, bid) in self.hall.bids.iter().enumerate() {
            let size = self.sizes[job];
            let seconds = |size| bid.worth.seconds(size);
            let saved = seconds(bid.keeps).zip(seconds(size)).map(|(now, then)| now - then);
            let unsure = 1.0 + bid.worth.uncertainty(size);
            let pays = saved.is_some_and(|saved| saved / unsure > bid.rescale_seconds);
            if bid.may_stay() && !pays && size.grows_from(bid.keeps) {
                self.set(job, bid.keeps);
            }
        }
        for (job, bid) in self.hall.bids.iter().enumerate() {
            let shrinks = self.sizes[job] != bid.keeps && !self.sizes[job].grows_from(bid.keeps);
            if bid.may_stay() && shrinks {
                self.give(job, bid.keeps);
            }
        }
    }
}
