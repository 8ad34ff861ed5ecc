//! Bulk asks and streams: large bodies, back-pressure, and nobody delayed by them.

use crate::cast::*;
use futures_util::StreamExt;
use impresario_runtime::{ActorNode, AskError, NodeConfig, SpawnOptions, StreamError, Timing};
use std::time::Duration;

#[actix::test]
async fn large_messages_and_large_answers_take_streams_of_their_own() {
    let (_a, _b, far) = Cluster::new().pair().await;
    let body = vec![3; 5 << 20];
    assert_eq!(far.ask(Large(body.clone()), LIMIT).await.unwrap(), body);
    assert_eq!(far.ask(Give(2 << 20), LIMIT).await.unwrap().len(), 2 << 20);
    let echo = "x".repeat(1 << 20);
    assert_eq!(far.ask(Echo(echo.clone()), LIMIT).await.unwrap(), echo);
}

#[actix::test]
async fn a_stream_brings_all_items_in_order_and_then_ends() {
    let (a, b, far) = Cluster::new().pair().await;
    let near = b.actor::<PlayerRole>(path(&b, "player"));
    drop(a);
    for player in [far, near] {
        let items = player.open(Count { to: 300, bytes_each: 100 }, LIMIT).await.unwrap();
        let numbers: Vec<_> = soon("all items", items.map(|item| item.unwrap().0).collect()).await;
        assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn a_stream_can_be_refused_and_can_break_with_a_reason() {
    let (_a, _b, far) = Cluster::new().pair().await;
    let refused = far.open(Count { to: 0, bytes_each: 0 }, LIMIT).await.unwrap_err();
    assert_eq!(refused, AskError::Refused { reason: "nothing to count".into() });
    let items: Vec<_> = soon("the end", far.open(Break, LIMIT).await.unwrap().collect()).await;
    assert_eq!(items, [Ok(1), Err(StreamError::Refused { reason: "cannot go on".into() })]);
}

#[actix::test]
async fn a_reader_that_does_not_read_holds_the_sender_back_and_leaving_stops_it() {
    let (a, b, _) = Cluster::new().pair().await;
    let (sent, mut seen) = tokio::sync::watch::channel(0);
    b.spawn::<PlayerRole, _>("counter", SpawnOptions::default(), move |_| {
        let mut player = Player::default();
        player.sent = sent.clone();
        player
    })
    .unwrap();
    let count = Count { to: 100_000, bytes_each: 64 << 10 };
    let mut items = a.actor::<PlayerRole>(path(&b, "counter")).open(count, LIMIT).await.unwrap();
    soon("the first item", items.next()).await.unwrap().unwrap();
    // The sender comes to a stop: nothing new for a while, long before the 6 GB are sent.
    let stalled = soon("the sender stalls", async {
        loop {
            let before = *seen.borrow_and_update();
            if tokio::time::timeout(Duration::from_millis(500), seen.changed()).await.is_err() {
                return before;
            }
        }
    })
    .await;
    assert!(stalled < 1_000, "{stalled} items of 64 KiB were sent to a reader that does not read");
    // Meanwhile the control lane is free.
    let player = a.actor::<PlayerRole>(path(&b, "player"));
    player.ask(Urgent, LIMIT).await.unwrap();
    drop(items);
    within("the sender hears that the reader left", &mut seen, |sent| *sent == u64::MAX).await;
}

#[actix::test]
async fn control_messages_pass_a_bulk_transfer() {
    // The default limits of silence: encoding such a body keeps a busy machine's only thread for a while.
    let cluster = Cluster::new();
    let patient = |name: &str| NodeConfig { timing: Timing::default(), ..cluster.config(name) };
    let (a, b) = (
        ActorNode::start(patient("a")).await.unwrap(),
        ActorNode::start(patient("b")).await.unwrap(),
    );
    introduce(&[&a, &b]);
    let far = a.actor::<PlayerRole>(play(&b, "player", SpawnOptions::default()).path().clone());
    far.ask(Urgent, LIMIT).await.unwrap();
    let transfer = actix::spawn(far.ask(Large(vec![0; 24 << 20]), Duration::from_mins(2)));
    let mut passed = 0;
    while !transfer.is_finished() {
        far.ask(Urgent, LIMIT).await.unwrap();
        passed += 1;
    }
    transfer.await.unwrap().unwrap();
    assert!(passed > 5, "{passed} urgent messages passed");
}
