//! The EndpointSlices of a service: the same addresses as in its Endpoints, as newer clients read
//! them (`kubectl describe service` since 1.31 among them).
//!
//! A slice has one set of ports and at most 100 endpoints; its name follows from the service,
//! the ports and its number, so that what should be and what is can be compared by name.

use super::super::engine::worker::MOST_TAKEN;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort};
use ring::digest::{SHA256, digest};
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;

/// The label that names the service of a slice.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label that says who keeps a slice.
pub const KEEPER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// What it says of those that follow the pods that a service selects.
pub const KEEPER: &str = "endpointslice-controller.k8s.io";
/// What it says of those that say the same as the Endpoints of a user.
pub const MIRRORER: &str = "endpointslicemirroring-controller.k8s.io";

/// Endpoints in one slice.
const MOST: usize = 100;
/// A slice is looked for so far at most beyond the places that there would be without others' slices: no more names
/// that others have are kept in mind.
const FOREIGN: usize = MOST_TAKEN;
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

/// What becomes of the pod behind an address (API reference, EndpointConditions v1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// It is ready, whether or not it is on its way out.
    pub serving: bool,
    /// It is on its way out.
    pub terminating: bool,
}

/// What is known of an address beside what its subset says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// Of the pod behind it, if it has one.
    pub behind: Option<Behind>,
    /// The zone of its node.
    pub zone: Option<String>,
    /// Whom it is meant for, if not for everybody.
    pub hints: Option<EndpointHints>,
}

/// The slices of the service `name`, by their names. `about` tells of each address.
///
/// Who is in one of the slices that are `present` stays there: a change writes the slices that it concerns and
/// no others, and who comes goes into these, or where there is room for all. Only when there are twice as many slices as
/// needed, the two smallest become one.
/// A name that another has, as `is_taken` says, is passed over.
#[must_use]
pub fn slices(
    name: &str,
    subsets: &[EndpointSubset],
    about: impl Fn(&EndpointAddress) -> About,
    (present, is_taken): (&BTreeMap<String, &[Endpoint]>, impl Fn(&str) -> bool),
) -> BTreeMap<String, Slice> {
    let groups = groups(subsets, about);
    let mut there = found(name, &groups, present);
    let mut slices = BTreeMap::new();
    for (number, Slice { address_type, endpoints, ports }) in groups.into_iter().enumerate() {
        let named = |place| slice_name(name, address_type, &ports, place);
        let filled = there.remove(&number).unwrap_or_default();
        for (place, mut endpoints) in placed(endpoints, &named, filled, &is_taken) {
            endpoints.sort_by(|a, b| identity(a).cmp(&identity(b)));
            slices.insert(named(place), Slice { address_type, endpoints, ports: ports.clone() });
        }
    }
    slices
}

/// The endpoints of each kind of address and each set of ports, whose names are the same: two subsets can have the same
/// ports. What else is said of these ports is what the first says. Each endpoint is there once, and where one subset
/// says that it is not ready, it is not.
fn groups(subsets: &[EndpointSubset], about: impl Fn(&EndpointAddress) -> About) -> Vec<Slice> {
    let mut groups: Vec<Slice> = Vec::new();
    // Of each set of ports the number of its first group, and of each endpoint of a group its number there.
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut places: HashMap<(usize, &str, Option<&str>), usize> = HashMap::new();
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
        let first = *numbers.entry(identity_of(&ports)).or_insert_with(|| {
            groups.extend(["IPv4", "IPv6"].map(|address_type| {
                let (endpoints, ports) = (Vec::new(), ports.clone());
                Slice { address_type, endpoints, ports }
            }));
            groups.len() - 2
        });
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(unready) {
            let is_four = address.ip.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4());
            let group = first + usize::from(!is_four);
            let endpoints = &mut groups[group].endpoints;
            let pod = address.target_ref.as_ref().and_then(|target| target.uid.as_deref());
            match places.entry((group, address.ip.as_str(), pod)) {
                Entry::Vacant(place) => {
                    place.insert(endpoints.len());
                    endpoints.push(endpoint(address, is_ready, about(address)));
                }
                Entry::Occupied(_) if is_ready => {}
                Entry::Occupied(place) => {
                    endpoints[*place.get()] = endpoint(address, false, about(address));
                }
            }
        }
    }
    groups
}

/// What is in a place.
type Filled<'a> = BTreeMap<usize, &'a [Endpoint]>;

/// Which places of each of these groups, by its number, have a slice: looked for until all are found, however many
/// names others have before them.
fn found<'a>(
    name: &str,
    groups: &[Slice],
    present: &BTreeMap<String, &'a [Endpoint]>,
) -> BTreeMap<usize, Filled<'a>> {
    let needed = groups.iter().map(|group| group.endpoints.len().div_ceil(MOST)).max();
    let furthest = needed.unwrap_or(0) + present.len() + (FOREIGN / groups.len().max(1)).max(16);
    let mut found: BTreeMap<usize, Filled<'a>> = BTreeMap::new();
    let mut left: BTreeSet<&str> = present.keys().map(String::as_str).collect();
    for place in 0..furthest {
        if left.is_empty() {
            break;
        }
        for (number, group) in groups.iter().enumerate() {
            let named = slice_name(name, group.address_type, &group.ports, place);
            if let Some(there) = present.get(&named) {
                found.entry(number).or_default().insert(place, *there);
                left.remove(named.as_str());
            }
        }
    }
    found
}

/// What an endpoint is known by, whatever is said of it.
fn identity(endpoint: &Endpoint) -> (&[String], Option<&str>) {
    let pod = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    (&endpoint.addresses, pod)
}

/// The endpoints of each place: where they are now, else where something is written anyway, else where there is room.
fn placed(
    endpoints: Vec<Endpoint>,
    named: &impl Fn(usize) -> String,
    filled: Filled<'_>,
    is_taken: &impl Fn(&str) -> bool,
) -> BTreeMap<usize, Vec<Endpoint>> {
    let needed = endpoints.len().div_ceil(MOST);
    let mut homes = HashMap::new();
    let mut places = BTreeMap::new();
    for (place, there) in &filled {
        places.insert(*place, Vec::new());
        homes.extend(there.iter().map(|endpoint| (identity(endpoint), *place)));
    }
    let mut homeless = Vec::new();
    for endpoint in endpoints {
        let home = homes.get(&identity(&endpoint));
        match home.and_then(|home| places.get_mut(home)).filter(|there| there.len() < MOST) {
            Some(there) => there.push(endpoint),
            None => homeless.push(endpoint),
        }
    }
    // From the end, so that they are taken in order.
    homeless.sort_by(|a, b| identity(b).cmp(&identity(a)));
    let mut take = |most: usize| homeless.split_off(homeless.len().saturating_sub(most));
    for (place, there) in &mut places {
        there.sort_by(|a, b| identity(a).cmp(&identity(b)));
        if filled.get(place).is_none_or(|before| **before != there[..]) {
            there.extend(take(MOST - there.len()));
        }
    }
    let mut next = 0;
    loop {
        let rest = take(MOST);
        if rest.is_empty() {
            break;
        }
        let has_room = |there: &Vec<Endpoint>| there.len() + rest.len() <= MOST;
        let fits = places.iter_mut().filter(|(_, there)| has_room(there));
        match fits.max_by_key(|(place, there)| (there.len(), Reverse(**place))) {
            Some((_, there)) => there.extend(rest),
            None => {
                while places.contains_key(&next) || is_taken(&named(next)) {
                    next += 1;
                }
                places.insert(next, rest);
            }
        }
    }
    places.retain(|_, there| !there.is_empty());
    // Two of them are no more than half full each on average, so that they fit into one.
    while places.len() > needed && places.len() >= 2 * needed {
        let size = |place: &usize| (places.get(place).map_or(0, Vec::len), Reverse(*place));
        let mut smallest: Vec<usize> = places.keys().copied().collect();
        smallest.sort_by_key(size);
        let [first, second, ..] = smallest[..] else { break };
        let leaves = places.remove(&first).unwrap_or_default();
        places.entry(second).or_default().extend(leaves);
    }
    places
}

fn endpoint(address: &EndpointAddress, is_ready: bool, about: About) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            serving: about.behind.map(|pod| pod.serving),
            terminating: about.behind.map(|pod| pod.terminating),
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        zone: about.zone,
        hints: about.hints,
        ..Endpoint::default()
    }
}

/// The slice of a service behind which nobody is: by it one sees that it was looked at.
#[must_use]
pub fn empty(service: &str) -> (String, Slice) {
    let slice = Slice { address_type: "IPv4", endpoints: Vec::new(), ports: Vec::new() };
    (slice_name(service, slice.address_type, &slice.ports, 0), slice)
}

/// What ports are known by in the name of a slice.
fn identity_of(ports: &[EndpointPort]) -> String {
    let mut identity = String::new();
    for port in ports {
        let text = |word: &Option<String>| word.clone().unwrap_or_default();
        let number = port.port.unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(identity, "/{}:{number}:{}", text(&port.name), text(&port.protocol));
    }
    identity
}

fn slice_name(service: &str, address_type: &str, ports: &[EndpointPort], place: usize) -> String {
    // Written out, and hashed by a function that no release changes: names outlive programs.
    let identity = format!("{service}/{address_type}/{place}{}", identity_of(ports));
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
mod tests;
