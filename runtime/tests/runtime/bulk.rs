//! Bulk asks and streams: large bodies, back-pressure, and nobody delayed by them.

use crate::cast::*;
use futures_util::StreamExt;
use impresario_runtime::{
    ActorNode, AskError, NodeConfig, PeerEvent, PeerRole, SpawnOptions, StreamError,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

#[test]
fn large_messages_and_large_answers_take_streams_of_their_own() {
    on_threads(async {
        let (_a, _b, far) = Cluster::new().pair().await;
        let body = vec![3; 5 << 20];
        assert_eq!(far.ask(Large(body.clone()), LIMIT).await.unwrap(), body);
        assert_eq!(far.ask(Give(2 << 20), LIMIT).await.unwrap().len(), 2 << 20);
        let echo = "x".repeat(1 << 20);
        assert_eq!(far.ask(Echo(echo.clone()), LIMIT).await.unwrap(), echo);
    });
}

#[test]
fn a_stream_brings_all_items_in_order_and_then_ends() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        let near = b.actor::<PlayerRole>(path(&b, "player"));
        drop(a);
        for player in [far, near] {
            let items = player.open(Count { to: 300, bytes_each: 100 }, LIMIT).await.unwrap();
            let numbers: Vec<_> =
                soon("all items", items.map(|item| item.unwrap().0).collect()).await;
            assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_stream_can_be_refused_and_can_break_with_a_reason() {
    on_threads(async {
        let (_a, _b, far) = Cluster::new().pair().await;
        let refused = far.open(Count { to: 0, bytes_each: 0 }, LIMIT).await.unwrap_err();
        assert_eq!(refused, AskError::Refused { reason: "nothing to count".into() });
        let items: Vec<_> = soon("the end", far.open(Break, LIMIT).await.unwrap().collect()).await;
        assert_eq!(items, [Ok(1), Err(StreamError::Refused { reason: "cannot go on".into() })]);
    });
}

#[test]
fn a_reader_that_does_not_read_holds_the_sender_back_and_leaving_stops_it() {
    on_threads(async {
        let (a, b, _) = Cluster::new().pair().await;
        let (sent, mut seen) = tokio::sync::watch::channel(0);
        b.spawn::<PlayerRole, _>("counter", SpawnOptions::default(), move |_| {
            let mut player = Player::default();
            player.sent = sent.clone();
            player
        })
        .unwrap();
        let count = Count { to: 100_000, bytes_each: 64 << 10 };
        let mut items =
            a.actor::<PlayerRole>(path(&b, "counter")).open(count, LIMIT).await.unwrap();
        soon("the first item", items.next()).await.unwrap().unwrap();
        // The sender comes to a stop: nothing new for a while, long before the 6 GB are sent.
        let stalled = still("the sender stalls", &mut seen).await;
        assert!(
            stalled < 1_000,
            "{stalled} items of 64 KiB were sent to a reader that does not read"
        );
        // Meanwhile the control lane is free.
        let player = a.actor::<PlayerRole>(path(&b, "player"));
        player.ask(Urgent, LIMIT).await.unwrap();
        drop(items);
        within("the sender hears that the reader left", &mut seen, |sent| *sent == u64::MAX).await;
    });
}

#[test]
fn control_messages_pass_bulk_transfers_that_began_before_them() {
    on_threads(async {
        const BODY: usize = 4 << 20;
        const SENDERS: usize = 4;
        let (_a, b, far) = Cluster::new().pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        // Each begins the next transfer when one is over: control that waits until there is no more bulk never passes.
        let stop = Arc::new(AtomicBool::new(false));
        let counts = [(); SENDERS].map(|()| Arc::new(AtomicUsize::new(0)));
        let senders = counts.clone().map(|count| {
            let (far, stop) = (far.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let body = far.ask(Large(vec![0; BODY]), LIMIT * 2).await.unwrap();
                    assert_eq!(body.len(), BODY);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let done = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        until("each is in its next transfer", || done().iter().all(|count| *count > 0)).await;
        for _ in 0..5 {
            far.ask(Urgent, LIMIT).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            soon("the last transfer", sender).await.unwrap();
        }
        until("nothing is held any more", || {
            usage(&b, "a").is_some_and(|usage| usage.held_bytes == 0)
        })
        .await;
    });
}

#[test]
fn streams_that_a_guest_and_a_node_leave_unread_stall_no_heartbeat() {
    on_threads(async {
        let cluster = Cluster::new();
        let silence = Duration::from_secs(5);
        let start = async |name: &str, role: PeerRole| {
            let config = cluster.config_as(name, role);
            ActorNode::start(NodeConfig { timing: lost_after(silence), ..config }).await.unwrap()
        };
        let b = start("b", PeerRole::Node).await;
        let a = start("a", PeerRole::Node).await;
        let guest = start("guest", PeerRole::Guest { scope: "default/digits".into() }).await;
        introduce(&[&a, &b, &guest]);
        let (player, sent) = shown(&b, "counter", SpawnOptions::default());
        let mut seen = sent.subscribe();
        let mut unread = Vec::new();
        for reader in [&a, &guest] {
            let far = reader.actor::<PlayerRole>(player.path().clone());
            far.ask(Urgent, LIMIT).await.unwrap();
            for _ in 0..64 {
                let endless = Count { to: 1 << 40, bytes_each: 64 << 10 };
                unread.push(far.open(endless, LIMIT).await.unwrap());
            }
        }
        still("all senders stop", &mut seen).await;
        let mut events = [a.peers(), b.peers(), guest.peers()];
        let players = [&a, &b, &guest].map(|node| play(node, "near", SpawnOptions::default()));
        let begun = std::time::Instant::now();
        // For longer than a silence may last.
        while begun.elapsed() < 2 * silence {
            for (from, to) in [(&a, 1), (&guest, 1), (&b, 0), (&b, 2)] {
                let far = from.actor::<PlayerRole>(players[to].path().clone());
                far.ask(Urgent, LIMIT).await.unwrap();
                far.ask(Echo("x".into()), LIMIT).await.unwrap();
            }
        }
        for events in &mut events {
            while let Ok(event) = events.try_recv() {
                assert!(!matches!(event, PeerEvent::Lost { .. }), "{event:?}");
            }
        }
        assert_eq!(unread.len(), 128);
    });
}
