//! Work for a peer is bounded, also where nobody waits for its end.

use crate::cast::*;
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, ResponseFuture,
    WrapFuture,
};
use impresario_runtime::{
    ActorNode, ActorRef, AskError, Lane, Open, Refusal, SpawnOptions, message, role, stream_message,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Toil(u64);
message!(Toil => (), "test.Toil");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct BulkToil(u64);
message!(BulkToil => (), "test.BulkToil", Lane::Bulk);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StreamToil(u64);
stream_message!(StreamToil => u64, "test.StreamToil");

/// Keeps the actor from its mailbox until it may go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Block;
message!(Block => (), "test.Block");

/// Is done when it is handled.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ballast(Vec<String>);
message!(Ballast => (), "test.Ballast");

/// Is answered as it is handled.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Count(u64);
message!(Count => u64, "test.Count");

role! {
    /// Whose work ends when the test says so.
    WorkerRole = "worker" { asks: [Toil, BulkToil, Block, Ballast, Count], streams: [StreamToil] }
}

/// What the test sees and says of a worker.
#[derive(Clone)]
struct Shown {
    begun: Arc<Mutex<Vec<u64>>>,
    go: watch::Sender<bool>,
}

struct Worker(Shown);

impl Worker {
    fn gone(&self) -> impl Future<Output = ()> + use<> {
        let mut go = self.0.go.subscribe();
        async move { drop(go.wait_for(|go| *go).await) }
    }

    fn work(&self, number: u64) -> impl Future<Output = ()> + use<> {
        self.0.begun.lock().push(number);
        self.gone()
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Toil> for Worker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, message: Toil, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.work(message.0))
    }
}

impl Handler<BulkToil> for Worker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, message: BulkToil, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.work(message.0))
    }
}

impl Handler<Open<StreamToil>> for Worker {
    type Result = ResponseFuture<Result<(), Refusal>>;
    fn handle(&mut self, open: Open<StreamToil>, _: &mut Self::Context) -> Self::Result {
        let work = self.work(open.message.0);
        Box::pin(async move {
            work.await;
            Ok(())
        })
    }
}

impl Handler<Block> for Worker {
    type Result = ();
    fn handle(&mut self, _: Block, context: &mut Self::Context) {
        self.0.begun.lock().push(0);
        context.wait(self.gone().into_actor(self).map(|(), _, _| ()));
    }
}

impl Handler<Count> for Worker {
    type Result = MessageResult<Count>;
    fn handle(&mut self, message: Count, _: &mut Self::Context) -> Self::Result {
        self.0.begun.lock().push(message.0);
        MessageResult(message.0)
    }
}

impl Handler<Ballast> for Worker {
    type Result = ();
    fn handle(&mut self, message: Ballast, _: &mut Self::Context) {
        self.0.begun.lock().push(message.0.len() as u64);
    }
}

/// A node `a`, a node `b` where it may have two places, a worker there, and a reference to it from `a`.
async fn two_places() -> (ActorNode, ActorNode, Shown, ActorRef<WorkerRole>) {
    let cluster = Cluster::new();
    let mut config = cluster.config("b");
    config.limits.node.asks = 2;
    config.limits.node.deadline = Duration::from_millis(200);
    let (a, b) = (cluster.node("a").await, ActorNode::start(config).await.unwrap());
    introduce(&[&a, &b]);
    let shown = Shown { begun: Arc::default(), go: watch::Sender::new(false) };
    let of_worker = shown.clone();
    let options = SpawnOptions::default();
    let near =
        b.spawn::<WorkerRole, _>("worker", options, move |_| Worker(of_worker.clone())).unwrap();
    let far = a.actor(near.path().clone());
    (a, b, shown, far)
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Lane,
    Bulk,
    Stream,
}

async fn ask(far: &ActorRef<WorkerRole>, way: Way, number: u64) -> Result<(), AskError> {
    match way {
        Way::Lane => far.ask(Toil(number), LIMIT).await,
        Way::Bulk => far.ask(BulkToil(number), LIMIT).await,
        Way::Stream => far.open(StreamToil(number), LIMIT).await.map(drop),
    }
}

#[test]
fn work_keeps_its_place_after_its_asker_was_told_that_the_deadline_has_passed() {
    on_threads(async {
        for way in [Way::Lane, Way::Bulk, Way::Stream] {
            let (_a, b, shown, far) = two_places().await;
            for number in 0..2 {
                let late = ask(&far, way, number).await;
                assert!(matches!(late, Err(AskError::Deadline { .. })), "{way:?}: {late:?}");
            }
            for number in 2..30 {
                let over = ask(&far, way, number).await;
                assert!(matches!(over, Err(AskError::Overloaded { .. })), "{way:?}: {over:?}");
            }
            assert_eq!(usage(&b, "a").unwrap().asks, 2, "{way:?}");
            assert_eq!(*shown.begun.lock(), [0, 1], "{way:?}");
            shown.go.send_replace(true);
            until("the places are free", || usage(&b, "a").unwrap().asks == 0).await;
            soon("there is work again", async {
                while ask(&far, way, 30).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    });
}

#[test]
fn work_keeps_its_place_when_the_link_of_its_asker_is_gone() {
    on_threads(async {
        for way in [Way::Lane, Way::Bulk, Way::Stream] {
            let (a, b, shown, far) = two_places().await;
            let asked = tokio::spawn(async move { ask(&far, way, 1).await });
            until("it is begun", || *shown.begun.lock() == [1]).await;
            let mut events = b.peers();
            a.stop(LIMIT).await;
            while !matches!(
                soon("the loss", events.recv()).await.unwrap(),
                impresario_runtime::PeerEvent::Lost { .. }
            ) {}
            assert!(asked.await.unwrap().is_err(), "{way:?}");
            for _ in 0..20 {
                assert_eq!(usage(&b, "a").unwrap().asks, 1, "{way:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            shown.go.send_replace(true);
            until("the place is free", || usage(&b, "a").is_none_or(|usage| usage.asks == 0)).await;
        }
    });
}

#[test]
fn what_nobody_waits_for_any_more_is_not_handled_by_an_actor_that_is_behind() {
    on_threads(async {
        let (_a, b, shown, far) = two_places().await;
        far.tell(Block).unwrap();
        until("it is blocked", || *shown.begun.lock() == [0]).await;
        for number in 1..=10 {
            let late = far.ask(Count(number), LIMIT).await;
            assert!(matches!(late, Err(AskError::Deadline { .. })), "{late:?}");
        }
        until("no place is held", || usage(&b, "a").is_some_and(|usage| usage.asks == 0)).await;
        shown.go.send_replace(true);
        soon("it goes on", async {
            while far.ask(Count(11), LIMIT).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let begun = shown.begun.lock().clone();
        assert!(begun[1..].iter().all(|number| *number == 11), "{begun:?}");
    });
}

#[test]
fn tells_that_are_worked_on_have_places_and_others_wait_for_them_in_order() {
    on_threads(async {
        let (_a, b, shown, far) = two_places().await;
        for number in 1..=5 {
            far.tell(Toil(number)).unwrap();
        }
        until("two are worked on", || usage(&b, "a").is_some_and(|usage| usage.asks == 2)).await;
        // Each takes this much and its body while it waits.
        until("three wait", || usage(&b, "a").is_some_and(|usage| usage.held_bytes > 3 * 256))
            .await;
        assert_eq!(*shown.begun.lock(), [1, 2]);
        shown.go.send_replace(true);
        until("all are done", || *shown.begun.lock() == [1, 2, 3, 4, 5]).await;
        until("nothing is held", || {
            usage(&b, "a").is_some_and(|usage| (usage.asks, usage.held_bytes) == (0, 0))
        })
        .await;
    });
}

#[test]
fn what_a_tell_weighs_is_held_on_its_senders_account_until_it_is_handled() {
    on_threads(async {
        const WEIGHT: usize = 200 << 10;
        let (a, b, shown, far) = two_places().await;
        let other = play(&b, "player", SpawnOptions::default());
        let other = a.actor::<PlayerRole>(other.path().clone());
        far.tell(Block).unwrap();
        until("it is blocked", || *shown.begun.lock() == [0]).await;
        far.tell(Ballast(vec![String::new(); 10_000])).unwrap();
        until("it weighs", || usage(&b, "a").is_some_and(|usage| usage.held_bytes > WEIGHT)).await;
        for _ in 0..20 {
            // Whatever comes of it: it was sent and read.
            drop(other.ask(Urgent, LIMIT).await);
            let usage = usage(&b, "a").unwrap();
            assert!(usage.held_bytes > WEIGHT, "{usage:?}");
        }
        shown.go.send_replace(true);
        until("it is handled", || *shown.begun.lock() == [0, 10_000]).await;
        until("it is let go", || usage(&b, "a").is_some_and(|usage| usage.held_bytes == 0)).await;
    });
}
