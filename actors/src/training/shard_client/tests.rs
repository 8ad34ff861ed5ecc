//! A client of a parameter server that comes and goes, in virtual time.

use super::*;
use crate::parameter_server::ParameterServer;
use impresario_client::protocol::training::{
    Accept, OptimizerKind, ShardRange, guest_node, parameter_server_actor,
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
        let optimizer = OptimizerKind::Momentum { rate: 1.0, decay: 0.0, momentum: 0.0 };
        let state = crate::training::optimizer::fresh(
            RANGE,
            values.to_vec(),
            0,
            Applied::default(),
            optimizer,
        );
        let server = self.node.actor::<ParameterServerRole>(place(&self.node).path);
        server.ask(Accept { lease: 1, epoch: 1, state }, ANSWER).await.unwrap().unwrap();
        registration
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
