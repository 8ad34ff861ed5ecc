//! The fault hook: what it breaks, and what holds nevertheless.

use crate::cast::*;
use futures_util::StreamExt;
use impresario_runtime::{
    ActorNode, AskError, CHAOS_ACTOR, ChaosRole, Direction, FaultRule, NodeConfig, SetFaults,
    SpawnOptions, StreamError,
};
use std::time::Duration;

fn rule(direction: Direction) -> FaultRule {
    FaultRule::new(None, direction)
}

#[test]
fn under_loss_doubling_and_overtaking_tells_stay_ordered_and_at_most_once() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        a.faults().set(FaultRule {
            drop: 0.2,
            duplicate: 0.3,
            reorder: 0.3,
            ..rule(Direction::Send)
        });
        b.faults().set(FaultRule {
            drop: 0.1,
            duplicate: 0.3,
            reorder: 0.3,
            ..rule(Direction::Receive)
        });
        for number in 0..300 {
            far.tell(Note(number)).unwrap();
        }
        a.faults().clear();
        b.faults().clear();
        // The connection may be ending that takes a note, and the note is lost with it: again until one is there.
        let local = b.local::<PlayerRole>("player");
        let seen = soon("a last note", async {
            for number in 1000.. {
                // A full lane is no harm: the next one goes.
                let _ = far.tell(Note(number));
                tokio::time::sleep(Duration::from_millis(20)).await;
                let seen = local.ask(Notes, LIMIT).await.unwrap();
                if seen.last().is_some_and(|last| *last >= 1000) {
                    return seen;
                }
            }
            unreachable!("numbers do not end");
        })
        .await;
        assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
        let arrived = seen.iter().filter(|note| **note < 300).count();
        assert!(arrived < 300, "nothing was lost of 300");
    });
}

#[test]
fn a_delay_holds_messages_back_without_changing_their_order() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        a.faults().set(FaultRule { delay: Duration::from_millis(100), ..rule(Direction::Send) });
        b.faults().set(FaultRule { delay: Duration::from_millis(100), ..rule(Direction::Receive) });
        let begun = std::time::Instant::now();
        for number in 0..20 {
            far.tell(Note(number)).unwrap();
        }
        let local = b.local::<PlayerRole>("player");
        let seen = notes(&local, "all notes", |notes| notes.len() == 20).await;
        assert!(seen.is_sorted());
        assert!(begun.elapsed() >= Duration::from_millis(200), "both ends hold back");
        assert_eq!(far.ask(Large(vec![1]), LIMIT).await, Ok(vec![1]));
    });
}

#[test]
fn through_a_cut_nothing_passes_and_after_it_all_is_well() {
    on_threads(async {
        let (a, _b, far) = Cluster::new().pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        a.faults().set(FaultRule { cut: true, ..rule(Direction::Send) });
        let short = Duration::from_millis(200);
        assert_eq!(far.ask(Urgent, short).await, Err(AskError::Deadline { waited: short }));
        assert_eq!(far.ask(Large(vec![1]), short).await, Err(AskError::Deadline { waited: short }));
        a.faults().clear();
        soon("healed", async {
            while far.ask(Large(vec![1]), Duration::from_secs(1)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        answered("healed", &far).await;
    });
}

#[test]
fn only_a_node_started_for_chaos_takes_fault_rules_by_message() {
    on_threads(async {
        let cluster = Cluster::new();
        let quiet = cluster.node("quiet").await;
        let wild =
            ActorNode::start(NodeConfig { chaos: true, ..cluster.config("wild") }).await.unwrap();
        let harness = cluster.node("harness").await;
        introduce(&[&quiet, &wild, &harness]);
        let rules =
            vec![FaultRule { drop: 1.0, ..FaultRule::new(Some("quiet".into()), Direction::Send) }];

        let refused = harness
            .actor::<ChaosRole>(path(&quiet, CHAOS_ACTOR))
            .ask(SetFaults { rules: rules.clone() }, LIMIT);
        assert_eq!(refused.await, Err(AskError::NoSuchActor { actor: CHAOS_ACTOR.into() }));
        let chaos = harness.actor::<ChaosRole>(path(&wild, CHAOS_ACTOR));
        chaos.ask(SetFaults { rules: rules.clone() }, LIMIT).await.unwrap();
        assert_eq!(wild.faults().rules(), rules);

        play(&quiet, "player", SpawnOptions::default());
        let cut_off = wild.actor::<PlayerRole>(path(&quiet, "player"));
        assert!(cut_off.ask(Urgent, Duration::from_millis(300)).await.is_err());
        chaos.ask(SetFaults { rules: vec![] }, LIMIT).await.unwrap();
        answered("no faults any more", &cut_off).await;
    });
}

#[test]
fn a_frame_that_is_dropped_takes_its_connection_with_it_as_quic_loses_none_of_a_live_one() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        for (faulty, direction) in [(&a, Direction::Send), (&b, Direction::Receive)] {
            let endless = Count { to: 1 << 40, bytes_each: 10 };
            let mut items = far.open(endless, LIMIT).await.unwrap();
            faulty.faults().set(FaultRule { drop: 1.0, ..rule(direction) });
            let lost = soon("the connection's end", async {
                loop {
                    if let Err(error) = items.next().await.unwrap() {
                        return error;
                    }
                }
            });
            assert!(matches!(lost.await, StreamError::Lost { .. }));
            faulty.faults().clear();
            answered("another connection", &far).await;
        }
    });
}
