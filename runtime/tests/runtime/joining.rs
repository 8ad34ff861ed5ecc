//! The join door: one request, one answer, and only to the right cluster.

use crate::cast::*;
use futures_util::future::BoxFuture;
use impresario_runtime::{
    ActorNode, ClusterAuthority, JoinAnswer, JoinDoor, JoinError, JoinRequest, JoinToken,
    NodeConfig, PeerRole, Refusal, SpawnOptions, join, join_with, pki::KeyRequest,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering::SeqCst},
};

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

/// A token, and the door that takes it.
fn token_and_door(cluster: &Cluster) -> (JoinToken, Door) {
    let token = JoinToken::create(&cluster.authority.fingerprint()).unwrap();
    let key = cluster.authority.key_pem();
    let authority = ClusterAuthority::from_pem(cluster.authority.certificate_pem(), &key).unwrap();
    let door = Door { authority, hash: token.secret_hash(), peers: vec![] };
    (token, door)
}

#[test]
fn a_newcomer_with_a_good_token_gets_a_certificate_and_is_a_node() {
    on_threads(async {
        let cluster = Cluster::new();
        let (token, door) = token_and_door(&cluster);
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

/// A door whose first answers are lost: it has decided, and nobody hears it.
struct Deaf {
    door: Door,
    lost: AtomicU32,
    asked: Mutex<Vec<String>>,
}

impl JoinDoor for Deaf {
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinAnswer, Refusal>> {
        self.asked.lock().unwrap().push(request.csr_pem.clone());
        let is_lost = self.lost.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_lost { Box::pin(std::future::pending()) } else { self.door.join(request) }
    }
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_with_the_same_request() {
    on_threads(async {
        let cluster = Cluster::new();
        let (token, door) = token_and_door(&cluster);
        let deaf = Arc::new(Deaf { door, lost: AtomicU32::new(1), asked: Mutex::default() });
        let config = NodeConfig { join: Some(deaf.clone()), ..cluster.config("control") };
        let control = ActorNode::start(config).await.unwrap();
        let name = || Some("new".to_owned());
        join(control.local_addr(), &token, name(), LIMIT / 4).await.unwrap();
        let asked = std::mem::take(&mut *deaf.asked.lock().unwrap());
        assert_eq!(asked.len(), 2, "it was asked again");
        assert_eq!(asked[0], asked[1], "as the same");

        // Where none comes in time it is said that the token may be used up, and who kept the request asks on.
        let folder = tempfile::tempdir().unwrap();
        let kept = || KeyRequest::kept(&folder.path().join("joining.pem")).unwrap();
        deaf.lost.store(u32::MAX, SeqCst);
        let (at, short) = (control.local_addr(), std::time::Duration::from_secs(3));
        let lost = loop {
            match join_with(kept(), at, &token, name(), short).await.unwrap_err() {
                // On a machine that was too busy to shake hands.
                JoinError::Unreachable { .. } => {}
                error => break error,
            }
        };
        assert!(matches!(lost, JoinError::Unanswered { .. }), "{lost}");
        deaf.lost.store(0, SeqCst);
        join_with(kept(), at, &token, name(), LIMIT).await.unwrap();
        let asked = deaf.asked.lock().unwrap();
        assert!(asked.len() >= 2 && asked.iter().all(|one| *one == asked[0]), "{asked:?}");
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
