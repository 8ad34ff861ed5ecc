//! Death watch and failure detection: one word per watch, whatever the end.

use crate::cast::*;
use futures_util::{FutureExt, StreamExt};
use impresario_runtime::{
    ActorNode, AskError, Cause, Direction, FaultRule, NodeConfig, PeerEvent, Reason, RestartPolicy,
    SpawnOptions, StreamError, Timing, WatchError,
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::UdpSocket,
    sync::{broadcast, watch},
};

/// A node that soon takes who is silent for lost.
async fn impatient(cluster: &Cluster, name: &str) -> ActorNode {
    ActorNode::start(NodeConfig { timing: fast(), ..cluster.config(name) }).await.unwrap()
}

async fn event(
    events: &mut broadcast::Receiver<PeerEvent>,
    what: &str,
    holds: impl Fn(&PeerEvent) -> bool,
) {
    soon(what, async { while !holds(&events.recv().await.unwrap()) {} }).await;
}

#[test]
fn a_watch_tells_how_an_actor_ended() {
    on_threads(async {
        let (a, b, _) = Cluster::new().pair().await;
        for from in [&a, &b] {
            let never = SpawnOptions { restart: RestartPolicy::never(), ..SpawnOptions::default() };
            for (name, reason) in [
                ("quits", Reason::Stopped),
                ("fails", Reason::Failed),
                ("stopped", Reason::Stopped),
            ] {
                let player = play(&b, name, never.clone());
                let watch = from.watch(player.path().clone());
                // The watch is there before what ends the actor: both travel in order, or the actor is asked first.
                from.actor::<PlayerRole>(player.path().clone()).ask(Urgent, LIMIT).await.unwrap();
                match name {
                    "quits" => player.tell(Quit).unwrap(),
                    "fails" => player.tell(Panic).unwrap(),
                    _ => assert!(b.stop_actor(&name.into())),
                }
                let ended = soon(name, watch.terminated()).await.unwrap();
                assert_eq!((ended.path, ended.reason), (path(&b, name), reason));
            }
            let missing =
                soon("missing", from.watch(path(&b, "missing")).terminated()).await.unwrap();
            assert_eq!(missing.reason, Reason::NoSuchActor);
        }
    });
}

#[test]
fn a_restart_is_not_an_end() {
    on_threads(async {
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
        assert_eq!(soon("the end", watch.terminated()).await.unwrap().reason, Reason::Stopped);
    });
}

#[test]
fn a_node_that_stops_is_lost_at_once_and_its_asks_and_watches_with_it() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        let mut events = a.peers();
        let watch = a.watch(path(&b, "player"));
        far.ask(Urgent, LIMIT).await.unwrap();
        let mut waiting = Box::pin(far.ask(Ponder(600_000), LIMIT * 10));
        assert!((&mut waiting).now_or_never().is_none());
        // On the same lane, so that the first one is there.
        far.ask(Echo(String::new()), LIMIT).await.unwrap();
        b.stop(LIMIT).await;
        event(
            &mut events,
            "lost",
            |event| matches!(event, PeerEvent::Lost { node, .. } if node.as_str() == "b"),
        )
        .await;
        let reason = soon("the watch", watch.terminated()).await.unwrap().reason;
        assert!(matches!(reason, Reason::Stopped | Reason::NodeLost), "{reason:?}");
        let answer = soon("the ask", waiting).await;
        assert!(
            matches!(answer, Err(AskError::Unreachable { .. } | AskError::Stopped { .. })),
            "{answer:?}"
        );
    });
}

#[test]
fn a_second_process_of_a_name_is_kept_out_while_the_first_lives_and_replaces_it_when_that_is_silent()
 {
    on_threads(async {
        let cluster = Cluster::new();
        let (a, b, wire) = over_a_wire(&cluster).await;
        let far = a.actor::<PlayerRole>(path(&b, "player"));
        far.ask(Urgent, LIMIT).await.unwrap();
        let mut events = a.peers();
        let watch = a.watch(path(&b, "player"));
        far.ask(Urgent, LIMIT).await.unwrap();

        let next = cluster.node("b").await;
        next.addresses().set("a".into(), a.local_addr());
        let player = play(&next, "player", SpawnOptions::default());
        let back =
            next.actor::<PlayerRole>(play(&a, "back", SpawnOptions::default()).path().clone());
        let refused = back.ask(Urgent, LIMIT).await.unwrap_err();
        assert!(refused.to_string().contains("stop one of them"), "{refused}");
        assert!(next.is_turned_away_by(a.name()));
        far.ask(Note(4), LIMIT).await.unwrap();
        let first = b.actor::<PlayerRole>(path(&b, "player"));
        assert_eq!(first.ask(Notes, LIMIT).await, Ok(vec![4]), "the first process goes on");

        wire.cut();
        answered("the second process is taken", &back).await;
        assert!(!next.is_turned_away_by(a.name()));
        assert_eq!(soon("the watch", watch.terminated()).await.unwrap().reason, Reason::NodeLost);
        let old = b.incarnation();
        event(
            &mut events,
            "lost",
            |event| matches!(event, PeerEvent::Lost { incarnation, .. } if *incarnation == old),
        )
        .await;
        far.ask(Note(5), LIMIT).await.unwrap();
        assert_eq!(player.ask(Notes, LIMIT).await, Ok(vec![5]));
    });
}

#[test]
fn a_process_that_was_killed_is_not_kept_alive_by_who_sends_again_what_it_once_said() {
    on_threads(async {
        let cluster = Cluster::new();
        let (a, b, wire) = over_a_wire(&cluster).await;
        a.actor::<PlayerRole>(path(&b, "player")).ask(Urgent, LIMIT).await.unwrap();

        wire.echo();
        let next = cluster.node("b").await;
        next.addresses().set("a".into(), a.local_addr());
        let back =
            next.actor::<PlayerRole>(play(&a, "back", SpawnOptions::default()).path().clone());
        back.ask(Urgent, LIMIT).await.unwrap();
    });
}

/// Nodes a and b, which has a player; a reaches b over a wire.
async fn over_a_wire(cluster: &Cluster) -> (ActorNode, ActorNode, Wire) {
    let listens = Timing { heartbeat: Duration::from_secs(1), ..calm() };
    let a = NodeConfig { timing: listens, ..cluster.config("a") };
    let (a, b) = (ActorNode::start(a).await.unwrap(), cluster.node("b").await);
    let wire = Wire::to(b.local_addr()).await;
    a.addresses().set("b".into(), wire.at);
    play(&b, "player", SpawnOptions::default());
    (a, b, wire)
}

/// Hands on the datagrams between one node and those who dial it here, until it is cut: as a process that was killed.
struct Wire {
    at: SocketAddr,
    carries: tokio::task::JoinHandle<()>,
    echoes: watch::Sender<bool>,
}

impl Wire {
    async fn to(node: SocketAddr) -> Self {
        let here = || async { UdpSocket::bind("127.0.0.1:0").await.unwrap() };
        let (outer, inner) = (here().await, here().await);
        let at = outer.local_addr().unwrap();
        let (echoes, mut echo) = watch::channel(false);
        let carries = tokio::spawn(async move {
            let (mut dialler, mut there, mut back, mut last) = (None, [0; 4096], [0; 4096], 0);
            loop {
                if *echo.borrow() {
                    break;
                }
                tokio::select! {
                    Ok((size, from)) = outer.recv_from(&mut there) => {
                        dialler = Some(from);
                        // Datagrams may be lost.
                        let _ = inner.send_to(&there[..size], node).await;
                    }
                    Ok((size, _)) = inner.recv_from(&mut back) => {
                        last = size;
                        if let Some(dialler) = dialler {
                            let _ = outer.send_to(&back[..size], dialler).await;
                        }
                    }
                    Ok(()) = echo.changed() => {}
                }
            }
            let dialler = dialler.unwrap();
            loop {
                let _ = outer.send_to(&back[..last], dialler).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { at, carries, echoes }
    }

    /// Carries nothing any more, and sends the last datagram of the node again and again.
    fn echo(&self) {
        self.echoes.send_replace(true);
    }

    fn cut(&self) {
        self.carries.abort();
    }
}

#[test]
fn a_peer_that_falls_silent_is_suspect_then_lost_and_comes_back() {
    on_threads(async {
        let cluster = Cluster::new();
        let a = impatient(&cluster, "a").await;
        let b = cluster.node("b").await;
        introduce(&[&a, &b]);
        let player = play(&b, "player", SpawnOptions::default());
        let far = a.actor::<PlayerRole>(player.path().clone());
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
        assert_eq!(soon("the watch", watch.terminated()).await.unwrap().reason, Reason::NodeLost);
        assert!(far.ask(Urgent, LIMIT).await.is_err());
        a.faults().clear();
        answered("reachable again", &far).await;
        event(&mut events, "up", |event| matches!(event, PeerEvent::Up { .. })).await;
    });
}

#[test]
fn a_watch_on_a_node_that_never_answers_ends_as_lost() {
    on_threads(async {
        let a = impatient(&Cluster::new(), "a").await;
        let watch = a.watch(impresario_runtime::ActorPath::new("nowhere", "player"));
        assert_eq!(soon("the watch", watch.terminated()).await.unwrap().reason, Reason::NodeLost);
    });
}

#[test]
fn a_watch_on_a_node_that_swallows_all_packets_ends_as_lost_however_long_a_dial_takes() {
    on_threads(async {
        let a = impatient(&Cluster::new(), "a").await;
        let hole = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        a.addresses().set("hole".into(), hole.local_addr().unwrap());
        let path = impresario_runtime::ActorPath::new("hole", "player");
        let watch = a.watch(path.clone());
        let ask = a.actor::<PlayerRole>(path).ask(Notes, LIMIT * 10);
        let answer = soon("the ask", ask).await;
        assert!(matches!(answer, Err(AskError::Unreachable { .. })), "{answer:?}");
        assert_eq!(soon("the watch", watch.terminated()).await.unwrap().reason, Reason::NodeLost);
    });
}

#[test]
fn a_watch_that_is_dropped_or_answered_is_forgotten_at_the_other_end_and_others_stand() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        let watches = || usage(&b, "a").map_or(0, |usage| usage.watches);
        let kept = a.watch(path(&b, "player"));
        let dropped = a.watch(path(&b, "player"));
        until("both watch", || watches() == 2).await;
        drop(dropped);
        until("one is forgotten", || watches() == 1).await;
        far.tell(Quit).unwrap();
        assert_eq!(
            soon("the kept watch", kept.terminated()).await.unwrap().reason,
            Reason::Stopped
        );
        until("so is the one that was answered", || watches() == 0).await;
    });
}

#[test]
fn a_watch_too_many_is_refused_and_is_no_death() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.node.watches = 2;
        let (a, b) = (cluster.node("a").await, ActorNode::start(config).await.unwrap());
        introduce(&[&a, &b]);
        let player = play(&b, "player", SpawnOptions::default());
        let kept = [a.watch(player.path().clone()), a.watch(player.path().clone())];
        until("both watch", || usage(&b, "a").is_some_and(|usage| usage.watches == 2)).await;
        let refused = soon("the third", a.watch(player.path().clone()).terminated()).await;
        assert_eq!(refused, Err(WatchError::Overloaded));
        let counts = b.refusals();
        assert!(
            counts.iter().any(|one| one.cause == Cause::Watches && one.count == 1),
            "{counts:?}"
        );
        player.tell(Quit).unwrap();
        for watch in kept {
            assert_eq!(soon("its end", watch.terminated()).await.unwrap().reason, Reason::Stopped);
        }
    });
}

#[test]
fn far_more_watches_than_a_lane_has_room_for_survive_a_connection_that_breaks() {
    on_threads(async {
        let cluster = Cluster::new();
        let small = |name: &str| {
            let mut config = cluster.config(name);
            config.limits.lane_frames = 64;
            config
        };
        let a = ActorNode::start(small("a")).await.unwrap();
        let b = ActorNode::start(small("b")).await.unwrap();
        introduce(&[&a, &b]);
        let player = play(&b, "player", SpawnOptions::default());
        let far = a.actor::<PlayerRole>(player.path().clone());
        far.ask(Urgent, LIMIT).await.unwrap();
        let watches: Vec<_> = (0..1000).map(|_| a.watch(player.path().clone())).collect();
        let all = || usage(&b, "a").is_some_and(|usage| usage.watches == 1000);
        until("all watch", all).await;
        break_connection(&a, &far).await;
        until("all still watch", all).await;
        player.tell(Quit).unwrap();
        for watch in watches {
            assert_eq!(soon("its end", watch.terminated()).await.unwrap().reason, Reason::Stopped);
        }
        until("all ends are heard", || usage(&b, "a").is_some_and(|usage| usage.watches == 0))
            .await;
    });
}

/// Breaks the connection once, and waits until there is another.
async fn break_connection(node: &ActorNode, far: &impresario_runtime::ActorRef<PlayerRole>) {
    let mut items = far.open(Count { to: 1 << 40, bytes_each: 0 }, LIMIT).await.unwrap();
    let rule = FaultRule { drop: 1.0, ..FaultRule::new(None, Direction::Send) };
    node.faults().set(rule);
    let lost =
        async { while !matches!(items.next().await, Some(Err(StreamError::Lost { .. }))) {} };
    soon("the connection breaks", lost).await;
    node.faults().clear();
    answered("another connection", far).await;
}

#[test]
fn an_end_while_no_word_gets_through_is_told_afterwards_and_a_successor_inherits_nothing() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        let watch = a.watch(path(&b, "player"));
        until("it watches", || usage(&b, "a").is_some_and(|usage| usage.watches == 1)).await;
        b.faults().set(FaultRule { drop: 1.0, ..FaultRule::new(None, Direction::Send) });
        far_end(&b).await;
        play(&b, "player", SpawnOptions::default());
        b.faults().clear();
        assert_eq!(soon("the old end", watch.terminated()).await.unwrap().reason, Reason::Stopped);
    });
}

/// Stops the player and waits until it is gone.
async fn far_end(node: &ActorNode) {
    let end = node.watch(path(node, "player"));
    assert!(node.stop_actor(&"player".into()));
    soon("the end", end.terminated()).await.unwrap();
}

#[test]
fn a_node_that_had_given_its_watcher_up_still_tells_of_the_life_that_was_watched() {
    on_threads(async {
        let cluster = Cluster::new();
        // a is patient, b is not: only b takes the other for lost.
        let (a, b) = (cluster.node("a").await, impatient(&cluster, "b").await);
        introduce(&[&a, &b]);
        let player = play(&b, "player", SpawnOptions::default());
        let far = a.actor::<PlayerRole>(player.path().clone());
        let watch = a.watch(player.path().clone());
        until("it watches", || usage(&b, "a").is_some_and(|usage| usage.watches == 1)).await;
        far.ask(Urgent, LIMIT).await.unwrap();
        let mut events = b.peers();
        let cut = FaultRule { cut: true, ..FaultRule::new(None, Direction::Receive) };
        b.faults().set(cut);
        event(&mut events, "lost", |event| matches!(event, PeerEvent::Lost { .. })).await;
        far_end(&b).await;
        play(&b, "player", SpawnOptions::default());
        b.faults().clear();
        assert_eq!(soon("the old end", watch.terminated()).await.unwrap().reason, Reason::Stopped);
    });
}

#[test]
fn what_is_said_between_a_goodbye_and_the_return_is_for_the_new_life() {
    on_threads(async {
        let cluster = Cluster::new();
        let (a, b, far) = cluster.pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        let next = cluster.node("b").await;
        let player = play(&next, "player", SpawnOptions::default());
        let mut events = a.peers();
        b.stop(LIMIT).await;
        event(&mut events, "lost", |event| matches!(event, PeerEvent::Lost { .. })).await;
        a.addresses().set("b".into(), next.local_addr());
        let watch = a.watch(path(&next, "player"));
        far.tell(Note(5)).unwrap();
        let waiting = actix::spawn(far.ask(Echo("x".into()), LIMIT));
        assert_eq!(soon("the answer", waiting).await.unwrap(), Ok("x".into()));
        assert_eq!(player.ask(Notes, LIMIT).await, Ok(vec![5]), "the first words are not lost");
        assert!(next.stop_actor(&"player".into()));
        let reason = soon("the watch", watch.terminated()).await.unwrap().reason;
        assert_eq!(reason, Reason::Stopped, "nobody died before");
    });
}

#[test]
fn tells_that_wait_for_a_node_that_cannot_be_reached_are_reported() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let mut lost = a.lost_tells();
        let nobody = a.actor::<PlayerRole>(impresario_runtime::ActorPath::new("nobody", "player"));
        for number in 0..3 {
            nobody.tell(Note(number)).unwrap();
        }
        let mut count = 0;
        while count < 3 {
            let report = soon("the report", lost.recv()).await.unwrap();
            assert_eq!((report.to, report.message), (nobody.path().clone(), "test.Note".into()));
            assert!(matches!(report.why, AskError::Unreachable { .. }), "{:?}", report.why);
            count += report.count;
        }
        assert_eq!(count, 3);
        assert!(a.refusals().iter().any(|one| one.cause == Cause::Unreached && one.count == 3));
    });
}
