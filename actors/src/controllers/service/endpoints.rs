//! Which addresses stand behind a service: the pods that its selector selects.
//!
//! A pod that is ready and not terminating gets traffic, another that has an address is listed as
//! not ready, and a finished pod is not listed at all (API reference, Endpoints v1).

use super::super::labels::selects;
use super::super::pod_view::PodView;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    ServicePort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Addresses in one Endpoints object.
pub const CAPACITY: usize = 1_000;
/// The annotation of an Endpoints object that does not hold all addresses.
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// What it says.
pub const TRUNCATED: &str = "truncated";

/// The label of Endpoints of which no slices are made: somebody makes these himself (well-known labels,
/// `endpointslice.kubernetes.io/skip-mirror`).
pub const NOT_MIRRORED: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Whether slices are to say the same as these Endpoints, which a user keeps.
#[must_use]
pub fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|all| all.get(NOT_MIRRORED)).is_none_or(|value| value != "true")
}

/// Which pods are behind a service; `None` where its selector says nothing.
#[must_use]
pub fn its_pods(service: &Service) -> Option<LabelSelector> {
    let labels = service.spec.as_ref()?.selector.clone().filter(|labels| !labels.is_empty());
    labels.map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None })
}

/// The subsets of the Endpoints object of `service`, or `None` where its endpoints are the
/// user's business: no selector, or an external name.
#[must_use]
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Option<Vec<EndpointSubset>> {
    let spec = service.spec.as_ref()?;
    let selector = its_pods(service)?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let publish_unready = spec.publish_not_ready_addresses == Some(true);
    let no_ports = Vec::new();
    let ports = spec.ports.as_ref().unwrap_or(&no_ports);

    let mut pods: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| selects(&selector, pod.labels()) && !pod.finished()).collect();
    // Pods of the host's network share its address: their order must not depend on anything else.
    pods.sort_by(|a, b| a.uid().cmp(b.uid()));
    // Pods that resolve a named port differently cannot share a subset.
    let mut groups: BTreeMap<Vec<PortKey>, EndpointSubset> = BTreeMap::new();
    let lost = usize::from(impresario_runtime::mutant!(EndpointLost));
    for pod in pods.into_iter().skip(lost) {
        let Some(address) = address(service, pod) else { continue };
        let resolved: Vec<EndpointPort> =
            ports.iter().filter_map(|port| resolve(port, pod)).collect();
        if resolved.is_empty() && !ports.is_empty() {
            continue;
        }
        let key = resolved.iter().map(port_key).collect();
        let subset = groups.entry(key).or_insert_with(|| EndpointSubset {
            ports: (!resolved.is_empty()).then(|| resolved.clone()),
            ..EndpointSubset::default()
        });
        let serving = publish_unready || (pod.ready() && !pod.terminating());
        let list = if serving { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = groups.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
            for list in list.iter_mut() {
                list.sort_by(|a, b| a.ip.cmp(&b.ip));
            }
        }
    }
    Some(subsets)
}

/// As many of the addresses as an Endpoints object holds, and whether some were left out. Ready ones
/// are kept before others, of each subset its share; slices hold all.
#[must_use]
pub fn cut(subsets: &[EndpointSubset]) -> (Vec<EndpointSubset>, bool) {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let unready: usize = subsets.iter().map(|subset| count(&subset.not_ready_addresses)).sum();
    let mut cut = subsets.to_vec();
    if ready + unready <= CAPACITY {
        return (cut, false);
    }
    let keep_ready = ready.min(CAPACITY);
    shorten(cut.iter_mut().map(|subset| &mut subset.addresses), ready, keep_ready);
    let lists = cut.iter_mut().map(|subset| &mut subset.not_ready_addresses);
    shorten(lists, unready, CAPACITY - keep_ready);
    cut.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (cut, true)
}

/// Leaves `keep` of `all` addresses in these lists, of each its share.
fn shorten<'a>(
    lists: impl Iterator<Item = &'a mut Option<Vec<EndpointAddress>>>,
    all: usize,
    keep: usize,
) {
    let (mut seen, mut kept) = (0, 0);
    for list in lists {
        let Some(addresses) = list else { continue };
        seen += addresses.len();
        // What all lists so far may keep, less what they have kept.
        let share = (seen * keep / all.max(1)).saturating_sub(kept);
        addresses.truncate(share);
        kept += addresses.len();
        if addresses.is_empty() {
            *list = None;
        }
    }
}

type PortKey = (Option<String>, i32, Option<String>);

fn port_key(port: &EndpointPort) -> PortKey {
    (port.name.clone(), port.port, port.protocol.clone())
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    let spec = pod.spec.as_ref()?;
    // A pod has a name of its own below that of the service that is its subdomain.
    let is_below = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    Some(EndpointAddress {
        ip,
        hostname: spec.hostname.clone().filter(|name| is_below && !name.is_empty()),
        node_name: spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

/// The port of `pod` that `port` leads to; a name that no container has leads nowhere.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // Those that come first and stay are there as long as the pod.
            let first = spec.init_containers.iter().flatten();
            let sidecars = first.filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let containers = spec.containers.iter().chain(sidecars);
            let mut all = containers.flat_map(|c| c.ports.iter().flatten());
            all.find(|p| {
                p.name.as_deref() == Some(name) && same_protocol(port, p.protocol.as_deref())
            })?
            .container_port
        }
    };
    Some(EndpointPort {
        name: port.name.clone(),
        port: number,
        protocol: port.protocol.clone().or_else(|| Some("TCP".into())),
        app_protocol: port.app_protocol.clone(),
    })
}

fn same_protocol(port: &ServicePort, other: Option<&str>) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == other.unwrap_or("TCP")
}

#[cfg(test)]
mod tests {
    use super::super::super::table::pod;
    use super::*;
    use k8s_openapi::api::core::v1::{Container, ContainerPort, ServiceSpec};

    fn service(target: IntOrString) -> Service {
        Service {
            spec: Some(ServiceSpec {
                selector: Some([("app".into(), "web".into())].into()),
                ports: Some(vec![ServicePort {
                    port: 80,
                    target_port: Some(target),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn ips(list: Option<&Vec<EndpointAddress>>) -> Vec<&str> {
        list.into_iter().flatten().map(|address| address.ip.as_str()).collect()
    }

    #[test]
    fn only_ready_pods_that_stay_get_traffic() {
        let words = ["a:ready", "b:ready,terminating", "c:ready,other", "d:bound"];
        let mut pods: Vec<_> =
            words.iter().enumerate().map(|(age, words)| pod(words, age, "rc", "web")).collect();
        pods[3].status.as_mut().unwrap().pod_ip = Some("127.1.0.9".into());
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let subsets = subsets(&service(IntOrString::Int(8080)), &pods).unwrap();
        assert_eq!(subsets.len(), 1);
        assert_eq!(ips(subsets[0].addresses.as_ref()), ["127.1.0.1"]);
        assert_eq!(ips(subsets[0].not_ready_addresses.as_ref()), ["127.1.0.2", "127.1.0.9"]);
        assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
    }

    #[test]
    fn a_named_port_is_looked_up_in_each_pod() {
        let mut pods = [pod("a:ready", 0, "rc", "web"), pod("b:ready", 1, "rc", "web")];
        for (pod, number) in pods.iter_mut().zip([8080, 9090]) {
            pod.spec.as_mut().unwrap().containers = vec![Container {
                ports: Some(vec![ContainerPort {
                    name: Some("http".into()),
                    container_port: number,
                    ..ContainerPort::default()
                }]),
                ..Container::default()
            }];
        }
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let subsets = subsets(&service(IntOrString::String("http".into())), &pods).unwrap();
        let ports: Vec<_> = subsets.iter().map(|s| s.ports.as_ref().unwrap()[0].port).collect();
        assert_eq!(ports, [8080, 9090]);
    }

    #[test]
    fn a_named_port_may_be_a_sidecar_s_but_not_that_of_a_container_that_only_comes_first() {
        let container = |name: &str, port: i32, restart: Option<&str>| Container {
            restart_policy: restart.map(str::to_owned),
            ports: Some(vec![ContainerPort {
                name: Some(name.into()),
                container_port: port,
                ..ContainerPort::default()
            }]),
            ..Container::default()
        };
        let mut pod = pod("a:ready", 0, "rc", "web");
        let spec = pod.spec.as_mut().unwrap();
        spec.containers = vec![container("http", 18000, None)];
        spec.init_containers =
            Some(vec![container("https", 19443, Some("Always")), container("setup", 19999, None)]);
        let pods = [Arc::new(pod)];
        for (name, port) in [("http", Some(18000)), ("https", Some(19443)), ("setup", None)] {
            let subsets = subsets(&service(IntOrString::String(name.into())), &pods).unwrap();
            let found = subsets.first().map(|subset| subset.ports.as_ref().unwrap()[0].port);
            assert_eq!(found, port, "{name}");
        }
    }

    #[test]
    fn more_addresses_than_fit_are_cut_and_those_that_serve_are_kept_before_others() {
        let list = |n: usize| {
            let address = |n| EndpointAddress { ip: format!("a{n}"), ..EndpointAddress::default() };
            (n > 0).then(|| (0..n).map(address).collect::<Vec<_>>())
        };
        let subset = |ready, unready| EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(unready),
            ports: None,
        };
        let shape = |subsets: &[EndpointSubset]| {
            let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
            let of = |s: &EndpointSubset| (count(&s.addresses), count(&s.not_ready_addresses));
            subsets.iter().map(of).collect::<Vec<_>>()
        };
        for (given, kept, is_cut) in [
            (vec![(600, 400)], vec![(600, 400)], false),
            (vec![(600, 401)], vec![(600, 400)], true),
            (vec![(1_500, 9)], vec![(1_000, 0)], true),
            (vec![(900, 0), (300, 50)], vec![(750, 0), (250, 0)], true),
            (vec![(0, 900), (500, 300)], vec![(0, 375), (500, 125)], true),
        ] {
            let subsets: Vec<_> = given.iter().map(|(r, u)| subset(*r, *u)).collect();
            let (found, was_cut) = cut(&subsets);
            assert_eq!((shape(&found), was_cut), (kept, is_cut), "{given:?}");
        }
    }

    #[test]
    fn a_pod_has_a_name_of_its_own_below_the_service_that_is_its_subdomain() {
        for (subdomain, expected) in
            [(Some("db"), Some("db-0")), (Some("other"), None), (None, None)]
        {
            let mut pod = pod("db-0:ready", 0, "ss", "web");
            let spec = pod.spec.as_mut().unwrap();
            spec.hostname = Some("db-0".into());
            spec.subdomain = subdomain.map(str::to_owned);
            let mut service = service(IntOrString::Int(80));
            service.metadata.name = Some("db".into());
            let found = subsets(&service, &[Arc::new(pod)]).unwrap();
            let address = &found[0].addresses.as_ref().unwrap()[0];
            assert_eq!(address.hostname.as_deref(), expected, "{subdomain:?}");
        }
    }

    #[test]
    fn a_service_without_a_selector_is_left_to_its_user() {
        assert_eq!(subsets(&Service::default(), &[]), None);
    }
}
