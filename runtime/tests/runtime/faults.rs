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
        far.tell(Note(1000)).unwrap();
        let local = b.local::<PlayerRole>("player");
        let seen = notes(&local, "the last note", |notes| notes.last() == Some(&1000)).await;
        assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
        assert!(seen.len() > 10 && seen.len() < 300, "{} of 300 arrived", seen.len());
    });
}

#[test]
fn a_delay_holds_messages_back_without_changing_their_order() {
    on_threads(async {
        let (a, b, far) = Cluster::new().pair().await;
        far.ask(Urgent, LIMIT).await.unwrap();
        a.faults().set(FaultRule { delay: Duration::from_millis(100), ..rule(Direction::Send) });
        b.faults().set(FaultRule { delay: Duration::from_millis(100), ..rule(Direction::Receive) });
        for number in 0..20 {
            far.tell(Note(number)).unwrap();
        }
        let local = b.local::<PlayerRole>("player");
        assert_eq!(local.ask(Notes, LIMIT).await, Ok(vec![]));
        let seen = notes(&local, "all notes", |notes| notes.len() == 20).await;
        assert!(seen.is_sorted());
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
            while far.ask(Large(vec![1]), LIMIT).await.is_err()
                || far.ask(Urgent, LIMIT).await.is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
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
        cut_off.ask(Urgent, LIMIT).await.unwrap();
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
            far.ask(Urgent, LIMIT).await.unwrap();
        }
    });
}
