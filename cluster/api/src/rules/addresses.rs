//! Addresses that may stand for a pod or a machine, and the protocols that are spoken there.

use crate::field::{Causes, Path};
use crate::names;
use std::net::IpAddr;

/// The protocols of a port.
pub const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

/// An endpoint's address must be one, and must be able to reach a pod of some other machine.
///
/// The machine's own loopback network 127.0.0.0/24 cannot; the rest of 127/8 is where pods of a
/// cluster on one machine have their addresses, and can.
pub fn endpoint_ip(path: &Path, value: &str, causes: &mut Causes) {
    causes.invalid_all(path, value, names::ip(value));
    let Ok(ip) = value.parse::<IpAddr>() else {
        causes.invalid(path, value, "must be a valid IP address");
        return;
    };
    if ip.is_unspecified() {
        causes.invalid(path, value, "may not be unspecified (0.0.0.0 or ::)");
    }
    let (own_loopback, link_local, multicast) = match ip {
        IpAddr::V4(v4) => {
            (v4.octets()[..3] == [127, 0, 0], v4.is_link_local(), v4.octets()[..3] == [224, 0, 0])
        }
        IpAddr::V6(v6) => (
            v6.is_loopback(),
            v6.segments()[0] & 0xffc0 == 0xfe80,
            v6.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if own_loopback {
        causes.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        causes.invalid(
            path,
            value,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if multicast {
        causes.invalid(
            path,
            value,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}
