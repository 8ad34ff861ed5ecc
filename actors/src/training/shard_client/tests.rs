//! A client of a parameter server that comes and goes, in virtual time.

use super::*;
use crate::parameter_server::ParameterServer;
use crate::training::in_hand::InHand;
use impresario_client::protocol::training::{
    Accept, OptimizerKind, PushPart, ShardRange, StepState, guest_node, parameter_server_actor,
};
use impresario_runtime::{
    ActorNode, ActorPath, ClusterAuthority, NodeConfig, PeerRole, PermitAll, Registration,
};
use tokio::sync::watch;

/// A server is away for so long.
const AWAY: Duration = Duration::from_mins(5);
const UID: &str = "server";

/// A node with a parameter server that is not there yet, and a client that knows where it will be.
struct Bench {
    node: ActorNode,
    client: ShardClient,
    leaving: Arc<AtomicBool>,
}

fn place(node: &ActorNode) -> Place {
    let path = ActorPath::new(guest_node(UID), parameter_server_actor(UID));
    Place { path, address: node.local_addr() }
}

const RANGE: ShardRange = ShardRange { shard: 0, start: 0, length: 2 };

async fn bench() -> Bench {
    let authority = ClusterAuthority::create("test").unwrap();
    let name = guest_node(UID);
    let day = Duration::from_hours(24);
    let credential = authority.issue(name.as_str(), PeerRole::Control, &[], day).unwrap();
    let gate = Arc::new(PermitAll);
    let node = ActorNode::start(NodeConfig { gate, ..NodeConfig::new(credential) }).await.unwrap();
    let leaving: Arc<AtomicBool> = Arc::default();
    // There is no control member: the control plane is away, too.
    let link = Link::new(node.clone(), "job", Vec::new());
    let client = ShardClient::new(link, "trainer", leaving.clone());
    client.learn(ShardMap { epoch: 1, shards: vec![RANGE], places: vec![place(&node)] });
    tokio::time::pause();
    Bench { node, client, leaving }
}

impl Bench {
    /// The server comes, with these values of its one shard.
    async fn server(&self, values: [f32; 2]) -> Registration {
        let link = Link::new(self.node.clone(), "job", Vec::new());
        let (ended, (_, stopping)) = (watch::Sender::new(false), watch::channel(None));
        let server = ParameterServer::new(UID, place(&self.node), link, ended, stopping);
        let server = actix::Actor::start(server);
        let name = parameter_server_actor(UID);
        let registration = self.node.register::<ParameterServerRole, _>(name, server).unwrap();
        self.accept(RANGE, values).await;
        registration
    }

    /// The server gets a shard that has no step yet.
    async fn accept(&self, range: ShardRange, values: [f32; 2]) {
        let optimizer = OptimizerKind::Momentum { rate: 1.0, decay: 0.0, momentum: 0.0 };
        let (values, applied) = (values.to_vec(), Applied::default());
        let state = crate::training::optimizer::fresh(range, values, 0, applied, optimizer);
        let server = self.node.actor::<ParameterServerRole>(place(&self.node).path);
        server.ask(Accept { lease: 1, epoch: 1, state }, ANSWER).await.unwrap().unwrap();
    }
}

#[actix::test]
async fn parameters_are_pulled_and_gradients_pushed_though_their_server_is_away_for_minutes() {
    let bench = bench().await;
    let came = async {
        tokio::time::sleep(AWAY).await;
        bench.server([1.0, 2.0]).await
    };
    let (pulled, gone) = tokio::join!(bench.client.pull(false), came);
    assert_eq!(pulled.unwrap().values, [1.0, 2.0]);

    drop(gone);
    let came_again = async {
        tokio::time::sleep(AWAY).await;
        bench.server([1.0, 2.0]).await
    };
    let (pushed, _there) = tokio::join!(bench.client.push(0, &[-1.0, 1.0]), came_again);
    pushed.unwrap();
    assert_eq!(bench.client.pull(false).await.unwrap().values, [2.0, 1.0]);
}

#[actix::test]
async fn a_server_that_does_not_come_is_given_up_and_by_who_is_to_leave_soon() {
    let bench = bench().await;
    let given_up = async |least: Duration, most: Duration| {
        let lost = bench.client.pull(false).await;
        let Err(ShardError::Lost { shards: 1, waited, .. }) = lost else { panic!("{lost:?}") };
        assert!(least < waited && waited < most, "{waited:?}");
    };
    given_up(AWAY, PATIENCE * 2).await;
    bench.leaving.store(true, Ordering::Release);
    given_up(Duration::ZERO, AWAY).await;
}

/// Of two trainers' parts of step 0, one's, with the same gradient for both shards.
fn part(number: u32) -> InHand {
    let mut hand = InHand::new(0, 2);
    hand.add(number, 1, vec![1.0; 4]);
    hand
}

#[actix::test]
async fn two_trainers_that_each_know_of_another_shard_that_it_has_a_step_do_not_wait_for_each_other()
 {
    const SECOND: ShardRange = ShardRange { shard: 1, start: 2, length: 2 };
    let bench = bench().await;
    let places = vec![place(&bench.node); 2];
    bench.client.learn(ShardMap { epoch: 2, shards: vec![RANGE, SECOND], places });
    let first = bench.server([1.0; 2]).await;
    bench.accept(SECOND, [1.0; 2]).await;
    let (mut one, mut other) = (part(0), part(1));
    // The other's part comes first to one shard, and last to the other one.
    let server = bench.node.actor::<ParameterServerRole>(place(&bench.node).path);
    let gradients = vec![(0, vec![1.0; 2])];
    let push = PushPart { step: 0, of: 2, part: 1, samples: 1, gradients };
    server.ask(push, ANSWER).await.unwrap();
    assert!(!bench.client.push_parts(&mut one).await.unwrap());
    assert!(one.applied.contains(&0) && !one.applied.contains(&1));
    other.hears(1, &StepState::Applied).unwrap();
    other.hears(0, &StepState::Waiting { parts: vec![1] }).unwrap();

    // The server dies, and its shards come back as they were before the step.
    drop(first);
    let _second = bench.server([1.0; 2]).await;
    bench.accept(SECOND, [1.0; 2]).await;
    let brings = async |hand: &mut InHand| {
        for _ in 0..20 {
            if bench.client.push_parts(hand).await.unwrap() {
                return true;
            }
        }
        false
    };
    assert_eq!(tokio::join!(brings(&mut one), brings(&mut other)), (true, true));
    assert_eq!(bench.client.pull(false).await.unwrap().values, [0.0; 4]);
}

#[actix::test]
async fn parts_that_cannot_be_brought_everywhere_are_given_up_in_the_end() {
    let bench = bench().await;
    let mut hand = InHand::new(0, 2);
    hand.add(0, 1, vec![1.0; 2]);
    let mut given_up = async |least: Duration, most: Duration| loop {
        match bench.client.push_parts(&mut hand).await {
            Ok(done) => assert!(!done && !hand.held().everywhere),
            Err(ShardError::Lost { shards: 1, waited, .. }) => {
                assert!(least < waited && waited < most, "{waited:?}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
    };
    given_up(AWAY, PATIENCE * 2).await;
}
