//! What a server draws: uids, name suffixes, addresses and ports.

use crate::field::{list, number};
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::Ipv4Addr;

/// The letters of what a server appends to `generateName`: none that make words.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Ports that a service may take on every node.
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

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
    fn service_account(&self, namespace: &str, name: &str) -> Option<Account> {
        let _ = namespace;
        (name == "default").then(Account::default)
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

/// Draws at random from a range, around what is taken already.
#[derive(Debug)]
pub struct RandomAllocator {
    network: Ipv4Addr,
    prefix: u8,
    taken_ips: HashSet<String>,
    taken_ports: HashSet<u16>,
    accounts: HashMap<(String, String), Account>,
}

impl RandomAllocator {
    /// Addresses of `network/prefix`, none taken yet.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Self {
        Self {
            network,
            prefix: prefix.min(30),
            taken_ips: HashSet::new(),
            taken_ports: HashSet::new(),
            accounts: HashMap::new(),
        }
    }

    /// The same, knowing what these services have.
    pub fn with_services<'a>(mut self, services: impl IntoIterator<Item = &'a Value>) -> Self {
        for service in services {
            let ips = list(service, "spec.clusterIPs").iter().filter_map(Value::as_str);
            self.taken_ips.extend(ips.map(str::to_owned));
            let ports = list(service, "spec.ports").iter().filter_map(|p| number(p, "nodePort"));
            let ports = ports.chain(number(service, "spec.healthCheckNodePort"));
            self.taken_ports.extend(ports.filter_map(|port| u16::try_from(port).ok()));
        }
        self
    }

    /// The same, knowing one service account more.
    pub fn with_account(mut self, namespace: &str, name: &str, account: Account) -> Self {
        self.accounts.insert((namespace.to_owned(), name.to_owned()), account);
        self
    }

    fn contains(&self, ip: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(ip) & mask == u32::from(self.network) & mask
    }
}

impl Allocator for RandomAllocator {
    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn name_suffix(&self) -> String {
        let mut rng = rand::rng();
        (0..5).filter_map(|_| SUFFIX_LETTERS.choose(&mut rng).map(|c| char::from(*c))).collect()
    }

    fn cluster_ip(&self, wanted: Option<&str>) -> Result<String, String> {
        if let Some(wanted) = wanted {
            let inside = wanted.parse::<Ipv4Addr>().is_ok_and(|ip| self.contains(ip));
            return if !inside {
                let (network, prefix) = (self.network, self.prefix);
                Err(format!(
                    "failed to allocate IP {wanted}: the provided network does not match the current range {network}/{prefix}"
                ))
            } else if self.taken_ips.contains(wanted) {
                Err(format!("failed to allocate IP {wanted}: provided IP is already allocated"))
            } else {
                Ok(wanted.to_owned())
            };
        }
        let size = 1_u32 << (32 - u32::from(self.prefix));
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        let base = u32::from(self.network) & mask;
        // The first is the network's own, the last its broadcast; start anywhere and go round.
        let start = rand::random_range(1..size - 1);
        (0..size - 2)
            .map(|step| Ipv4Addr::from(base + 1 + (start - 1 + step) % (size - 2)).to_string())
            .find(|ip| !self.taken_ips.contains(ip))
            .ok_or_else(|| "failed to allocate a serviceIP: range is full".to_owned())
    }

    fn node_port(&self, wanted: Option<u16>) -> Result<u16, String> {
        match wanted {
            Some(port) if !NODE_PORTS.contains(&port) => Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                NODE_PORTS.start(),
                NODE_PORTS.end()
            )),
            Some(port) if self.taken_ports.contains(&port) => {
                Err("provided port is already allocated".to_owned())
            }
            Some(port) => Ok(port),
            None => {
                let size = NODE_PORTS.end() - NODE_PORTS.start() + 1;
                let start = rand::random_range(0..size);
                (0..size)
                    .map(|step| NODE_PORTS.start() + (start + step) % size)
                    .find(|port| !self.taken_ports.contains(port))
                    .ok_or_else(|| "range is full".to_owned())
            }
        }
    }

    fn service_account(&self, namespace: &str, name: &str) -> Option<Account> {
        let known = self.accounts.get(&(namespace.to_owned(), name.to_owned())).copied();
        known.or_else(|| (name == "default").then(Account::default))
    }
}
