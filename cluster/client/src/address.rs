//! Where nodes are reached.

use std::net::{IpAddr, SocketAddr};

/// The annotation of a Node object that says where its actor node listens.
pub const QUIC_ADDRESS: &str = "impresario.dev/quic-address";

/// Where a node that advertises `address` is reached from here; `machine` is the address of the
/// machine through which one joined, if it is another one than this.
#[must_use]
pub fn reachable(address: SocketAddr, machine: Option<IpAddr>) -> SocketAddr {
    match machine {
        Some(machine) if address.ip().is_loopback() => SocketAddr::new(machine, address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_of_another_machine_is_reached_through_that_machine() {
        let local: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let far: SocketAddr = "10.0.0.9:7000".parse().unwrap();
        let machine = "10.0.0.1".parse().unwrap();
        assert_eq!(reachable(local, None), local);
        assert_eq!(reachable(local, Some(machine)).to_string(), "10.0.0.1:7000");
        assert_eq!(reachable(far, Some(machine)), far);
    }
}
