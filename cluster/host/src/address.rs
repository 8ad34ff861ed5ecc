//! Addresses of pods on a machine without a bridge: each its own in the node's part of 127/8.
//!
//! Who has which is on disk, so that a restarted node gives running pods no other address.
//! A freed address is given again only after all others were.

use crate::process::record;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr},
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

impl Given {
    fn none_of(range: Cidr) -> Self {
        Self { range, next: FIRST, owners: BTreeMap::new() }
    }

    /// What the pods of this node say that they were given, each in its own record.
    fn by_pods(range: Cidr, folder: &Path) -> io::Result<Self> {
        let mut given = Self::none_of(range);
        for pod in record::pods(&folder.join("pods"))? {
            let Some(IpAddr::V4(address)) = pod.address else { continue };
            let index =
                u64::from(u32::from(address)).checked_sub(u64::from(u32::from(range.first)));
            let usable = FIRST..range.size().saturating_sub(LAST);
            let Some(index) = index.filter(|index| usable.contains(index)) else { continue };
            if !given.owners.values().any(|taken| *taken == address) {
                given.next = given.next.max(index + 1);
                given.owners.insert(pod.uid, address);
            }
        }
        Ok(given)
    }
}

const FILE: &str = "addresses.json";

impl AddressPool {
    /// The pool of a range, with what the file in `folder` says is given away. Where there is none, or it cannot be
    /// read, what the pods there were given is given away. What was given from another range is forgotten.
    pub fn open(folder: &Path, range: Cidr) -> Result<Self, AddressError> {
        let failed = |cause| AddressError::Io { path: folder.join(FILE), cause };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let found: Option<Given> = record::read_or_put_aside(folder, FILE);
        let given = match found {
            Some(given) if given.range == range => given,
            Some(_) => Given::none_of(range),
            None => Given::by_pods(range, folder).map_err(failed)?,
        };
        Ok(Self { folder: Some(folder.to_owned()), given })
    }

    /// The pool of a range that remembers nothing beyond its own life: for pods that end with their node's process.
    pub fn forgetful(range: Cidr) -> Self {
        Self { folder: None, given: Given::none_of(range) }
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
            record::write_through(folder, FILE, &given)
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
    fn a_record_that_cannot_be_read_is_put_aside_and_running_pods_keep_their_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let range: Cidr = "127.20.3.0/24".parse().unwrap();
        let mut pool = AddressPool::open(folder.path(), range).unwrap();
        for uid in ["a", "b", "gone"] {
            pool.give(uid).unwrap();
        }
        let given = pool.owners().clone();
        let pod = |uid: &str, address: &str| {
            let pod = serde_json::json!({
                "uid": uid, "namespace": "default", "name": uid, "hostname": uid,
                "address": address, "host_network": false,
            });
            let folder = folder.path().join("pods").join(uid);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("pod.json"), pod.to_string()).unwrap();
        };
        pod("a", "127.20.3.2");
        pod("b", "127.20.3.3");
        // On the network of its node, by an engine, of an earlier range, and with a record that was lost, too.
        pod("host", "10.0.0.1");
        pod("engine", "172.17.0.2");
        pod("node", "127.20.3.1");
        pod("damaged", "127.20.3.9");
        std::fs::write(folder.path().join("pods/damaged/pod.json"), "").unwrap();
        std::fs::write(folder.path().join("pods/a-file"), "").unwrap();
        for left in ["", "{\"range\": {\"fi"] {
            std::fs::write(folder.path().join(FILE), left).unwrap();
            let mut pool = AddressPool::open(folder.path(), range).unwrap();
            assert_eq!(pool.owners().len(), 2, "{:?}", pool.owners());
            for uid in ["b", "a"] {
                assert_eq!(pool.give(uid).unwrap(), given[uid]);
            }
            assert_eq!(pool.give("new").unwrap(), Ipv4Addr::new(127, 20, 3, 4));
            assert!(folder.path().join("addresses.json.damaged").exists());
        }
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
