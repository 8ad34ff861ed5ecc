//! What a newcomer asks and is answered, and who decides.

use crate::{error::Refusal, name::NodeName, pki::PeerRole};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What a newcomer asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of its token.
    pub secret: String,
    /// The signing request for its key, as PEM.
    pub csr_pem: String,
    /// The name that it would like.
    pub name: Option<String>,
    /// Where it came from, as seen by the door.
    pub from: SocketAddr,
}

/// What a newcomer that may join gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Its certificate, as PEM.
    pub certificate_pem: String,
    /// The authority's certificate, as PEM.
    pub authority_pem: String,
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: PeerRole,
    /// The cluster's name.
    pub cluster: String,
    /// Its number, which no other node of the cluster has; 0 for what is no node.
    pub number: u32,
    /// Nodes that it may dial, and which of them are control members.
    pub peers: Vec<(NodeName, SocketAddr, bool)>,
}

/// Decides who may join.
pub trait JoinDoor: Send + Sync {
    /// Judges one request. A refusal's reason is shown to the person who typed the token.
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinAnswer, Refusal>>;
}
