//! Ports of services that a node's user may not open, and where the service answers there instead.
//!
//! An ordinary user opens ports from 1024 on (ip(7), `ip_unprivileged_port_start`). A node says from which
//! port on it can serve ([`FIRST_PORT`]); where a service asks for a lower one, that node answers for it at
//! another port of the same virtual address, which follows from the service alone. The service says so in
//! a condition, an annotation and an event for as long as there is such a node.

use crate::node::object::{FIRST_PORT, is_ready};
use k8s_openapi::api::core::v1::{Node, Service, ServicePort};
use std::collections::BTreeSet;

/// The annotation of a service that says where it answers instead, as in `80/TCP=8080`.
pub const ALTERNATE_PORTS: &str = "impresario.dev/alternate-ports";
/// The condition of a service some of whose ports cannot be had on some nodes.
pub const PORTS_WITHHELD: &str = "impresario.dev/PortsWithheld";

/// How far an alternate is above the port that it stands for, as 8080 is above 80, and by which steps
/// it goes on where that one is the service's own.
const ABOVE: u16 = 8000;
const STEP: u16 = 1000;
/// How many nodes are named; of more only the number is told.
const NAMED: usize = 3;

/// No node is believed that it may open less than this: the kernel's own bound for ordinary users. Who
/// writes a node's annotations could make every service say that it is reached nowhere.
const PRIVILEGED: u16 = 1024;

/// The first port that a node may open, as far as services have to say so: 0 where it is not ready.
#[must_use]
pub fn first_port(node: &Node) -> u16 {
    let annotations = node.metadata.annotations.as_ref();
    let said = annotations.and_then(|all| all.get(FIRST_PORT)?.parse::<u16>().ok());
    said.filter(|_| is_ready(node)).unwrap_or(0).min(PRIVILEGED)
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The port that stands for each of these where it cannot be had; no two are the same, nor one of
/// the service's own.
#[must_use]
pub fn alternates(ports: &[ServicePort]) -> Vec<Option<u16>> {
    let mut used: BTreeSet<(String, u16)> = ports
        .iter()
        .filter_map(|port| Some((protocol(port).to_owned(), u16::try_from(port.port).ok()?)))
        .collect();
    ports
        .iter()
        .map(|port| {
            let mut next = u16::try_from(port.port).ok()?.checked_add(ABOVE)?;
            while !used.insert((protocol(port).to_owned(), next)) {
                next = next.checked_add(STEP)?;
            }
            Some(next)
        })
        .collect()
}

/// The port at which a node that opens ports from `first` on serves each of these; `None` where it
/// cannot at all.
#[must_use]
pub fn served_at(ports: &[ServicePort], first: u16) -> Vec<Option<u16>> {
    let own = ports.iter().map(|port| u16::try_from(port.port).ok());
    let served = own.zip(alternates(ports)).map(|(own, instead)| match own {
        Some(own) if own >= first => Some(own),
        _ => instead.filter(|port| *port >= first),
    });
    served.collect()
}

/// What is to be said of a service whose ports cannot all be had on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// For people: the ports, and some of the nodes.
    pub message: String,
    /// What the message begins with, which depends on the ports alone: nodes come and go.
    pub ports: String,
    /// For programs; see [`ALTERNATE_PORTS`].
    pub alternates: String,
}

/// What is withheld from `service` on these nodes, by name, with their first ports.
#[must_use]
pub fn withheld(service: &Service, nodes: &[(String, u16)]) -> Option<Withheld> {
    let spec = service.spec.as_ref()?;
    let address = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")?;
    let ports = spec.ports.as_deref().unwrap_or_default();
    let lowest = ports.iter().filter_map(|port| u16::try_from(port.port).ok()).min()?;
    let mut concerned: Vec<_> = nodes.iter().filter(|(_, first)| *first > lowest).collect();
    concerned.sort();
    let first = concerned.iter().map(|(_, first)| *first).max()?;
    let (mut words, mut alternates) = (Vec::new(), Vec::new());
    for (port, instead) in ports.iter().zip(served_at(ports, first)) {
        let (number, protocol) = (port.port, protocol(port));
        match instead {
            Some(instead) if i32::from(instead) == number => {}
            Some(instead) => {
                words.push(format!("for port {number}/{protocol} at {address}:{instead}"));
                alternates.push(format!("{number}/{protocol}={instead}"));
            }
            None => words.push(format!("for port {number}/{protocol} nowhere")),
        }
    }
    let mut names: Vec<_> = concerned.iter().take(NAMED).map(|(name, _)| name.clone()).collect();
    if let Some(more) = concerned.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    let ports = format!(
        "Where a node's user may open ports from {first} on, the service answers {}. To have its own ports, \
         run the nodes as root or with CAP_NET_BIND_SERVICE, or set net.ipv4.ip_unprivileged_port_start to \
         {lowest}, and start them again.",
        words.join(", "),
    );
    let message = format!("{ports} Seen on {}.", names.join(", "));
    Some(Withheld { message, ports, alternates: alternates.join(",") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn service(ports: &[(i32, &str)]) -> Service {
        let ports: Vec<_> = ports
            .iter()
            .map(|(port, protocol)| json!({"port": port, "protocol": protocol}))
            .collect();
        serde_json::from_value(json!({"spec": {"clusterIP": "127.96.0.9", "ports": ports}}))
            .unwrap()
    }

    fn nodes(first: &[u16]) -> Vec<(String, u16)> {
        first.iter().enumerate().map(|(at, first)| (format!("n{at}"), *first)).collect()
    }

    #[test]
    fn a_port_that_a_node_may_not_open_is_named_with_the_one_that_answers() {
        let web = service(&[(80, "TCP"), (8443, "TCP"), (443, "TCP"), (53, "UDP")]);
        let said = withheld(&web, &nodes(&[1024, 0, 1024, 1024, 1024])).unwrap();
        assert_eq!(said.alternates, "80/TCP=8080,443/TCP=9443,53/UDP=8053");
        let words = "Where a node's user may open ports from 1024 on, the service answers for port 80/TCP at \
                     127.96.0.9:8080, for port 443/TCP at 127.96.0.9:9443, for port 53/UDP at 127.96.0.9:8053.";
        assert!(said.message.starts_with(words), "{}", said.message);
        assert!(said.message.ends_with("Seen on n0, n2, n3, 1 more."), "{}", said.message);
        let fewer = withheld(&web, &nodes(&[0, 1024])).unwrap();
        assert_eq!((fewer.ports, fewer.alternates), (said.ports, said.alternates));
    }

    #[test]
    fn no_node_is_believed_that_it_opens_hardly_any_ports_or_while_it_is_lost() {
        let node = |first: &str, ready: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"annotations": {FIRST_PORT: first}},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let table =
            [("80", "True", 80), ("65535", "True", 1024), ("1024", "Unknown", 0), ("x", "True", 0)];
        for (said, ready, first) in table {
            assert_eq!(first_port(&node(said, ready)), first, "{said} {ready}");
        }
    }

    #[test]
    fn nothing_is_said_where_every_port_can_be_had() {
        let web = service(&[(80, "TCP")]);
        assert_eq!(withheld(&web, &nodes(&[0, 80])), None);
        assert_eq!(withheld(&service(&[(1024, "TCP")]), &nodes(&[1024])), None);
        assert!(withheld(&web, &nodes(&[81])).is_some());
        let mut headless = web;
        headless.spec.as_mut().unwrap().cluster_ip = Some("None".into());
        assert_eq!(withheld(&headless, &nodes(&[1024])), None);
    }

    #[test]
    fn where_the_alternate_cannot_be_had_either_that_is_said() {
        let said = withheld(&service(&[(80, "TCP")]), &nodes(&[9000])).unwrap();
        assert!(said.message.contains("for port 80/TCP nowhere"), "{}", said.message);
        assert_eq!(said.alternates, "");
    }

    proptest! {
        #[test]
        fn no_two_ports_of_a_service_are_served_at_the_same_place(
            numbers in prop::collection::btree_set(1..65_536_i32, 1..40), first in 0..12_000_u16,
        ) {
            let numbers: Vec<_> = numbers.into_iter().map(|number| (number, "TCP")).collect();
            let ports = service(&numbers).spec.unwrap().ports.unwrap();
            let served: Vec<_> = served_at(&ports, first).into_iter().flatten().collect();
            prop_assert_eq!(served.iter().collect::<BTreeSet<_>>().len(), served.len());
            prop_assert!(served.iter().all(|port| *port >= first));
        }
    }
}
