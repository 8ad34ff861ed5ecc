//! Which addresses of 127/8 a cluster uses on a machine: those of its pods, and of its services.

use std::net::Ipv4Addr;

/// The last number of the address at which a node answers for names.
const NAMES_AT: u8 = 254;

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

/// Whether two clusters would use the same part of 127/8.
#[must_use]
pub fn share_slot(cluster: &str, other: &str) -> bool {
    slot(cluster) == slot(other)
}

/// Whether a socket of this machine uses the part of 127/8 that a cluster of this name would.
#[must_use]
pub fn is_slot_taken(cluster: &str) -> bool {
    let slot = slot(cluster);
    sockets().any(|socket| {
        let [first, second, ..] = socket.address;
        first == 127 && (second == 96 + slot || second == 128 + slot)
    })
}

/// Whether a node's process serves names or services in the part of 127/8 of a cluster of this name. Pods that
/// outlived their nodes are not meant.
#[must_use]
pub fn is_slot_served(cluster: &str) -> bool {
    let slot = slot(cluster);
    sockets().any(|socket| socket.serves(slot))
}

/// A socket of this machine.
struct Socket {
    address: [u8; 4],
    /// Whether it is open to whoever comes, and no end of a connection or what is left of one.
    listens: bool,
}

impl Socket {
    fn serves(&self, slot: u8) -> bool {
        let [first, second, .., last] = self.address;
        let is_names = second == 128 + slot && last == NAMES_AT;
        self.listens && first == 127 && (second == 96 + slot || is_names)
    }
}

/// All sockets of this machine, whoever's; what cannot be read shows nobody.
fn sockets() -> impl Iterator<Item = Socket> {
    // `TCP_LISTEN`, and what an unconnected UDP socket has in its place, `TCP_CLOSE`.
    [("tcp", "0A"), ("udp", "07")].into_iter().flat_map(|(table, open)| {
        let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        let found = text.lines().skip(1).filter_map(|line| socket(line, open));
        found.collect::<Vec<_>>()
    })
}

/// A line of `/proc/net/tcp`, where addresses stand in the machine's byte order.
fn socket(line: &str, open: &str) -> Option<Socket> {
    let mut columns = line.split_whitespace().skip(1);
    let (address, _) = columns.next()?.split_once(':')?;
    let state = columns.nth(1)?;
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some(Socket { address, listens: state == open })
}

/// Where in the range of its pods the node of this range answers for names.
#[must_use]
pub fn names_at(pod_range: &str) -> Ipv4Addr {
    let pods = pod_range.split('/').next().and_then(|address| address.parse().ok());
    let [a, b, c, _] = pods.unwrap_or(Ipv4Addr::LOCALHOST).octets();
    Ipv4Addr::new(a, b, c, NAMES_AT)
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

    #[test]
    fn a_slot_is_served_while_a_node_answers_there() {
        let names = std::net::UdpSocket::bind((names_at(&pod_range("imp-1", 3)), 0)).unwrap();
        assert!(is_slot_served("imp-1"));
        drop(names);
        let _service = std::net::TcpListener::bind((service_network("imp-1"), 0)).unwrap();
        assert!(is_slot_served("imp-1"));
    }

    #[test]
    fn neither_a_pod_that_outlived_its_node_nor_what_is_left_of_a_connection_serves_a_slot() {
        let serves = |[a, b, c, d]: [u8; 4], state: &str| {
            let address = u32::from_ne_bytes([a, b, c, d]);
            let line = format!("   0: {address:08X}:1F90 00000000:0000 {state} 00000000:00000000");
            socket(&line, "0A").unwrap().serves(5)
        };
        assert!(serves([127, 101, 0, 1], "0A") && serves([127, 133, 2, 254], "0A"));
        for (address, state) in [
            ([127, 133, 2, 7], "0A"),
            ([127, 101, 0, 1], "06"),
            ([127, 133, 2, 254], "01"),
            ([127, 102, 0, 1], "0A"),
            ([10, 101, 0, 1], "0A"),
        ] {
            assert!(!serves(address, state), "{address:?} {state}");
        }
    }
}
