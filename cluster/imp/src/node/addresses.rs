//! Keeps a node's address book as the Node objects say, and its list of control members as the registry
//! says: who is one is a matter of the membership, never of what an object says of itself.
//!
//! A node that advertises a loopback address lives on the machine of the member through which we
//! joined: from another machine it is reached at that machine's address.

use futures_util::future::join_all;
use impresario_actors::controllers::mirror::{Mirror, Seen};
use impresario_client::{QUIC_ADDRESS, reachable};
use impresario_registry::protocol::Status;
use impresario_registry::{REGISTRY_ACTOR, RegistryHandle, RegistryRole};
use impresario_runtime::{ActorNode, ActorPath, NodeName};
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long one member has to say who the members are.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long a change of the membership may go unnoticed that no Node object told of.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

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
                keep(&node, &mirror.all(), machine);
                ask_members(&node, &members).await;
                // Who joins writes its Node object. A change that was missed is found a while later.
                let again = LOOK_AGAIN.mul_f64(rand::random_range(0.5..1.0));
                if let Ok(Err(RecvError::Closed)) = timeout(again, changes.recv()).await {
                    return;
                }
            }
        });
        Self { task }
    }
}

fn keep(me: &ActorNode, nodes: &[Seen<Node>], machine: Option<IpAddr>) {
    for seen in nodes {
        let name = NodeName::from(seen.entry.key.name.as_str());
        let annotations = seen.object.metadata.annotations.as_ref();
        let address = annotations.and_then(|all| all.get(QUIC_ADDRESS)?.parse().ok());
        if let Some(address) = address.filter(|_| name != *me.name()) {
            me.addresses().set(name, reachable(address, machine));
        }
    }
}

/// Brings the list of control members up to date by what they say of the membership; their connections
/// prove that they are members. Who knows the most is believed; where none answers, what is known stands.
async fn ask_members(me: &ActorNode, members: &watch::Sender<Vec<NodeName>>) {
    let known = members.borrow().clone();
    let asked = known.into_iter().map(|member| {
        let registry = me.actor::<RegistryRole>(ActorPath::new(member, REGISTRY_ACTOR));
        registry.ask(Status, ASK_LIMIT)
    });
    let answers = join_all(asked).await.into_iter().flatten();
    let Some(status) = answers.max_by_key(|status| (status.term, status.applied)) else { return };
    let mut told: Vec<NodeName> = status
        .voters
        .iter()
        .chain(&status.learners)
        .map(|name| NodeName::from(name.as_str()))
        .collect();
    told.sort();
    // A member that has not found its group yet knows of nobody.
    if !told.is_empty() {
        members.send_if_modified(|known| {
            let differs = *known != told;
            if differs {
                *known = told;
            }
            differs
        });
    }
}
