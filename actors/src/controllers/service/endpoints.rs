//! Which addresses stand behind a service: the pods that its selector selects.
//!
//! A pod that is ready and not terminating gets traffic, another that has an address is listed as
//! not ready, and a finished pod is not listed at all (API reference, Endpoints v1).

use super::super::pod_view::{PodView, selects};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The subsets of the Endpoints object of `service`, or `None` where its endpoints are the
/// user's business: no selector, or an external name.
#[must_use]
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Option<Vec<EndpointSubset>> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let publish_unready = spec.publish_not_ready_addresses == Some(true);
    let no_ports = Vec::new();
    let ports = spec.ports.as_ref().unwrap_or(&no_ports);

    // Pods that resolve a named port differently cannot share a subset.
    let mut groups: BTreeMap<Vec<PortKey>, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| selects(selector, pod.labels()) && !pod.finished()) {
        let Some(address) = address(pod) else { continue };
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

type PortKey = (Option<String>, i32, Option<String>);

fn port_key(port: &EndpointPort) -> PortKey {
    (port.name.clone(), port.port, port.protocol.clone())
}

fn address(pod: &Pod) -> Option<EndpointAddress> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    Some(EndpointAddress {
        ip,
        hostname: None,
        node_name: pod.spec.as_ref()?.node_name.clone(),
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
            let containers = &pod.spec.as_ref()?.containers;
            let mut all = containers.iter().flat_map(|c| c.ports.iter().flatten());
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
    fn a_service_without_a_selector_is_left_to_its_user() {
        assert_eq!(subsets(&Service::default(), &[]), None);
    }
}
