//! Whom the endpoints of a service are meant for, where it prefers near ones (Kubernetes documentation, "Service",
//! "Traffic distribution", and "Topology Aware Routing").
//!
//! An endpoint is meant for its own zone, and where that is asked for, for its own node. The older annotation asks for
//! the same only where each zone has an endpoint and there are several: else some zone would have nobody. Who
//! sends the traffic goes by the hints where they leave somebody, and by all endpoints where they do not.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Node, Service};
use k8s_openapi::api::discovery::v1::{EndpointHints, ForNode, ForZone};
use std::collections::{BTreeMap, BTreeSet};

/// The label of a node that names its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The annotations by which a service prefers near endpoints, the older one last.
const MODES: [&str; 2] =
    ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];

/// What a service prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefers {
    Nothing,
    Zone,
    Node,
}

/// Where the endpoints of a service are, and what it prefers.
#[derive(Debug)]
pub struct Nearness<'a> {
    zones: BTreeMap<&'a str, &'a str>,
    prefers: Prefers,
}

/// The zone of a node.
#[must_use]
pub fn zone(node: &Node) -> Option<&str> {
    let zone = node.metadata.labels.as_ref()?.get(ZONE)?;
    Some(zone.as_str()).filter(|zone| !zone.is_empty())
}

impl<'a> Nearness<'a> {
    /// Of a service with these endpoints, on these nodes.
    #[must_use]
    pub fn of(
        service: &Service,
        nodes: impl Iterator<Item = &'a Node>,
        subsets: &[EndpointSubset],
    ) -> Self {
        let zoned = nodes.filter_map(|node| Some((node.metadata.name.as_deref()?, zone(node)?)));
        let mut nearness = Self { zones: zoned.collect(), prefers: Prefers::Nothing };
        nearness.prefers = nearness.preferred(service, subsets);
        nearness
    }

    fn preferred(&self, service: &Service, subsets: &[EndpointSubset]) -> Prefers {
        let asks = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
        match asks {
            Some("PreferClose" | "PreferSameZone") => return Prefers::Zone,
            Some("PreferSameNode") => return Prefers::Node,
            _ => {}
        }
        let annotations = service.metadata.annotations.as_ref();
        let mode = annotations.and_then(|all| MODES.into_iter().find_map(|mode| all.get(mode)));
        if !mode.is_some_and(|mode| mode == "Auto" || mode == "auto") {
            return Prefers::Nothing;
        }
        let ready = subsets.iter().flat_map(|subset| subset.addresses.iter().flatten());
        let found: Option<BTreeSet<&str>> = ready.map(|address| self.zone_of(address)).collect();
        let all: BTreeSet<&str> = self.zones.values().copied().collect();
        if all.len() > 1 && found == Some(all) { Prefers::Zone } else { Prefers::Nothing }
    }

    fn zone_of(&self, address: &EndpointAddress) -> Option<&'a str> {
        self.zones.get(address.node_name.as_deref()?).copied()
    }

    /// The zone of an endpoint.
    #[must_use]
    pub fn zone(&self, address: &EndpointAddress) -> Option<String> {
        self.zone_of(address).map(str::to_owned)
    }

    /// Whom an endpoint is meant for.
    #[must_use]
    pub fn hints(&self, address: &EndpointAddress) -> Option<EndpointHints> {
        if self.prefers == Prefers::Nothing {
            return None;
        }
        let node = address.node_name.clone().filter(|_| self.prefers == Prefers::Node);
        let zone = self.zone(address);
        (node.is_some() || zone.is_some()).then(|| EndpointHints {
            for_nodes: node.map(|name| vec![ForNode { name }]),
            for_zones: zone.map(|name| vec![ForZone { name }]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::cells;
    use super::*;
    use serde_json::json;

    #[test]
    fn an_endpoint_is_meant_for_whom_its_service_prefers() {
        let table = "
            service asks      | nodes         | endpoints on | meant for
                              | n1=a n2=b     | n1 n2        | - -
            PreferClose       | n1=a n2=b     | n1 n2        | a b
            PreferSameZone    | n1=a n2=b     | n1 n1        | a a
            PreferSameZone    | n1=a n2=      | n1 n2        | a -
            PreferSameNode    | n1=a n2=      | n1 n2        | a/n1 /n2
            Auto              | n1=a n2=b     | n1 n2        | a b
            Auto              | n1=a n2=b     | n1 n1        | - -
            Auto              | n1=a n2=b n3= | n1 n2 n3     | - - -
            Auto              | n1=a n2=a     | n1 n2        | - -
            Disabled          | n1=a n2=b     | n1 n2        | - -";
        for row in table.lines().skip(2) {
            let [asks, nodes, endpoints, expected] = cells(row);
            let mut service = json!({"metadata": {"annotations": {}}, "spec": {}});
            if asks.starts_with("Prefer") {
                service["spec"]["trafficDistribution"] = asks.into();
            } else {
                service["metadata"]["annotations"][MODES[0]] = asks.into();
            }
            let service: Service = serde_json::from_value(service).unwrap();
            let nodes: Vec<Node> = nodes
                .split_whitespace()
                .map(|words| {
                    let (name, zone) = words.split_once('=').unwrap();
                    let node = json!({"metadata": {"name": name, "labels": {ZONE: zone}}});
                    serde_json::from_value(node).unwrap()
                })
                .collect();
            let address = |node: &str| EndpointAddress {
                node_name: Some(node.to_owned()),
                ..EndpointAddress::default()
            };
            let addresses: Vec<_> = endpoints.split_whitespace().map(address).collect();
            let subset =
                EndpointSubset { addresses: Some(addresses.clone()), ..EndpointSubset::default() };
            let nearness = Nearness::of(&service, nodes.iter(), &[subset]);
            let word = |address: &EndpointAddress| {
                let Some(hints) = nearness.hints(address) else { return "-".to_owned() };
                let zone = hints.for_zones.map(|all| all[0].name.clone()).unwrap_or_default();
                let node = hints.for_nodes.map(|all| format!("/{}", all[0].name));
                zone + &node.unwrap_or_default()
            };
            let found: Vec<_> = addresses.iter().map(word).collect();
            assert_eq!(found.join(" "), expected, "in row {row}");
        }
    }
}
