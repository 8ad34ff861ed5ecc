//! Who may send what to whom, by the certificate of the sender.
//!
//! | sender | may |
//! |---|---|
//! | control member | everything, while the group counts it among its members; else to ask to be let in |
//! | node | ask the objects of a member, under the rules for nodes; tell that it lives; renew itself; ask for its pods' guests and tokens; tell their owners what it wrote of them |
//! | guest | message its own job, and the other guests of that job |
//! | client | ask the objects, under the rules for readers, ask actors to describe themselves, and ask them to change their objects, under the same rules |
//! | admin | everything but what control members say to each other |
//!
//! The registry itself is for control members alone. What reaches the objects of a member says who sends
//! it: that must be the holder of the certificate; what they may do there is decided by the objects' own
//! rules. A refusal is typed, counted, logged once by the runtime, and leaves everything as it was.

use impresario_client::protocol::authority::{
    CreateToken, IssueGuest, JoinRole, KeepAccountToken, Renew, RevokeToken,
};
use impresario_client::protocol::{control, node, pod, scheduler, training};
use impresario_objects::protocol as objects;
use impresario_objects::{Membership, Refusals};
use impresario_registry::protocol as registry;
use impresario_registry::raft::messages::RAFT_ACTOR;
use impresario_runtime::{
    ActorName, Gate, Message, NodeName, PeerIdentity, PeerRole, Refusal, StreamMessage,
};
use parking_lot::RwLock;
use std::any::Any;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The name in the certificate of the harness, which a cluster started with `--chaos` counts among its members.
pub const HARNESS: &str = "chaos";

/// The gate of a node.
#[derive(Clone, Default)]
pub struct ClusterGate {
    /// Where refusals are counted.
    pub refusals: Arc<Refusals>,
    /// On a control member: who is one, by the membership of the registry. Until it is known, and on other nodes, the
    /// role in the certificate says it.
    pub membership: Arc<OnceLock<Membership>>,
    /// The fingerprints of certificates that are trusted no more, as [`PeerIdentity`] has them.
    pub revoked: Arc<RwLock<HashSet<String>>>,
    /// On a control member that starts: no leader has told it yet who is revoked.
    pub is_unread: Arc<AtomicBool>,
}

impl ClusterGate {
    /// Whether a control member's certificate is that of a member.
    fn is_member(&self, name: &str) -> bool {
        self.membership.get().is_none_or(|is_member| is_member(name))
    }
}

impl Gate for ClusterGate {
    fn admit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
    ) -> Result<(), Refusal> {
        let may = may_name(peer, to, message, |name| self.is_member(name));
        self.judge(peer, to, message, may)
    }

    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        let may = may_send(peer, to, message, body, |name| self.is_member(name));
        self.judge(peer, to, message, may)
    }
}

impl ClusterGate {
    /// Counts and words a refusal.
    fn judge(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        may: bool,
    ) -> Result<(), Refusal> {
        let revoked = self.revoked.read().contains(&peer.fingerprint);
        if revoked {
            let role = role_name(&peer.role);
            self.refusals.count(role, "revoked");
            return Err(Refusal::new(format!(
                "the certificate of {} ({role}) was revoked: ask the cluster's operator",
                peer.node
            )));
        }
        if may && outlives_revocation(&peer.role, message) && self.is_unread.load(Ordering::Relaxed)
        {
            self.refusals.count(role_name(&peer.role), "early");
            return Err(Refusal::new(
                "this member is starting and has not read yet which certificates are revoked: try again in a moment",
            ));
        }
        if may {
            return Ok(());
        }
        let role = role_name(&peer.role);
        self.refusals.count(role, message);
        Err(Refusal::new(format!(
            "{} ({role}) may not send {message} to {to}: use a credential of a role that may",
            peer.node
        )))
    }
}

/// What a certificate that is revoked meanwhile must not get: it would outlast it. All of this waits for a leader, so that
/// who asks for it before one has told who is revoked would have it after.
fn outlives_revocation(role: &PeerRole, message: &str) -> bool {
    const OF_ADMINS: [&str; 3] = [registry::Remove::NAME, CreateToken::NAME, RevokeToken::NAME];
    message == Renew::NAME || (*role == PeerRole::Admin && OF_ADMINS.contains(&message))
}

/// What is said by a control member that the group does not count among its own, not yet or not any more: it may ask
/// to be let in, and how things stand. The registry's own guard looks at the names.
const OF_APPLICANTS: [&str; 5] = [
    registry::Status::NAME,
    registry::Group::NAME,
    registry::Join::NAME,
    registry::Enrol::NAME,
    registry::Return::NAME,
];

/// Whether a message of this name may come at all, whatever it says: nothing of it has been read yet.
fn may_name(
    peer: &PeerIdentity,
    to: &ActorName,
    message: &str,
    is_member: impl Fn(&str) -> bool,
) -> bool {
    match &peer.role {
        PeerRole::Control => may_control(peer, to, message, is_member),
        PeerRole::Admin => !is_of_members(to, message),
        PeerRole::Node => {
            WORKING.contains(&message) || OBJECTS.contains(&message) || OF_ITSELF.contains(&message)
        }
        PeerRole::Guest { scope } => {
            to.as_str() == training::job_actor(scope) && training::is_from_guests(message)
        }
        PeerRole::Client => may_client(message),
    }
}

/// A member that lags may not have heard of the one that leads: raft judges by who may vote.
fn may_control(
    peer: &PeerIdentity,
    to: &ActorName,
    message: &str,
    is_member: impl Fn(&str) -> bool,
) -> bool {
    is_member(peer.node.as_str()) || to.as_str() == RAFT_ACTOR || OF_APPLICANTS.contains(&message)
}

fn may_send(
    peer: &PeerIdentity,
    to: &ActorName,
    message: &'static str,
    body: &dyn Any,
    is_member: impl Fn(&str) -> bool,
) -> bool {
    // Nobody speaks for another, whatever their role.
    if let Some(sender) = objects::sender(body).or_else(|| control::sender(body))
        && !sender.is(peer)
    {
        return false;
    }
    match &peer.role {
        PeerRole::Control => may_control(peer, to, message, is_member),
        PeerRole::Admin => !is_of_members(to, message),
        PeerRole::Node => may_node(peer.node.as_str(), message, body),
        PeerRole::Guest { scope } => may_guest(&peer.node, scope, to, message, body),
        PeerRole::Client => may_client(message),
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

/// What is said to the registry by others than its members: how it stands, that a node lives, and that an
/// operator takes a member out.
const OF_OTHERS: [&str; 3] =
    [registry::Status::NAME, registry::Heartbeat::NAME, registry::Remove::NAME];

/// What control members say to each other alone.
fn is_of_members(to: &ActorName, message: &str) -> bool {
    to.as_str() == RAFT_ACTOR || (message.starts_with("registry.") && !OF_OTHERS.contains(&message))
}

/// What asks the objects of a member; their own rules decide about it.
const OBJECTS: [&str; 8] = [
    objects::Get::NAME,
    objects::List::NAME,
    objects::Follow::NAME,
    objects::Settle::NAME,
    objects::Create::NAME,
    objects::Change::NAME,
    objects::Delete::NAME,
    objects::Bind::NAME,
];

/// What changes an object through its actor; the same rules decide about it.
const THROUGH_ACTORS: [&str; 2] = [control::Scale::NAME, control::Suspend::NAME];

fn may_client(message: &str) -> bool {
    const DESCRIBING: &[&str] = &[
        node::Describe::NAME,
        pod::Describe::NAME,
        pod::Logs::NAME,
        scheduler::Status::NAME,
        scheduler::Explain::NAME,
        control::Describe::NAME,
        training::Describe::NAME,
        registry::Status::NAME,
    ];
    DESCRIBING.contains(&message) || OBJECTS.contains(&message) || THROUGH_ACTORS.contains(&message)
}

/// A guest is of one job: here it reaches that job's actor, speaks for itself alone, and orders nothing.
fn may_guest(node: &NodeName, scope: &str, to: &ActorName, message: &str, body: &dyn Any) -> bool {
    to.as_str() == training::job_actor(scope) && training::is_of_guest(node, message, body)
}

/// What a node may send to anybody.
const WORKING: [&str; 4] =
    [registry::Status::NAME, pod::Logs::NAME, node::Describe::NAME, pod::Describe::NAME];

/// What it may say of itself alone.
const OF_ITSELF: [&str; 6] = [
    control::Told::NAME,
    registry::Heartbeat::NAME,
    scheduler::SummaryChanged::NAME,
    Renew::NAME,
    IssueGuest::NAME,
    KeepAccountToken::NAME,
];

fn may_node(name: &str, message: &str, body: &dyn Any) -> bool {
    if WORKING.contains(&message) || OBJECTS.contains(&message) {
        return true;
    }
    if let Some(beat) = body.downcast_ref::<registry::Heartbeat>() {
        return beat.node == name;
    }
    if let Some(told) = body.downcast_ref::<scheduler::SummaryChanged>() {
        return told.summary.node == name;
    }
    if let Some(told) = body.downcast_ref::<control::Told>() {
        // That the pod is there is for the receiver to see.
        return told.node == name && told.key.resource == "pods";
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

#[cfg(test)]
mod attacks;

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_client::protocol::resources::Resources;
    use impresario_objects::protocol::Sender;
    use impresario_registry::{Consistency, Key, ListRequest, Transaction, WatchRequest};

    fn peer(name: &str, role: PeerRole) -> PeerIdentity {
        PeerIdentity {
            node: NodeName::from(name),
            role,
            cluster: "test".into(),
            fingerprint: "ab".into(),
        }
    }

    fn sent<M: Any>(from: &PeerIdentity, to: &str, message: &'static str, body: &M) -> bool {
        may_send(from, &ActorName::from(to), message, body, |name| name != "removed")
    }

    #[test]
    fn the_registry_is_for_control_members_alone() {
        let roles = [
            PeerRole::Node,
            PeerRole::Client,
            PeerRole::Admin,
            PeerRole::Guest { scope: "j1".into() },
        ];
        let key = Key::new("pods", "default", "a");
        let get = registry::Get { key, consistency: Consistency::Local };
        let list = registry::List(ListRequest::default());
        let write = registry::Transact(Transaction::default());
        let lead = registry::LeadTransact(Transaction::default());
        let follow = registry::Follow(WatchRequest::default());
        for role in roles {
            let peer = peer("n1", role);
            assert!(!sent(&peer, "registry", registry::Get::NAME, &get), "{peer:?}");
            assert!(!sent(&peer, "registry", registry::List::NAME, &list), "{peer:?}");
            assert!(!sent(&peer, "registry", registry::Transact::NAME, &write), "{peer:?}");
            assert!(!sent(&peer, "registry", registry::LeadTransact::NAME, &lead), "{peer:?}");
            assert!(!sent(&peer, "registry", registry::Follow::NAME, &follow), "{peer:?}");
            assert!(!sent(&peer, RAFT_ACTOR, "raft.Vote", &()), "{peer:?}");
        }
        let member = peer("n1", PeerRole::Control);
        assert!(sent(&member, "registry", registry::Transact::NAME, &write));
        // Its certificate is good for a while; the group knows it no more.
        let removed = peer("removed", PeerRole::Control);
        assert!(!sent(&removed, "registry", registry::Transact::NAME, &write));
        assert!(!sent(&removed, "registry", registry::Get::NAME, &get));
        assert!(!sent(&removed, "node", node::Drain::NAME, &()));
        assert!(sent(&removed, "registry", registry::Status::NAME, &registry::Status));
        let join = registry::Join { disk: 7, node: "removed".into() };
        assert!(sent(&removed, "registry", registry::Join::NAME, &join));
    }

    #[test]
    fn what_a_role_may_never_send_is_refused_by_its_name() {
        let guest = PeerRole::Guest { scope: "j1".into() };
        let raft = ["raft.Append", "raft.Vote", registry::Transact::NAME];
        for role in [PeerRole::Node, PeerRole::Client, PeerRole::Admin, guest.clone()] {
            let peer = peer("n1", role);
            for message in raft {
                assert!(
                    !may_name(&peer, &ActorName::from(RAFT_ACTOR), message, |_| true),
                    "{peer:?} {message}"
                );
            }
        }
        // A new member has heard of no other yet: the first of them sends it the log.
        let leader = peer("m1", PeerRole::Control);
        assert!(may_name(&leader, &ActorName::from(RAFT_ACTOR), "raft.Append", |_| false));
        assert!(!may_name(&leader, &ActorName::from("objects"), objects::Get::NAME, |_| false));
        let node = peer("n1", PeerRole::Node);
        for message in WORKING.iter().chain(&OBJECTS).chain(&OF_ITSELF) {
            assert!(may_name(&node, &ActorName::from("objects"), message, |_| true), "{message}");
        }
        let job = ActorName::from(training::job_actor("j1").as_str());
        let guest = peer("g", guest);
        assert!(may_name(&guest, &job, training::NextWork::NAME, |_| true));
        assert!(!may_name(&guest, &job, training::Scale::NAME, |_| true));
        assert!(!may_name(
            &guest,
            &ActorName::from("trainingjob/j2"),
            training::NextWork::NAME,
            |_| true
        ));
        assert!(!may_name(&guest, &ActorName::from("objects"), objects::Get::NAME, |_| true));
    }

    #[test]
    fn nobody_speaks_for_another() {
        let get = |name: &str, role: PeerRole| objects::Get {
            sender: Sender { name: name.into(), role },
            key: Key::new("pods", "default", "a"),
            consistency: Consistency::Local,
        };
        let node = peer("n1", PeerRole::Node);
        let ask = |get: &objects::Get| sent(&node, "objects", objects::Get::NAME, get);
        assert!(ask(&get("n1", PeerRole::Node)));
        assert!(!ask(&get("n2", PeerRole::Node)));
        assert!(!ask(&get("n1", PeerRole::Control)));
        assert!(!ask(&get("n1", PeerRole::Admin)));
        let scale = |name: &str, role: PeerRole| control::Scale {
            sender: Sender { name: name.into(), role },
            replicas: 9,
        };
        let program = peer("p", PeerRole::Client);
        let ask = |scale: &control::Scale| sent(&program, "job/u", control::Scale::NAME, scale);
        assert!(ask(&scale("p", PeerRole::Client)), "the rules of objects decide");
        assert!(!ask(&scale("q", PeerRole::Client)));
        assert!(!ask(&scale("p", PeerRole::Admin)), "no role that it has not");
        let guest = peer("g", PeerRole::Guest { scope: "j1".into() });
        let as_guest = scale("g", PeerRole::Guest { scope: "j1".into() });
        assert!(!sent(&guest, "trainingjob/j1", control::Scale::NAME, &as_guest));
        let own = get("g", PeerRole::Guest { scope: "j1".into() });
        assert!(!sent(&guest, "objects", objects::Get::NAME, &own));
    }

    #[test]
    fn a_client_describes_and_a_guest_speaks_to_its_own_job_only() {
        assert!(may_client(node::Describe::NAME));
        assert!(!may_client(node::Drain::NAME));
        assert!(!may_client(registry::Remove::NAME));
        let job = |uid: &str| ActorName::from(format!("trainingjob/{uid}").as_str());
        let guest = training::guest_node("p1");
        let asked = |pod: &str| training::CurrentMap { activation: 1, pod_uid: pod.into() };
        let may = |to: &ActorName, message: &str, body: &dyn Any| {
            may_guest(&guest, "j1", to, message, body)
        };
        let map = training::CurrentMap::NAME;
        let key = Key::new("pods", "default", "a");
        let get = registry::Get { key, consistency: Consistency::Local };
        assert!(may(&job("j1"), map, &asked("p1")));
        assert!(!may(&job("j2"), map, &asked("p1")), "a job of others");
        assert!(!may(&job("j1"), map, &asked("p2")), "in the name of another pod");
        assert!(!may(&ActorName::from("registry"), registry::Get::NAME, &get));
        assert!(!may(&ActorName::from("trainer/p2"), map, &asked("p1")));
        let size = training::Size { parameter_servers: 9, trainers: 9 };
        let reason = String::new();
        let scale = training::Scale { round: 9, scheduler: 9, lease: 9, size, reason };
        assert!(!may(&job("j1"), training::Scale::NAME, &scale), "sizes are the scheduler's");
        assert!(!may(&job("j1"), training::RequestBid::NAME, &training::RequestBid { round: 1 }));
    }

    #[test]
    fn a_node_speaks_for_itself_only() {
        let beat =
            |node: &str| registry::Heartbeat { node: node.into(), incarnation: 1, ready: true };
        assert!(may_node("n1", registry::Heartbeat::NAME, &beat("n1")));
        assert!(!may_node("n1", registry::Heartbeat::NAME, &beat("n2")));
        let told = |node: &str| scheduler::SummaryChanged {
            summary: scheduler::NodeSummary {
                node: node.into(),
                incarnation: u64::MAX,
                serial: u64::MAX,
                allocatable: Resources::default(),
                free: Resources::default(),
                pods: 0,
                reserved: 0,
                draining: true,
            },
        };
        assert!(may_node("n1", scheduler::SummaryChanged::NAME, &told("n1")));
        assert!(!may_node("n1", scheduler::SummaryChanged::NAME, &told("n2")));
        let told = |node: &str, resource: &str| control::Told {
            node: node.into(),
            key: Key::new(resource, "default", "a"),
            uid: "u".into(),
            revision: u64::MAX,
        };
        assert!(may_node("n1", control::Told::NAME, &told("n1", "pods")));
        assert!(!may_node("n1", control::Told::NAME, &told("n2", "pods")));
        assert!(!may_node("n1", control::Told::NAME, &told("n1", "apps/replicasets")));
        for role in [PeerRole::Client, PeerRole::Guest { scope: "j1".into() }] {
            let (peer, told) = (peer("n1", role), told("n1", "pods"));
            assert!(!sent(&peer, "job/u", control::Told::NAME, &told), "{peer:?}");
        }
    }

    #[test]
    fn a_revoked_certificate_is_worth_nothing_whatever_its_role() {
        let gate = ClusterGate::default();
        let state = |peer: &PeerIdentity| {
            let to = ActorName::from("registry");
            gate.permit(peer, &to, registry::Status::NAME, &registry::Status).is_ok()
        };
        let roles = [PeerRole::Control, PeerRole::Node, PeerRole::Client, PeerRole::Admin];
        assert!(roles.iter().all(|role| state(&peer("n1", role.clone()))));
        *gate.revoked.write() = HashSet::from(["ab".to_owned()]);
        assert!(!roles.iter().any(|role| state(&peer("n1", role.clone()))));
        let other = PeerIdentity { fingerprint: "cd".into(), ..peer("n1", PeerRole::Node) };
        assert!(state(&other));
    }

    #[test]
    fn what_would_outlast_a_revocation_waits_until_it_is_read_who_is_revoked() {
        let gate = ClusterGate::default();
        let may = |role: PeerRole, to: &str, message: &'static str| {
            gate.admit(&peer("n1", role), &ActorName::from(to), message).is_ok()
        };
        let all = || {
            [
                may(PeerRole::Admin, "registry", registry::Remove::NAME),
                may(PeerRole::Admin, "authority", CreateToken::NAME),
                may(PeerRole::Node, "authority", Renew::NAME),
                may(PeerRole::Control, "authority", Renew::NAME),
            ]
        };
        gate.is_unread.store(true, Ordering::Relaxed);
        assert_eq!(all(), [false; 4]);
        assert!(may(PeerRole::Admin, "registry", registry::Status::NAME));
        assert!(may(PeerRole::Control, "registry", registry::Transact::NAME));
        gate.is_unread.store(false, Ordering::Relaxed);
        assert_eq!(all(), [true; 4]);
    }

    #[test]
    fn every_refusal_is_counted() {
        let gate = ClusterGate::default();
        let peer = peer("n1", PeerRole::Node);
        let refused = gate.permit(
            &peer,
            &ActorName::from("registry"),
            registry::Transact::NAME,
            &registry::Transact(Transaction::default()),
        );
        assert!(refused.unwrap_err().reason.contains("may not send registry.Transact"));
        let counted = gate.refusals.read();
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].role.as_str(), counted[0].count), ("node", 1));
    }
}
