//! Who is asked to change an object while its shard moves.

use crate::{LIMIT, connected};
use actix::{Actor, Context, Handler, MessageResult};
use impresario_api::status::{Reason, Status};
use impresario_client::objects::protocol::Refusal;
use impresario_client::protocol::control::{
    Changed, ControlRole, Describe, Description, Scale, Suspend, Told,
};
use impresario_client::{AskedError, Client};
use impresario_runtime::{
    ActorNode, ClusterAuthority, NodeConfig, NodeName, PeerRole, PermitAll, SpawnOptions,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ACTOR: &str = "deployment/u";

/// The actor of an object, as it says that it changes it; how often it was asked to.
#[derive(Clone)]
struct Says(Result<u64, Reason>, Arc<AtomicUsize>);

impl Says {
    fn change(&self) -> Result<u64, Refusal> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.map_err(|reason| Status::new(reason, "no").into())
    }
}

impl Actor for Says {
    type Context = Context<Self>;
}

impl Handler<Changed> for Says {
    type Result = ();

    fn handle(&mut self, _: Changed, _: &mut Self::Context) {}
}

impl Handler<Told> for Says {
    type Result = ();

    fn handle(&mut self, _: Told, _: &mut Self::Context) {}
}

impl Handler<Describe> for Says {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        MessageResult(Description::default())
    }
}

impl Handler<Scale> for Says {
    type Result = Result<u64, Refusal>;

    fn handle(&mut self, _: Scale, _: &mut Self::Context) -> Self::Result {
        self.change()
    }
}

impl Handler<Suspend> for Says {
    type Result = Result<u64, Refusal>;

    fn handle(&mut self, _: Suspend, _: &mut Self::Context) -> Self::Result {
        self.change()
    }
}

/// What a program is told that asks for a change of an object of which these members say that they have it; how often
/// they were asked.
async fn told(members: &[Result<u64, Reason>], suspends: bool) -> (Result<u64, u16>, usize) {
    let authority = ClusterAuthority::create("test").unwrap();
    let issue =
        |name: &str, role| authority.issue(name, role, &[], Duration::from_hours(1)).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut nodes = Vec::new();
    for (number, says) in members.iter().enumerate() {
        let credential = issue(&format!("n{number}"), PeerRole::Control);
        let config = NodeConfig { gate: Arc::new(PermitAll), ..NodeConfig::new(credential) };
        let node = ActorNode::start(config).await.unwrap();
        let says = Says(*says, asked.clone());
        node.spawn::<ControlRole, _>(ACTOR, SpawnOptions::default(), move |_| says.clone())
            .unwrap();
        nodes.push(node);
    }
    let mut known: Vec<(NodeName, SocketAddr)> =
        nodes.iter().map(|node| (node.name().clone(), node.local_addr())).collect();
    // One that is gone keeps nobody waiting.
    known.push((NodeName::from("gone"), "127.0.0.1:9".parse().unwrap()));
    let client: Client = connected(&issue("operator", PeerRole::Admin), &known).await;
    let answer = if suspends {
        client.suspend(ACTOR, true, LIMIT * 100).await
    } else {
        client.scale(ACTOR, 5, LIMIT * 100).await
    };
    let answer = answer.map_err(|error| match error {
        AskedError::Refused(status) => status.code(),
        other => panic!("{other}"),
    });
    client.close(Duration::from_secs(2)).await;
    for node in nodes {
        node.stop(Duration::from_secs(2)).await;
    }
    (answer, asked.load(Ordering::SeqCst))
}

#[test]
fn one_member_after_the_other_is_asked_to_change_an_object_until_one_does() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(async {
        for suspends in [false, true] {
            // Both say that they have it: who is asked does it, and no other does it later.
            let both = told(&[Ok(7), Ok(7)], suspends);
            let both = tokio::time::timeout(LIMIT, both).await.expect("an answer");
            assert_eq!(both, (Ok(7), 1));
            // One has lost it, or does not reach the registry.
            let lost = Err(Reason::ServiceUnavailable);
            for members in [[lost, Ok(7)], [Ok(7), lost]] {
                let one = tokio::time::timeout(LIMIT, told(&members, suspends)).await;
                let (answer, asked) = one.expect("an answer");
                assert_eq!(answer, Ok(7));
                assert!((1..=2).contains(&asked));
            }
            // What is wrong with what is asked for is wrong with it everywhere.
            let wrong = Err(Reason::Conflict);
            let wrong = tokio::time::timeout(LIMIT, told(&[wrong, wrong], suspends)).await;
            assert_eq!(wrong.expect("an answer"), (Err(409), 1));
        }
    });
}
