//! What an operator is told of the actors of a node.

use crate::cast::*;
use impresario_runtime::{ActorNode, ActorUsage, SpawnOptions, TellError};

/// One actor of a node.
fn of(node: &ActorNode, name: &str) -> ActorUsage {
    let page = node.actors(None, usize::MAX);
    page.actors.into_iter().find(|actor| actor.name.as_str() == name).unwrap()
}

fn waits(node: &ActorNode, name: &str) -> (u64, u64) {
    let mailbox = of(node, name).mailbox.unwrap();
    (mailbox.messages, mailbox.bytes)
}

#[test]
fn what_waits_for_an_actor_is_counted_until_the_actor_has_taken_it() {
    on_threads(async {
        let cluster = Cluster::new();
        let (a, b) = (cluster.node("a").await, cluster.node("b").await);
        introduce(&[&a, &b]);
        let options = SpawnOptions { mailbox: 4, ..SpawnOptions::default() };
        let (player, sent) = shown(&b, "player", options);
        let mailbox = of(&b, "player").mailbox.unwrap();
        assert_eq!((mailbox.limit_messages, mailbox.messages), (4, 0));
        assert!(mailbox.limit_bytes >= 4 * (2 << 20), "four echoes of 2 MiB: {mailbox:?}");

        player.tell(Halt).unwrap();
        within("it halts", &mut sent.subscribe(), |sent| *sent == HALTED).await;
        // The one that it is busy with, and what comes after it.
        assert_eq!(waits(&b, "player").0, 1);
        let mut entered = 1;
        let refused = loop {
            match player.tell(Note(entered)) {
                Ok(()) => entered += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, TellError::Overloaded { .. }), "{refused}");
        assert_eq!(waits(&b, "player").0, entered, "and none that was turned away");
        sent.send_replace(GO);
        until("all is taken", || waits(&b, "player") == (0, 0)).await;

        // What another node sends has the bytes with which it came.
        sent.send_replace(0);
        player.tell(Halt).unwrap();
        within("it halts again", &mut sent.subscribe(), |sent| *sent == HALTED).await;
        let before = waits(&b, "player").1;
        let far = a.actor::<PlayerRole>(player.path().clone());
        let echo = tokio::spawn(far.ask(Echo("x".repeat(5_000)), LIMIT));
        until("it waits", || waits(&b, "player").1 >= before + 5_000).await;
        sent.send_replace(GO);
        assert_eq!(soon("the echo", echo).await.unwrap().unwrap().len(), 5_000);
        until("all is taken again", || waits(&b, "player") == (0, 0)).await;
    });
}

#[test]
fn restarts_are_counted_and_what_waited_for_the_life_before_is_not() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        let options = SpawnOptions { restart: quick(5), ..SpawnOptions::default() };
        let player = play(&a, "player", options);
        assert_eq!((of(&a, "player").restarts, of(&a, "player").role), (0, "player"));
        for life in 1..=2 {
            player.ask(Panic, LIMIT).await.unwrap_err();
            until("another life", || of(&a, "player").restarts == life).await;
            answered("it answers", &player).await;
        }
        until("nothing waits", || waits(&a, "player") == (0, 0)).await;
    });
}

#[test]
fn actors_are_told_of_in_pages_by_name() {
    on_threads(async {
        let a = Cluster::new().node("a").await;
        for name in ["e", "b", "d", "a", "c"] {
            play(&a, name, SpawnOptions::default());
        }
        let mut names = Vec::new();
        let mut pages = 0;
        loop {
            let page = a.actors(names.last(), 2);
            assert!(page.actors.len() <= 2 && page.all == 5, "{page:?}");
            names.extend(page.actors.into_iter().map(|actor| actor.name));
            pages += 1;
            if !page.more {
                break;
            }
        }
        let names: Vec<_> = names.iter().map(impresario_runtime::ActorName::as_str).collect();
        assert_eq!((names.join(""), pages), ("abcde".to_owned(), 3));
    });
}
