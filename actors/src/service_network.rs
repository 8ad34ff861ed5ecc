//! Makes services reachable from this machine: virtual addresses and names, as the registry says.
//!
//! A task of each node follows services and their endpoint slices, whoever made these, and applies the whole picture whenever
//! something changed; [`picture`] is a plain function of what is there. A pod that stopped being
//! ready gets no new connection from the moment in which its node's proxy hears of it.

mod choice;

use crate::controllers::mirror::{Mirror, Seen};
use crate::withheld_ports;
pub use choice::Here;
use choice::{chosen, is_ready};
use impresario_host::dns::{DnsServer, EndpointName, NamedPort, ServiceName};
use impresario_host::hollow;
use impresario_host::proxy::{Applied, Policy, Protocol, ServiceProxy, ServiceRule};
use impresario_registry_api::{RegistryHandle, Selection};
use impresario_runtime::{Backoff, clock, random, tasks};
use k8s_openapi::api::core::v1::{Node, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use rand::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The label of a slice that names its service.
const SERVICE: &str = "kubernetes.io/service-name";
/// The label of a node that names its zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Changes within this long are applied at once: at least, and at most in a large cluster.
const GATHER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Changes are gathered for so many times as long as a picture takes: a tenth of a core is spent on it.
const IDLE: u32 = 9;
/// How soon an address is tried again that somebody else has. On a machine with several nodes that goes on
/// for as long as there are services over UDP.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(10) };

/// What a node serves of the cluster's services.
#[derive(Debug, Default, PartialEq)]
pub struct Picture {
    /// Virtual addresses and who is behind them.
    pub rules: Vec<ServiceRule>,
    /// Names and what they stand for.
    pub names: Vec<ServiceName>,
}

/// What `services` and the `slices` of their endpoints mean `here`, where ports from `first_port` on can be had.
#[must_use]
pub fn picture(
    services: &[Seen<Service>],
    slices: &[Seen<EndpointSlice>],
    here: &Here,
    first_port: u16,
) -> Picture {
    let mut behind: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for seen in slices {
        let labels = seen.object.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|labels| labels.get(SERVICE)) else { continue };
        let place = (seen.entry.key.namespace.as_str(), service.as_str());
        behind.entry(place).or_default().push(&seen.object);
    }
    let mut picture = Picture::default();
    for seen in services {
        let Some(spec) = &seen.object.spec else { continue };
        let (namespace, name) = (&seen.entry.key.namespace, &seen.entry.key.name);
        let slices = behind.get(&(namespace.as_str(), name.as_str()));
        let slices = slices.map(Vec::as_slice).unwrap_or_default();
        let stays = spec.internal_traffic_policy.as_deref() == Some("Local");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let address = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
            Duration::from_secs(u64::try_from(seconds.unwrap_or(10_800)).unwrap_or(10_800))
        });
        if let Some(address) = address {
            for (port, served) in ports.iter().zip(withheld_ports::served_at(ports, first_port)) {
                let Some(served) = served else { continue };
                let number = port.port;
                let protocol = match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    None | Some("TCP") => Protocol::Tcp,
                    Some(_) => continue,
                };
                picture.rules.push(ServiceRule {
                    name: format!("{namespace}/{name}:{number}"),
                    address: SocketAddr::new(address, served),
                    protocol,
                    policy: Policy::RoundRobin,
                    affinity,
                    endpoints: reached_by(slices, port, here, stays),
                });
            }
        }
        picture.names.push(ServiceName {
            name: name.clone(),
            namespace: namespace.clone(),
            addresses: address.into_iter().collect(),
            ports: ports
                .iter()
                .filter_map(|port| {
                    Some(NamedPort {
                        name: port.name.clone(),
                        protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                        port: u16::try_from(port.port).ok()?,
                    })
                })
                .collect(),
            endpoints: names_behind(slices),
            external_name: spec.external_name.clone(),
        });
    }
    picture
}

/// The address of an endpoint; of a pod that only pretends there is none: the machine itself would answer there.
fn reached(endpoint: &Endpoint) -> Option<IpAddr> {
    // All that it has are of the same endpoint (API reference, Endpoint v1).
    let address = endpoint.addresses.first()?;
    address.parse().ok().filter(|ip| !hollow::is_pretended(*ip))
}

/// The addresses behind one port, in order and each once. Those of all slices are weighed together.
fn reached_by(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    here: &Here,
    stays: bool,
) -> Vec<SocketAddr> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let mut all = Vec::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let target = ports.find(|other| other.name.as_deref().unwrap_or_default() == wanted);
        let Some(number) = target.and_then(|target| u16::try_from(target.port?).ok()) else {
            continue;
        };
        all.extend(slice.endpoints.iter().flatten().map(|endpoint| (endpoint, number)));
    }
    let found: BTreeSet<SocketAddr> = chosen(&all, here, stays)
        .into_iter()
        .filter_map(|(endpoint, number)| Some(SocketAddr::new(reached(endpoint)?, number)))
        .collect();
    found.into_iter().collect()
}

/// The names of those that are ready, in order and each once.
fn names_behind(slices: &[&EndpointSlice]) -> Vec<EndpointName> {
    let all = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = all.filter(|endpoint| is_ready(endpoint));
    let found: BTreeSet<(IpAddr, Option<&String>)> = ready
        .filter_map(|endpoint| Some((reached(endpoint)?, endpoint.hostname.as_ref())))
        .collect();
    let named = |(address, hostname): (_, Option<&String>)| EndpointName {
        hostname: hostname.cloned(),
        address,
    };
    found.into_iter().map(named).collect()
}

/// The task. Ends when dropped.
pub struct ServiceNetwork {
    task: JoinHandle<()>,
}

impl Drop for ServiceNetwork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServiceNetwork {
    /// Follows the registry, and keeps `proxy` and `dns` of the node of this name as it says, where ports from `first_port` on
    /// can be had.
    #[must_use]
    pub fn start(
        registry: &RegistryHandle,
        proxy: ServiceProxy,
        dns: Option<DnsServer>,
        (node, first_port): (&str, u16),
    ) -> Self {
        let services: Mirror<Service> = Mirror::start(registry.clone(), "services");
        let slices: Mirror<EndpointSlice> =
            Mirror::start(registry.clone(), "discovery.k8s.io/endpointslices");
        let own = Selection::all("nodes").named(node);
        let nodes: Mirror<Node> = Mirror::over(registry.clone(), own);
        let mut here = Here { node: node.to_owned(), zone: None };
        let task = tasks::spawn(async move {
            let (mut some, mut other) = (services.changes(), slices.changes());
            let mut own = nodes.changes();
            let mut known = BTreeSet::new();
            loop {
                let began = clock::now();
                here.zone = zone(&nodes, &here.node);
                let Picture { rules, names } =
                    picture(&services.all(), &slices.all(), &here, first_port);
                // Before the ports, of which some may take their time.
                if let Some(dns) = &dns {
                    dns.apply(&names);
                }
                let took = began.elapsed();
                let mut attempt = 0;
                loop {
                    let applied = proxy.apply(rules.clone()).await;
                    known = told(&applied, &known);
                    let again = AGAIN.wait(attempt, random::rng().random_range(0.0..1.0));
                    tokio::select! {
                        change = some.next() => if change.is_some() { break } else { return },
                        change = other.next() => if change.is_some() { break } else { return },
                        change = own.next() => match change {
                            None => return,
                            // Of itself only where it is matters here.
                            Some(_) if zone(&nodes, &here.node) != here.zone => break,
                            Some(_) => {}
                        },
                        // Nobody tells when whoever has an address lets go of it.
                        () = tokio::time::sleep(again), if !applied.is_complete() => attempt += 1,
                    }
                }
                tokio::time::sleep(gathered_for(took)).await;
                while some.try_next().is_some() || other.try_next().is_some() {}
            }
        });
        Self { task }
    }
}

/// The zone of a node, as its object says.
fn zone(nodes: &Mirror<Node>, node: &str) -> Option<String> {
    nodes.get("", node)?.object.metadata.labels.as_ref()?.get(ZONE).cloned()
}

/// Says which services are not reachable here that were, or were not known; gives all that are not.
fn told(applied: &Applied, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut failing = BTreeSet::new();
    for failed in &applied.not_served {
        if !known.contains(&failed.name) {
            let service = &failed.name;
            tracing::warn!(service, %failed, "service is not reachable here");
        }
        failing.insert(failed.name.clone());
    }
    failing
}

/// For how long changes are gathered after a picture that took so long.
fn gathered_for(took: Duration) -> Duration {
    took.saturating_mul(IDLE).clamp(GATHER.0, GATHER.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::mirror::Mirrored;
    use impresario_registry_api::{Entry, Key};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn seen<K: Mirrored>(resource: &str, object: Value) -> Seen<K> {
        let key = Key::new(resource, "default", object["metadata"]["name"].as_str().unwrap());
        let value = object.to_string().into_bytes().into();
        let entry = Entry { key, value, create_revision: 1, mod_revision: 1 };
        Seen { object: Arc::new(serde_json::from_value(object).unwrap()), entry }
    }

    fn picture(
        services: &[Seen<Service>],
        slices: &[Seen<EndpointSlice>],
        first_port: u16,
    ) -> Picture {
        let here = Here { node: "n1".into(), zone: None };
        super::picture(services, slices, &here, first_port)
    }

    /// A slice of a service of the same name.
    fn slice(service: &str, endpoints: Value, ports: Value) -> Seen<EndpointSlice> {
        seen(
            "discovery.k8s.io/endpointslices",
            json!({"metadata": {"name": format!("{service}-x"), "labels": {SERVICE: service}},
                "addressType": "IPv4", "endpoints": endpoints, "ports": ports}),
        )
    }

    #[test]
    fn a_port_leads_to_the_ready_addresses_of_its_name() {
        let service = seen(
            "services",
            json!({"metadata": {"name": "web"}, "spec": {
            "clusterIP": "127.96.0.9",
            "ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}}),
        );
        let endpoints = slice(
            "web",
            json!([{"addresses": ["127.1.0.2"]}, {"addresses": ["127.1.0.1"]},
                {"addresses": ["127.1.0.3"], "conditions": {"ready": false}}]),
            json!([{"name": "http", "port": 8080}]),
        );
        let below = picture(std::slice::from_ref(&service), std::slice::from_ref(&endpoints), 1024);
        let served: Vec<_> = below.rules.iter().map(|rule| rule.address.port()).collect();
        assert_eq!(served, [8080, 8081]);
        assert_eq!(below.rules[0].endpoints.len(), 2);
        assert_eq!(below.names[0].ports[0].port, 80);
        let picture = picture(&[service], &[endpoints], 0);
        let targets: Vec<_> = picture.rules.iter().map(|rule| rule.endpoints.clone()).collect();
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(targets, [vec![address("127.1.0.1:8080"), address("127.1.0.2:8080")], vec![]]);
        assert_eq!(picture.rules[0].address, address("127.96.0.9:80"));
    }

    #[test]
    fn a_headless_service_has_the_addresses_of_its_pods_as_its_name() {
        let service = seen(
            "services",
            json!({"metadata": {"name": "db"}, "spec": {
            "clusterIP": "None", "ports": [{"port": 5432}]}}),
        );
        let endpoints = slice(
            "db",
            json!([{"addresses": ["127.1.0.1"], "hostname": "db-0"},
                {"addresses": ["127.1.0.2"], "hostname": "db-1", "conditions": {"ready": false}}]),
            json!([{"name": "", "port": 5432}]),
        );
        let picture = picture(&[service], &[endpoints], 0);
        assert!(picture.rules.is_empty());
        assert_eq!(picture.names[0].endpoints.len(), 1, "nobody is named who is not ready");
        assert_eq!(picture.names[0].endpoints[0].hostname.as_deref(), Some("db-0"));
        assert!(picture.names[0].addresses.is_empty());
    }

    #[test]
    fn nobody_is_sent_to_a_pod_that_only_pretends() {
        // Everything that listens on all addresses of the machine would answer at that of such a pod.
        let real = "127.160.0.2";
        let pretended = hollow::pod_range(7).nth(2).unwrap().to_string();
        let of = |addresses: &[&str], cluster_ip: &str| {
            let all: Vec<_> = addresses.iter().map(|ip| json!({"addresses": [ip]})).collect();
            let spec = json!({"clusterIP": cluster_ip, "ports": [{"port": 80, "targetPort": 22}]});
            let service = json!({"metadata": {"name": "web"}, "spec": spec});
            let behind = slice("web", json!(all), json!([{"port": 22}]));
            picture(&[seen("services", service)], &[behind], 0)
        };
        let endpoints = |addresses: &[&str]| of(addresses, "127.96.0.9").rules[0].endpoints.clone();
        assert_eq!(endpoints(&[&pretended]), []);
        assert_eq!(endpoints(&[&pretended, real]), [format!("{real}:22").parse().unwrap()]);
        let names = of(&[&pretended, real], "None").names;
        let names: Vec<_> = names[0].endpoints.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(names, [real]);
    }

    #[test]
    fn slices_that_somebody_else_made_count_as_well_and_all_are_weighed_together() {
        let leaving = json!({"ready": false, "serving": true, "terminating": true});
        let ports = json!([{"port": 80}]);
        let of = |service: Value, slices: &[Seen<EndpointSlice>]| {
            let spec = json!({"clusterIP": "127.96.0.9", "ports": [{"port": 80}]});
            let spec = impresario_api::patch::merge_patch(&spec, &service).unwrap();
            let service = seen("services", json!({"metadata": {"name": "web"}, "spec": spec}));
            let found = picture(&[service], slices, 0).rules.remove(0).endpoints;
            found.iter().map(|to| to.ip().to_string()).collect::<Vec<_>>()
        };
        let own = slice(
            "web",
            json!([{"addresses": ["127.1.0.1"], "conditions": leaving}]),
            ports.clone(),
        );
        let other =
            slice("web", json!([{"addresses": ["127.1.0.2"], "nodeName": "n1"}]), ports.clone());
        let foreign = slice("db", json!([{"addresses": ["127.1.0.3"]}]), ports);
        let all = [own.clone(), other.clone(), foreign.clone()];
        assert_eq!(of(json!({}), &all), ["127.1.0.2"]);
        assert_eq!(
            of(json!({}), &[own.clone(), foreign.clone()]),
            ["127.1.0.1"],
            "there is nobody else"
        );
        let local = json!({"internalTrafficPolicy": "Local"});
        assert_eq!(of(local.clone(), &all), ["127.1.0.2"]);
        assert_eq!(of(local, &[own, foreign]), Vec::<String>::new());
    }

    #[test]
    fn pictures_that_take_long_are_made_seldom() {
        let millis = Duration::from_millis;
        let table = [(0, 10), (1, 10), (20, 180), (5_000, 1_000)];
        for (took, expected) in table {
            assert_eq!(gathered_for(millis(took)), millis(expected), "{took} ms");
        }
        assert_eq!(gathered_for(Duration::MAX), GATHER.1);
    }
}
