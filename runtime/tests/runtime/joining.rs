//! The join door: one request, one answer, and only to the right cluster.

use crate::cast::*;
use futures_util::future::BoxFuture;
use impresario_runtime::{
    ActorNode, ClusterAuthority, JoinAnswer, JoinDoor, JoinError, JoinRequest, JoinToken,
    NodeConfig, PeerRole, Refusal, SpawnOptions, join,
};
use std::sync::Arc;

/// A door that refuses everyone.
pub struct NoOne;

impl JoinDoor for NoOne {
    fn join(&self, _: JoinRequest) -> BoxFuture<'_, Result<JoinAnswer, Refusal>> {
        Box::pin(async { Err(Refusal::new("nobody may join")) })
    }
}

/// A door that lets one token in.
struct Door {
    authority: ClusterAuthority,
    hash: String,
    peers: Vec<(impresario_runtime::NodeName, std::net::SocketAddr, bool)>,
}

impl JoinDoor for Door {
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinAnswer, Refusal>> {
        Box::pin(async move {
            if JoinToken::hash_of(&request.secret) != self.hash {
                return Err(Refusal::new("unknown token: create one with `imp token create`"));
            }
            let name = request.name.unwrap_or_else(|| "unnamed".into());
            let certificate_pem = self
                .authority
                .sign_csr(&request.csr_pem, &name, &PeerRole::Node, &[], DAY)
                .map_err(|error| Refusal::new(error.to_string()))?;
            Ok(JoinAnswer {
                certificate_pem,
                authority_pem: self.authority.certificate_pem().to_owned(),
                name: name.into(),
                role: PeerRole::Node,
                cluster: self.authority.cluster().to_owned(),
                number: 70,
                peers: self.peers.clone(),
            })
        })
    }
}

#[test]
fn a_newcomer_with_a_good_token_gets_a_certificate_and_is_a_node() {
    on_threads(async {
        let cluster = Cluster::new();
        let token = JoinToken::create(&cluster.authority.fingerprint()).unwrap();
        let key = cluster.authority.key_pem();
        let authority =
            ClusterAuthority::from_pem(cluster.authority.certificate_pem(), &key).unwrap();
        let door = Door { authority, hash: token.secret_hash(), peers: vec![] };
        let config = NodeConfig { join: Some(Arc::new(door)), ..cluster.config("control") };
        let control = ActorNode::start(config).await.unwrap();
        let player = play(&control, "player", SpawnOptions::default());

        let (credential, answer) =
            join(control.local_addr(), &token, Some("new".into()), LIMIT).await.unwrap();
        assert_eq!((answer.name.as_str(), &*answer.cluster), ("new", "test"));
        let new = ActorNode::start(NodeConfig { timing: calm(), ..NodeConfig::new(credential) })
            .await
            .unwrap();
        introduce(&[&new, &control]);
        new.actor::<PlayerRole>(player.path().clone()).ask(Urgent, LIMIT).await.unwrap();

        let other = JoinToken::create(&cluster.authority.fingerprint()).unwrap();
        let refused = join(control.local_addr(), &other, None, LIMIT).await.unwrap_err();
        assert!(
            matches!(&refused, JoinError::Refused { reason } if reason.contains("imp token create")),
            "{refused}"
        );
    });
}

#[test]
fn a_token_of_another_cluster_is_not_shown_to_this_one() {
    on_threads(async {
        let cluster = Cluster::new();
        let config = NodeConfig { join: Some(Arc::new(NoOne)), ..cluster.config("control") };
        let control = ActorNode::start(config).await.unwrap();
        let foreign = JoinToken::create(&Cluster::new().authority.fingerprint()).unwrap();
        let error = join(control.local_addr(), &foreign, None, LIMIT).await.unwrap_err();
        assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("token"), "{error}");
    });
}

#[test]
fn a_node_without_a_door_lets_nobody_join() {
    on_threads(async {
        let cluster = Cluster::new();
        let node = cluster.node("a").await;
        let token = JoinToken::create(&cluster.authority.fingerprint()).unwrap();
        let error = join(node.local_addr(), &token, None, LIMIT).await.unwrap_err();
        assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    });
}
