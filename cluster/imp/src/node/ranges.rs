//! Which addresses of 127/8 a cluster uses on a machine: those of its pods, and of its services.

use std::net::Ipv4Addr;

/// Which part of 127/8 a cluster uses on a machine, so that two clusters there do not meet.
fn slot(cluster: &str) -> u8 {
    cluster.bytes().fold(7_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte)) % 32
}

/// The range of the pods of the node of this number, its own in the cluster. The first 255 are in
/// the cluster's part of 127/8; those of higher numbers are of machines that joined, where no second
/// cluster is likely.
#[must_use]
pub fn pod_range(cluster: &str, number: u32) -> String {
    let (high, low) = ((number >> 8) as u8, (number & 0xff) as u8);
    let second = if number < 256 { 128 + slot(cluster) } else { 159_u8.saturating_add(high) };
    format!("127.{second}.{low}.0/24")
}

/// Whether a socket of this machine uses the part of 127/8 that a cluster of this name would.
#[must_use]
pub fn is_slot_taken(cluster: &str) -> bool {
    let slot = slot(cluster);
    ["tcp", "udp"].iter().any(|table| {
        // What cannot be read shows nobody.
        let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        text.lines().skip(1).filter_map(local_address).any(|[first, second, ..]| {
            first == 127 && (second == 96 + slot || second == 128 + slot)
        })
    })
}

/// The local address in a line of `/proc/net/tcp`, where it stands in the machine's byte order.
fn local_address(line: &str) -> Option<[u8; 4]> {
    let (address, _) = line.split_whitespace().nth(1)?.split_once(':')?;
    Some(u32::from_str_radix(address, 16).ok()?.to_ne_bytes())
}

/// The range of the cluster's services, of which the first address is the API's.
#[must_use]
pub fn service_network(cluster: &str) -> Ipv4Addr {
    Ipv4Addr::new(127, 96 + slot(cluster), 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::authority::NODE_NUMBERS;
    use std::collections::BTreeSet;

    #[test]
    fn each_node_has_a_range_of_its_own_apart_from_all_services() {
        let ranges: BTreeSet<String> =
            (1..=*NODE_NUMBERS.end()).map(|number| pod_range("imp-1", number)).collect();
        assert_eq!(ranges.len(), *NODE_NUMBERS.end() as usize);
        for range in &ranges {
            let second: u8 = range.split('.').nth(1).unwrap().parse().unwrap();
            assert!((128..=254).contains(&second), "{range}");
        }
    }

    #[test]
    fn a_slot_is_taken_while_somebody_listens_there() {
        let socket = std::net::TcpListener::bind((service_network("imp-1"), 0)).unwrap();
        assert!(is_slot_taken("imp-1"));
        drop(socket);
    }
}
