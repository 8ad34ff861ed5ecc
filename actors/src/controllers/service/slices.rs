//! The EndpointSlices of a service: the same addresses as in its Endpoints, as newer clients read
//! them (`kubectl describe service` since 1.31 among them).
//!
//! A slice has one set of ports and at most 100 endpoints; its name follows from the service,
//! the ports and its place, so that what should be and what is can be compared by name.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The label that names the service of a slice.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label that says who keeps a slice.
pub const KEEPER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// What it says of ours.
pub const KEEPER: &str = "endpointslice-controller.k8s.io";

/// Endpoints in one slice.
const MOST: usize = 100;
/// What may be in a generated name; no vowels, so that it means nothing.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// What one slice says.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// `IPv4` or `IPv6`.
    pub address_type: &'static str,
    /// The addresses.
    pub endpoints: Vec<Endpoint>,
    /// Their ports.
    pub ports: Vec<EndpointPort>,
}

/// The slices of the service `name`, by their names.
#[must_use]
pub fn slices(name: &str, subsets: &[EndpointSubset]) -> BTreeMap<String, Slice> {
    let mut slices = BTreeMap::new();
    for subset in subsets {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut all: Vec<Endpoint> =
            ready.chain(unready).map(|(address, is_ready)| endpoint(address, is_ready)).collect();
        // By address alone: one that becomes ready stays in its slice.
        all.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        let (four, six): (Vec<_>, Vec<_>) = all.into_iter().partition(|endpoint| {
            endpoint.addresses[0].parse().is_ok_and(|ip: IpAddr| ip.is_ipv4())
        });
        for (address_type, endpoints) in [("IPv4", four), ("IPv6", six)] {
            for (place, part) in endpoints.chunks(MOST).enumerate() {
                let slice = Slice { address_type, endpoints: part.to_vec(), ports: ports.clone() };
                slices.insert(slice_name(name, &slice, place), slice);
            }
        }
    }
    slices
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..Default::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice_name(service: &str, slice: &Slice, place: usize) -> String {
    // Written out, and hashed by a function that no release changes: names outlive programs.
    let mut identity = format!("{service}/{}/{place}", slice.address_type);
    for port in &slice.ports {
        let text = |word: &Option<String>| word.clone().unwrap_or_default();
        let number = port.port.unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(identity, "/{}:{number}:{}", text(&port.name), text(&port.protocol));
    }
    let hash = digest(&SHA256, identity.as_bytes());
    let mut hash =
        hash.as_ref().iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let suffix: String = (0..5)
        .map(|_| {
            let letter = LETTERS[(hash % LETTERS.len() as u64) as usize];
            hash /= LETTERS.len() as u64;
            char::from(letter)
        })
        .collect();
    format!("{}-{suffix}", service.get(..57).unwrap_or(service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::EndpointPort as Port;

    /// Golden: another name makes every slice of every cluster anew.
    const NAMES: [&str; 2] = ["web-bk8nf", "web-qrccw"];

    fn subset(ready: &[String], unready: &[String], port: i32) -> EndpointSubset {
        let addresses = |ips: &[String]| {
            let of = |ip: &String| EndpointAddress { ip: ip.clone(), ..EndpointAddress::default() };
            (!ips.is_empty()).then(|| ips.iter().map(of).collect())
        };
        EndpointSubset {
            addresses: addresses(ready),
            not_ready_addresses: addresses(unready),
            ports: Some(vec![Port { port, ..Port::default() }]),
        }
    }

    #[test]
    fn an_endpoint_says_whether_it_is_ready() {
        let slices = slices("web", &[subset(&["127.1.0.1".into()], &["127.1.0.2".into()], 80)]);
        let slice = slices.values().next().unwrap();
        let ready = |at: usize| slice.endpoints[at].conditions.as_ref().unwrap().ready;
        assert_eq!((slices.len(), ready(0), ready(1)), (1, Some(true), Some(false)));
        assert!(slices.keys().all(|name| name.starts_with("web-") && name.len() == 9));
    }

    #[test]
    fn a_name_is_the_same_in_every_release_and_an_address_that_becomes_ready_stays_in_its_slice() {
        let many: Vec<String> = (100..250).map(|n| format!("127.1.0.{n}")).collect();
        let before = slices("web", &[subset(&many[1..], &many[..1], 80)]);
        let after = slices("web", &[subset(&many, &[], 80)]);
        let names: Vec<_> = before.keys().map(String::as_str).collect();
        assert_eq!(names, NAMES);
        let addresses = |slices: &BTreeMap<String, Slice>| -> Vec<Vec<Vec<String>>> {
            let of = |slice: &Slice| slice.endpoints.iter().map(|e| e.addresses.clone()).collect();
            slices.values().map(of).collect()
        };
        assert_eq!(addresses(&before), addresses(&after));
    }

    #[test]
    fn a_name_stays_while_ports_stay_and_each_slice_has_its_own() {
        let many: Vec<String> = (0..150).map(|n| format!("127.1.0.{n}")).collect();
        let before = slices("web", &[subset(&many, &[], 80), subset(&["::1".into()], &[], 81)]);
        let after =
            slices("web", &[subset(&many[..120], &[], 80), subset(&["::2".into()], &[], 81)]);
        assert_eq!(before.len(), 3);
        assert!(before.keys().eq(after.keys()));
        assert_eq!(before.values().filter(|slice| slice.address_type == "IPv6").count(), 1);
    }
}
