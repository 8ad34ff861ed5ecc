//! How many connections who may have.

use crate::cast::*;
use impresario_runtime::{
    ActorNode, AskError, Cause, Credential, NodeConfig, PeerRole, SpawnOptions, encode,
    pki::{ALPN_NODE, tls_client_config},
};
use quinn::crypto::rustls::QuicClientConfig;
use std::{sync::Arc, time::Duration};

/// A connection that says hello and takes no answer, but lives.
struct Deaf {
    connection: quinn::Connection,
    _hello: (quinn::SendStream, quinn::RecvStream),
    _endpoint: quinn::Endpoint,
}

impl Deaf {
    async fn connect(credential: &Credential, to: &ActorNode) -> Self {
        let mut tls = tls_client_config(credential).unwrap();
        tls.alpn_protocols = vec![ALPN_NODE.to_vec()];
        let mut config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(0_u8.into());
        transport.keep_alive_interval(Some(Duration::from_millis(200)));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting =
            endpoint.connect_with(config, to.local_addr(), "node.impresario.internal").unwrap();
        let connection = connecting.await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let hello = encode(&(1_u64, 0_u64)).unwrap();
        let mut framed = (hello.len() as u32).to_le_bytes().to_vec();
        framed.extend(hello);
        send.write_all(&framed).await.unwrap();
        Self { connection, _hello: (send, receive), _endpoint: endpoint }
    }
}

fn guest() -> PeerRole {
    PeerRole::Guest { scope: "default/digits".into() }
}

/// How many connections were refused because there were too many.
fn too_many(node: &ActorNode) -> u64 {
    let counts = node.refusals().into_iter().filter(|one| one.cause == Cause::Connections);
    counts.map(|one| one.count).sum()
}

#[test]
fn one_certificates_connections_leave_room_for_those_of_others() {
    on_threads(async {
        for (role, name) in [(guest(), "guest"), (PeerRole::Node, "node")] {
            let cluster = Cluster::new();
            let mut config = cluster.config("b");
            config.limits.connections = 8;
            // One of them is judged, others wait for that, and none is given up.
            config.timing.dial = LIMIT;
            let b = ActorNode::start(config).await.unwrap();
            let player = play(&b, "player", SpawnOptions::default());
            let greedy = cluster.authority.issue("greedy", role.clone(), &[], DAY).unwrap();
            let mut held = Vec::new();
            for _ in 0..12 {
                held.push(Deaf::connect(&greedy, &b).await);
            }
            until("those over its share are refused", || too_many(&b) >= 4).await;
            let honest = ActorNode::start(cluster.config_as("honest", role)).await.unwrap();
            introduce(&[&honest, &b]);
            let far = honest.actor::<PlayerRole>(player.path().clone());
            assert_eq!(far.ask(Urgent, LIMIT).await, Ok(()), "{name}");
            until("its share is four", || too_many(&b) == 8).await;
            let stand = held.iter().filter(|one| one.connection.close_reason().is_none()).count();
            assert!(stand >= 4, "{name}: {stand} stand");
        }
    });
}

#[test]
fn nodes_leave_room_for_control_members() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.connections = 2;
        let b = ActorNode::start(config).await.unwrap();
        let player = play(&b, "player", SpawnOptions::default());
        let mut nodes = Vec::new();
        for (name, role) in
            [("c", PeerRole::Node), ("d", PeerRole::Node), ("m", PeerRole::Control), ("g", guest())]
        {
            let node = ActorNode::start(cluster.config_as(name, role)).await.unwrap();
            introduce(&[&node, &b]);
            let far = node.actor::<PlayerRole>(player.path().clone());
            assert_eq!(far.ask(Urgent, LIMIT).await, Ok(()), "{name}");
            nodes.push(node);
        }
        let e = cluster.node("e").await;
        introduce(&[&e, &b]);
        let full = e.actor::<PlayerRole>(player.path().clone()).ask(Urgent, LIMIT).await;
        assert!(matches!(full, Err(AskError::Unreachable { .. })), "{full:?}");
    });
}

#[test]
fn a_connection_that_does_not_take_its_greeting_is_closed() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.timing.dial = Duration::from_secs(5);
        let b = ActorNode::start(config).await.unwrap();
        let guest = cluster.authority.issue("g", guest(), &[], DAY).unwrap();
        let deaf = Deaf::connect(&guest, &b).await;
        let end = soon("its end", deaf.connection.closed()).await;
        assert!(matches!(end, quinn::ConnectionError::ApplicationClosed(_)), "{end}");
    });
}

#[test]
fn so_many_processes_of_one_client_are_let_in_and_another_when_one_ends() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.processes = 2;
        let b = ActorNode::start(config).await.unwrap();
        let player = play(&b, "player", SpawnOptions::default());
        let credential = cluster.authority.issue("tool", PeerRole::Client, &[], DAY).unwrap();
        let mut clients = Vec::new();
        for number in 0..3 {
            let config = NodeConfig { timing: calm(), ..NodeConfig::new(credential.clone()) };
            let client = ActorNode::start(config).await.unwrap();
            introduce(&[&client, &b]);
            let far = client.actor::<PlayerRole>(player.path().clone());
            assert_eq!(far.ask(Urgent, LIMIT).await.is_ok(), number < 2, "{number}");
            clients.push((client, far));
        }
        assert!(too_many(&b) > 0);
        clients.swap_remove(0).0.stop(LIMIT).await;
        answered("the third", &clients[0].1).await;
    });
}
