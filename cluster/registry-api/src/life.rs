//! Which life of a directory a member is in.
//!
//! Each start is another life. Its number rises, and beside it stands what was drawn by chance: two copies of one
//! directory that start at the same time have the same number and are told apart all the same.

use impresario_runtime::random;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where the number begins; below it is the chance.
const NUMBER: u32 = 32;

/// One life of a directory. Those from before chance was drawn are their number alone.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Life(u64);

impl Life {
    /// The life with this number and no chance, as they were before.
    pub fn numbered(number: u32) -> Self {
        Self(number.into())
    }

    /// The one that begins after this one.
    #[must_use]
    pub fn next(self) -> Self {
        let number = self.number().saturating_add(1).min(u32::MAX.into());
        Self(number << NUMBER | u64::from(random::random_range(1..=u32::MAX)))
    }

    /// Rises with each start.
    pub fn number(self) -> u64 {
        let number = self.0 >> NUMBER;
        if number == 0 { self.0 } else { number }
    }

    /// Whether another life of the same directory shows that this one is over, or is a copy's.
    pub fn is_refuted_by(self, other: Self) -> bool {
        other.number() > self.number() || (other.number() == self.number() && other != self)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// Whether a directory that has had these lives, oldest first, goes on from what is known of it. One that was copied or
/// restored has not had a life that the others know of.
pub fn goes_on(lives: &[Life], known: Life) -> bool {
    // Who knows of an older one only has not heard of those since.
    lives.contains(&known) || lives.first().is_some_and(|first| known.number() < first.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_copies_that_start_at_once_each_refutes_the_other() {
        let before = Life::numbered(6);
        let (one, other) = (before.next(), before.next());
        assert_eq!((one.number(), other.number()), (7, 7));
        assert!(one.is_refuted_by(other) && other.is_refuted_by(one));
        assert!(before.is_refuted_by(one) && !one.is_refuted_by(before) && !one.is_refuted_by(one));
        assert_eq!(one.next().number(), 8);
        assert_eq!(Life(u64::MAX).next().number(), u64::from(u32::MAX), "no overflow");
    }

    #[test]
    fn who_has_not_had_a_life_that_is_known_is_a_copy_however_often_it_is_started() {
        let common = Life::numbered(5);
        let mut original = vec![common, common.next()];
        let known = original[1];
        original.push(known.next());
        assert!(goes_on(&original, known) && goes_on(&original, common));
        let mut restored = vec![common];
        for _ in 0..5 {
            restored.push(restored.last().unwrap().next());
            assert!(!goes_on(&restored, known));
        }
        assert!(goes_on(&original[1..], common), "those who lag know of older lives");
    }
}
