//! Who is let in, and who may say what.

use crate::cast::*;
use impresario_runtime::{
    ActorName, ActorNode, AskError, Cause, ClusterAuthority, Gate, NodeConfig, PeerIdentity,
    PeerRole, Refusal, SpawnOptions, WatchError,
    pki::{ALPN_JOIN, ALPN_NODE},
};
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use std::{any::Any, sync::Arc, time::Duration};

/// Lets nobody but nodes note anything, and remembers who asked.
#[derive(Default)]
struct NodesOnly(Mutex<Vec<(String, PeerRole, &'static str)>>);

impl Gate for NodesOnly {
    fn admit(&self, _: &PeerIdentity, _: &ActorName, _: &'static str) -> Result<(), Refusal> {
        Ok(())
    }

    fn permit(
        &self,
        peer: &PeerIdentity,
        _: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        self.0.lock().push((peer.node.to_string(), peer.role.clone(), message));
        let forbidden = body.downcast_ref::<Note>().is_some_and(|note| note.0 > 9);
        if peer.role == PeerRole::Node && !forbidden {
            return Ok(());
        }
        Err(Refusal::new(format!("{} may not", peer.node)))
    }
}

#[test]
fn the_gate_sees_the_certificates_identity_and_the_decoded_message() {
    on_threads(async {
        let cluster = Cluster::new();
        let gate = Arc::new(NodesOnly::default());
        let b = ActorNode::start(NodeConfig { gate: gate.clone(), ..cluster.config("b") })
            .await
            .unwrap();
        let player = play(&b, "player", SpawnOptions::default());
        let a = cluster.node("a").await;
        let guest = PeerRole::Guest { scope: "default/digits".into() };
        let guest_node =
            ActorNode::start(cluster.config_as("trainer-0", guest.clone())).await.unwrap();
        introduce(&[&a, &b, &guest_node]);

        let (from_node, from_guest) = (
            a.actor::<PlayerRole>(player.path().clone()),
            guest_node.actor::<PlayerRole>(player.path().clone()),
        );
        from_node.ask(Note(1), LIMIT).await.unwrap();
        assert_eq!(
            from_node.ask(Note(10), LIMIT).await,
            Err(AskError::Refused { reason: "a may not".into() })
        );
        let refused = AskError::Refused { reason: "trainer-0 may not".into() };
        assert_eq!(from_guest.ask(Note(2), LIMIT).await, Err(refused.clone()));
        assert_eq!(from_guest.ask(Large(vec![1]), LIMIT).await, Err(refused.clone()));
        assert_eq!(from_guest.open(Break, LIMIT).await.unwrap_err(), refused);
        from_guest.tell(Note(3)).unwrap();
        from_guest.ask(Urgent, LIMIT).await.unwrap_err();
        assert!(gate.0.lock().contains(&("trainer-0".into(), guest, "test.Large")));
        let refused = |role, message| {
            let counts = b.refusals().into_iter();
            let mut kinds = counts
                .filter(|one| (one.role, one.cause, one.message) == (role, Cause::Gate, message));
            kinds.next().map_or(0, |one| one.count)
        };
        // The tell has a lane of its own, which the ask may overtake.
        until("the tell is counted", || refused("guest", "test.Note") == 2).await;
        assert_eq!(
            player.ask(Notes, LIMIT).await,
            Ok(vec![1]),
            "nothing that was refused was delivered"
        );
        assert_eq!((refused("node", "test.Note"), refused("guest", "test.Note")), (1, 2));
        assert_eq!((refused("guest", "test.Large"), refused("guest", "test.Break")), (1, 1));
    });
}

#[test]
fn a_node_of_another_authority_gets_nothing_through_in_either_direction() {
    on_threads(async {
        let (ours, theirs) = (Cluster::new(), Cluster::new());
        let (a, stranger) = (ours.node("a").await, theirs.node("b").await);
        let (near, far) = (
            play(&a, "player", SpawnOptions::default()),
            play(&stranger, "player", SpawnOptions::default()),
        );
        introduce(&[&a, &stranger]);
        for (from, to) in [(&a, &far), (&stranger, &near)] {
            let error =
                from.actor::<PlayerRole>(to.path().clone()).ask(Note(1), LIMIT).await.unwrap_err();
            assert!(matches!(error, AskError::Unreachable { .. }), "{error}");
            assert_eq!(to.ask(Notes, LIMIT).await, Ok(vec![]));
        }
    });
}

#[test]
fn a_node_that_answers_under_another_name_is_not_talked_to() {
    on_threads(async {
        let cluster = Cluster::new();
        let (a, b, _) = cluster.pair().await;
        a.addresses().set("c".into(), b.local_addr());
        let error = a
            .actor::<PlayerRole>(impresario_runtime::ActorPath::new("c", "player"))
            .ask(Note(1), LIMIT)
            .await;
        assert!(
            matches!(&error, Err(AskError::Unreachable { detail, .. }) if detail.contains("that of b")),
            "{error:?}"
        );
    });
}

/// Knocks without a certificate, knowing the authority.
async fn knock(to: &ActorNode, authority: &ClusterAuthority) -> Result<(), String> {
    let (connection, _endpoint) = connect(to, authority, ALPN_NODE).await?;
    Err(connection.closed().await.to_string())
}

/// A connection without a certificate, if it comes to one.
async fn connect(
    to: &ActorNode,
    authority: &ClusterAuthority,
    protocol: &[u8],
) -> Result<(quinn::Connection, quinn::Endpoint), String> {
    connect_from("127.0.0.1:0", to, authority, protocol).await
}

/// The same from another address.
async fn connect_from(
    from: &str,
    to: &ActorNode,
    authority: &ClusterAuthority,
    protocol: &[u8],
) -> Result<(quinn::Connection, quinn::Endpoint), String> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.certificate_pem();
    let der =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
            pem.as_bytes(),
        );
    roots.add(der.unwrap()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client(from.parse().unwrap()).unwrap();
    let connection = endpoint
        .connect_with(config, to.local_addr(), "node.impresario.internal")
        .unwrap()
        .await
        .map_err(|error| error.to_string())?;
    Ok((connection, endpoint))
}

#[test]
fn strangers_who_only_hold_connections_leave_room_for_the_nodes_that_are_known() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config =
            NodeConfig { join: Some(Arc::new(crate::joining::NoOne)), ..cluster.config("b") };
        config.limits.handshakes = 8;
        // They would be let go after this time.
        config.timing.dial = LIMIT;
        let b = ActorNode::start(config).await.unwrap();
        let player = play(&b, "player", SpawnOptions::default());
        let mut held = Vec::new();
        let refused = loop {
            // From the second on an address must be shown to be one, which the client does by itself.
            match soon("an answer", connect(&b, &cluster.authority, ALPN_JOIN)).await {
                Ok(connection) => held.push(connection),
                Err(refused) => break refused,
            }
            assert!(held.len() <= 8, "any number of strangers is let in");
        };
        assert_eq!(held.len(), 4, "{refused}");
        // The stranger may hear of it before it is counted.
        until("the refusal is counted", || {
            b.refusals().iter().any(|one| one.cause == Cause::Handshakes)
        })
        .await;
        let a = cluster.node("a").await;
        introduce(&[&a, &b]);
        a.actor::<PlayerRole>(player.path().clone()).ask(Urgent, LIMIT).await.unwrap();
    });
}

#[test]
fn one_address_leaves_room_for_strangers_of_others_and_a_join_that_says_nothing_ends() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config =
            NodeConfig { join: Some(Arc::new(crate::joining::NoOne)), ..cluster.config("b") };
        config.limits.handshakes = 64;
        config.timing.dial = LIMIT;
        let b = ActorNode::start(config).await.unwrap();
        let mut held = Vec::new();
        while let Ok(connection) =
            soon("an answer", connect(&b, &cluster.authority, ALPN_JOIN)).await
        {
            held.push(connection);
            assert!(held.len() < 32, "one address takes all the room");
        }
        let other = connect_from("127.0.0.2:0", &b, &cluster.authority, ALPN_JOIN).await;
        assert!(other.is_ok(), "{:?}", other.err());

        // The time of a handshake is all that it may be silent.
        let config =
            NodeConfig { join: Some(Arc::new(crate::joining::NoOne)), ..cluster.config("c") };
        let config = NodeConfig { timing: fast(), ..config };
        let c = ActorNode::start(config).await.unwrap();
        let (silent, _endpoint) = connect(&c, &cluster.authority, ALPN_JOIN).await.unwrap();
        soon("the end of a silent join", silent.closed()).await;
    });
}

#[test]
fn processes_of_one_certificate_share_its_budget() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.client.asks = 2;
        let b = ActorNode::start(config).await.unwrap();
        let player = play(&b, "player", SpawnOptions::default());
        let credential = cluster.authority.issue("tool", PeerRole::Client, &[], DAY).unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let config = NodeConfig { timing: calm(), ..NodeConfig::new(credential.clone()) };
            let client = ActorNode::start(config).await.unwrap();
            introduce(&[&client, &b]);
            let far = client.actor::<PlayerRole>(player.path().clone());
            far.ask(Urgent, LIMIT).await.unwrap();
            clients.push((client, far));
        }
        // The room of an ask is free a moment after its answer.
        until("all are answered", || b.usage().iter().all(|usage| usage.asks == 0)).await;
        let waiting: Vec<_> = clients
            .iter()
            .map(|(_, far)| tokio::spawn(far.ask(Ponder(600_000), LIMIT * 10)))
            .collect();
        until("both are open", || b.usage().iter().any(|usage| usage.asks == 2)).await;
        for (_, far) in &clients {
            let over = far.ask(Urgent, LIMIT).await;
            assert!(matches!(over, Err(AskError::Overloaded { .. })), "{over:?}");
        }
        drop(waiting);
    });
}

/// Asks until the node is not reached any more.
async fn until_unreachable(what: &str, far: &impresario_runtime::ActorRef<PlayerRole>) {
    soon(what, async {
        let second = Duration::from_secs(1);
        while !matches!(far.ask(Urgent, second).await, Err(AskError::Unreachable { .. })) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn a_link_ends_with_its_certificate_and_when_that_is_shut_out() {
    on_threads(async {
        let cluster = Cluster::new();
        let b = cluster.node("b").await;
        let player = play(&b, "player", SpawnOptions::default());
        for (name, holds) in [("short", Duration::from_secs(8)), ("long", DAY)] {
            let credential = cluster.authority.issue(name, PeerRole::Node, &[], holds).unwrap();
            let fingerprint = credential.identity().fingerprint.clone();
            let config = NodeConfig { timing: calm(), ..NodeConfig::new(credential) };
            let node = ActorNode::start(config).await.unwrap();
            introduce(&[&node, &b]);
            let far = node.actor::<PlayerRole>(player.path().clone());
            far.ask(Urgent, LIMIT).await.unwrap();
            if name == "long" {
                b.shut_out([fingerprint].into());
            }
            until_unreachable(name, &far).await;
        }
    });
}

#[test]
fn a_node_without_a_gate_takes_no_messages() {
    on_threads(async {
        let cluster = Cluster::new();
        let credential = cluster.authority.issue("b", PeerRole::Node, &[], DAY).unwrap();
        let b = ActorNode::start(NodeConfig::new(credential)).await.unwrap();
        let (a, near) = (cluster.node("a").await, play(&b, "player", SpawnOptions::default()));
        introduce(&[&a, &b]);
        let far = a.actor::<PlayerRole>(near.path().clone());
        let refused = far.ask(Note(1), LIMIT).await;
        assert!(
            matches!(&refused, Err(AskError::Refused { reason }) if reason.contains("gate")),
            "{refused:?}"
        );
        let watch = soon("the watch", a.watch(near.path().clone()).terminated()).await;
        assert!(matches!(watch, Err(WatchError::Refused { .. })), "{watch:?}");
        assert_eq!(near.ask(Notes, LIMIT).await, Ok(vec![]), "its own actors talk");
    });
}

#[test]
fn without_a_certificate_nothing_gets_through_with_or_without_a_join_door() {
    on_threads(async {
        let cluster = Cluster::new();
        let closed = cluster.node("closed").await;
        let config =
            NodeConfig { join: Some(Arc::new(crate::joining::NoOne)), ..cluster.config("open") };
        let open = ActorNode::start(config).await.unwrap();
        let refused = soon("the closed one", knock(&closed, &cluster.authority)).await.unwrap_err();
        assert!(refused.to_lowercase().contains("certificate"), "{refused}");
        let refused = soon("the open one", knock(&open, &cluster.authority)).await.unwrap_err();
        assert!(refused.contains("no certificate"), "{refused}");
    });
}

#[test]
fn an_expired_certificate_is_refused() {
    on_threads(async {
        let cluster = Cluster::new();
        let b = cluster.node("b").await;
        let player = play(&b, "player", SpawnOptions::default());
        let expiring =
            cluster.authority.issue("a", PeerRole::Node, &[], Duration::from_secs(1)).unwrap();
        let (_, until) = expiring.validity();
        let a = ActorNode::start(NodeConfig { timing: calm(), ..NodeConfig::new(expiring) })
            .await
            .unwrap();
        introduce(&[&a, &b]);
        while std::time::SystemTime::now() < until + Duration::from_millis(1100) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let error =
            a.actor::<PlayerRole>(player.path().clone()).ask(Note(1), LIMIT).await.unwrap_err();
        assert!(matches!(error, AskError::Unreachable { .. }), "{error}");
    });
}

#[test]
fn a_rotated_certificate_is_used_for_new_connections_and_cuts_no_old_one() {
    on_threads(async {
        let cluster = Cluster::new();
        let (a, b, far) = cluster.pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        let mut events = a.peers();
        let renewed = cluster.authority.issue("b", PeerRole::Node, &[], DAY).unwrap();
        b.replace_credential(&renewed).unwrap();
        far.ask(Urgent, LIMIT).await.unwrap();
        while let Ok(event) = events.try_recv() {
            let is_slow = matches!(event, impresario_runtime::PeerEvent::Suspect { .. });
            assert!(is_slow, "the old connection stands: {event:?}");
        }

        let c = cluster.node("c").await;
        let mut seen = c.peers();
        introduce(&[&c, &b]);
        c.actor::<PlayerRole>(path(&b, "player")).ask(Urgent, LIMIT).await.unwrap();
        let event = soon("c sees b", seen.recv()).await.unwrap();
        let impresario_runtime::PeerEvent::Up { identity, .. } = event else { panic!("{event:?}") };
        assert_eq!(&identity, renewed.identity());

        let another = cluster.authority.issue("x", PeerRole::Node, &[], DAY).unwrap();
        assert!(b.replace_credential(&another).is_err(), "not under another name");
    });
}

#[test]
fn two_client_processes_with_one_certificate_do_not_disturb_each_other() {
    on_threads(async {
        let cluster = Cluster::new();
        let b = cluster.node("b").await;
        let player = play(&b, "player", SpawnOptions::default());
        let credential = cluster.authority.issue("tool", PeerRole::Client, &[], DAY).unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let config = NodeConfig { timing: calm(), ..NodeConfig::new(credential.clone()) };
            let client = ActorNode::start(config).await.unwrap();
            introduce(&[&client, &b]);
            clients.push(client);
        }
        for client in clients.iter().chain(&clients) {
            client.actor::<PlayerRole>(player.path().clone()).ask(Urgent, LIMIT).await.unwrap();
        }
    });
}
