//! Keeps a node's address book as the Node objects say, and its list of control members as the registry
//! says: who is one is a matter of the membership, never of what an object says of itself.
//!
//! A node that advertises a loopback address lives on the machine of the member through which we
//! joined: from another machine it is reached at that machine's address.

use futures_util::future::join_all;
use impresario_actors::controllers::mirror::{Change, Mirror, Seen};
use impresario_client::{QUIC_ADDRESS, reachable};
use impresario_registry::protocol::Status;
use impresario_registry::{REGISTRY_ACTOR, RegistryHandle, RegistryRole};
use impresario_runtime::{ActorNode, ActorPath, NodeName, random, tasks};
use k8s_openapi::api::core::v1::Node;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// How long one member has to say who the members are.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long a change of the membership may go unnoticed that no Node object told of.
pub const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// So many changes at most are one piece of news.
const AT_ONCE: usize = 1000;

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
        let task = tasks::spawn(async move {
            let mut changes = mirror.changes();
            let mut kept = Kept::default();
            loop {
                let known = members.borrow().clone();
                kept.keep(&node, &mirror.all(), machine, &known);
                ask_members(&node, &members).await;
                // A change that was missed is found a while later.
                let again = Instant::now() + LOOK_AGAIN.mul_f64(random::random_range(0.5..1.0));
                while let Ok(change) = timeout_at(again, changes.next()).await {
                    let Some(change) = change else { return };
                    let known = members.borrow().clone();
                    let mut is_news = kept.learn(&node, change, machine, &known);
                    // Those that come up together are one piece of news.
                    for _ in 0..AT_ONCE {
                        let Some(known_so_far) = is_news else { break };
                        let Some(change) = changes.try_next() else { break };
                        let more = kept.learn(&node, change, machine, &known);
                        is_news = more.map(|more| more || known_so_far);
                    }
                    match is_news {
                        // Who joins writes its Node object.
                        Some(true) => ask_members(&node, &members).await,
                        Some(false) => {}
                        None => break,
                    }
                }
            }
        });
        Self { task }
    }
}

/// What the book was told of the Node objects.
#[derive(Default)]
struct Kept {
    /// Nodes that have an object, or had one at the last look, with what it says of their addresses.
    seen: HashMap<NodeName, Option<String>>,
}

fn name_of(seen: &Seen<Node>) -> NodeName {
    NodeName::from(seen.entry.key.name.as_str())
}

impl Kept {
    /// Goes by what all nodes say now.
    fn keep(
        &mut self,
        me: &ActorNode,
        nodes: &[Seen<Node>],
        machine: Option<IpAddr>,
        members: &[NodeName],
    ) {
        let present: HashSet<NodeName> = nodes.iter().map(name_of).collect();
        let gone: Vec<_> =
            self.seen.keys().filter(|name| !present.contains(*name)).cloned().collect();
        for name in gone {
            self.forget(me, &name, members);
        }
        // Whatever else was written into the book in between.
        self.seen.clear();
        for seen in nodes {
            self.put(me, seen, machine);
        }
    }

    /// Goes by a change, of one node: heartbeats are changes, and there may be thousands of nodes. Says whether it tells
    /// of another node or another address; nothing where all have to be looked at.
    fn learn(
        &mut self,
        me: &ActorNode,
        change: Change<Node>,
        machine: Option<IpAddr>,
        members: &[NodeName],
    ) -> Option<bool> {
        match change {
            Change::Everything => None,
            Change::Put { now, .. } => Some(self.put(me, &now, machine)),
            Change::Deleted { before } => {
                self.forget(me, &name_of(&before), members);
                Some(true)
            }
        }
    }

    fn forget(&mut self, me: &ActorNode, gone: &NodeName, members: &[NodeName]) {
        self.seen.remove(gone);
        // Members are dialled whether they have an object or not.
        if !members.contains(gone) {
            me.addresses().remove(gone);
        }
    }

    fn put(&mut self, me: &ActorNode, seen: &Seen<Node>, machine: Option<IpAddr>) -> bool {
        let name = name_of(seen);
        let annotations = seen.object.metadata.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(QUIC_ADDRESS));
        if self.seen.get(&name).is_some_and(|known| known.as_ref() == text) {
            return false;
        }
        match text.map(|text| text.parse()) {
            Some(Ok(address)) if name != *me.name() => {
                me.addresses().set(name.clone(), reachable(address, machine));
            }
            Some(Err(_)) => tracing::warn!(
                node = %name, address = ?text,
                "the annotation {QUIC_ADDRESS} of a node is no address with a port: it is not dialled"
            ),
            _ => {}
        }
        self.seen.insert(name, text.cloned());
        true
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
    use tokio::time::timeout;

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
            // One at a time.
            let mut changes = mirror.changes();
            let mut learn = async || {
                let change = changes.next().await.unwrap();
                kept.learn(&node, change, None, &members)
            };
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": "c", "annotations": {QUIC_ADDRESS: "127.0.0.1:3"}}});
            let mut beat = object.clone();
            beat["metadata"]["labels"] = json!({"a": "b"});
            let mut moved = object.clone();
            moved["metadata"]["annotations"][QUIC_ADDRESS] = json!("127.0.0.1:4");
            for (now, is_news) in [(object, true), (beat, false), (moved, true)] {
                let put = Transaction::new().put(key("c"), now.to_string());
                registry.transact(put).await.unwrap();
                assert_eq!(learn().await, Some(is_news), "{now}");
            }
            let address = node.addresses().get(&NodeName::from("c"));
            assert_eq!(address, Some("127.0.0.1:4".parse().unwrap()));
            registry.transact(Transaction::new().delete(key("c"))).await.unwrap();
            assert_eq!(learn().await, Some(true));
            assert!(!knows("c"));
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
