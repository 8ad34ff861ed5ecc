//! Who may send what, by role and by name.

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
    let roles =
        [PeerRole::Node, PeerRole::Client, PeerRole::Admin, PeerRole::Guest { scope: "j1".into() }];
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
fn a_session_at_a_pod_is_opened_by_control_members_alone_and_its_input_taken_by_its_node() {
    let open = session::Session { with: session::With::Port(80), input: None };
    let guest = PeerRole::Guest { scope: "j1".into() };
    for role in [PeerRole::Node, PeerRole::Client, PeerRole::Admin, guest] {
        let peer = peer("n1", role);
        let pod = ActorName::from("pod/u");
        assert!(!sent(&peer, "pod/u", session::Session::NAME, &open), "{peer:?}");
        assert!(!may_name(&peer, &pod, session::Session::NAME, |_| true), "{peer:?}");
    }
    assert!(sent(&peer("m1", PeerRole::Control), "pod/u", session::Session::NAME, &open));
    let input = |node: &str| session::Input { node: node.into() };
    let node = peer("n1", PeerRole::Node);
    assert!(sent(&node, "entrance/1", session::Input::NAME, &input("n1")));
    assert!(!sent(&node, "entrance/1", session::Input::NAME, &input("n2")));
    let client = peer("n1", PeerRole::Client);
    assert!(!sent(&client, "entrance/1", session::Input::NAME, &input("n1")));
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
    let may =
        |to: &ActorName, message: &str, body: &dyn Any| may_guest(&guest, "j1", to, message, body);
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
    let beat = |node: &str| registry::Heartbeat { node: node.into(), incarnation: 1, ready: true };
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
    let report = |node: &str| usage::Report {
        node: node.into(),
        taken_ms: 0,
        window_ms: 0,
        amounts: usage::Amounts::default(),
        pods: Vec::new(),
    };
    assert!(may_node("n1", usage::Report::NAME, &report("n1")));
    assert!(!may_node("n1", usage::Report::NAME, &report("n2")));
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
