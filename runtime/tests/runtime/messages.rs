//! Tell and ask: order, deadlines, overload, and every refusal by its type.

use crate::cast::*;
use impresario_runtime::{ActorNode, AskError, Cause, NodeConfig, Remedy, SpawnOptions, TellError};
use std::time::{Duration, Instant};

#[test]
fn an_actor_on_another_node_answers_like_one_here() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        let near = play(&a, "player", SpawnOptions::default());
        for player in [&far, &near] {
            assert_eq!(player.ask(Echo("hi".into()), LIMIT).await, Ok("hi".into()));
        }
        a.stop(LIMIT).await;
        b.stop(LIMIT).await;
    });
}

#[test]
fn tells_arrive_in_order_in_both_directions() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        let back = b.actor(
            play(&a, "back", SpawnOptions { mailbox: 4096, ..SpawnOptions::default() })
                .path()
                .clone(),
        );
        for number in 0..500 {
            far.tell(Note(number)).unwrap();
            back.tell(Note(number)).unwrap();
        }
        for player in [far, back] {
            let notes = notes(&player, "all notes", |notes| notes.len() == 500).await;
            assert!(notes.is_sorted(), "{notes:?}");
        }
    });
}

#[test]
fn two_nodes_that_dial_at_once_end_with_one_connection_and_lose_nothing() {
    on_threads(async {
        let cluster = Cluster::new();
        for round in 0..5 {
            let (a, b, far) = cluster.pair().await;
            let back = b.actor(play(&a, "back", SpawnOptions::default()).path().clone());
            for number in 0..50 {
                far.tell(Note(number)).unwrap();
                back.tell(Note(number)).unwrap();
            }
            let (one, other) = tokio::join!(
                notes(&far, "notes at b", |notes| notes.len() == 50),
                notes(&back, "notes at a", |notes| notes.len() == 50)
            );
            assert_eq!(one, other, "in round {round}");
            a.stop(LIMIT).await;
            b.stop(LIMIT).await;
        }
    });
}

#[test]
fn an_ask_ends_by_its_deadline() {
    on_threads(async {
        let (_a, _b, far) = Cluster::new().pair().await;
        far.ask(Echo("connected".into()), LIMIT).await.unwrap();
        let begun = Instant::now();
        let error = far.ask(Ponder(60_000), Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(error, AskError::Deadline { waited: Duration::from_millis(100) });
        assert_eq!(error.remedy(), Remedy::LookFirst);
        assert!(begun.elapsed() < LIMIT);
        assert_eq!(far.ask(Ponder(1), LIMIT).await, Ok(1), "a late answer disturbs nobody");
    });
}

#[test]
fn a_full_mailbox_says_overloaded_here_and_from_afar() {
    on_threads(async {
        let cluster = Cluster::new();
        let (a, b, _) = cluster.pair().await;
        let options = SpawnOptions { mailbox: 2, ..SpawnOptions::default() };
        let (near, go) = shown(&b, "small", options);
        let far = a.actor::<PlayerRole>(near.path().clone());
        far.ask(Echo("connected".into()), LIMIT).await.unwrap();
        near.tell(Halt).unwrap();
        within("the actor halts", &mut go.subscribe(), |sent| *sent == HALTED).await;
        let mut refused = None;
        for number in 0..10 {
            refused = near.tell(Note(number)).err().or(refused);
        }
        assert_eq!(refused, Some(TellError::Overloaded { actor: "small".into() }));
        let error = far.ask(Echo(String::new()), LIMIT).await.unwrap_err();
        assert_eq!(error, AskError::Overloaded { actor: "small".into() });
        assert_eq!(error.remedy(), Remedy::Retry);
        go.send_replace(GO);
        soon("the actor is free again", async {
            while far.ask(Echo(String::new()), LIMIT).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    });
}

#[test]
fn a_full_lane_pushes_back_on_the_sender() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("a");
        config.limits.lane_frames = 10;
        let a = ActorNode::start(config).await.unwrap();
        // Nobody answers there: what is told waits for as long as it is dialled.
        let hole = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        a.addresses().set("far".into(), hole.local_addr().unwrap());
        let nobody = a.actor::<PlayerRole>(impresario_runtime::ActorPath::new("far", "player"));
        let outcomes: Vec<_> = (0..20).map(|number| nobody.tell(Note(number))).collect();
        assert!(
            outcomes.contains(&Err(TellError::Overloaded { actor: "player".into() })),
            "{outcomes:?}"
        );
    });
}

#[test]
fn unknown_actors_and_messages_are_named() {
    on_threads(async {
        let (a, b, _) = Cluster::new().pair().await;
        for from in [&a, &b] {
            let missing = from.actor::<PlayerRole>(path(&b, "missing")).ask(Notes, LIMIT).await;
            assert_eq!(missing, Err(AskError::NoSuchActor { actor: "missing".into() }));
            let unknown = from.actor::<ForeignRole>(path(&b, "player")).ask(Foreign, LIMIT).await;
            let message = "test.Foreign".to_owned();
            assert_eq!(unknown, Err(AskError::UnknownMessage { actor: "player".into(), message }));
        }
    });
}

#[test]
fn a_node_without_address_is_unreachable_at_once() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let nowhere =
            a.actor::<PlayerRole>(impresario_runtime::ActorPath::new("nowhere", "player"));
        let error = nowhere.ask(Notes, LIMIT).await.unwrap_err();
        assert!(
            matches!(&error, AskError::Unreachable { node, .. } if node.as_str() == "nowhere"),
            "{error}"
        );
    });
}

#[test]
fn an_ask_that_panics_its_actor_is_told_that_it_stopped() {
    on_threads(async {
        let (_a, _b, far) = Cluster::new().pair().await;
        assert_eq!(far.ask(Panic, LIMIT).await, Err(AskError::Stopped { actor: "player".into() }));
    });
}

#[test]
fn the_forced_wire_takes_local_messages_through_the_codec() {
    on_threads(async {
        let config = NodeConfig { force_wire: true, ..Cluster::new().config("a") };
        let a = ActorNode::start(config).await.unwrap();
        let player = play(&a, "player", SpawnOptions::default());
        player.tell(Note(1)).unwrap();
        assert_eq!(player.ask(Echo("x".into()), LIMIT).await, Ok("x".into()));
        assert_eq!(player.ask(Notes, LIMIT).await, Ok(vec![1]));
        assert_eq!(
            a.local::<PlayerRole>("missing").tell(Note(2)),
            Err(TellError::NoSuchActor { actor: "missing".into() })
        );
    });
}

#[test]
fn a_registered_actor_answers_until_its_registration_is_dropped() {
    on_threads(async {
        let (a, b, _) = Cluster::new().pair().await;
        let addr = actix::Actor::start(Player::default());
        let registration = b.register::<PlayerRole, _>("guest", addr).unwrap();
        let far = a.actor::<PlayerRole>(path(&b, "guest"));
        assert_eq!(far.ask(Echo("x".into()), LIMIT).await, Ok("x".into()));
        drop(registration);
        assert_eq!(
            far.ask(Notes, LIMIT).await,
            Err(AskError::NoSuchActor { actor: "guest".into() })
        );
    });
}

#[test]
fn a_name_is_taken_once() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        play(&a, "player", SpawnOptions::default());
        let again =
            a.spawn::<PlayerRole, _>("player", SpawnOptions::default(), |_| Player::default());
        assert!(
            matches!(again, Err(impresario_runtime::SpawnError::NameTaken { .. })),
            "{again:?}"
        );
    });
}

#[test]
fn stopping_a_node_does_not_wait_for_actors_that_others_started() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let registration =
            a.register::<PlayerRole, _>("guest", actix::Actor::start(Player::default())).unwrap();
        let watch = a.watch(path(&a, "guest"));
        soon("the stop", a.stop(LIMIT * 10)).await;
        assert_eq!(
            soon("the watch", watch.terminated()).await.unwrap().reason,
            impresario_runtime::Reason::Stopped
        );
        drop(registration);
    });
}

#[test]
fn tells_that_a_full_mailbox_cannot_take_wait_in_order_and_hold_their_sender_back() {
    on_threads(async {
        let (a, b, other) = Cluster::new().pair().await;
        let small = SpawnOptions { mailbox: 2, ..SpawnOptions::default() };
        let (near, go) = shown(&b, "small", small);
        let far = a.actor::<PlayerRole>(near.path().clone());
        far.tell(Halt).unwrap();
        let mut taken = Vec::new();
        soon("the sender is held back", async {
            for number in 0.. {
                match far.tell(Note(number)) {
                    Ok(()) => taken.push(number),
                    Err(error) => {
                        assert_eq!(error, TellError::Overloaded { actor: "small".into() });
                        break;
                    }
                }
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        assert!(taken.len() > 10, "{} taken", taken.len());
        other.ask(Echo(String::new()), LIMIT).await.unwrap();
        assert_eq!(
            far.ask(Notes, LIMIT).await,
            Err(AskError::Overloaded { actor: "small".into() }),
            "an ask does not overtake"
        );
        go.send_replace(GO);
        let seen = notes(&near, "all that was taken", |notes| notes.len() >= taken.len()).await;
        assert_eq!(seen, taken);
        soon("its sender may go on", async {
            while far.tell(Note(1_000_000)).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        notes(&near, "what came after", |notes| notes.last() == Some(&1_000_000)).await;
        until("nothing is held any more", || {
            usage(&b, "a").is_some_and(|usage| usage.held_bytes == 0)
        })
        .await;
    });
}

#[test]
fn tells_that_cannot_be_kept_are_reported_to_their_sender_and_counted_by_both() {
    on_threads(async {
        let cluster = Cluster::new();
        let mut config = cluster.config("b");
        config.limits.node.bytes = 4 << 10;
        let (a, b) = (cluster.node("a").await, ActorNode::start(config).await.unwrap());
        introduce(&[&a, &b]);
        let small = SpawnOptions { mailbox: 2, ..SpawnOptions::default() };
        let (near, go) = shown(&b, "small", small);
        let far = a.actor::<PlayerRole>(near.path().clone());
        far.ask(Urgent, LIMIT).await.unwrap();
        let mut reports = a.lost_tells();
        far.tell(Halt).unwrap();
        // All at once, before it hears that the mailbox is full.
        let slowly = impresario_runtime::FaultRule {
            delay: Duration::from_secs(5),
            ..impresario_runtime::FaultRule::new(
                Some("b".into()),
                impresario_runtime::Direction::Receive,
            )
        };
        a.faults().set(slowly);
        let taken = (0..500).filter(|number| far.tell(Note(*number)).is_ok()).count();
        a.faults().clear();
        let lost = soon("a report", reports.recv()).await.unwrap();
        assert_eq!((&lost.to, &*lost.message), (near.path(), "test.Note"));
        assert_eq!(lost.why, AskError::Overloaded { actor: "small".into() });
        go.send_replace(GO);
        let mut missing = lost.count as usize;
        let seen = loop {
            // Its mailbox may still be full of them.
            let seen = near.ask(Notes, LIMIT).await.unwrap_or_default();
            if seen.len() + missing >= taken {
                break seen;
            }
            if let Ok(more) = tokio::time::timeout(Duration::from_millis(50), reports.recv()).await
            {
                missing += more.unwrap().count as usize;
            }
        };
        assert_eq!(seen.len() + missing, taken, "each arrived or was reported");
        assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
        let count = |node: &ActorNode, cause| {
            let counts = node.refusals().into_iter().filter(move |one| one.cause == cause);
            counts.map(|one| one.count as usize).sum::<usize>()
        };
        assert_eq!((count(&a, Cause::Lost), count(&b, Cause::Undelivered)), (missing, missing));
    });
}

#[test]
fn tells_to_nobody_or_of_a_foreign_message_are_reported() {
    on_threads(async {
        let (a, b, _) = Cluster::new().pair().await;
        let mut reports = a.lost_tells();
        a.actor::<PlayerRole>(path(&b, "missing")).tell(Note(1)).unwrap();
        let lost = soon("a report", reports.recv()).await.unwrap();
        assert_eq!((lost.to, lost.count), (path(&b, "missing"), 1));
        assert_eq!(lost.why, AskError::NoSuchActor { actor: "missing".into() });
        a.actor::<ForeignRole>(path(&b, "player")).tell(Foreign).unwrap();
        let lost = soon("a report", reports.recv()).await.unwrap();
        assert!(matches!(lost.why, AskError::UnknownMessage { .. }), "{lost:?}");
        a.actor::<PlayerRole>(path(&b, "missing")).tell(Large(vec![1; 100])).unwrap();
        let lost = soon("a report", reports.recv()).await.unwrap();
        assert_eq!((&*lost.message, lost.count), ("test.Large", 1));
    });
}
