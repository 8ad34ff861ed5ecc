//! Keeps a node's address book, and its list of control members, as the Node objects say.
//!
//! A node that advertises a loopback address lives on the machine of the member through which we
//! joined: from another machine it is reached at that machine's address.

use impresario_actors::controllers::mirror::{Mirror, Seen};
use impresario_client::{CONTROL_LABEL, QUIC_ADDRESS, reachable};
use impresario_registry::RegistryHandle;
use impresario_runtime::{ActorNode, NodeName};
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;
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
