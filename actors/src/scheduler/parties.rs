//! The two parties of a placement, pods and nodes, as far as it depends on them.

use super::demands::{Demands, Labels};
use super::volume_needs::VolumeNeeds;
use crate::controllers::owners::controller;
use crate::requests;
use impresario_client::protocol::resources::Resources;
use k8s_openapi::api::core::v1::{self, NodeSelectorTerm, Taint, Toleration};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So long a pod has to end unless it says otherwise, in seconds.
const GRACE: i64 = 30;

/// A port on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Its number.
    pub port: i32,
    /// On which address of the node; on all of them where it is empty.
    pub address: String,
}

impl HostPort {
    /// Whether no two pods of a node can have both.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let addresses = [&self.address, &other.address];
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || addresses.iter().any(|address| address.is_empty()))
    }
}

/// A node as far as placement depends on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether its object says that it takes no pods.
    pub cordoned: bool,
    /// Whether its object or the node itself says so.
    pub unschedulable: bool,
    /// Whether it was heard of lately.
    pub ready: bool,
    /// What it has to give.
    pub allocatable: Resources,
    /// What is believed to be free.
    pub free: Resources,
    /// Ports that its pods occupy.
    pub host_ports: BTreeSet<HostPort>,
    /// The images that it says it has, by each of their names, and how large they are.
    pub images: Arc<BTreeMap<String, u64>>,
}

/// A pod as far as placement depends on it: one that waits for a node, or one that has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What it asks for.
    pub requests: Resources,
    /// Labels that its node must have.
    pub selector: BTreeMap<String, String>,
    /// Required node affinity: one of the terms must match.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
    /// Taints that it bears with.
    pub tolerations: Vec<Toleration>,
    /// Ports of the node that it wants for itself.
    pub host_ports: Vec<HostPort>,
    /// What its claims ask of the node, where it has any.
    pub volumes: Option<Arc<VolumeNeeds>>,
    /// What it demands of other pods, and what it would rather have.
    pub demands: Arc<Demands>,
    /// Higher ones go first.
    pub priority: i32,
    /// Whether pods of a lower priority may be made to leave for it.
    pub preempts: bool,
    /// Whether it is a member of a training job: the auction decides how many of them there are, nobody else.
    pub is_member: bool,
    /// Whether it is on its way out.
    pub going: bool,
    /// How long it has to end, in seconds.
    pub grace: i64,
    /// When it was created, in milliseconds since 1970.
    pub since: i64,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            uid: String::new(),
            namespace: String::new(),
            name: String::new(),
            labels: Labels::new(),
            requests: Resources::default(),
            selector: BTreeMap::new(),
            affinity: None,
            tolerations: Vec::new(),
            host_ports: Vec::new(),
            volumes: None,
            demands: Arc::default(),
            priority: 0,
            preempts: true,
            is_member: false,
            going: false,
            grace: GRACE,
            since: 0,
        }
    }
}

impl Pending {
    /// Whether each node is to both what it is to the other, as far as nobody goes by their labels: they differ in name,
    /// labels, age and priority alone.
    pub fn is_like(&self, other: &Self) -> bool {
        self.requests == other.requests
            && self.selector == other.selector
            && self.affinity == other.affinity
            && self.tolerations == other.tolerations
            && self.host_ports == other.host_ports
            && self.volumes == other.volumes
            && self.namespace == other.namespace
            && (self.preempts, self.is_member) == (other.preempts, other.is_member)
            && (Arc::ptr_eq(&self.demands, &other.demands) || self.demands == other.demands)
    }

    /// What placement needs to know of a pod object that waits for a node.
    pub fn of(pod: &v1::Pod) -> Option<Self> {
        Self::read(pod, true)
    }

    /// What the placement of others needs to know of a pod that has a node.
    pub fn bound(pod: &v1::Pod) -> Option<Self> {
        Self::read(pod, false)
    }

    fn read(pod: &v1::Pod, waits: bool) -> Option<Self> {
        let (metadata, spec) = (&pod.metadata, pod.spec.as_ref()?);
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity
            .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        let created = metadata.creation_timestamp.as_ref();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let labels = metadata.labels.clone().unwrap_or_default();
        let of_node = Self {
            uid: metadata.uid.clone()?,
            name: metadata.name.clone().unwrap_or_default(),
            requests: requests::of_pod(spec),
            host_ports: host_ports(spec),
            demands: Demands::of(spec, &namespace, &labels, waits),
            priority: spec.priority.unwrap_or(0),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            is_member: controller(metadata).is_some_and(|owner| owner.kind == "TrainingJob"),
            going: metadata.deletion_timestamp.is_some(),
            grace: spec.termination_grace_period_seconds.unwrap_or(GRACE),
            since: created.map_or(0, |time| time.0.as_millisecond()),
            namespace,
            labels,
            ..Self::default()
        };
        if !waits {
            return Some(of_node);
        }
        Some(Self {
            selector: spec.node_selector.clone().unwrap_or_default(),
            affinity: required.map(|required| required.node_selector_terms.clone()),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            ..of_node
        })
    }
}

fn host_ports(spec: &v1::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address = port.host_ip.as_deref().filter(|ip| !matches!(*ip, "0.0.0.0" | "::"));
        Some(HostPort {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: number,
            address: address.unwrap_or_default().to_owned(),
        })
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_port_is_free_on_another_address_of_the_node_and_for_another_protocol() {
        let port = |ip: &str, protocol: &str| {
            let ports =
                json!([{"hostPort": 80, "containerPort": 80, "hostIP": ip, "protocol": protocol}]);
            let spec = json!({"containers": [{"name": "c", "ports": ports}]});
            host_ports(&serde_json::from_value(spec).unwrap()).remove(0)
        };
        for (one, other, conflicts) in [
            (port("10.0.0.1", "TCP"), port("10.0.0.1", "TCP"), true),
            (port("10.0.0.1", "TCP"), port("10.0.0.2", "TCP"), false),
            (port("10.0.0.1", "TCP"), port("0.0.0.0", "TCP"), true),
            (port("", "TCP"), port("::", "TCP"), true),
            (port("", "TCP"), port("", "UDP"), false),
        ] {
            assert_eq!(one.conflicts(&other), conflicts, "{one:?} {other:?}");
            assert_eq!(other.conflicts(&one), conflicts);
        }
    }

    #[test]
    fn a_sidecar_s_port_is_the_pod_s_and_one_of_a_container_that_only_prepares_is_not() {
        let of = |policy: Option<&str>| {
            let init = json!({"name": "i", "restartPolicy": policy, "ports": [{"hostPort": 80, "containerPort": 80}]});
            let spec = json!({"containers": [], "initContainers": [init]});
            host_ports(&serde_json::from_value(spec).unwrap()).len()
        };
        assert_eq!((of(Some("Always")), of(None)), (1, 0));
    }
}
