//! Addresses and ports of services: drawn from a range, held by a key of the registry each.
//!
//! The key is written in the transaction that writes the service, with the condition that nobody has
//! it, and removed in the one that removes the service: no two services ever hold the same one,
//! whichever members wrote them, and none is lost. [`Draws`] is what admission draws from.

use super::Objects;
use impresario_api::admission::{Account, Allocator};
use impresario_api::resource::{Resource, find};
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::{bytes_of, text};
use impresario_registry_api::{
    Compare, Consistency, Key, ListRequest, Operation, Selection, Transaction,
};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use uuid::Uuid;

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

const ADDRESSES: &str = "impresario.dev/serviceaddresses";
const PORTS: &str = "impresario.dev/nodeports";
/// Blind draws before it is looked what is taken.
const BLIND_DRAWS: usize = 4;
/// The letters of what is appended to `generateName`: none that make words.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

fn key(resource: &str, name: impl ToString) -> Key {
    Key { resource: resource.into(), namespace: String::new(), name: name.to_string() }
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

/// The keys that a service holds, each with the path of the field that asks for it and its value.
pub(super) fn held(resource: &Resource, object: &Value) -> BTreeMap<Key, (String, String)> {
    let mut keys = BTreeMap::new();
    if !is_service(resource) || text(object, "/spec/type") == "ExternalName" {
        return keys;
    }
    let address = text(object, "/spec/clusterIP");
    if !address.is_empty() && address != "None" {
        keys.insert(key(ADDRESSES, address), ("spec.clusterIPs".into(), address.into()));
    }
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    for (index, port) in ports.enumerate() {
        if let Some(number) =
            port.get("nodePort").and_then(Value::as_u64).filter(|number| *number > 0)
        {
            keys.insert(
                key(PORTS, number),
                (format!("spec.ports[{index}].nodePort"), number.to_string()),
            );
        }
    }
    let health = object.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0);
    if health > 0 {
        keys.insert(key(PORTS, health), ("spec.healthCheckNodePort".into(), health.to_string()));
    }
    keys
}

/// Adds to a transaction what must hold and change for an object to hold other keys than before.
pub(super) fn exchange(
    resource: &Resource,
    before: Option<&Value>,
    after: Option<&Value>,
    transaction: &mut Transaction,
) -> Result<(), Status> {
    let old = before.map(|object| held(resource, object)).unwrap_or_default();
    let new = after.map(|object| held(resource, object)).unwrap_or_default();
    for taken in new.keys().filter(|key| !old.contains_key(*key)) {
        let object = after.unwrap_or(&Value::Null);
        let holder = json!({
            "service": format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name")),
            "uid": text(object, "/metadata/uid"),
        });
        transaction.compares.push(Compare::Absent { key: taken.clone() });
        transaction
            .operations
            .push(Operation::Put { key: taken.clone(), value: bytes_of(&holder)? });
    }
    for given in old.keys().filter(|key| !new.contains_key(*key)) {
        transaction.operations.push(Operation::Delete { key: given.clone() });
    }
    Ok(())
}

/// Whether a key is one of those that services hold.
pub(super) fn is_drawn(key: &Key) -> bool {
    key.resource == ADDRESSES || key.resource == PORTS
}

/// The refusal when an address or port that its author chose is another's.
pub(super) fn already_held(
    resource: &Resource,
    name: &str,
    object: &Value,
    conflict: &Key,
) -> Status {
    let (field, value) = held(resource, object).remove(conflict).unwrap_or_default();
    let message = if conflict.resource == ADDRESSES {
        format!(
            "Invalid value: [\"{value}\"]: failed to allocate IP {value}: provided IP is already allocated"
        )
    } else {
        format!("Invalid value: {value}: provided port is already allocated")
    };
    Status::invalid(resource, name, vec![Cause { field, reason: CauseReason::Invalid, message }])
}

/// What one admission draws from, and what it knows to be taken.
///
/// The first draws are blind: in a range that is mostly free a collision is rare, and the
/// transaction finds it out. Later ones know what was taken when they began.
#[derive(Debug)]
pub(super) struct Draws {
    ranges: ServiceRanges,
    addresses: HashSet<String>,
    ports: HashSet<u16>,
    account: Option<(String, Account)>,
}

impl Draws {
    /// The same, for a pod that acts as this account.
    pub(super) fn acting_as(self, account: Option<(String, Account)>) -> Self {
        Self { account, ..self }
    }
}

impl Allocator for Draws {
    fn uid(&self) -> String {
        Uuid::new_v4().to_string()
    }

    fn name_suffix(&self) -> String {
        let mut random = rand::rng();
        (0..5)
            .filter_map(|_| SUFFIX_LETTERS.choose(&mut random).map(|letter| char::from(*letter)))
            .collect()
    }

    fn cluster_ip(&self, wanted: Option<&str>) -> Result<String, String> {
        if let Some(wanted) = wanted {
            return if wanted.parse().is_ok_and(|address| self.ranges.contains(address)) {
                Ok(wanted.to_owned()) // whether another has it, the transaction decides
            } else {
                let network = Ipv4Addr::from(self.ranges.base());
                Err(format!(
                    "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of \
                     valid IPs is {network}/{}",
                    self.ranges.prefix
                ))
            };
        }
        let (base, size) = (self.ranges.base(), self.ranges.size());
        // The first addresses are left to those who ask for one by name, as the API's own.
        let reserved = 16.min(size / 4).max(1);
        let start = rand::rng().random_range(reserved..size - 1);
        (0..size)
            .map(|step| Ipv4Addr::from(base + (start + step) % size))
            .find(|address| {
                self.ranges.contains(*address) && !self.addresses.contains(&address.to_string())
            })
            .map(|address| address.to_string())
            .ok_or_else(|| "failed to allocate a serviceIP: range is full".to_owned())
    }

    fn node_port(&self, wanted: Option<u16>) -> Result<u16, String> {
        let (first, last) = (self.ranges.first_port, self.ranges.last_port);
        match wanted {
            Some(port) if (first..=last).contains(&port) => Ok(port),
            Some(_) => Err(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            )),
            None => {
                let count = u32::from(last.saturating_sub(first)) + 1;
                let start = rand::rng().random_range(0..count);
                (0..count)
                    .map(|step| first + ((start + step) % count) as u16)
                    .find(|port| !self.ports.contains(port))
                    .ok_or_else(|| "failed to allocate a nodePort: range is full".to_owned())
            }
        }
    }

    fn service_account(&self, _: &str, name: &str) -> Option<Account> {
        let known = self.account.as_ref().filter(|(named, _)| named == name);
        // Pods of a namespace that is just being furnished need not wait for its first account.
        known.map(|(_, account)| *account).or_else(|| (name == "default").then(Account::default))
    }
}

impl Objects {
    /// What an admission of such an object may draw from. `attempt` counts how often somebody was quicker.
    pub(super) async fn draws(&self, resource: &Resource, attempt: usize) -> Result<Draws, Status> {
        let look = is_service(resource) && attempt >= BLIND_DRAWS;
        let (addresses, ports) = if look {
            let ports = self.taken(PORTS).await?;
            (
                self.taken(ADDRESSES).await?,
                ports.iter().filter_map(|port| port.parse().ok()).collect(),
            )
        } else {
            (HashSet::new(), HashSet::new())
        };
        Ok(Draws { ranges: self.ranges.clone(), addresses, ports, account: None })
    }

    /// The account that a new pod would act as; nothing for other kinds, or where there is none.
    pub(super) async fn account(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<Option<(String, Account)>, Status> {
        let is_pod = resource.group.is_empty() && resource.plural == "pods";
        let Some(accounts) = find("", "v1", "serviceaccounts").filter(|_| is_pod) else {
            return Ok(None);
        };
        let named = match text(object, "/spec/serviceAccountName") {
            "" => "default",
            named => named,
        };
        // Only absence must be certain, so an older state is looked at first.
        let mut found = self.find(accounts, namespace, named, Consistency::Local).await?;
        if found.is_none() && named != "default" {
            found = self.find(accounts, namespace, named, Consistency::Linearizable).await?;
        }
        Ok(found.map(|stored| (named.to_owned(), Account::of(&stored.object))))
    }

    async fn taken(&self, resource: &str) -> Result<HashSet<String>, Status> {
        let request = ListRequest::of(Selection::all(resource));
        let page = self.registry().list(request).await.map_err(|error| read_refused(&error))?;
        Ok(page.entries.into_iter().map(|entry| entry.key.name).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn draws(ranges: ServiceRanges) -> Draws {
        Draws { ranges, addresses: HashSet::new(), ports: HashSet::new(), account: None }
    }

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
        let mut draws = draws(ranges);
        for _ in 0..6 {
            let drawn = draws.cluster_ip(None).unwrap();
            assert!(draws.addresses.insert(drawn));
        }
        assert!(draws.cluster_ip(None).unwrap_err().contains("range is full"));
        assert!(draws.cluster_ip(Some("10.0.0.8")).unwrap_err().contains("not in the valid range"));
    }

    #[test]
    fn a_service_holds_its_address_and_each_of_its_node_ports() {
        let services = find("", "v1", "services").unwrap();
        let held = |spec: Value| held(services, &json!({ "spec": spec })).len();
        assert_eq!(held(json!({"type": "ClusterIP", "clusterIP": "127.96.0.9"})), 1);
        assert_eq!(held(json!({"type": "ClusterIP", "clusterIP": "None"})), 0);
        assert_eq!(held(json!({"type": "ExternalName", "clusterIP": "127.96.0.9"})), 0);
        assert_eq!(
            held(
                json!({"type": "NodePort", "clusterIP": "127.96.0.9", "ports": [{"nodePort": 30001}, {"port": 1}]})
            ),
            2
        );
    }
}
