//! From which port on this process may listen.

use std::net::{Ipv4Addr, TcpListener};
use std::{fs, io};

/// Where the kernel says which ports are for everybody (ip(7)).
const START: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// What it is where nobody has changed it.
const USUAL: u16 = 1024;

/// The first port that this process may listen on; 0 where it may on all. Found out by trying: a right can
/// come from the user, from the program's file, or from the machine's settings.
#[must_use]
pub fn first_port() -> u16 {
    let lowest = TcpListener::bind((Ipv4Addr::LOCALHOST, 1));
    decide(lowest.err().map(|error| error.kind()), &fs::read_to_string(START).unwrap_or_default())
}

/// By what listening on the lowest port came to, and what the kernel says.
fn decide(refused: Option<io::ErrorKind>, start: &str) -> u16 {
    match refused {
        Some(io::ErrorKind::PermissionDenied) => start.trim().parse().unwrap_or(USUAL),
        _ => 0, // whoever else listens there, it is permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_refused_the_lowest_port_is_told_by_the_kernel_where_ports_begin() {
        let denied = Some(io::ErrorKind::PermissionDenied);
        assert_eq!(decide(denied, "80\n"), 80);
        assert_eq!(decide(denied, ""), 1024);
        assert_eq!(decide(Some(io::ErrorKind::AddrInUse), "1024\n"), 0);
        assert_eq!(decide(None, "1024\n"), 0);
    }

    #[test]
    fn what_it_says_is_what_happens() {
        let first = first_port();
        if let Some(below) = first.checked_sub(1).filter(|port| *port > 0) {
            let error = TcpListener::bind((Ipv4Addr::LOCALHOST, below)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
