//! What a server draws: uids, name suffixes, addresses and ports.

use crate::policy::priority::Class;
use impresario_ambient::random;
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::Ipv4Addr;

/// The letters of what a server appends to `generateName`: none that make words.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The first addresses are left to those who ask for one by name, as the API's own.
const LEFT: u32 = 16;

/// Draws what a server draws. Tests hand in one that always draws the same.
pub trait Allocator: Send + Sync + Debug {
    /// A uid for a new object.
    fn uid(&self) -> String;
    /// Five characters to append to a name.
    fn name_suffix(&self) -> String;
    /// A cluster IP, the wanted one if any; the error says why it cannot be had.
    fn cluster_ip(&self, wanted: Option<&str>) -> Result<String, String>;
    /// A node port, the wanted one if any; the error says why it cannot be had.
    fn node_port(&self, wanted: Option<u16>) -> Result<u16, String>;
    /// The service account that pods would act as; nothing where there is none.
    fn service_account(&self, _namespace: &str, name: &str) -> Option<Account> {
        (name == "default").then(Account::default)
    }
    /// The priority class of this name; of the empty one that which pods have that name none.
    fn priority_class(&self, name: &str) -> Option<Class> {
        if name.is_empty() { Some(Class::none()) } else { Class::of_system(name) }
    }
    /// The limit ranges of the namespace.
    fn limit_ranges(&self) -> &[Value] {
        &[]
    }
}

/// What a pod that acts as a service account takes over from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Whether its token is mounted where the pod does not say so itself.
    pub mounts_token: bool,
}

impl Default for Account {
    fn default() -> Self {
        Self { mounts_token: true }
    }
}

impl Account {
    /// Reads a `ServiceAccount`.
    pub fn of(object: &Value) -> Self {
        let refused = crate::field::at(object, "automountServiceAccountToken") == false;
        Self { mounts_token: !refused }
    }
}

/// What services draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRanges {
    /// An address of the network; its first and last addresses are never given.
    pub network: Ipv4Addr,
    /// Bits of the network.
    pub prefix: u8,
    /// First node port.
    pub first_port: u16,
    /// Last node port.
    pub last_port: u16,
}

impl Default for ServiceRanges {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(127, 96, 0, 0),
            prefix: 16,
            first_port: 30_000,
            last_port: 32_767,
        }
    }
}

impl ServiceRanges {
    fn size(&self) -> u32 {
        1_u32 << (32 - u32::from(self.prefix.clamp(8, 30)))
    }

    fn base(&self) -> u32 {
        u32::from(self.network) & !(self.size() - 1)
    }

    /// Whether an address may be given to a service.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base());
        offset > 0 && offset < self.size() - 1
    }

    /// The address that clients inside the cluster know the API by: the first of the network.
    pub fn api_address(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base() + 1)
    }
}

/// Draws at random from ranges, around what is known to be taken.
#[derive(Debug, Clone, Default)]
pub struct RandomAllocator {
    ranges: ServiceRanges,
    addresses: HashSet<String>,
    ports: HashSet<u16>,
    accounts: HashMap<(String, String), Account>,
    /// By the name that a pod says: the default one has the empty name.
    classes: HashMap<String, Class>,
    limit_ranges: Vec<Value>,
    for_api: bool,
}

impl RandomAllocator {
    /// Draws from these ranges, of which nothing is known to be taken.
    pub fn new(ranges: ServiceRanges) -> Self {
        Self { ranges, ..Self::default() }
    }

    /// The same, knowing that these are taken.
    pub fn without(self, addresses: HashSet<String>, ports: HashSet<u16>) -> Self {
        Self { addresses, ports, ..self }
    }

    /// The same, knowing one service account more.
    pub fn with_account(mut self, namespace: &str, name: &str, account: Account) -> Self {
        self.accounts.insert((namespace.to_owned(), name.to_owned()), account);
        self
    }

    /// The same, knowing one priority class more, by what pods call it: nothing, if it is the default one.
    pub fn with_class(mut self, called: &str, class: Class) -> Self {
        self.classes.insert(called.to_owned(), class);
        self
    }

    /// The same, knowing the limit ranges of the namespace.
    pub fn with_limit_ranges(self, limit_ranges: Vec<Value>) -> Self {
        Self { limit_ranges, ..self }
    }

    /// The same, for the API's own Service: nobody else is given its address.
    pub fn for_api(self) -> Self {
        Self { for_api: true, ..self }
    }

    fn is_taken(&self, address: Ipv4Addr) -> bool {
        let is_others = address == self.ranges.api_address() && !self.for_api;
        is_others || self.addresses.contains(&address.to_string())
    }

    fn wanted_ip(&self, wanted: &str) -> Result<String, String> {
        let address = wanted.parse().ok().filter(|address| self.ranges.contains(*address));
        let Some(address) = address else {
            let (network, prefix) = (Ipv4Addr::from(self.ranges.base()), self.ranges.prefix);
            return Err(format!(
                "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of \
                 valid IPs is {network}/{prefix}"
            ));
        };
        if self.is_taken(address) {
            return Err(format!(
                "failed to allocate IP {wanted}: provided IP is already allocated"
            ));
        }
        Ok(wanted.to_owned()) // whether another has it, the transaction decides
    }
}

impl Allocator for RandomAllocator {
    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn name_suffix(&self) -> String {
        let mut random = random::rng();
        (0..5)
            .filter_map(|_| SUFFIX_LETTERS.choose(&mut random).map(|letter| char::from(*letter)))
            .collect()
    }

    fn cluster_ip(&self, wanted: Option<&str>) -> Result<String, String> {
        if let Some(wanted) = wanted {
            return self.wanted_ip(wanted);
        }
        let (base, size) = (self.ranges.base(), self.ranges.size());
        let start = random::rng().random_range(LEFT.min(size / 4).max(1)..size - 1);
        (0..size)
            .map(|step| Ipv4Addr::from(base + (start + step) % size))
            .find(|address| self.ranges.contains(*address) && !self.is_taken(*address))
            .map(|address| address.to_string())
            .ok_or_else(|| "failed to allocate a serviceIP: range is full".to_owned())
    }

    fn node_port(&self, wanted: Option<u16>) -> Result<u16, String> {
        let (first, last) = (self.ranges.first_port, self.ranges.last_port);
        match wanted {
            Some(port) if !(first..=last).contains(&port) => Err(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            )),
            Some(port) if self.ports.contains(&port) => {
                Err("provided port is already allocated".to_owned())
            }
            Some(port) => Ok(port),
            None => {
                let count = u32::from(last.saturating_sub(first)) + 1;
                let start = random::rng().random_range(0..count);
                (0..count)
                    .map(|step| first + ((start + step) % count) as u16)
                    .find(|port| !self.ports.contains(port))
                    .ok_or_else(|| "failed to allocate a nodePort: range is full".to_owned())
            }
        }
    }

    fn service_account(&self, namespace: &str, name: &str) -> Option<Account> {
        let known = self.accounts.get(&(namespace.to_owned(), name.to_owned())).copied();
        // Pods of a namespace that is just being furnished need not wait for its first account.
        known.or_else(|| (name == "default").then(Account::default))
    }

    fn priority_class(&self, name: &str) -> Option<Class> {
        let known = self.classes.get(name).cloned();
        let none = || name.is_empty().then(Class::none);
        known.or_else(none).or_else(|| Class::of_system(name))
    }

    fn limit_ranges(&self) -> &[Value] {
        &self.limit_ranges
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_network_are_never_given() {
        let ranges = ServiceRanges::default();
        for (address, given) in [
            ([127, 96, 0, 0], false),
            ([127, 96, 0, 1], true),
            ([127, 96, 255, 254], true),
            ([127, 96, 255, 255], false),
            ([127, 97, 0, 1], false),
        ] {
            assert_eq!(ranges.contains(Ipv4Addr::from(address)), given, "{address:?}");
        }
        assert_eq!(ranges.api_address(), Ipv4Addr::new(127, 96, 0, 1));
    }

    #[test]
    fn the_last_free_address_is_found_and_a_full_range_says_so() {
        let ranges = ServiceRanges {
            network: Ipv4Addr::new(10, 0, 0, 0),
            prefix: 29,
            ..ServiceRanges::default()
        };
        let mut draws = RandomAllocator::new(ranges);
        // Of the six the first is the API's.
        for _ in 0..5 {
            let drawn = draws.cluster_ip(None).unwrap();
            assert!(draws.addresses.insert(drawn));
        }
        assert!(draws.cluster_ip(None).unwrap_err().contains("range is full"));
        assert!(draws.cluster_ip(Some("10.0.0.8")).unwrap_err().contains("not in the valid range"));
        assert!(draws.cluster_ip(Some("10.0.0.2")).unwrap_err().contains("already allocated"));
    }

    #[test]
    fn nobody_but_the_api_is_given_its_address() {
        let draws = RandomAllocator::new(ServiceRanges::default());
        assert!(draws.cluster_ip(Some("127.96.0.1")).unwrap_err().contains("already allocated"));
        assert_eq!(draws.for_api().cluster_ip(Some("127.96.0.1")).unwrap(), "127.96.0.1");
    }

    #[test]
    fn a_port_outside_of_the_range_or_taken_is_refused_and_never_drawn() {
        let ranges = ServiceRanges { last_port: 30_002, ..ServiceRanges::default() };
        let draws = RandomAllocator::new(ranges).without(HashSet::new(), [30_000, 30_001].into());
        for _ in 0..20 {
            assert_eq!(draws.node_port(None), Ok(30_002));
        }
        assert!(draws.node_port(Some(30_000)).unwrap_err().contains("already allocated"));
        assert!(draws.node_port(Some(30_003)).unwrap_err().contains("30000-30002"));
        assert_eq!(draws.node_port(Some(30_002)), Ok(30_002));
    }
}
