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
use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long one member has to say who the members are.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long a change of the membership may go unnoticed that no Node object told of.
pub const LOOK_AGAIN: Duration = Duration::from_mins(1);

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
            let mut kept = Kept::default();
            loop {
                let known = members.borrow().clone();
                kept.keep(&node, &mirror.all(), machine, &known);
                ask_members(&node, &members).await;
                // Who joins writes its Node object. A change that was missed is found a while later.
                let again = LOOK_AGAIN.mul_f64(rand::random_range(0.5..1.0));
                if let Ok(None) = timeout(again, changes.next()).await {
                    return;
                }
            }
        });
        Self { task }
    }
}

/// What the book was told of the Node objects.
#[derive(Default)]
struct Kept {
    /// Nodes that have an object, or had one at the last look.
    seen: HashSet<NodeName>,
    /// Those of which was said that their address is none.
    unreadable: HashSet<NodeName>,
}

impl Kept {
    fn keep(
        &mut self,
        me: &ActorNode,
        nodes: &[Seen<Node>],
        machine: Option<IpAddr>,
        members: &[NodeName],
    ) {
        let name = |seen: &Seen<Node>| NodeName::from(seen.entry.key.name.as_str());
        let before = std::mem::replace(&mut self.seen, nodes.iter().map(name).collect());
        // Members are dialled whether they have an object or not.
        for gone in before.difference(&self.seen).filter(|gone| !members.contains(gone)) {
            me.addresses().remove(gone);
            self.unreadable.remove(gone);
        }
        for seen in nodes {
            let name = name(seen);
            let annotations = seen.object.metadata.annotations.as_ref();
            let Some(text) = annotations.and_then(|all| all.get(QUIC_ADDRESS)) else { continue };
            match text.parse() {
                Ok(address) if name != *me.name() => {
                    me.addresses().set(name, reachable(address, machine));
                }
                Err(_) if self.unreadable.insert(name.clone()) => tracing::warn!(
                    node = %name, address = ?text,
                    "the annotation {QUIC_ADDRESS} of a node is no address with a port: it is not dialled"
                ),
                _ => {}
            }
        }
    }
}

/// Brings the list of control members up to date by what they say of the membership; their connections
/// prove that they are members. Who knows the most is believed; where none answers, what is known stands.
pub async fn ask_members(me: &ActorNode, members: &watch::Sender<Vec<NodeName>>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_actors::controllers::mirror::Mirror;
    use impresario_registry::{
        Beginning, Key, Member, MemberConfig, MemoryRegistry, Registry as _, Transaction,
    };
    use impresario_runtime::{ClusterAuthority, NodeConfig, PeerRole};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn an_address_is_known_as_long_as_its_node_or_member_is_there() {
        actix::System::new().block_on(async {
            let authority = ClusterAuthority::create("test").unwrap();
            let day = Duration::from_hours(24);
            let credential = authority.issue("me", PeerRole::Node, &[], day).unwrap();
            let node = ActorNode::start(NodeConfig::new(credential)).await.unwrap();
            let registry = Arc::new(MemoryRegistry::new());
            let key = |name: &str| Key::new("nodes", "", name);
            for (name, address) in [("a", "127.0.0.1:1"), ("m", "127.0.0.1:2"), ("b", "nowhere")] {
                let annotations = json!({QUIC_ADDRESS: address});
                let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations}});
                let made = Transaction::create(key(name), object.to_string());
                registry.transact(made).await.unwrap();
            }
            let mirror: Mirror<Node> = Mirror::start(registry.clone(), "nodes");
            let look = async |count: usize| {
                let look = async {
                    while mirror.all().len() != count {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                timeout(Duration::from_mins(1), look).await.expect("seen");
                mirror.all()
            };
            let (mut kept, members) = (Kept::default(), [NodeName::from("m")]);
            kept.keep(&node, &look(3).await, None, &members);
            let knows = |name: &str| node.addresses().get(&NodeName::from(name)).is_some();
            assert_eq!([knows("a"), knows("m"), knows("b")], [true, true, false]);
            let gone = Transaction::new().delete(key("a")).delete(key("m"));
            registry.transact(gone).await.unwrap();
            kept.keep(&node, &look(1).await, None, &members);
            assert_eq!([knows("a"), knows("m"), knows("b")], [false, true, false]);
            node.stop(Duration::from_mins(1)).await;
        });
    }

    #[test]
    fn who_is_a_control_member_is_said_by_the_group_and_by_no_label() {
        actix::System::new().block_on(async {
            let authority = ClusterAuthority::create("test").unwrap();
            let start = async |name: &str, role| {
                let credential = authority.issue(name, role, &[], Duration::from_hours(1)).unwrap();
                let gate = Arc::new(impresario_runtime::PermitAll);
                let config = NodeConfig { gate, ..NodeConfig::new(credential) };
                ActorNode::start(config).await.unwrap()
            };
            let (m1, me) =
                (start("m1", PeerRole::Control).await, start("me", PeerRole::Node).await);
            me.addresses().set(m1.name().clone(), m1.local_addr());
            let folder = tempfile::tempdir().unwrap();
            let beginning = Beginning::Found { peers: Vec::new() };
            let config = MemberConfig::new(folder.path(), m1.clone(), m1.local_addr(), beginning);
            let member = Member::start(config).await.unwrap();
            // A machine that says of itself that it is one, and one of which nothing is said.
            let registry = Arc::new(MemoryRegistry::new());
            let own = json!({QUIC_ADDRESS: "127.0.0.1:1"});
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": "n9", "annotations": own,
                "labels": {"node-role.kubernetes.io/control-plane": ""},
            }});
            let made = Transaction::create(Key::new("nodes", "", "n9"), object.to_string());
            registry.transact(made).await.unwrap();
            let begin = ["m1", "n9"].map(NodeName::from).to_vec();
            let (members, mut told) = watch::channel(begin);
            let keeper = AddressKeeper::start(me.clone(), registry, None, members);
            let only_m1 = told.wait_for(|told| *told == [NodeName::from("m1")]);
            timeout(Duration::from_mins(1), only_m1).await.expect("m1 alone").unwrap();
            drop(keeper);
            member.stop().await;
            for node in [m1, me] {
                node.stop(Duration::from_mins(1)).await;
            }
        });
    }
}
