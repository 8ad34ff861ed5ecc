//! Budgets: what one peer takes up is bounded, and the others do not notice.

use crate::cast::*;
use futures_util::StreamExt;
use impresario_runtime::{
    ActorName, ActorNode, AskError, Cause, Credential, Gate, NodeConfig, PeerEvent, PeerIdentity,
    PeerRole, Refusal, SpawnOptions, Timing, encode,
    pki::{ALPN_NODE, tls_client_config},
    tag_of,
};
use quinn::crypto::rustls::QuicClientConfig;
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// A peer with a good certificate that speaks the protocol as it likes.
struct Hostile {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

/// A value behind its length.
fn framed(value: &impl Serialize) -> Vec<u8> {
    let bytes = encode(value).unwrap();
    let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
    frame.extend(bytes);
    frame
}

/// A frame of a lane.
fn lane_frame(sequence: u64, frame: &impl Serialize) -> Vec<u8> {
    let bytes = encode(frame).unwrap();
    let mut framed = (8 + bytes.len() as u32).to_le_bytes().to_vec();
    framed.extend(sequence.to_le_bytes());
    framed.extend(bytes);
    framed
}

impl Hostile {
    /// Connects, greets, and goes on with heartbeats.
    async fn connect(credential: &Credential, to: &ActorNode) -> Self {
        let (hostile, mut control) = Self::silent(credential, to).await;
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            for sequence in 1_u64.. {
                ticks.tick().await;
                if control.write_all(&lane_frame(sequence, &3_u32)).await.is_err() {
                    return;
                }
            }
        });
        hostile
    }

    /// Connects and greets; gives the control lane.
    async fn silent(credential: &Credential, to: &ActorNode) -> (Self, quinn::SendStream) {
        let mut tls = tls_client_config(credential).unwrap();
        tls.alpn_protocols = vec![ALPN_NODE.to_vec()];
        let mut config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.max_concurrent_uni_streams(8_u8.into());
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = endpoint
            .connect_with(config, to.local_addr(), "node.impresario.internal")
            .unwrap()
            .await
            .unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&framed(&(1_u64, 0_u64))).await.unwrap();
        let mut welcome = [0; 5];
        receive.read_exact(&mut welcome).await.unwrap();
        assert_eq!(welcome[4], 0, "welcome");
        let mut lane = connection.open_uni().await.unwrap();
        lane.write_all(&[1]).await.unwrap();
        (Self { connection, _endpoint: endpoint }, lane)
    }

    /// Begins a bulk stream with these bytes, and says no more on it.
    async fn begin(&self, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        (send, receive)
    }
}

/// The beginning of a `Request::Ask` of the player, of so many bytes by its word.
fn promise(message: &str, bytes: u32) -> Vec<u8> {
    let body = serde_bytes(&[0; 1000]);
    let ask = (1_u32, 10_000_u32, "player", tag_of(message), None::<()>, body);
    let mut frame = framed(&ask);
    frame[..4].copy_from_slice(&bytes.to_le_bytes());
    frame
}

/// A node `b` that takes who says nothing for so long for lost.
async fn losing_after(cluster: &Cluster, silence: Duration) -> ActorNode {
    let timing = lost_after(silence);
    ActorNode::start(NodeConfig { timing, ..cluster.config("b") }).await.unwrap()
}

/// A response of `Overloaded`, as it travels.
const OVERLOADED: &[u8] = &[3, 0, 0, 0, 0, 1, 1];

#[test]
fn a_request_is_held_on_its_senders_account_before_it_is_read_and_has_a_deadline() {
    on_threads(async {
        let cluster = Cluster::new();
        // What is promised here must stand until the second one is judged.
        let b = losing_after(&cluster, Duration::from_secs(8)).await;
        let player = play(&b, "player", SpawnOptions::default());
        let node = cluster.authority.issue("h", PeerRole::Node, &[], DAY).unwrap();
        let hostile = Hostile::connect(&node, &b).await;
        let promise = promise("test.Large", 60 << 20);
        let promised = hostile.begin(&promise).await;
        until("the promise counts", || {
            usage(&b, "h").is_some_and(|usage| usage.held_bytes >= 60 << 20)
        })
        .await;
        let (_send, mut over) = hostile.begin(&promise).await;
        let answer = soon("an answer", over.read_to_end(100)).await.unwrap();
        assert_eq!(answer, OVERLOADED);
        assert!(b.refusals().iter().any(|one| (one.role, one.cause) == ("node", Cause::Bytes)));
        // One that says nothing at all is given up.
        let (_send, mut silent) = hostile.begin(&[7]).await;
        assert_eq!(soon("its end", silent.read_to_end(100)).await.unwrap(), b"");
        // Others are answered all the while.
        let a = cluster.node("a").await;
        introduce(&[&a, &b]);
        let far = a.actor::<PlayerRole>(player.path().clone());
        assert_eq!(far.ask(Large(vec![1; 1 << 20]), LIMIT).await.unwrap().len(), 1 << 20);
        drop(promised);
        until("what was promised is let go", || {
            usage(&b, "h").is_some_and(|usage| usage.held_bytes < 1 << 20)
        })
        .await;
    });
}

#[test]
fn a_guest_that_reads_nothing_of_what_quic_brings_it_is_not_lost_while_it_beats() {
    on_threads(async {
        let cluster = Cluster::new();
        let silence = Duration::from_secs(5);
        let b = losing_after(&cluster, silence).await;
        let (player, sent) = shown(&b, "counter", SpawnOptions::default());
        let guest = PeerRole::Guest { scope: "default/digits".into() };
        let guest = cluster.authority.issue("g", guest, &[], DAY).unwrap();
        let mut events = b.peers();
        let hostile = Hostile::connect(&guest, &b).await;
        // `Request::Open` of a `Count`.
        let count = encode(&Count { to: 1 << 40, bytes_each: 16 << 10 }).unwrap();
        let to = player.path().actor.clone();
        let tag = tag_of("test.Count");
        let open = (2_u32, 10_000_u32, to, tag, None::<()>, serde_bytes(&count));
        let mut unread = Vec::new();
        for _ in 0..64 {
            unread.push(hostile.begin(&framed(&open)).await);
        }
        let mut seen = sent.subscribe();
        within("items are sent", &mut seen, |sent| *sent > 0).await;
        still("all senders stop", &mut seen).await;
        let held = usage(&b, "g").unwrap().held_bytes;
        assert!(held > 0 && held <= 64 * (320 << 10), "{held} bytes held");
        let a = cluster.node("a").await;
        introduce(&[&a, &b]);
        let far = a.actor::<PlayerRole>(player.path().clone());
        let begun = std::time::Instant::now();
        while begun.elapsed() < 2 * silence {
            far.ask(Urgent, LIMIT).await.unwrap();
        }
        while let Ok(event) = events.try_recv() {
            assert!(!matches!(event, PeerEvent::Lost { .. }), "{event:?}");
        }
        drop(unread);
        until("all is let go", || usage(&b, "g").is_none_or(|usage| usage.held_bytes == 0)).await;
    });
}

/// Bytes as the codec writes them for a body.
fn serde_bytes(bytes: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(bytes)
}

#[test]
fn many_peers_that_never_read_hold_a_bounded_sum_and_others_are_answered() {
    on_threads(async {
        const PEERS: usize = 40;
        // Less than a third of what they would take.
        const POOL: usize = 3 << 20;
        let cluster = Cluster::new();
        // So many nodes keep the machine busy enough without their heartbeats.
        let timing = Timing { heartbeat: Duration::from_secs(1), ..calm() };
        let mut config = NodeConfig { timing, ..cluster.config("b") };
        config.limits.lesser_pool_bytes = POOL;
        let b = ActorNode::start(config).await.unwrap();
        let player = play(&b, "player", SpawnOptions::default());
        let mut readers = Vec::new();
        for number in 0..PEERS {
            let role = PeerRole::Guest { scope: "default/digits".into() };
            let mut config = cluster.config_as(&format!("g{number}"), role);
            config.limits.arbiters = 1;
            config.timing = timing;
            let reader = ActorNode::start(config).await.unwrap();
            reader.addresses().set(b.name().clone(), b.local_addr());
            readers.push(reader);
        }
        let mut unread = Vec::new();
        for reader in &readers {
            let far = reader.actor::<PlayerRole>(player.path().clone());
            for _ in 0..2 {
                // One item over the window, so that what follows waits here.
                let large = Count { to: 1 << 40, bytes_each: 128 << 10 };
                match far.open(large, LIMIT * 3).await {
                    Ok(items) => unread.push(items),
                    // It holds what it may already.
                    Err(error) => assert!(matches!(error, AskError::Overloaded { .. }), "{error}"),
                }
            }
        }
        assert!(unread.len() >= PEERS, "each has its first stream");
        let sum = || b.usage().iter().map(|usage| usage.held_bytes).sum::<usize>();
        until("they take up what they can", || sum() > POOL / 2).await;
        let honest = PeerRole::Guest { scope: "default/digits".into() };
        let honest = ActorNode::start(cluster.config_as("honest", honest)).await.unwrap();
        introduce(&[&honest, &b]);
        let far = honest.actor::<PlayerRole>(player.path().clone());
        for _ in 0..20 {
            far.ask(Urgent, LIMIT).await.unwrap();
            assert_eq!(far.ask(Give(100 << 10), LIMIT).await.unwrap().len(), 100 << 10);
            let items = far.open(Count { to: 3, bytes_each: 10 }, LIMIT).await.unwrap();
            assert_eq!(soon("its items", items.count()).await, 3);
            assert!(
                sum() <= POOL + (PEERS + 1) * (64 << 10) + (1 << 20),
                "{} bytes are held",
                sum()
            );
        }
        drop(unread);
        until("all is let go", || sum() < 1 << 20).await;
    });
}

#[test]
fn asks_over_the_budget_are_told_so_and_deadlines_are_cut() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.node.asks = 2;
        config.limits.node.deadline = Duration::from_secs(5);
        let (a, c) = (cluster.node("a").await, cluster.node("c").await);
        let b = ActorNode::start(config).await.unwrap();
        introduce(&[&a, &b, &c]);
        let player = play(&b, "player", SpawnOptions::default());
        let far = a.actor::<PlayerRole>(player.path().clone());
        let long = [(); 2].map(|()| tokio::spawn(far.ask(Ponder(10_000), LIMIT * 10)));
        until("two are open", || usage(&b, "a").is_some_and(|usage| usage.asks == 2)).await;
        let over = AskError::Overloaded { actor: "player".into() };
        assert_eq!(far.ask(Echo(String::new()), LIMIT).await, Err(over.clone()));
        assert_eq!(far.ask(Large(vec![1]), LIMIT).await, Err(over));
        let other = c.actor::<PlayerRole>(player.path().clone());
        assert_eq!(other.ask(Echo("x".into()), LIMIT).await, Ok("x".into()), "not others");
        for ask in long {
            let answer = soon("the cut deadline", ask).await.unwrap();
            assert!(matches!(answer, Err(AskError::Deadline { .. })), "{answer:?}");
        }
        // The room of an ask is free when its work has ended.
        until("all is done", || b.usage().iter().all(|usage| usage.asks == 0)).await;
        assert_eq!(far.ask(Echo("y".into()), LIMIT).await, Ok("y".into()));
        let counts = b.refusals();
        assert!(counts.iter().any(|one| one.cause == Cause::Asks && one.count == 2), "{counts:?}");
    });
}

#[test]
fn an_answer_that_finds_no_room_is_let_go_and_its_asker_is_told_that_it_was_handled() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.node.bytes = 1 << 20;
        let (a, b) = (cluster.node("a").await, ActorNode::start(config).await.unwrap());
        introduce(&[&a, &b]);
        let far = a.actor::<PlayerRole>(play(&b, "player", SpawnOptions::default()).path().clone());
        let unsent = far.ask(Give(2 << 20), LIMIT).await.unwrap_err();
        assert!(matches!(unsent, AskError::Unsent { bytes, .. } if bytes > 2 << 20), "{unsent}");
        assert_eq!(unsent.remedy(), impresario_runtime::Remedy::LookFirst);
        assert_eq!(
            far.ask(Large(vec![0; 2 << 20]), LIMIT).await.unwrap_err().remedy(),
            impresario_runtime::Remedy::Retry
        );
        assert_eq!(far.ask(Give(500 << 10), LIMIT).await.unwrap().len(), 500 << 10);
    });
}

/// Lets nobody send large messages, and remembers what it was shown of others.
#[derive(Default)]
struct NothingLarge(parking_lot::Mutex<Vec<&'static str>>);

impl Gate for NothingLarge {
    fn admit(&self, _: &PeerIdentity, _: &ActorName, message: &'static str) -> Result<(), Refusal> {
        if message == "test.Large" { Err(Refusal::new("no")) } else { Ok(()) }
    }

    fn permit(
        &self,
        _: &PeerIdentity,
        _: &ActorName,
        message: &'static str,
        _: &dyn std::any::Any,
    ) -> Result<(), Refusal> {
        self.0.lock().push(message);
        Ok(())
    }
}

#[test]
fn what_a_peer_may_not_send_or_not_so_large_is_refused_before_it_is_read() {
    on_threads(async {
        let cluster = Cluster::new();
        let gate = Arc::new(NothingLarge::default());
        let config = NodeConfig { gate: gate.clone(), ..cluster.config("b") };
        let b = ActorNode::start(config).await.unwrap();
        play(&b, "player", SpawnOptions::default());
        let node = cluster.authority.issue("h", PeerRole::Node, &[], DAY).unwrap();
        let hostile = Hostile::connect(&node, &b).await;
        // `Response::Reply(Err(Refused))`, and `Decode`.
        for (message, answer) in [("test.Large", [0, 1, 2]), ("test.Echo", [0, 1, 4])] {
            let (_send, mut receive) = hostile.begin(&promise(message, 60 << 20)).await;
            let said = soon("an answer", receive.read_to_end(1000)).await.unwrap();
            assert_eq!(said[4..7], answer, "{message}: {said:?}");
        }
        assert!(gate.0.lock().is_empty(), "{:?} was decoded", gate.0.lock());
        // A heartbeat that waits to be sent is held for a moment.
        until("nothing is held", || usage(&b, "h").is_some_and(|usage| usage.held_bytes == 0))
            .await;
        assert!(b.refusals().iter().any(|one| one.message == "test.Large" && one.count == 1));
    });
}

#[test]
fn a_message_that_becomes_much_more_than_its_bytes_is_held_on_its_senders_account() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.node.bytes = 1 << 20;
        let (a, b) = (cluster.node("a").await, ActorNode::start(config).await.unwrap());
        introduce(&[&a, &b]);
        let far = a.actor::<PlayerRole>(play(&b, "player", SpawnOptions::default()).path().clone());
        assert_eq!(far.ask(Texts(vec![String::new(); 10_000]), LIMIT).await, Ok(10_000));
        let bomb = far.ask(Texts(vec![String::new(); 200_000]), LIMIT).await;
        assert!(matches!(bomb, Err(AskError::Overloaded { .. })), "{bomb:?}");
        assert_eq!(far.ask(Echo("x".into()), LIMIT).await, Ok("x".into()));
        assert!(b.refusals().iter().any(|one| one.cause == Cause::Bytes));
        let large = far.ask(Texts(vec!["x".repeat(300 << 10)]), LIMIT).await;
        assert!(matches!(large, Err(AskError::Decode { .. })), "its type has a limit: {large:?}");
        until("all is let go", || usage(&b, "a").is_some_and(|usage| usage.held_bytes == 0)).await;
    });
}

#[test]
fn an_answer_is_held_on_its_senders_account_before_it_is_read_and_must_go_on() {
    on_threads(async {
        let cluster = Cluster::new();
        // The second answer must be judged before the first is given up.
        let b = losing_after(&cluster, Duration::from_secs(8)).await;
        let node = cluster.authority.issue("h", PeerRole::Node, &[], DAY).unwrap();
        let hostile = Hostile::connect(&node, &b).await;
        let far = b.actor::<PlayerRole>(impresario_runtime::ActorPath::new("h", "player"));
        let mut asks = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..2 {
            asks.push(tokio::spawn(far.ask(Large(vec![1]), LIMIT * 2)));
            let (mut send, receive) =
                soon("a request", hostile.connection.accept_bi()).await.unwrap();
            // Of an answer of 60 MiB only this.
            let mut answer = (60_u32 << 20).to_le_bytes().to_vec();
            answer.extend([0, 0, 251]);
            send.write_all(&answer).await.unwrap();
            until("the promise counts", || {
                usage(&b, "h").is_some_and(|usage| usage.held_bytes >= 60 << 20)
            })
            .await;
            streams.push((send, receive));
        }
        let second = soon("the second answer", asks.pop().unwrap()).await.unwrap();
        assert!(matches!(second, Err(AskError::Unsent { .. })), "{second:?}");
        let first = soon("the first answer", asks.pop().unwrap()).await.unwrap();
        assert!(matches!(first, Err(AskError::Unreachable { .. })), "it stood still: {first:?}");
        until("it is let go", || usage(&b, "h").is_some_and(|usage| usage.held_bytes < 1 << 20))
            .await;
    });
}

#[test]
fn a_request_that_is_slow_but_goes_on_is_taken() {
    on_threads(async {
        let cluster = Cluster::new();
        let silence = Duration::from_secs(4);
        let b = losing_after(&cluster, silence).await;
        play(&b, "player", SpawnOptions::default());
        let node = cluster.authority.issue("h", PeerRole::Node, &[], DAY).unwrap();
        let hostile = Hostile::connect(&node, &b).await;
        let body = encode(&Large(vec![3; 200 << 10])).unwrap();
        let ask =
            (1_u32, 60_000_u32, "player", tag_of("test.Large"), None::<()>, serde_bytes(&body));
        let (mut send, mut receive) = hostile.connection.open_bi().await.unwrap();
        let begun = std::time::Instant::now();
        // For twice as long as a silence may last.
        let mut ticks = tokio::time::interval(silence / 6);
        for part in framed(&ask).chunks(17 << 10) {
            ticks.tick().await;
            send.write_all(part).await.unwrap();
        }
        assert!(begun.elapsed() > silence);
        send.finish().unwrap();
        let answer = soon("an answer", receive.read_to_end(1 << 20)).await.unwrap();
        assert!(answer.len() > 200 << 10, "{} bytes", answer.len());
    });
}

#[test]
fn what_a_peer_says_of_actors_is_held_on_its_account_and_believed_only_of_what_it_was_told() {
    on_threads(async {
        let cluster = Cluster::new();
        let b = cluster.node("b").await;
        let node = cluster.authority.issue("h", PeerRole::Node, &[], DAY).unwrap();
        play(&b, "player", SpawnOptions::default());
        let (hostile, mut lane) = Hostile::silent(&node, &b).await;
        let name = |length: usize| "x".repeat(length);
        // `Full`, and `Lost` of very many, though nothing was ever told.
        for sequence in 1..=100 {
            lane.write_all(&lane_frame(sequence, &(9_u32, name(500)))).await.unwrap();
        }
        let lost = (11_u32, name(9), "a\nb", u64::MAX, 0_u32);
        lane.write_all(&lane_frame(101, &lost)).await.unwrap();
        // A watch behind them, so that we see when they have been read.
        lane.write_all(&lane_frame(102, &(4_u32, 7_u64, "player", None::<u64>))).await.unwrap();
        until("all is read", || usage(&b, "h").is_some_and(|usage| usage.watches == 1)).await;
        assert!(usage(&b, "h").unwrap().held_bytes < 1 << 10, "{:?}", usage(&b, "h"));
        assert!(b.refusals().iter().all(|one| one.cause != Cause::Lost), "{:?}", b.refusals());
        // A name that is none is a breach of the protocol.
        lane.write_all(&lane_frame(103, &(9_u32, name(200_000)))).await.unwrap();
        let end = soon("the end of the connection", hostile.connection.closed()).await;
        assert!(matches!(end, quinn::ConnectionError::ApplicationClosed(_)), "{end}");
    });
}
