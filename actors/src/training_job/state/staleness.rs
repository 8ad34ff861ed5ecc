//! How far trainers may be apart (stale synchronous parallel, Ho et al. 2013).
//!
//! Each has a clock, the batches that it has done; one that comes, or begins again, begins with the slowest. Who is
//! further ahead of the slowest than the job allows waits. Waiting is no silence: it goes on saying that it lives.

use super::{Joined, State};
use crate::training_job::spec::Mode;
use impresario_client::protocol::training::{Member, Order};

impl State {
    /// How many batches this trainer may be given, of so many; how long it waits if none.
    pub(super) fn may_take(&mut self, uid: &str, limit: usize) -> Result<usize, Order> {
        let Mode::BoundedStaleness { most } = self.spec.mode else { return Ok(limit) };
        let Some(plan) = &self.plan else { return Ok(limit) };
        // Who has nothing in hand computes nothing from old parameters.
        let at_work = |other: &str, one: &Joined| {
            other != uid && one.member == Member::Trainer && !plan.in_work(other).is_empty()
        };
        let others = self.joined.iter().filter(|(other, one)| at_work(other, one));
        let slowest = others.map(|(_, one)| one.batches).min();
        // All others may be at an evaluation when one comes.
        let has_begun = |other: &str, one: &Joined| {
            other != uid && one.member == Member::Trainer && one.batches > 0
        };
        let begun = self.joined.iter().filter(|(other, one)| has_begun(other, one));
        let begun = begun.map(|(_, one)| one.batches).min();
        let Some(joined) = self.joined.get_mut(uid) else { return Ok(limit) };
        if joined.batches == 0 {
            joined.batches = slowest.or(begun).unwrap_or(0);
        }
        let slowest = slowest.unwrap_or(joined.batches);
        joined.batches = joined.batches.max(slowest);
        let ahead = joined.batches - slowest;
        match most.saturating_add(1).checked_sub(ahead).filter(|left| *left > 0) {
            Some(left) => Ok(limit.min(usize::try_from(left).unwrap_or(usize::MAX))),
            None => Err(Order::Wait { milliseconds: 20 }),
        }
    }
}
