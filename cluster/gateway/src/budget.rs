//! Bytes that all requests together may hold.
//!
//! Whoever wants to keep something takes a share first and gives it back by dropping it. Shares are
//! counted in units of [`UNIT`] bytes, rounded up.

use crate::limits::Limits;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Bytes of one permit.
const UNIT: usize = 1024;

/// So many bytes, for everybody together.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Arc<Semaphore>,
    units: u32,
}

/// A share of a budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    /// A budget of so many bytes.
    pub fn of(bytes: usize) -> Self {
        let units = units(bytes).max(1);
        Self { left: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Makes a share as large as `bytes`; tells whether there was room.
    pub fn grow(&self, share: &mut Share, bytes: usize) -> bool {
        let held = share.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = units(bytes).saturating_sub(u32::try_from(held).unwrap_or(u32::MAX));
        if more == 0 {
            return true;
        }
        match Arc::clone(&self.left).try_acquire_many_owned(more) {
            Ok(permit) => {
                match &mut share.0 {
                    Some(held) => held.merge(permit),
                    none => *none = Some(permit),
                }
                true
            }
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => false,
        }
    }

    /// A share of this size, in turn. What is larger than the whole budget waits for all of it.
    pub async fn wait(&self, bytes: usize) -> Share {
        let wanted = units(bytes).min(self.units);
        Share(Arc::clone(&self.left).acquire_many_owned(wanted).await.ok())
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    fn left(&self) -> usize {
        self.left.available_permits() * UNIT
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 3).min(u32::MAX >> 3)
}

/// The budgets of one gateway.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// Bodies as they came.
    pub bodies: Budget,
    /// What is made of them.
    pub work: Budget,
    /// Answers that wait to be read.
    pub answers: Budget,
}

impl Budgets {
    /// As the limits have them.
    pub fn of(limits: &Limits) -> Self {
        Self {
            bodies: Budget::of(limits.bodies),
            work: Budget::of(limits.work),
            answers: Budget::of(limits.answers),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shares_are_counted_until_they_are_dropped() {
        let budget = Budget::of(10 * UNIT);
        let mut share = Share::default();
        assert!(budget.grow(&mut share, 1));
        assert!(budget.grow(&mut share, UNIT), "the unit that it has already");
        assert_eq!(budget.left(), 9 * UNIT);
        assert!(budget.grow(&mut share, 10 * UNIT));
        assert!(!budget.grow(&mut Share::default(), 1));
        drop(share);
        assert_eq!(budget.left(), 10 * UNIT);

        let all = budget.wait(1000 * UNIT).await;
        assert_eq!(budget.left(), 0);
        drop(all);
        assert_eq!(budget.left(), 10 * UNIT);
    }
}
