//! Death watch and failure detection: one word per watch, whatever the end.

use crate::cast::*;
use impresario_runtime::{ActorNode, AskError, PeerEvent, Reason, RestartPolicy, SpawnOptions};
use tokio::sync::broadcast;

async fn event(
    events: &mut broadcast::Receiver<PeerEvent>,
    what: &str,
    holds: impl Fn(&PeerEvent) -> bool,
) {
    soon(what, async { while !holds(&events.recv().await.unwrap()) {} }).await;
}

#[actix::test]
async fn a_watch_tells_how_an_actor_ended() {
    let (a, b, _) = Cluster::new().pair().await;
    for from in [&a, &b] {
        let never = SpawnOptions { restart: RestartPolicy::never(), ..SpawnOptions::default() };
        for (name, reason) in
            [("quits", Reason::Stopped), ("fails", Reason::Failed), ("stopped", Reason::Stopped)]
        {
            let player = play(&b, name, never.clone());
            let watch = from.watch(player.path().clone());
            // The watch is there before what ends the actor: both travel in order, or the actor is asked first.
            from.actor::<PlayerRole>(player.path().clone()).ask(Urgent, LIMIT).await.unwrap();
            match name {
                "quits" => player.tell(Quit).unwrap(),
                "fails" => player.tell(Panic).unwrap(),
                _ => assert!(b.stop_actor(&name.into())),
            }
            let ended = soon(name, watch.terminated()).await;
            assert_eq!((ended.path, ended.reason), (path(&b, name), reason));
        }
        let missing = soon("missing", from.watch(path(&b, "missing")).terminated()).await;
        assert_eq!(missing.reason, Reason::NoSuchActor);
    }
}

#[actix::test]
async fn a_restart_is_not_an_end() {
    let (a, b, far) = Cluster::new().pair().await;
    let watch = a.watch(path(&b, "player"));
    far.ask(Urgent, LIMIT).await.unwrap();
    far.ask(Panic, LIMIT).await.unwrap_err();
    soon("the actor is back", async {
        while far.ask(Echo(String::new()), LIMIT).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(b.stop_actor(&"player".into()));
    assert_eq!(soon("the end", watch.terminated()).await.reason, Reason::Stopped);
}

#[actix::test]
async fn a_node_that_stops_is_lost_at_once_and_its_asks_and_watches_with_it() {
    let (a, b, far) = Cluster::new().pair().await;
    let mut events = a.peers();
    let watch = a.watch(path(&b, "player"));
    far.ask(Urgent, LIMIT).await.unwrap();
    let waiting = actix::spawn(far.ask(Ponder(600_000), LIMIT * 10));
    far.ask(Urgent, LIMIT).await.unwrap();
    b.stop(LIMIT).await;
    event(
        &mut events,
        "lost",
        |event| matches!(event, PeerEvent::Lost { node, .. } if node.as_str() == "b"),
    )
    .await;
    let reason = soon("the watch", watch.terminated()).await.reason;
    assert!(matches!(reason, Reason::Stopped | Reason::NodeLost), "{reason:?}");
    let answer = soon("the ask", waiting).await.unwrap();
    assert!(
        matches!(answer, Err(AskError::Unreachable { .. } | AskError::Stopped { .. })),
        "{answer:?}"
    );
}

#[actix::test]
async fn a_new_process_of_the_same_name_replaces_the_old_one() {
    let cluster = Cluster::new();
    let (a, b, far) = cluster.pair().await;
    far.ask(Urgent, LIMIT).await.unwrap();
    let mut events = a.peers();
    let watch = a.watch(path(&b, "player"));
    far.ask(Urgent, LIMIT).await.unwrap();

    let next = cluster.node("b").await;
    introduce(&[&a, &next]);
    let player = play(&next, "player", SpawnOptions::default());
    let back = next.actor::<PlayerRole>(play(&a, "back", SpawnOptions::default()).path().clone());
    back.ask(Urgent, LIMIT).await.unwrap();

    assert_eq!(soon("the watch", watch.terminated()).await.reason, Reason::NodeLost);
    let old = b.incarnation();
    event(
        &mut events,
        "lost",
        |event| matches!(event, PeerEvent::Lost { incarnation, .. } if *incarnation == old),
    )
    .await;
    far.ask(Note(5), LIMIT).await.unwrap();
    assert_eq!(player.ask(Notes, LIMIT).await, Ok(vec![5]));
}

#[actix::test]
async fn a_peer_that_falls_silent_is_suspect_then_lost_and_comes_back() {
    let cluster = Cluster::new();
    let (a, b, far) = cluster.pair().await;
    far.ask(Urgent, LIMIT).await.unwrap();
    let mut events = a.peers();
    let watch = a.watch(path(&b, "player"));
    far.ask(Urgent, LIMIT).await.unwrap();
    let cut = impresario_runtime::FaultRule {
        cut: true,
        ..impresario_runtime::FaultRule::new(
            Some("b".into()),
            impresario_runtime::Direction::Receive,
        )
    };
    a.faults().set(cut);
    event(&mut events, "suspect", |event| matches!(event, PeerEvent::Suspect { .. })).await;
    event(&mut events, "lost", |event| matches!(event, PeerEvent::Lost { .. })).await;
    assert_eq!(soon("the watch", watch.terminated()).await.reason, Reason::NodeLost);
    assert!(far.ask(Urgent, LIMIT).await.is_err());
    a.faults().clear();
    soon("reachable again", async {
        while far.ask(Urgent, LIMIT).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    event(&mut events, "up", |event| matches!(event, PeerEvent::Up { .. })).await;
}

#[actix::test]
async fn a_watch_on_a_node_that_never_answers_ends_as_lost() {
    let a: ActorNode = Cluster::new().node("a").await;
    let watch = a.watch(impresario_runtime::ActorPath::new("nowhere", "player"));
    assert_eq!(soon("the watch", watch.terminated()).await.reason, Reason::NodeLost);
}

#[actix::test]
async fn a_watch_on_a_node_that_swallows_all_packets_ends_as_lost_however_long_a_dial_takes() {
    let a: ActorNode = Cluster::new().node("a").await;
    let hole = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.addresses().set("hole".into(), hole.local_addr().unwrap());
    let path = impresario_runtime::ActorPath::new("hole", "player");
    let watch = a.watch(path.clone());
    let ask = a.actor::<PlayerRole>(path).ask(Notes, LIMIT * 10);
    let answer = soon("the ask", ask).await;
    assert!(matches!(answer, Err(AskError::Unreachable { .. })), "{answer:?}");
    assert_eq!(soon("the watch", watch.terminated()).await.reason, Reason::NodeLost);
}

#[actix::test]
async fn a_watch_that_is_dropped_is_forgotten_at_the_other_end_and_others_are_answered() {
    let (a, b, far) = Cluster::new().pair().await;
    let kept = a.watch(path(&b, "player"));
    drop(a.watch(path(&b, "player")));
    far.ask(Urgent, LIMIT).await.unwrap();
    far.tell(Quit).unwrap();
    assert_eq!(soon("the kept watch", kept.terminated()).await.reason, Reason::Stopped);
}
