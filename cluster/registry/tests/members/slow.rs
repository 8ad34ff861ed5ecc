//! A link that carries few bytes a second: what stands between two nodes is a relay of this test.

use crate::harness::{Cluster, pod, put, run};
use crate::three::Group;
use impresario_registry::{Consistency, Transaction};
use impresario_runtime::{ActorNode, Direction, FaultRule};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

/// What the link carries.
const BYTES_A_SECOND: usize = 50_000;
/// Packets that wait for it; more of them are lost, as in a router.
const QUEUE: usize = 24;
/// An entry that takes 6 s on such a link: longer than any entry is waited for at first.
const LARGE: usize = 300_000;
/// A passing test spends a sixth of it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Stands between two nodes: each takes it for the other. What goes to the second one is slow.
struct Relay {
    at: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn between(fast: &ActorNode, slow: &ActorNode) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let at = socket.local_addr().unwrap();
        let (fast_at, slow_at) = (fast.local_addr(), slow.local_addr());
        let (queue, mut queued) = mpsc::channel::<Vec<u8>>(QUEUE);
        let mut tasks = JoinSet::new();
        let sender = socket.clone();
        tasks.spawn(async move {
            while let Some(packet) = queued.recv().await {
                sleep(Duration::from_secs(1).mul_f64(packet.len() as f64 / BYTES_A_SECOND as f64))
                    .await;
                // What is lost here is sent again by its sender.
                let _ = sender.send_to(&packet, slow_at).await;
            }
        });
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let Ok((size, from)) = socket.recv_from(&mut buffer).await else { continue };
                if from == fast_at {
                    let _ = queue.try_send(buffer[..size].to_vec());
                } else if from == slow_at {
                    let _ = socket.send_to(&buffer[..size], fast_at).await;
                }
            }
        });
        for (node, other) in [(fast, slow), (slow, fast)] {
            node.addresses().set(other.name().clone(), at);
            node.end_link(other.name());
        }
        Self { at, _tasks: tasks }
    }
}

#[test]
fn a_large_entry_gets_over_a_link_of_fifty_kilobytes_a_second() {
    run(async {
        let group = Group::of(Cluster::calm()).await;
        put(&group.handle(0), "before").await;
        let leader = group.leader().await;
        let (slow, away) = ((leader + 1) % 3, (leader + 2) % 3);
        // Without the slow one nothing is acknowledged.
        for direction in [Direction::Send, Direction::Receive] {
            let cut = FaultRule { cut: true, ..FaultRule::new(None, direction) };
            group.nodes[away].faults().set(cut);
        }
        let relay = Relay::between(&group.nodes[leader], &group.nodes[slow]).await;
        let large = Transaction::new().put(pod("large"), vec![b'x'; LARGE]);
        // The call may end before the entry has arrived; the entry goes on.
        let written = group.handle(leader).transact(large).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = group.handle(slow).get(pod("large"), Consistency::Local).await;
            if matches!(&read, Ok((Some(entry), _)) if entry.value.len() == LARGE) {
                break;
            }
            assert!(Instant::now() < deadline, "written: {written:?}, read: {:?}", read.err());
            sleep(Duration::from_millis(50)).await;
        }
        let dialled = group.nodes[leader].addresses().get(group.nodes[slow].name());
        assert_eq!(dialled, Some(relay.at), "the link went around the relay");
        for node in &group.nodes {
            node.faults().clear();
        }
        drop(relay);
        for (one, other) in [(leader, slow), (slow, leader)] {
            let (name, at) = (group.nodes[other].name().clone(), group.nodes[other].local_addr());
            group.nodes[one].addresses().set(name.clone(), at);
            group.nodes[one].end_link(&name);
        }
        group.agree_on(2).await;
        group.end().await;
    });
}
