//! Restarts: alone, with the rest, and the end of patience.

use crate::cast::*;
use impresario_runtime::{
    ActorNode, AskError, Group, NodeConfig, Reason, SpawnOptions, Strategy, Threads,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::watch;

/// A player that counts its lives.
fn counted(
    node: &ActorNode,
    name: &str,
    options: SpawnOptions,
) -> (impresario_runtime::ActorRef<PlayerRole>, watch::Receiver<usize>) {
    let (lives, seen) = watch::channel(0);
    let player = node.spawn::<PlayerRole, _>(name, options, move |_| {
        lives.send_modify(|lives| *lives += 1);
        Player::default()
    });
    (player.unwrap(), seen)
}

#[test]
fn a_panic_is_a_failure_and_the_actor_starts_anew_under_its_name() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let options = SpawnOptions { restart: quick(5), ..SpawnOptions::default() };
        let (player, mut lives) = counted(&a, "player", options);
        player.ask(Note(1), LIMIT).await.unwrap();
        assert_eq!(
            player.ask(Panic, LIMIT).await,
            Err(AskError::Stopped { actor: "player".into() })
        );
        within("a second life", &mut lives, |lives| *lives == 2).await;
        assert_eq!(player.ask(Notes, LIMIT).await, Ok(vec![]), "with fresh state");
    });
}

#[test]
fn nodes_that_share_threads_stop_one_by_one() {
    on_threads(async {
        let cluster = Cluster::new();
        let threads = Threads::start(1).unwrap();
        let start = async |name: &str| {
            let threads = Some(threads.clone());
            ActorNode::start(NodeConfig { threads, ..cluster.config(name) }).await.unwrap()
        };
        let (a, b) = (start("a").await, start("b").await);
        let (_, mut lives) = counted(&a, "player", SpawnOptions::default());
        let (player, _) = counted(&b, "player", SpawnOptions::default());
        within("a life", &mut lives, |lives| *lives == 1).await;
        a.stop(LIMIT).await;
        drop(a);
        drop(threads);
        player.ask(Note(1), LIMIT).await.unwrap();
        assert_eq!(player.ask(Notes, LIMIT).await, Ok(vec![1]));
        b.stop(LIMIT).await;
    });
}

#[test]
fn beyond_the_intensity_an_actor_is_given_up() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let options = SpawnOptions { restart: quick(2), ..SpawnOptions::default() };
        let (player, mut lives) = counted(&a, "player", options);
        let watch = a.watch(player.path().clone());
        for life in 1..=3 {
            within("the life", &mut lives, |lives| *lives == life).await;
            player.ask(Panic, LIMIT).await.unwrap_err();
        }
        assert_eq!(soon("the end", watch.terminated()).await.unwrap().reason, Reason::Failed);
        assert_eq!(
            player.ask(Notes, LIMIT).await,
            Err(AskError::NoSuchActor { actor: "player".into() })
        );
    });
}

#[test]
fn a_factory_that_panics_counts_as_a_failure() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let tries = Arc::new(AtomicUsize::new(0));
        let options = SpawnOptions { restart: quick(2), ..SpawnOptions::default() };
        let counted = tries.clone();
        let player = a
            .spawn::<PlayerRole, Player>("player", options, move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                panic!("cannot be made")
            })
            .unwrap();
        let ended = soon("the end", a.watch(player.path().clone()).terminated()).await.unwrap();
        assert!(matches!(ended.reason, Reason::Failed | Reason::NoSuchActor), "{ended:?}");
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn rest_for_one_restarts_those_that_came_after() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let group = Group::new(Strategy::RestForOne);
        let options = || SpawnOptions {
            restart: quick(5),
            group: Some(group.clone()),
            ..SpawnOptions::default()
        };
        let (_, first) = counted(&a, "first", options());
        let (second, mut second_lives) = counted(&a, "second", options());
        let (third, mut third_lives) = counted(&a, "third", options());
        third.ask(Note(1), LIMIT).await.unwrap();
        second.ask(Panic, LIMIT).await.unwrap_err();
        within("second again", &mut second_lives, |lives| *lives == 2).await;
        within("third again", &mut third_lives, |lives| *lives == 2).await;
        assert_eq!(third.ask(Notes, LIMIT).await, Ok(vec![]));
        assert_eq!(*first.borrow(), 1);
    });
}

#[test]
fn a_member_that_is_given_up_ends_its_group() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let group = Group::new(Strategy::OneForOne);
        let options = || SpawnOptions {
            restart: quick(0),
            group: Some(group.clone()),
            ..SpawnOptions::default()
        };
        let (first, _) = counted(&a, "first", options());
        let (second, _) = counted(&a, "second", options());
        let watch = a.watch(first.path().clone());
        second.ask(Panic, LIMIT).await.unwrap_err();
        soon("the group gives up", group.failed()).await;
        assert_eq!(
            soon("first ends too", watch.terminated()).await.unwrap().reason,
            Reason::Failed
        );
    });
}
