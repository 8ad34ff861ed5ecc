//! Amounts that all requests together may hold: bytes, and streams.
//!
//! Whoever wants to keep something takes a share first and gives it back by dropping it. One holder gets at most
//! as much as it leaves to others (the dynamic thresholds of Choudhury and Hahne, 1998). So many holders together
//! may still take all that is had that way; a quarter of a budget is there only for those who hold little of it, and
//! another one for the system alone: however many take all they get, a few things are to be had by anybody, and
//! whoever has to put things in order is answered.

use crate::authenticate::User;
use crate::authorize::MASTERS;
use crate::limits::Limits;
use impresario_objects::ReadAhead;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Answers of at most so many bytes are not counted: they are there for everybody, whoever keeps the
/// budget of the others.
pub const SMALL: usize = 64 * 1024;
/// Most that one listing reads ahead of its client may cost, in bytes: a gigabyte of pods. Who is cut because the past
/// was forgotten would begin anew, and be cut again, as long as so much is written.
const AHEAD_MOST: usize = 64 * 1024 * 1024;

/// One in so many of a budget is for the system alone, and one in so many more for those who hold little.
const KEPT: usize = 4;
/// One in so many of a budget is little.
const LITTLE: usize = 1024;
/// The service accounts that are the system's own.
const SYSTEM_ACCOUNTS: &str = "system:serviceaccounts:kube-system";

/// On whose account something is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    name: Arc<str>,
    system: bool,
}

impl Holder {
    /// The account of this user.
    pub fn of(user: &User) -> Self {
        let system = user.is_in(MASTERS) || user.is_in(SYSTEM_ACCOUNTS);
        Self { name: user.name.as_str().into(), system }
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it runs the cluster: what is kept for the system is there for it.
    pub fn is_system(&self) -> bool {
        self.system
    }
}

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
    by: HashMap<Holder, usize>,
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
    holder: Holder,
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
    pub fn share(&self, holder: &Holder) -> Share {
        Share { budget: self.clone(), holder: holder.clone(), amount: 0 }
    }

    /// What one who is not of the system, and holds more than a little, shares with its like.
    fn common(&self) -> usize {
        self.most - self.most / KEPT * 2
    }

    /// The most that this holder ever gets.
    fn ever(&self, holder: &Holder) -> usize {
        let own = if holder.system { self.most } else { self.little().max(self.common() / 2) };
        own.min(self.each)
    }

    fn little(&self) -> usize {
        (self.most / LITTLE).max(1)
    }

    /// Whether a holder may have so much, `all` being what everybody would hold then.
    fn fits(&self, holder: &Holder, own: usize, all: usize) -> bool {
        let kept = self.most / KEPT;
        own <= self.each
            && if holder.system {
                all <= self.most
            } else if own <= self.little() {
                all <= self.most - kept
            } else {
                own <= self.common().saturating_sub(all)
            }
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
        let ever = self.budget.ever(&self.holder);
        if amount > ever {
            return Err(Over::Ever(ever));
        }
        let mut held = self.budget.held();
        let own = held.by.get(&self.holder).copied().unwrap_or(0).saturating_add(more);
        let all = held.all.saturating_add(more);
        if !self.budget.fits(&self.holder, own, all) {
            return Err(Over::Now);
        }
        held.all = all;
        held.by.insert(self.holder.clone(), own);
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
    /// What it may cost, in bytes, that the registry is read before a client has read so far.
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
            ahead: Budget::of(limits.answers / 2, limits.answers / 4),
            streams: Budget::of(limits.watches, limits.watches_per_user),
        }
    }

    /// What a listing for this user may hold, with nothing in it yet.
    pub fn unread(&self, holder: &Holder) -> Unread {
        Unread { needed: self.answers.share(holder), ahead: self.ahead.share(holder) }
    }
}

#[cfg(test)]
impl Holder {
    /// Somebody without any right.
    pub fn named(name: &str) -> Self {
        Self::of(&User::new(name, []))
    }

    /// Somebody who rules.
    pub fn master(name: &str) -> Self {
        Self::of(&User::new(name, [MASTERS]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Takes one after the other until there is no more for it.
    fn takes_all(budget: &Budget, holder: &Holder) -> Vec<Share> {
        let one = || {
            let mut share = budget.share(holder);
            share.grow(1).ok().map(|()| share)
        };
        std::iter::from_fn(one).collect()
    }

    #[test]
    fn shares_are_counted_until_they_are_dropped() {
        let (budget, master) = (Budget::of(10, 10), Holder::master("a"));
        let mut share = budget.share(&master);
        assert_eq!(share.grow(4), Ok(()));
        assert_eq!(share.grow(3), Ok(()), "it has that already");
        assert_eq!(budget.left(), 6);
        assert_eq!(share.grow(11), Err(Over::Ever(10)));
        assert_eq!(share.grow(10), Ok(()));
        assert_eq!(budget.share(&Holder::master("b")).grow(1), Err(Over::Now));
        assert_eq!(share.set(5), Ok(()));
        assert_eq!(budget.left(), 5);
        drop(share);
        assert_eq!(budget.left(), 10);
        assert!(budget.held().by.is_empty(), "nobody is remembered for nothing");
    }

    #[test]
    fn one_holder_gets_at_most_what_it_leaves_and_never_more_than_its_part() {
        let budget = Budget::of(4096, 800);
        let (eve, ann) = (Holder::named("eve"), Holder::named("ann"));
        assert_eq!(budget.share(&eve).grow(801), Err(Over::Ever(800)));
        let taken = takes_all(&budget, &eve);
        assert_eq!(taken.len(), 800);
        let next = takes_all(&budget, &ann);
        assert_eq!(next.len(), 624, "as much as is left of what is for all");
        drop(taken);
        let mut share = budget.share(&ann);
        assert_eq!(share.grow(176), Ok(()), "what was given back is there again");
        assert_eq!(share.grow(177), Err(Over::Now));
    }

    #[test]
    fn however_many_take_all_they_get_there_is_something_for_everybody_and_for_the_system() {
        let budget = Budget::of(8192, 4096);
        let number = |number| Holder::named(&format!("user-{number}"));
        let all: Vec<Share> = (0..200).flat_map(|one| takes_all(&budget, &number(one))).collect();
        let mut late = budget.share(&Holder::named("late"));
        assert_eq!(late.grow(budget.little()), Ok(()), "{} are held", all.len());
        let crowd: Vec<Share> =
            (200..9000).flat_map(|one| takes_all(&budget, &number(one))).collect();
        assert_eq!(budget.left(), 8192 / KEPT, "with {}", crowd.len());
        assert_eq!(budget.share(&number(9001)).grow(1), Err(Over::Now));
        assert_eq!(takes_all(&budget, &Holder::master("admin")).len(), 8192 / KEPT);
    }
}
