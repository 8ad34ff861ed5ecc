//! A start that fails half way leaves nothing behind.

use crate::harness::*;
use actix::{Actor, Context, Handler};
use impresario_registry::{REGISTRY_ACTOR, member::StartError};
use impresario_runtime::{ActorPath, SpawnOptions, message, role};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Serialize, Deserialize)]
struct Nothing;
message!(Nothing => (), "test.Nothing");

role! {
    /// Somebody else.
    OtherRole = "test/other" { asks: [Nothing] }
}

struct Other;

impl Actor for Other {
    type Context = Context<Self>;
}

impl Handler<Nothing> for Other {
    type Result = ();

    fn handle(&mut self, _: Nothing, _: &mut Self::Context) {}
}

#[test]
fn a_start_that_fails_when_raft_runs_already_stops_all_of_it_and_can_be_tried_again() {
    run(async {
        let cluster = Cluster::new();
        let node = cluster.node("n1").await;
        let member = cluster.start(&node, found()).await.unwrap();
        put(&member.handle(), "a").await;
        member.stop().await;
        node.spawn::<OtherRole, _>(REGISTRY_ACTOR, SpawnOptions::default(), |_| Other).unwrap();
        for _ in 0..3 {
            let failed = cluster.start(&node, found()).await.unwrap_err();
            assert!(matches!(failed, StartError::Spawn(_)), "{failed:?}");
        }
        let end = node.watch(ActorPath::new(node.name().clone(), REGISTRY_ACTOR));
        node.stop_actor(&REGISTRY_ACTOR.into());
        end.terminated().await.unwrap();
        let member = cluster.start(&node, found()).await.unwrap();
        put(&member.handle(), "b").await;
        assert_eq!(pods(&member.handle()).await, 2);
        member.stop().await;
        node.stop(Duration::from_secs(5)).await;
    });
}
