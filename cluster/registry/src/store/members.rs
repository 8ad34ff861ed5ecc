//! Member numbers: given by the log to a disk, once, and never again.
//!
//! A number that came back with an empty log could vote a second time in a term that it has voted in.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The number of the member that founds a group.
pub const FOUNDER: u64 = 1;

/// The most disks that are given numbers; far more than any group ever has members.
const DISKS: usize = 4096;

/// All numbers ever given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    disks: BTreeMap<u128, u64>,
    retired: BTreeSet<u64>,
    last: u64,
}

/// What a disk is told that asks for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// Its number, the same whenever it asks.
    Member(u64),
    /// It was a member and has been removed; it must come back empty.
    Retired(u64),
    /// So many disks have numbers that no more are given.
    Full(usize),
}

impl Members {
    /// Gives a disk its number.
    pub fn admit(&mut self, disk: u128) -> Admission {
        if self.disks.len() >= DISKS && !self.disks.contains_key(&disk) {
            return Admission::Full(self.disks.len());
        }
        let number = *self.disks.entry(disk).or_insert_with(|| {
            self.last = self.last.max(FOUNDER) + 1;
            self.last
        });
        self.standing(number)
    }

    /// What a disk was given, if it ever asked.
    pub fn of(&self, disk: u128) -> Option<Admission> {
        self.disks.get(&disk).map(|number| self.standing(*number))
    }

    fn standing(&self, number: u64) -> Admission {
        if self.retired.contains(&number) {
            Admission::Retired(number)
        } else {
            Admission::Member(number)
        }
    }

    /// Whether a number has been retired.
    pub fn is_retired(&self, member: u64) -> bool {
        self.retired.contains(&member)
    }

    /// Retires a number for ever.
    pub fn retire(&mut self, member: u64) {
        self.retired.insert(member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_once_and_a_removed_disk_is_known() {
        let mut members = Members::default();
        assert_eq!(members.admit(10), Admission::Member(2));
        assert_eq!(members.admit(11), Admission::Member(3));
        assert_eq!(members.admit(10), Admission::Member(2));
        members.retire(3);
        assert_eq!(members.admit(11), Admission::Retired(3));
        assert_eq!(members.admit(12), Admission::Member(4));
    }

    #[test]
    fn disks_that_only_ask_do_not_fill_the_memory() {
        let mut members = Members::default();
        for disk in 0..10_000 {
            members.admit(disk);
        }
        assert_eq!(members.disks.len(), DISKS);
        assert_eq!(members.admit(7), Admission::Member(9), "who has a number keeps it");
        assert_eq!(members.admit(9_999), Admission::Full(DISKS));
    }
}
