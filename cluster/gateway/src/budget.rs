//! Amounts that all requests together may hold: bytes, and streams.
//!
//! Whoever wants to keep something takes a share first and gives it back by dropping it. Nobody holds
//! more than a part of a budget, so that others always find something left of it.

use crate::limits::Limits;
use impresario_objects::ReadAhead;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Answers of at most so many bytes are not counted: they are there for everybody, whoever keeps the
/// budget of the others.
pub const SMALL: usize = 64 * 1024;
/// Most bytes that one listing reads ahead of its client. They are the registry's own: they cost something only when
/// they are replaced meanwhile.
const AHEAD_MOST: usize = 16 * 1024 * 1024;

/// So much, for everybody together, and so much for one holder.
#[derive(Debug, Clone)]
pub struct Budget {
    held: Arc<Mutex<Held>>,
    most: usize,
    each: usize,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by: HashMap<Arc<str>, usize>,
}

/// There is no room for so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Over {
    /// Others hold it; it comes back.
    #[error("the budget is used up")]
    Now,
    /// One holder never gets so much.
    #[error("it is over the limit of {0} for one user")]
    Ever(usize),
}

/// A share of a budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    holder: Arc<str>,
    amount: usize,
}

impl Budget {
    /// A budget of so much, of which one holder gets at most a part.
    pub fn of(most: usize, each: usize) -> Self {
        Self { held: Arc::default(), most, each: each.min(most) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A share of this holder, with nothing in it yet.
    pub fn share(&self, holder: &str) -> Share {
        Share { budget: self.clone(), holder: holder.into(), amount: 0 }
    }

    /// What nobody holds.
    #[cfg(test)]
    fn left(&self) -> usize {
        self.most - self.held().all
    }
}

impl Share {
    /// Makes the share as large as `amount`; leaves it as it is where there is no room.
    pub fn grow(&mut self, amount: usize) -> Result<(), Over> {
        let more = amount.saturating_sub(self.amount);
        if more == 0 {
            return Ok(());
        }
        if amount > self.budget.each {
            return Err(Over::Ever(self.budget.each));
        }
        let mut held = self.budget.held();
        let own = held.by.get(&self.holder).copied().unwrap_or(0);
        if held.all.saturating_add(more) > self.budget.most
            || own.saturating_add(more) > self.budget.each
        {
            return Err(Over::Now);
        }
        held.all += more;
        held.by.insert(Arc::clone(&self.holder), own + more);
        drop(held);
        self.amount = amount;
        Ok(())
    }

    /// Gives back what is over `amount`.
    pub fn shrink(&mut self, amount: usize) {
        let less = self.amount.saturating_sub(amount);
        if less == 0 {
            return;
        }
        self.amount = amount;
        let mut held = self.budget.held();
        held.all = held.all.saturating_sub(less);
        match held.by.get_mut(&self.holder) {
            Some(own) if *own > less => *own -= less,
            _ => {
                held.by.remove(&self.holder);
            }
        }
    }

    /// Makes the share just so large; leaves it as it is where there is no room.
    pub fn set(&mut self, amount: usize) -> Result<(), Over> {
        self.shrink(amount);
        self.grow(amount)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// What one listing may hold of what its client has not read.
#[derive(Debug)]
pub struct Unread {
    needed: Share,
    ahead: Share,
}

impl ReadAhead for Unread {
    fn hold(&mut self, bytes: usize) -> bool {
        self.ahead.shrink(0);
        self.needed.set(if bytes > SMALL { bytes } else { 0 }).is_ok()
    }

    fn hold_ahead(&mut self, bytes: usize) -> bool {
        bytes <= AHEAD_MOST && self.ahead.grow(bytes).is_ok()
    }
}

/// The budgets of one gateway.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// Bodies as they came, in bytes.
    pub bodies: Budget,
    /// Answers that wait to be read, in bytes.
    pub answers: Budget,
    /// What is read of the registry before a client has read so far, in bytes.
    pub ahead: Budget,
    /// Watches and logs that are followed.
    pub streams: Budget,
}

impl Budgets {
    /// As the limits have them.
    pub fn of(limits: &Limits) -> Self {
        Self {
            bodies: Budget::of(limits.bodies, limits.bodies / 2),
            answers: Budget::of(limits.answers, limits.answers / 2),
            ahead: Budget::of(limits.answers / 4, limits.answers / 8),
            streams: Budget::of(limits.watches, limits.watches_per_user),
        }
    }

    /// What a listing for this user may hold, with nothing in it yet.
    pub fn unread(&self, user: &str) -> Unread {
        Unread { needed: self.answers.share(user), ahead: self.ahead.share(user) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_until_they_are_dropped() {
        let budget = Budget::of(10, 10);
        let mut share = budget.share("a");
        assert_eq!(share.grow(4), Ok(()));
        assert_eq!(share.grow(3), Ok(()), "it has that already");
        assert_eq!(budget.left(), 6);
        assert_eq!(share.grow(10), Ok(()));
        assert_eq!(budget.share("b").grow(1), Err(Over::Now));
        drop(share);
        assert_eq!(budget.left(), 10);
        assert!(budget.held().by.is_empty(), "nobody is remembered for nothing");
    }

    #[test]
    fn one_holder_leaves_something_for_others() {
        let budget = Budget::of(10, 6);
        let (mut first, mut second) = (budget.share("a"), budget.share("a"));
        assert_eq!(first.grow(7), Err(Over::Ever(6)));
        assert_eq!(first.grow(5), Ok(()));
        assert_eq!(second.grow(2), Err(Over::Now));
        assert_eq!(second.grow(1), Ok(()));
        assert_eq!(budget.share("b").grow(4), Ok(()));
        drop(first);
        assert_eq!(second.grow(6), Ok(()));
        assert_eq!(second.set(2), Ok(()));
        assert_eq!(budget.share("a").grow(4), Ok(()), "what was given back is there again");
    }
}
