//! How fast messages go between two nodes of one process: `cargo run --example speed -p impresario-runtime`.
//!
//! The figures are for a comparison of two builds on one machine, one after the other.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use impresario_runtime::{
    ActorNode, ActorPath, ActorRef, ClusterAuthority, Lane, NodeConfig, PeerRole, PermitAll,
    SpawnOptions, message, role,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Small {
    name: String,
    numbers: Vec<u64>,
}
message!(Small => Small, "speed.Small");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Large(Bytes);
message!(Large => Bytes, "speed.Large", Lane::Bulk);

role! {
    /// What is measured.
    pub Answers = "answers" { asks: [Small, Large] }
}

struct Answering;

impl Actor for Answering {
    type Context = Context<Self>;
}

impl Handler<Small> for Answering {
    type Result = actix::MessageResult<Small>;
    fn handle(&mut self, message: Small, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(message)
    }
}

impl Handler<Large> for Answering {
    type Result = actix::MessageResult<Large>;
    fn handle(&mut self, message: Large, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(message.0)
    }
}

async fn node(authority: &ClusterAuthority, name: &str) -> ActorNode {
    let credential = authority.issue(name, PeerRole::Node, &[], Duration::from_hours(1)).unwrap();
    let gate = Arc::new(PermitAll);
    ActorNode::start(NodeConfig { gate, ..NodeConfig::new(credential) }).await.unwrap()
}

/// So many asks, 32 at a time.
async fn asks(to: &ActorRef<Answers>, count: usize) -> f64 {
    let begun = Instant::now();
    let askers: Vec<_> = (0..32)
        .map(|_| {
            let to = to.clone();
            tokio::spawn(async move {
                for _ in 0..count / 32 {
                    let message = Small { name: "default/web-1".into(), numbers: vec![1; 16] };
                    to.ask(message, LIMIT).await.unwrap();
                }
            })
        })
        .collect();
    for asker in askers {
        asker.await.unwrap();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn bulk(to: &ActorRef<Answers>, count: usize) -> f64 {
    let bytes = Bytes::from(vec![7; 200 << 10]);
    let begun = Instant::now();
    for _ in 0..count {
        to.ask(Large(bytes.clone()), LIMIT).await.unwrap();
    }
    count as f64 * 400.0 / 1024.0 / begun.elapsed().as_secs_f64()
}

fn main() {
    actix::System::new().block_on(async {
        let authority = ClusterAuthority::create("speed").unwrap();
        let (a, b) = (node(&authority, "a").await, node(&authority, "b").await);
        a.addresses().set(b.name().clone(), b.local_addr());
        let options = SpawnOptions { mailbox: 1024, ..SpawnOptions::default() };
        let near = b.spawn::<Answers, _>("answers", options, |_| Answering).unwrap();
        let far = a.actor::<Answers>(ActorPath::new("b", "answers"));
        asks(&far, 1_000).await;
        for _ in 0..5 {
            println!(
                "local asks {:.0}/s, remote asks {:.0}/s, bulk {:.1} MiB/s",
                asks(&near, 40_000).await,
                asks(&far, 8_000).await,
                bulk(&far, 100).await
            );
        }
    });
}
