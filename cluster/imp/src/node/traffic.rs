//! Tells an operator what the network end of this node refused and lost, and what its peers take up.

use actix::{Actor, Context, Handler};
use impresario_client::protocol::traffic::{
    Describe, PEERS, PeerUsage, Refused, TRAFFIC, Traffic, TrafficRole,
};
use impresario_runtime::{ActorNode, SpawnError, SpawnOptions};
use std::cmp::Reverse;

/// Serves it on a node.
pub fn serve(node: &ActorNode) -> Result<(), SpawnError> {
    let own = node.clone();
    node.spawn::<TrafficRole, _>(TRAFFIC, SpawnOptions::default(), move |_| {
        TrafficActor(own.clone())
    })?;
    Ok(())
}

struct TrafficActor(ActorNode);

impl Actor for TrafficActor {
    type Context = Context<Self>;
}

impl Handler<Describe> for TrafficActor {
    type Result = actix::MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(traffic(&self.0))
    }
}

fn traffic(node: &ActorNode) -> Traffic {
    let refused = node.refusals().into_iter().map(|one| Refused {
        role: one.role.to_owned(),
        cause: one.cause.to_string(),
        message: one.message.to_owned(),
        count: one.count,
    });
    let mut usage = node.usage();
    let peers_in_all = usage.len() as u64;
    let held_bytes = usage.iter().map(|peer| peer.held_bytes as u64).sum();
    // By name where they are alike, as they come.
    usage.sort_by_key(|peer| Reverse(peer.held_bytes));
    let peers = usage.into_iter().take(PEERS).map(|peer| PeerUsage {
        node: peer.node.to_string(),
        role: peer.role.map(str::to_owned),
        held_bytes: peer.held_bytes as u64,
        asks: peer.asks as u64,
        watches: peer.watches as u64,
    });
    Traffic { refused: refused.collect(), peers: peers.collect(), peers_in_all, held_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::gate::ClusterGate;
    use impresario_client::protocol::node::{Drain, NODE, NodeRole};
    use impresario_runtime::{ActorPath, ClusterAuthority, NodeConfig, PeerRole};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn an_admin_is_told_what_was_refused_to_whom_and_who_is_connected_and_a_program_is_not() {
        const LIMIT: Duration = Duration::from_secs(60);
        actix::System::new().block_on(async {
            let authority = ClusterAuthority::create("test").unwrap();
            let issue = |name: &str, role| {
                authority.issue(name, role, &[], Duration::from_hours(1)).unwrap()
            };
            let gate = Arc::new(ClusterGate::default());
            let config = NodeConfig::new(issue("n1", PeerRole::Node));
            let node = ActorNode::start(NodeConfig { gate, ..config }).await.unwrap();
            serve(&node).unwrap();
            let connect = async |name: &str, role| {
                let peer = ActorNode::start(NodeConfig::new(issue(name, role))).await.unwrap();
                peer.addresses().set(node.name().clone(), node.local_addr());
                peer
            };
            let program = connect("program", PeerRole::Client).await;
            let drain = program.actor::<NodeRole>(ActorPath::new(node.name().clone(), NODE));
            drain.ask(Drain { draining: true }, LIMIT).await.unwrap_err();
            let path = ActorPath::new(node.name().clone(), TRAFFIC);
            program.actor::<TrafficRole>(path.clone()).ask(Describe, LIMIT).await.unwrap_err();
            let admin = connect("admin", PeerRole::Admin).await;
            let told = admin.actor::<TrafficRole>(path).ask(Describe, LIMIT).await.unwrap();
            let refused: Vec<_> =
                told.refused.iter().map(|one| (&*one.role, &*one.message, one.count)).collect();
            // The Node actor is not there: what is refused by its name is not looked for.
            assert!(refused.contains(&("client", "traffic.Describe", 1)), "{refused:?}");
            assert_eq!((told.peers.len(), told.peers_in_all), (2, 2), "{told:?}");
            let roles: Vec<_> = told.peers.iter().map(|peer| peer.role.as_deref()).collect();
            assert!(roles.contains(&Some("admin")) && roles.contains(&Some("client")), "{roles:?}");
            for node in [program, admin, node] {
                node.stop(LIMIT).await;
            }
        });
    }
}
