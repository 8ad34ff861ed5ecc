//! Addresses and ports of services: drawn from a range, held by a key of the registry each.
//!
//! The key is written in the transaction that writes the service, with the condition that nobody has
//! it, and removed in the one that removes the service: no two services ever hold the same one,
//! whichever members wrote them, and none is lost.

use super::stored::{bytes_of, text};
use super::Objects;
use impresario_api::resource::Resource;
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_registry::{Compare, Consistency, Key, ListRequest, Operation, Selection, Transaction};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

/// What services draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRanges {
    /// First address of the network; its network and broadcast addresses are never given.
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
        Self { network: Ipv4Addr::new(127, 96, 0, 0), prefix: 16, first_port: 30_000, last_port: 32_767 }
    }
}

impl ServiceRanges {
    fn size(&self) -> u32 {
        1_u32.checked_shl(32 - u32::from(self.prefix.min(30))).unwrap_or(u32::MAX)
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
/// Blind draws before the range is looked through.
const BLIND_DRAWS: usize = 4;
/// Draws before giving up: others took what was free each time.
const DRAWS: usize = 16;

fn key(resource: &str, name: impl ToString) -> Key {
    Key { resource: resource.into(), namespace: String::new(), name: name.to_string() }
}

/// The keys that a service holds, each with the path of the field that asks for it.
pub(super) fn held(resource: &Resource, object: &Value) -> BTreeMap<Key, (String, String)> {
    let mut keys = BTreeMap::new();
    if resource.kind != "Service" || !resource.group.is_empty() || text(object, "/spec/type") == "ExternalName" {
        return keys;
    }
    let address = text(object, "/spec/clusterIP");
    if !address.is_empty() && address != "None" {
        keys.insert(key(ADDRESSES, address), ("spec.clusterIPs".into(), address.into()));
    }
    for (index, port) in object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(number) = port.get("nodePort").and_then(Value::as_u64).filter(|number| *number > 0) {
            keys.insert(key(PORTS, number), (format!("spec.ports[{index}].nodePort"), number.to_string()));
        }
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
        transaction.operations.push(Operation::Put { key: taken.clone(), value: bytes_of(&holder)? });
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

/// Where a service lacks an address or a port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lack {
    Address,
    Port(usize),
}

fn lacks(resource: &Resource, object: &Value) -> Vec<Lack> {
    let kind = text(object, "/spec/type");
    if resource.kind != "Service" || !resource.group.is_empty() || kind == "ExternalName" {
        return Vec::new();
    }
    let mut lacks = Vec::new();
    let listed = object.pointer("/spec/clusterIPs/0").and_then(Value::as_str).unwrap_or_default();
    if text(object, "/spec/clusterIP").is_empty() && listed.is_empty() {
        lacks.push(Lack::Address);
    }
    let wants_ports = match kind {
        "NodePort" => true,
        "LoadBalancer" => {
            object.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    };
    if wants_ports {
        let ports = object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
        for (index, port) in ports.enumerate() {
            if port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0 {
                lacks.push(Lack::Port(index));
            }
        }
    }
    lacks
}

impl Objects {
    /// Gives a service what it lacks. `attempt` counts how often somebody else was quicker.
    pub(super) async fn draw(
        &self,
        resource: &Resource,
        object: &mut Value,
        attempt: usize,
    ) -> Result<(), Status> {
        let lacks = lacks(resource, object);
        if lacks.is_empty() {
            return Ok(());
        }
        if attempt >= DRAWS {
            return Err(Status::unavailable("no free service address was found in time: try again", 1));
        }
        let look = attempt >= BLIND_DRAWS;
        let mut ports: HashSet<u64> = object
            .pointer("/spec/ports")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|port| port.get("nodePort").and_then(Value::as_u64))
            .collect();
        if look {
            ports.extend(self.taken(PORTS).await?.iter().filter_map(|name| name.parse::<u64>().ok()));
        }
        for lack in lacks {
            match lack {
                Lack::Address => {
                    let taken = if look { self.taken(ADDRESSES).await? } else { HashSet::new() };
                    let address = self.free_address(&taken)?;
                    object["spec"]["clusterIP"] = address.to_string().into();
                    object["spec"]["clusterIPs"] = json!([address.to_string()]);
                }
                Lack::Port(index) => {
                    let port = self.free_port(&ports)?;
                    ports.insert(u64::from(port));
                    object["spec"]["ports"][index]["nodePort"] = port.into();
                }
            }
        }
        Ok(())
    }

    async fn taken(&self, resource: &str) -> Result<HashSet<String>, Status> {
        let request = ListRequest {
            select: Selection::all(resource),
            consistency: Consistency::Linearizable,
            ..ListRequest::default()
        };
        let page = self.registry().list(request).await.map_err(|error| super::refuse::read_refused(&error))?;
        Ok(page.entries.into_iter().map(|entry| entry.key.name).collect())
    }

    fn free_address(&self, taken: &HashSet<String>) -> Result<Ipv4Addr, Status> {
        let (base, size) = (self.ranges.base(), self.ranges.size());
        // The first addresses are left to those who ask for one by name, as the API's own and DNS.
        let reserved = 16.min(size / 4);
        let start = rand::rng().random_range(reserved.max(1)..size - 1);
        (0..size)
            .map(|step| Ipv4Addr::from(base + (start + step) % size))
            .find(|address| self.ranges.contains(*address) && !taken.contains(&address.to_string()))
            .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))
    }

    fn free_port(&self, taken: &HashSet<u64>) -> Result<u16, Status> {
        let (first, last) = (self.ranges.first_port, self.ranges.last_port);
        let count = u32::from(last - first) + 1;
        let start = rand::rng().random_range(0..count);
        (0..count)
            .map(|step| first + ((start + step) % count) as u16)
            .find(|port| !taken.contains(&u64::from(*port)))
            .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    }

    /// Refuses addresses and ports that its author chose outside the ranges.
    pub(super) fn check_ranges(
        &self,
        resource: &Resource,
        name: &str,
        before: Option<&Value>,
        object: &Value,
    ) -> Result<(), Status> {
        let old = before.map(|object| held(resource, object)).unwrap_or_default();
        let mut causes = Vec::new();
        for (key, (field, value)) in held(resource, object) {
            if old.contains_key(&key) {
                continue;
            }
            let fits = if key.resource == ADDRESSES {
                value.parse().is_ok_and(|address| self.ranges.contains(address))
            } else {
                value.parse::<u16>().is_ok_and(|port| (self.ranges.first_port..=self.ranges.last_port).contains(&port))
            };
            if !fits {
                let message = if key.resource == ADDRESSES {
                    let network = Ipv4Addr::from(self.ranges.base());
                    format!(
                        "Invalid value: [\"{value}\"]: failed to allocate IP {value}: the provided IP ({value}) is not \
                         in the valid range. The range of valid IPs is {network}/{}",
                        self.ranges.prefix
                    )
                } else {
                    format!(
                        "Invalid value: {value}: provided port is not in the valid range. The range of valid ports is {}-{}",
                        self.ranges.first_port, self.ranges.last_port
                    )
                };
                causes.push(Cause { field, reason: CauseReason::Invalid, message });
            }
        }
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid(resource, name, causes)) }
    }

    /// The refusal when an address or port that its author chose is another's.
    pub(super) fn already_held(resource: &Resource, name: &str, object: &Value, conflict: &Key) -> Status {
        let holds = held(resource, object);
        let (field, value) = holds.get(conflict).cloned().unwrap_or_default();
        let message = if conflict.resource == ADDRESSES {
            format!("Invalid value: [\"{value}\"]: failed to allocate IP {value}: provided IP is already allocated")
        } else {
            format!("Invalid value: {value}: provided port is already allocated")
        };
        Status::invalid(resource, name, vec![Cause { field, reason: CauseReason::Invalid, message }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_network_are_never_given() {
        let ranges = ServiceRanges::default();
        assert!(!ranges.contains(Ipv4Addr::new(127, 96, 0, 0)));
        assert!(ranges.contains(Ipv4Addr::new(127, 96, 0, 1)));
        assert!(ranges.contains(Ipv4Addr::new(127, 96, 255, 254)));
        assert!(!ranges.contains(Ipv4Addr::new(127, 96, 255, 255)));
        assert!(!ranges.contains(Ipv4Addr::new(127, 97, 0, 1)));
        assert_eq!(ranges.api_address(), Ipv4Addr::new(127, 96, 0, 1));
    }

    #[test]
    fn a_service_lacks_what_its_type_needs_and_it_does_not_name() {
        let services = impresario_api::resource::find("", "v1", "services").unwrap();
        let table = [
            (json!({"type": "ClusterIP"}), vec![Lack::Address]),
            (json!({"type": "ClusterIP", "clusterIP": "None"}), vec![]),
            (json!({"type": "ExternalName"}), vec![]),
            (
                json!({"type": "NodePort", "clusterIP": "127.96.1.1", "ports": [{"nodePort": 30001}, {}]}),
                vec![Lack::Port(1)],
            ),
            (json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{}]}), vec![Lack::Address]),
        ];
        for (spec, expected) in table {
            assert_eq!(lacks(services, &json!({ "spec": spec })), expected, "{spec}");
        }
    }
}
