//! How much one addition is. Where few fit into the cluster, each is one worker or one server. Where many do, they
//! grow with what has been added: the sizes that are looked at lie close together near a job's minimum and near what
//! it has, and further apart elsewhere. So any size is reached by a number of additions that grows with its
//! logarithm, and the next round goes on from there one by one.

use crate::hall::{Bid, Hall, Size};

/// One of the two roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Worker,
}

impl Role {
    /// Both, the servers first.
    pub(crate) const BOTH: [Self; 2] = [Self::Server, Self::Worker];

    fn of(self, size: Size) -> u32 {
        match self {
            Self::Server => size.servers,
            Self::Worker => size.workers,
        }
    }

    fn set(self, size: Size, count: u32) -> Size {
        match self {
            Self::Server => Size { servers: count, ..size },
            Self::Worker => Size { workers: count, ..size },
        }
    }

    fn pod<'b>(self, bid: &'b Bid<'_>) -> &'b [u64] {
        match self {
            Self::Server => &bid.server,
            Self::Worker => &bid.worker,
        }
    }
}

/// How much one addition is in a hall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strides {
    one_by_one: bool,
}

impl Strides {
    /// Additions are of one if no more than `most` of them can be made.
    pub(crate) fn within(hall: &Hall<'_>, most: usize) -> Self {
        Self { one_by_one: most_additions(hall) <= most as u128 }
    }

    /// The sizes that a job may have next with more of a role: the usual one, and if that is too much smaller ones,
    /// down to one more.
    pub(crate) fn next(
        self,
        bid: &Bid<'_>,
        size: Size,
        role: Role,
    ) -> impl Iterator<Item = Size> + use<> {
        let count = |of| role.of(of);
        let has = count(size);
        let near = has.saturating_sub(count(bid.min)).min(has.abs_diff(count(bid.current)));
        let usual = if self.one_by_one { 1 } else { (near / 2).max(1) };
        let first = usual.min(count(bid.max).saturating_sub(has));
        let strides = std::iter::successors(Some(first), |stride| Some(stride / 2));
        strides.take_while(|stride| *stride > 0).map(move |stride| role.set(size, has + stride))
    }
}

/// No more pods than this can be added to the minimums: by what jobs want, and by what there is of a resource that
/// all of these pods take.
fn most_additions(hall: &Hall<'_>) -> u128 {
    let mut wanted = 0u128;
    let mut least: Vec<Option<u64>> = vec![None; hall.capacity.len()];
    for bid in &hall.bids {
        for role in Role::BOTH {
            let more = role.of(bid.max).saturating_sub(role.of(bid.min));
            if more == 0 {
                continue;
            }
            wanted += u128::from(more);
            for (at, least) in least.iter_mut().enumerate() {
                let needs = role.pod(bid).get(at).copied().unwrap_or(0);
                *least = Some(least.map_or(needs, |least| least.min(needs)));
            }
        }
    }
    let hold = |(has, least): (&u128, Option<u64>)| {
        least.filter(|least| *least > 0).map(|least| has / u128::from(least))
    };
    let held = hall.capacity.iter().zip(least).filter_map(hold).min();
    held.map_or(wanted, |held| held.min(wanted))
}
