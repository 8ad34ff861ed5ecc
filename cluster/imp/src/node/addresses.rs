//! Keeps a node's address book, and its list of control members, as the Node objects say.
//!
//! A node that advertises a loopback address lives on the machine of the member through which we
//! joined: from another machine it is reached at that machine's address.

use impresario_actors::controllers::mirror::{Mirror, Seen};
use impresario_actors::node::object::{CONTROL_LABEL, QUIC_ADDRESS};
use impresario_registry::RegistryHandle;
use impresario_runtime::{ActorNode, NodeName};
use k8s_openapi::api::core::v1::Node;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The task that follows. Ends when dropped.
pub struct AddressKeeper {
    task: JoinHandle<()>,
}

impl Drop for AddressKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AddressKeeper {
    /// Follows the nodes of the registry. `machine` is the address of the machine through which this
    /// node joined, if it is another one.
    #[must_use]
    pub fn start(
        node: ActorNode,
        registry: RegistryHandle,
        machine: Option<IpAddr>,
        members: watch::Sender<Vec<NodeName>>,
    ) -> Self {
        let mirror: Mirror<Node> = Mirror::start(registry, "nodes");
        let task = tokio::spawn(async move {
            let mut changes = mirror.changes();
            loop {
                keep(&node, &mirror.all(), machine, &members);
                if let Err(RecvError::Closed) = changes.recv().await {
                    return;
                }
            }
        });
        Self { task }
    }
}

fn keep(
    me: &ActorNode,
    nodes: &[Seen<Node>],
    machine: Option<IpAddr>,
    members: &watch::Sender<Vec<NodeName>>,
) {
    let mut control = Vec::new();
    for seen in nodes {
        let metadata = &seen.object.metadata;
        let name = NodeName::from(seen.entry.key.name.as_str());
        if metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROL_LABEL)) {
            control.push(name.clone());
        }
        let annotations = metadata.annotations.as_ref();
        let address = annotations.and_then(|all| all.get(QUIC_ADDRESS)?.parse().ok());
        if let Some(address) = address.filter(|_| name != *me.name()) {
            me.addresses().set(name, reachable(address, machine));
        }
    }
    // An empty registry is one that we have not read yet: what we were told when joining stands.
    if !control.is_empty() {
        members.send_if_modified(|known| {
            let differs = *known != control;
            if differs {
                *known = control;
            }
            differs
        });
    }
}

/// Where a node that advertises `address` is reached from here.
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
