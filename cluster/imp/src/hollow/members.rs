//! Keeps what hollow nodes know of the control members: who they are, and where.
//!
//! One task for all nodes of a process, which asks through another of them each time, so that it goes on when one of
//! them is trusted no more. Members change seldom: it looks about once a minute.

use crate::node::addresses::{LOOK_AGAIN, ask_members};
use impresario_client::QUIC_ADDRESS;
use impresario_registry::{Consistency, Key, RegistryHandle};
use impresario_runtime::{ActorNode, NodeName, random, tasks};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The task. Ends when dropped.
pub struct MembersKeeper {
    task: JoinHandle<()>,
}

impl Drop for MembersKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MembersKeeper {
    /// Keeps it for these nodes, each of which sees the objects through its own door.
    #[must_use]
    pub fn start(
        nodes: Vec<(ActorNode, RegistryHandle)>,
        members: watch::Sender<Vec<NodeName>>,
    ) -> Self {
        let task = tasks::spawn(async move {
            loop {
                let again = LOOK_AGAIN.mul_f64(random::random_range(0.5..1.0));
                tokio::time::sleep(again).await;
                if nodes.is_empty() {
                    return;
                }
                let (node, registry) = &nodes[random::random_range(0..nodes.len())];
                ask_members(node, &members).await;
                let known = members.borrow().clone();
                for member in known {
                    if let Some(address) = address_of(registry, &member).await {
                        for (node, _) in &nodes {
                            node.addresses().set(member.clone(), address);
                        }
                    }
                }
            }
        });
        Self { task }
    }
}

/// Where a member's object says that it is; nothing where that cannot be read now.
async fn address_of(registry: &RegistryHandle, member: &NodeName) -> Option<SocketAddr> {
    let key = Key::new("nodes", "", member.as_str());
    let (entry, _) = registry.get(key, Consistency::Local).await.ok()?;
    let object: Value = serde_json::from_slice(&entry?.value).ok()?;
    object["metadata"]["annotations"][QUIC_ADDRESS].as_str()?.parse().ok()
}
