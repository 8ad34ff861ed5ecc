//! Tell and ask: order, deadlines, overload, and every refusal by its type.

use crate::cast::*;
use impresario_runtime::{ActorNode, AskError, NodeConfig, Remedy, SpawnOptions, TellError};
use std::time::{Duration, Instant};

#[actix::test]
async fn an_actor_on_another_node_answers_like_one_here() {
    let (a, b, far) = Cluster::new().pair().await;
    let near = play(&a, "player", SpawnOptions::default());
    for player in [&far, &near] {
        assert_eq!(player.ask(Echo("hi".into()), LIMIT).await, Ok("hi".into()));
    }
    a.stop(LIMIT).await;
    b.stop(LIMIT).await;
}

#[actix::test]
async fn tells_arrive_in_order_in_both_directions() {
    let (a, b, far) = Cluster::new().pair().await;
    let back = b.actor(
        play(&a, "back", SpawnOptions { mailbox: 4096, ..SpawnOptions::default() }).path().clone(),
    );
    for number in 0..500 {
        far.tell(Note(number)).unwrap();
        back.tell(Note(number)).unwrap();
    }
    for player in [far, back] {
        let notes = notes(&player, "all notes", |notes| notes.len() == 500).await;
        assert!(notes.is_sorted(), "{notes:?}");
    }
}

#[actix::test]
async fn two_nodes_that_dial_at_once_end_with_one_connection_and_lose_nothing() {
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
}

#[actix::test]
async fn an_ask_ends_by_its_deadline() {
    let (_a, _b, far) = Cluster::new().pair().await;
    far.ask(Echo("connected".into()), LIMIT).await.unwrap();
    let begun = Instant::now();
    let error = far.ask(Ponder(60_000), Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error, AskError::Deadline { waited: Duration::from_millis(100) });
    assert_eq!(error.remedy(), Remedy::LookFirst);
    assert!(begun.elapsed() < LIMIT);
    assert_eq!(far.ask(Ponder(1), LIMIT).await, Ok(1), "a late answer disturbs nobody");
}

#[actix::test]
async fn a_full_mailbox_says_overloaded_here_and_from_afar() {
    let cluster = Cluster::new();
    let (a, b, _) = cluster.pair().await;
    let (begun, mut blocked) = tokio::sync::watch::channel(0);
    let options = SpawnOptions { mailbox: 2, ..SpawnOptions::default() };
    let near = b.spawn::<PlayerRole, _>("small", options, move |_| {
        let mut player = Player::default();
        player.sent = begun.clone();
        player
    });
    let near = near.unwrap();
    let far = a.actor::<PlayerRole>(near.path().clone());
    far.ask(Echo("connected".into()), LIMIT).await.unwrap();
    near.tell(Block(3000)).unwrap();
    within("the actor is blocked", &mut blocked, |begun| *begun == 1).await;
    let mut refused = None;
    for number in 0..10 {
        refused = near.tell(Note(number)).err().or(refused);
    }
    assert_eq!(refused, Some(TellError::Overloaded { actor: "small".into() }));
    let error = far.ask(Echo(String::new()), LIMIT).await.unwrap_err();
    assert_eq!(error, AskError::Overloaded { actor: "small".into() });
    assert_eq!(error.remedy(), Remedy::Retry);
    soon("the actor is free again", async {
        while far.ask(Echo(String::new()), LIMIT).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[actix::test]
async fn a_full_lane_pushes_back_on_the_sender() {
    let cluster = Cluster::new();
    let mut config = cluster.config("a");
    config.limits.lane_frames = 10;
    let a = ActorNode::start(config).await.unwrap();
    let nobody = a.actor::<PlayerRole>(impresario_runtime::ActorPath::new("far", "player"));
    let outcomes: Vec<_> = (0..20).map(|number| nobody.tell(Note(number))).collect();
    assert!(
        outcomes.contains(&Err(TellError::Overloaded { actor: "player".into() })),
        "{outcomes:?}"
    );
}

#[actix::test]
async fn unknown_actors_and_messages_are_named() {
    let (a, b, _) = Cluster::new().pair().await;
    for from in [&a, &b] {
        let missing = from.actor::<PlayerRole>(path(&b, "missing")).ask(Notes, LIMIT).await;
        assert_eq!(missing, Err(AskError::NoSuchActor { actor: "missing".into() }));
        let unknown = from.actor::<ForeignRole>(path(&b, "player")).ask(Foreign, LIMIT).await;
        let message = "test.Foreign".to_owned();
        assert_eq!(unknown, Err(AskError::UnknownMessage { actor: "player".into(), message }));
    }
}

#[actix::test]
async fn a_node_without_address_is_unreachable_at_once() {
    let a = Cluster::new().node("a").await;
    let nowhere = a.actor::<PlayerRole>(impresario_runtime::ActorPath::new("nowhere", "player"));
    let error = nowhere.ask(Notes, LIMIT).await.unwrap_err();
    assert!(
        matches!(&error, AskError::Unreachable { node, .. } if node.as_str() == "nowhere"),
        "{error}"
    );
}

#[actix::test]
async fn an_ask_that_panics_its_actor_is_told_that_it_stopped() {
    let (_a, _b, far) = Cluster::new().pair().await;
    assert_eq!(far.ask(Panic, LIMIT).await, Err(AskError::Stopped { actor: "player".into() }));
}

#[actix::test]
async fn the_forced_wire_takes_local_messages_through_the_codec() {
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
}

#[actix::test]
async fn a_registered_actor_answers_until_its_registration_is_dropped() {
    let (a, b, _) = Cluster::new().pair().await;
    let addr = actix::Actor::start(Player::default());
    let registration = b.register::<PlayerRole, _>("guest", addr).unwrap();
    let far = a.actor::<PlayerRole>(path(&b, "guest"));
    assert_eq!(far.ask(Echo("x".into()), LIMIT).await, Ok("x".into()));
    drop(registration);
    assert_eq!(far.ask(Notes, LIMIT).await, Err(AskError::NoSuchActor { actor: "guest".into() }));
}

#[actix::test]
async fn a_name_is_taken_once() {
    let a = Cluster::new().node("a").await;
    play(&a, "player", SpawnOptions::default());
    let again = a.spawn::<PlayerRole, _>("player", SpawnOptions::default(), |_| Player::default());
    assert!(matches!(again, Err(impresario_runtime::SpawnError::NameTaken { .. })), "{again:?}");
}

#[actix::test]
async fn stopping_a_node_does_not_wait_for_actors_that_others_started() {
    let a = Cluster::new().node("a").await;
    let registration =
        a.register::<PlayerRole, _>("guest", actix::Actor::start(Player::default())).unwrap();
    let watch = a.watch(path(&a, "guest"));
    soon("the stop", a.stop(LIMIT * 10)).await;
    assert_eq!(
        soon("the watch", watch.terminated()).await.reason,
        impresario_runtime::Reason::Stopped
    );
    drop(registration);
}
