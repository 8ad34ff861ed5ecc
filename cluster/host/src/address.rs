//! Addresses of pods on a machine without a bridge: each its own in the node's part of 127/8.
//!
//! Who has which is on disk, so that a restarted node gives running pods no other address.
//! A freed address is given again only after all others were.

use crate::process::record;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};
use thiserror::Error;

/// A range of addresses, as in `127.20.3.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cidr {
    first: Ipv4Addr,
    bits: u8,
}

impl Cidr {
    /// The range of so many leading bits (at most 32) that this address is in.
    pub(crate) fn of(address: Ipv4Addr, bits: u8) -> Self {
        let mask = u32::MAX.checked_shl(u32::from(32 - bits.min(32))).unwrap_or(0);
        Self { first: Ipv4Addr::from(u32::from(address) & mask), bits: bits.min(32) }
    }

    /// How many addresses there are in it.
    pub fn size(self) -> u64 {
        1 << (32 - self.bits)
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (u64::from(u32::from(self.first))..u64::from(u32::from(self.first)) + self.size())
            .contains(&u64::from(u32::from(address)))
    }

    /// The address at an index; `None` beyond the range.
    pub fn nth(self, index: u64) -> Option<Ipv4Addr> {
        let offset = u32::try_from(index).ok().filter(|_| index < self.size())?;
        Some(Ipv4Addr::from(u32::from(self.first) + offset))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl FromStr for Cidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parsed = text.split_once('/').and_then(|(address, bits)| {
            let (address, bits): (Ipv4Addr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            let bits = Some(bits).filter(|bits| *bits <= 32)?;
            Some(Self::of(address, bits))
        });
        parsed.ok_or_else(|| AddressError::Range { text: text.to_owned() })
    }
}

/// Why there is no address.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// All are given away.
    #[error("all {size} addresses of {range} are in use: fewer pods, or a wider podCIDR")]
    Exhausted {
        /// The node's range.
        range: Cidr,
        /// How many pods it can hold.
        size: u64,
    },
    /// A range cannot be read.
    #[error("{text:?} is no range of addresses: write it as 127.20.3.0/24")]
    Range {
        /// What was given.
        text: String,
    },
    /// The record on disk failed.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The first index that is given away: the network and the node itself come before.
const FIRST: u64 = 2;

/// So many at the end are not given away: the broadcast address, and the one before it, at which
/// the node answers for names.
const LAST: u64 = 2;

/// Gives addresses to pods and remembers it.
#[derive(Debug)]
pub struct AddressPool {
    /// Where it is written down who has which, if it is.
    folder: Option<PathBuf>,
    given: Given,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Given {
    range: Cidr,
    next: u64,
    owners: BTreeMap<String, Ipv4Addr>,
}

const FILE: &str = "addresses.json";

impl AddressPool {
    /// The pool of a range, with what the file in `folder` says is given away.
    /// What was given from another range is forgotten.
    pub fn open(folder: &Path, range: Cidr) -> Result<Self, AddressError> {
        let path = folder.join(FILE);
        let failed = |cause| AddressError::Io { path: path.clone(), cause };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let found: Option<Given> = record::read(folder, FILE).map_err(failed)?;
        let given = found.filter(|given| given.range == range);
        let given = given.unwrap_or(Given { range, next: FIRST, owners: BTreeMap::new() });
        Ok(Self { folder: Some(folder.to_owned()), given })
    }

    /// The pool of a range that remembers nothing beyond its own life: for pods that end with their node's process.
    pub fn forgetful(range: Cidr) -> Self {
        Self { folder: None, given: Given { range, next: FIRST, owners: BTreeMap::new() } }
    }

    /// The owner's address: the one that it has, or a free one.
    pub fn give(&mut self, owner: &str) -> Result<Ipv4Addr, AddressError> {
        if let Some(address) = self.given.owners.get(owner) {
            return Ok(*address);
        }
        let range = self.given.range;
        let usable = range.size().saturating_sub(FIRST + LAST);
        let taken = self.given.owners.values().copied().collect::<std::collections::HashSet<_>>();
        let at = |step: u64| FIRST + (self.given.next - FIRST + step) % usable;
        let free = (0..usable).map(at).find(|i| range.nth(*i).is_some_and(|a| !taken.contains(&a)));
        let index = free.ok_or(AddressError::Exhausted { range, size: usable })?;
        let address = range.nth(index).ok_or(AddressError::Exhausted { range, size: usable })?;
        let mut given = self.given.clone();
        given.next = index + 1;
        given.owners.insert(owner.to_owned(), address);
        self.keep(given)?;
        Ok(address)
    }

    /// Takes an owner's address back.
    pub fn take_back(&mut self, owner: &str) -> Result<(), AddressError> {
        self.retain(|other| other != owner)
    }

    /// Takes back the addresses of all owners that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> Result<(), AddressError> {
        let mut given = self.given.clone();
        given.owners.retain(|owner, _| is_there(owner));
        if given.owners.len() == self.given.owners.len() {
            return Ok(());
        }
        self.keep(given)
    }

    /// Who has which address.
    pub fn owners(&self) -> &BTreeMap<String, Ipv4Addr> {
        &self.given.owners
    }

    /// Only what is on disk counts, where there is one.
    fn keep(&mut self, given: Given) -> Result<(), AddressError> {
        if let Some(folder) = &self.folder {
            record::write(folder, FILE, &given)
                .map_err(|cause| AddressError::Io { path: folder.join(FILE), cause })?;
        }
        self.given = given;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_keeps_its_address_over_a_restart_and_a_freed_one_rests() {
        let folder = tempfile::tempdir().unwrap();
        let range: Cidr = "127.20.3.77/24".parse().unwrap();
        let mut pool = AddressPool::open(folder.path(), range).unwrap();
        let a = pool.give("a").unwrap();
        assert_eq!(a, Ipv4Addr::new(127, 20, 3, 2));
        pool.give("b").unwrap();
        let mut pool = AddressPool::open(folder.path(), range).unwrap();
        assert_eq!(pool.give("a").unwrap(), a);
        pool.take_back("a").unwrap();
        assert_eq!(pool.give("c").unwrap(), Ipv4Addr::new(127, 20, 3, 4));
        pool.retain(|owner| owner == "c").unwrap();
        assert_eq!(pool.owners().len(), 1);
    }

    #[test]
    fn a_forgetful_pool_gives_each_address_once_and_writes_nothing() {
        let mut pool = AddressPool::forgetful("127.9.9.0/28".parse().unwrap());
        let given: std::collections::HashSet<_> =
            (0..12).map(|n| pool.give(&n.to_string()).unwrap()).collect();
        assert_eq!(given.len(), 12);
        assert!(matches!(pool.give("more"), Err(AddressError::Exhausted { .. })));
        let first = pool.give("0").unwrap();
        pool.take_back("0").unwrap();
        assert_eq!(pool.give("more").unwrap(), first);
        assert!(!Path::new(FILE).exists());
    }

    #[test]
    fn every_address_is_given_once_and_then_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = AddressPool::open(folder.path(), "127.9.9.0/28".parse().unwrap()).unwrap();
        let given: std::collections::HashSet<_> =
            (0..12).map(|n| pool.give(&n.to_string()).unwrap()).collect();
        assert_eq!(given.len(), 12);
        assert!(!given.contains(&Ipv4Addr::new(127, 9, 9, 14)), "names are answered for there");
        assert!(matches!(pool.give("more"), Err(AddressError::Exhausted { size: 12, .. })));
        pool.take_back("5").unwrap();
        assert!(pool.give("more").is_ok());
    }
}
