//! Who may send what to whom, by the certificate of the sender.
//!
//! | sender | may |
//! |---|---|
//! | control member | everything |
//! | node | read; write its own Node, its pods' status and events; renew itself; ask for its pods' guests |
//! | guest | message its own job, and the other guests of that job |
//! | client | read all but secrets and what is kept of tokens, and ask actors to describe themselves |
//! | admin | everything but the lane of raft |
//!
//! A refusal is typed, counted by the runtime, and leaves everything as it was.

use impresario_client::protocol::authority::{IssueGuest, JoinRole, KeepAccountToken, Renew};
use impresario_client::protocol::{control, node, pod, scheduler, training};
use impresario_registry::protocol as registry;
use impresario_registry::raft::messages::RAFT_ACTOR;
use impresario_registry::{Key, Operation, Transaction};
use impresario_runtime::{
    ActorName, Gate, Message, NodeName, PeerIdentity, PeerRole, Refusal, StreamMessage,
};
use serde_json::Value;
use std::any::Any;

/// The gate of a node.
#[derive(Debug, Clone, Copy)]
pub struct ClusterGate;

impl Gate for ClusterGate {
    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        let permitted = match &peer.role {
            PeerRole::Control => true,
            PeerRole::Admin => !is_of_members(to, message),
            PeerRole::Node => may_node(peer.node.as_str(), message, body),
            PeerRole::Guest { scope } => may_guest(&peer.node, scope, to, message, body),
            PeerRole::Client => may_client(message, body),
        };
        if permitted {
            return Ok(());
        }
        tracing::warn!(peer = %peer.node, role = ?peer.role, %to, message, "refused by role");
        Err(Refusal::new(format!(
            "{} ({}) may not send {message} to {to}: use a credential of a role that may",
            peer.node,
            role_name(&peer.role)
        )))
    }
}

/// A role in a word.
#[must_use]
pub fn role_name(role: &PeerRole) -> &'static str {
    match role {
        PeerRole::Control => "control member",
        PeerRole::Node => "node",
        PeerRole::Guest { .. } => "guest",
        PeerRole::Client => "client",
        PeerRole::Admin => "admin",
    }
}

/// What control members say to each other alone.
fn is_of_members(to: &ActorName, message: &str) -> bool {
    to.as_str() == RAFT_ACTOR
        || message.starts_with("registry.Lead")
        || [registry::Join::NAME, registry::Enrol::NAME, registry::Return::NAME].contains(&message)
}

/// What reads and changes nothing.
const READING: &[&str] =
    &[registry::Get::NAME, registry::List::NAME, registry::Follow::NAME, registry::Status::NAME];

fn may_client(message: &str, body: &dyn Any) -> bool {
    const DESCRIBING: &[&str] = &[
        node::Describe::NAME,
        pod::Describe::NAME,
        pod::Logs::NAME,
        scheduler::Status::NAME,
        scheduler::Explain::NAME,
        control::Describe::NAME,
    ];
    if DESCRIBING.contains(&message) || message == registry::Status::NAME {
        return true;
    }
    let get = body.downcast_ref().map(|registry::Get { key, .. }| &key.resource);
    let list = body.downcast_ref().map(|registry::List(list)| &list.select.resource);
    let watch = body.downcast_ref().map(|registry::Follow(watch)| &watch.select.resource);
    get.or(list).or(watch).is_some_and(|resource| !is_secret(resource))
}

/// What says who may do what: secrets, and the runtime's own records (tokens among them).
fn is_secret(resource: &str) -> bool {
    resource == "secrets" || resource.starts_with("impresario.dev/")
}

/// A guest is of one job: here it reaches that job's actor, speaks for itself alone, and orders nothing.
fn may_guest(node: &NodeName, scope: &str, to: &ActorName, message: &str, body: &dyn Any) -> bool {
    to.as_str() == training::job_actor(scope) && training::is_of_guest(node, message, body)
}

fn may_node(name: &str, message: &str, body: &dyn Any) -> bool {
    const WORKING: &[&str] = &[
        registry::Heartbeat::NAME,
        scheduler::SummaryChanged::NAME,
        pod::Logs::NAME,
        node::Describe::NAME,
        pod::Describe::NAME,
    ];
    if READING.contains(&message) || WORKING.contains(&message) {
        return match body.downcast_ref::<registry::Heartbeat>() {
            Some(beat) => beat.node == name,
            None => true,
        };
    }
    if let Some(registry::Transact(transaction)) = body.downcast_ref() {
        return may_write(name, transaction);
    }
    if let Some(renew) = body.downcast_ref::<Renew>() {
        // A node stays a node: its certificate must not become a control member's.
        return renew.name == name && renew.role == JoinRole::Node;
    }
    if let Some(guest) = body.downcast_ref::<IssueGuest>() {
        return guest.node == name;
    }
    if let Some(token) = body.downcast_ref::<KeepAccountToken>() {
        return token.node == name;
    }
    false
}

/// A node writes its own Node object, pods that say that they are on it, and events. It never
/// writes by right of a shard.
fn may_write(name: &str, transaction: &Transaction) -> bool {
    transaction.fence.is_none()
        && transaction.operations.iter().all(|operation| match operation {
            Operation::Put { key, value } => match key.resource.as_str() {
                "nodes" => key.name == name,
                "events" => true,
                "pods" => {
                    let pod: Value = serde_json::from_slice(value).unwrap_or_default();
                    pod["spec"]["nodeName"] == name
                }
                _ => is_lease(key, name),
            },
            Operation::Delete { key } => key.resource == "pods",
        })
}

fn is_lease(key: &Key, name: &str) -> bool {
    key.resource == "coordination.k8s.io/leases"
        && key.namespace == "kube-node-lease"
        && key.name == name
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use impresario_registry::{Consistency, Epoch, Fence, Selection, Shard, WatchRequest};
    use serde_json::json;

    fn put(resource: &str, name: &str, value: &Value) -> Transaction {
        let key = Key::new(resource, "", name);
        let value = Bytes::from(value.to_string());
        let operations = vec![Operation::Put { key, value }];
        Transaction { operations, ..Transaction::default() }
    }

    #[test]
    fn a_node_writes_itself_and_its_pods_and_nothing_else() {
        let mine = json!({"spec": {"nodeName": "n1"}});
        let foreign = json!({"spec": {"nodeName": "n2"}});
        assert!(may_write("n1", &put("nodes", "n1", &json!({}))));
        assert!(!may_write("n1", &put("nodes", "n2", &json!({}))));
        assert!(may_write("n1", &put("pods", "a", &mine)));
        assert!(!may_write("n1", &put("pods", "a", &foreign)));
        assert!(!may_write("n1", &put("configmaps", "a", &mine)));
        let mut fenced = put("pods", "a", &mine);
        fenced.fence = Some(Fence { shard: Shard(1), epoch: Epoch(1) });
        assert!(!may_write("n1", &fenced));
    }

    #[test]
    fn a_client_reads_and_a_guest_speaks_to_its_own_job_only() {
        let get = |resource: &str| registry::Get {
            key: Key::new(resource, "default", "a"),
            consistency: Consistency::Local,
        };
        assert!(may_client(registry::Get::NAME, &get("pods")));
        assert!(!may_client(registry::Get::NAME, &get("secrets")));
        assert!(!may_client(registry::Get::NAME, &get("impresario.dev/jointokens")));
        let watch = registry::Follow(WatchRequest {
            select: Selection::all("secrets"),
            after: 0,
            bookmarks: false,
        });
        assert!(!may_client(registry::Follow::NAME, &watch));
        assert!(!may_client(registry::Transact::NAME, &registry::Transact(Transaction::default())));
        assert!(may_client(node::Describe::NAME, &node::Describe));
        assert!(!may_client(node::Drain::NAME, &node::Drain { draining: true }));
        let job = |uid: &str| ActorName::from(format!("trainingjob/{uid}").as_str());
        let guest = training::guest_node("p1");
        let asked = |pod: &str| training::CurrentMap { activation: 1, pod_uid: pod.into() };
        let may = |to: &ActorName, message: &str, body: &dyn Any| {
            may_guest(&guest, "j1", to, message, body)
        };
        let map = training::CurrentMap::NAME;
        assert!(may(&job("j1"), map, &asked("p1")));
        assert!(!may(&job("j2"), map, &asked("p1")), "a job of others");
        assert!(!may(&job("j1"), map, &asked("p2")), "in the name of another pod");
        assert!(!may(&ActorName::from("registry"), registry::Get::NAME, &get("pods")));
        assert!(!may(&ActorName::from("trainer/p2"), map, &asked("p1")));
        let size = training::Size { parameter_servers: 9, trainers: 9 };
        let reason = String::new();
        let scale = training::Scale { round: 9, scheduler: 9, lease: 9, size, reason };
        assert!(!may(&job("j1"), training::Scale::NAME, &scale), "sizes are the scheduler's");
        assert!(!may(&job("j1"), training::RequestBid::NAME, &training::RequestBid { round: 1 }));
    }

    #[test]
    fn a_node_beats_and_renews_for_itself_only() {
        let beat =
            |node: &str| registry::Heartbeat { node: node.into(), incarnation: 1, ready: true };
        assert!(may_node("n1", registry::Heartbeat::NAME, &beat("n1")));
        assert!(!may_node("n1", registry::Heartbeat::NAME, &beat("n2")));
    }
}
