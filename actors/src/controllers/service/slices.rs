//! The EndpointSlices of a service: the same addresses as in its Endpoints, as newer clients read
//! them (`kubectl describe service` since 1.31 among them).
//!
//! A slice has one set of ports and at most 100 endpoints; its name follows from the service,
//! the ports and its number, so that what should be and what is can be compared by name.

use super::super::engine::worker::MOST_TAKEN;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use ring::digest::{SHA256, digest};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// The slices of the service `name`, by their names. `behind` tells of the pods of addresses that have one.
///
/// Who is in one of the slices that are `present` stays there: a change writes the slices that it concerns and
/// no others. Only when there are more than twice as many as needed some of them are filled anew, and the others go.
/// A name that another has, as `is_taken` says, is passed over.
#[must_use]
pub fn slices(
    name: &str,
    subsets: &[EndpointSubset],
    behind: impl Fn(&EndpointAddress) -> Option<Behind>,
    (present, is_taken): (&BTreeMap<String, &[Endpoint]>, impl Fn(&str) -> bool),
) -> BTreeMap<String, Slice> {
    let mut groups = Vec::new();
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
        let all = ready.chain(unready);
        let all = all.map(|(address, is_ready)| endpoint(address, is_ready, behind(address)));
        let (four, six): (Vec<_>, Vec<_>) = all.partition(|endpoint| {
            endpoint.addresses[0].parse().is_ok_and(|ip: IpAddr| ip.is_ipv4())
        });
        for (address_type, endpoints) in [("IPv4", four), ("IPv6", six)] {
            groups.push(Slice { address_type, endpoints, ports: ports.clone() });
        }
    }
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
    let furthest = needed.unwrap_or(0) + present.len() + FOREIGN;
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

/// The endpoints of each place: where they are now, else where there is room.
fn placed(
    endpoints: Vec<Endpoint>,
    named: &impl Fn(usize) -> String,
    filled: Filled<'_>,
    is_taken: &impl Fn(&str) -> bool,
) -> BTreeMap<usize, Vec<Endpoint>> {
    let needed = endpoints.len().div_ceil(MOST);
    let mut homes = HashMap::new();
    let mut places = BTreeMap::new();
    for (place, there) in filled {
        places.insert(place, Vec::new());
        homes.extend(there.iter().map(|endpoint| (identity(endpoint), place)));
    }
    if places.len() > 2 * needed {
        homes.clear();
        places = places.into_iter().take(needed).collect();
    }
    let mut homeless = Vec::new();
    for endpoint in endpoints {
        let home = homes.get(&identity(&endpoint));
        match home.and_then(|home| places.get_mut(home)).filter(|there| there.len() < MOST) {
            Some(there) => there.push(endpoint),
            None => homeless.push(endpoint),
        }
    }
    homeless.sort_by(|a, b| identity(a).cmp(&identity(b)));
    let mut homeless = homeless.into_iter().peekable();
    for there in places.values_mut() {
        there.extend(homeless.by_ref().take(MOST - there.len()));
    }
    let mut place = 0;
    while homeless.peek().is_some() {
        if !places.contains_key(&place) && !is_taken(&named(place)) {
            places.insert(place, homeless.by_ref().take(MOST).collect());
        }
        place += 1;
    }
    places.retain(|_, there| !there.is_empty());
    places
}

fn endpoint(address: &EndpointAddress, is_ready: bool, behind: Option<Behind>) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            serving: behind.map(|pod| pod.serving),
            terminating: behind.map(|pod| pod.terminating),
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice_name(service: &str, address_type: &str, ports: &[EndpointPort], place: usize) -> String {
    // Written out, and hashed by a function that no release changes: names outlive programs.
    let mut identity = format!("{service}/{address_type}/{place}");
    for port in ports {
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

    type Slices = BTreeMap<String, Slice>;

    fn fresh(subsets: &[EndpointSubset]) -> Slices {
        slices("web", subsets, |_| None, (&BTreeMap::new(), |_: &str| false))
    }

    fn after(before: &Slices, subsets: &[EndpointSubset]) -> Slices {
        let present: BTreeMap<String, &[Endpoint]> =
            before.iter().map(|(name, slice)| (name.clone(), &*slice.endpoints)).collect();
        slices("web", subsets, |_| None, (&present, |_: &str| false))
    }

    fn many(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|n| format!("127.1.{}.{}", n / 250, n % 250)).collect()
    }

    fn changed(before: &Slices, after: &Slices) -> usize {
        let differ = after.iter().filter(|(name, slice)| before.get(*name) != Some(*slice));
        differ.count() + before.keys().filter(|name| !after.contains_key(*name)).count()
    }

    fn count(slices: &Slices) -> usize {
        slices.values().map(|slice| slice.endpoints.len()).sum()
    }

    #[test]
    fn an_endpoint_says_whether_it_is_ready_serves_and_is_on_its_way_out() {
        let ip = |n: u8| format!("127.1.0.{n}");
        let behind = |address: &EndpointAddress| match address.ip.rsplit('.').next()? {
            "1" => Some(Behind { serving: true, terminating: false }),
            "2" => Some(Behind { serving: true, terminating: true }),
            "3" => Some(Behind { serving: false, terminating: true }),
            _ => None,
        };
        let subset = subset(&[ip(1)], &[ip(2), ip(3), ip(4)], 80);
        let slices = slices("web", &[subset], behind, (&BTreeMap::new(), |_: &str| false));
        let slice = slices.values().next().unwrap();
        let said: Vec<_> = slice
            .endpoints
            .iter()
            .map(|endpoint| endpoint.conditions.clone().unwrap())
            .map(|all| (all.ready.unwrap(), all.serving, all.terminating))
            .collect();
        let wanted = [
            (true, Some(true), Some(false)),
            (false, Some(true), Some(true)),
            (false, Some(false), Some(true)),
            (false, None, None), // a user's: nobody knows
        ];
        assert_eq!((slices.len(), said), (1, wanted.to_vec()));
        assert!(slices.keys().all(|name| name.starts_with("web-") && name.len() == 9));
    }

    #[test]
    fn a_name_is_the_same_in_every_release_and_an_address_that_becomes_ready_stays_in_its_slice() {
        let many = many(100..250);
        let before = fresh(&[subset(&many[1..], &many[..1], 80)]);
        let after = after(&before, &[subset(&many, &[], 80)]);
        let names: Vec<_> = before.keys().map(String::as_str).collect();
        assert_eq!(names, NAMES);
        assert_eq!((changed(&before, &after), count(&after)), (1, 150));
    }

    #[test]
    fn an_address_that_comes_or_goes_changes_one_slice() {
        let before = fresh(&[subset(&many(100..550), &[], 80)]);
        assert_eq!(before.len(), 5);
        // The first in order comes into the only slice that has room.
        let more: Vec<_> = many(99..550);
        let grown = after(&before, &[subset(&more, &[], 80)]);
        assert_eq!((changed(&before, &grown), grown.len(), count(&grown)), (1, 5, 451));
        let fewer: Vec<_> = more[1..].to_vec();
        let shrunk = after(&grown, &[subset(&fewer, &[], 80)]);
        assert_eq!((changed(&grown, &shrunk), count(&shrunk)), (1, 450));
        // Full slices: one more is made.
        let full = fresh(&[subset(&many(100..300), &[], 80)]);
        let grown = after(&full, &[subset(&many(99..300), &[], 80)]);
        assert_eq!((changed(&full, &grown), grown.len()), (1, 3));
        // Mostly empty ones do not stay for ever.
        let few: Vec<_> = many(100..550).into_iter().step_by(100).collect();
        let packed = after(&before, &[subset(&few, &[], 80)]);
        assert_eq!((packed.len(), count(&packed)), (1, 5));
    }

    #[test]
    fn a_name_that_another_has_is_passed_over_and_what_is_made_instead_stays() {
        let all = many(100..350);
        let first = &fresh(&[subset(&all[..1], &[], 80)]);
        let (first, _) = first.first_key_value().unwrap();
        let is_taken = |name: &str| name == first;
        let made =
            slices("web", &[subset(&all[..150], &[], 80)], |_| None, (&BTreeMap::new(), is_taken));
        assert_eq!((made.len(), count(&made), made.contains_key(first)), (2, 150, false));
        // The next look knows no more of what another has, and has no need to.
        let grown = after(&made, &[subset(&all[..200], &[], 80)]);
        assert_eq!((changed(&made, &grown), count(&grown)), (1, 200));
        let packed = after(&grown, &[subset(&[], &[], 80)]);
        assert_eq!(packed.len(), 0);
        let five = after(&after(&made, &[subset(&all, &[], 80)]), &[subset(&all[..5], &[], 80)]);
        assert_eq!((five.len(), count(&five)), (1, 5));
    }

    #[test]
    fn a_slice_stays_however_many_names_others_have_before_it() {
        let all = many(100..250);
        let subsets = [subset(&all, &[], 80), subset(&["::1".into()], &[], 81)];
        let ports = fresh(&subsets[..1]).into_values().next().unwrap().ports;
        let taken: BTreeSet<String> =
            (0..50).map(|place| slice_name("web", "IPv4", &ports, place)).collect();
        let made = slices(
            "web",
            &subsets,
            |_| None,
            (&BTreeMap::new(), |name: &str| taken.contains(name)),
        );
        assert_eq!((made.len(), count(&made)), (3, 151));
        assert!(made.keys().all(|name| !taken.contains(name)));
        // The next look has met none of those names, and so knows of none.
        assert_eq!(changed(&made, &after(&made, &subsets)), 0);
        // Nor does a slice that is none of these keep them from being found.
        let mut more = made.clone();
        more.extend(fresh(&[subset(&all, &[], 9)]));
        let kept = after(&more, &subsets);
        assert_eq!(changed(&made, &kept), 0);
    }

    #[test]
    fn what_somebody_wrote_into_a_slice_is_put_right() {
        let before = fresh(&[subset(&many(0..150), &[], 80)]);
        let mut spoilt = before.clone();
        let all: Vec<Endpoint> =
            before.values().flat_map(|slice| slice.endpoints.clone()).collect();
        for slice in spoilt.values_mut() {
            slice.endpoints.clone_from(&all);
        }
        let after = after(&spoilt, &[subset(&many(0..150), &[], 80)]);
        assert_eq!(count(&after), 150);
        assert!(after.values().all(|slice| slice.endpoints.len() <= MOST));
    }

    #[test]
    fn a_name_stays_while_ports_stay_and_each_slice_has_its_own() {
        let many: Vec<String> = (0..150).map(|n| format!("127.1.0.{n}")).collect();
        let before = fresh(&[subset(&many, &[], 80), subset(&["::1".into()], &[], 81)]);
        let after = fresh(&[subset(&many[..120], &[], 80), subset(&["::2".into()], &[], 81)]);
        assert_eq!(before.len(), 3);
        assert!(before.keys().eq(after.keys()));
        assert_eq!(before.values().filter(|slice| slice.address_type == "IPv6").count(), 1);
    }
}
