//! Where pods that only pretend have their addresses: in a part of 127/8 that nothing else of a cluster uses.
//!
//! On Linux every address of 127/8 is the machine's own, and what listens on all its addresses would answer there in the
//! place of a pod that does not. So nobody is to be sent to them: [`is_pretended`].

use crate::address::Cidr;
use std::net::{IpAddr, Ipv4Addr};

/// The second byte of the first address.
const FIRST: u8 = 32;
/// The second byte of the last address.
const LAST: u8 = 95;

/// The range of the pods of the hollow node of this number; each of some 16,000 has its own.
pub fn pod_range(number: u32) -> Cidr {
    let [_, _, high, low] = number.to_be_bytes();
    let second = FIRST.saturating_add(high).min(LAST);
    Cidr::of(Ipv4Addr::new(127, second, low, 0), 24)
}

/// Whether this is the address of a pod that only pretends, where nobody answers in its name.
pub fn is_pretended(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(v4.octets(), [127, FIRST..=LAST, _, _]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_hollow_node_has_a_range_of_its_own_apart_from_those_of_others() {
        let ranges: Vec<Cidr> = (1..=5_000).map(pod_range).collect();
        let names: BTreeSet<String> = ranges.iter().map(Cidr::to_string).collect();
        assert_eq!(names.len(), ranges.len());
        for range in ranges {
            let ends = [0, range.size() - 1].map(|index| range.nth(index).unwrap());
            assert!(ends.into_iter().all(|address| is_pretended(address.into())), "{range}");
        }
        for other in ["127.0.0.1", "127.31.255.255", "127.96.0.1", "10.32.0.1", "::1"] {
            assert!(!is_pretended(other.parse().unwrap()), "{other}");
        }
    }
}
