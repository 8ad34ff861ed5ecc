//! Joining: how a machine without a certificate gets one.
//!
//! The newcomer sends one request (the token's secret and a signing request) over a connection on which it has
//! recognised the cluster by the authority's fingerprint, and gets one answer. Its private key never leaves it. Whether
//! the token is good is decided by the [`JoinDoor`].

use crate::{
    error::Refusal,
    name::NodeName,
    pki::{PeerRole, PkiError, TokenError},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use thiserror::Error;

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
    /// Nodes that it may dial, and which of them are control members.
    pub peers: Vec<(NodeName, SocketAddr, bool)>,
}

/// Decides who may join.
pub trait JoinDoor: Send + Sync {
    /// Judges one request. A refusal's reason is shown to the person who typed the token.
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinAnswer, Refusal>>;
}

/// Why joining failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The cluster does not accept the token.
    #[error("the cluster refused: {reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// No cluster answered at the address, or not the one of the token.
    #[error("{address} did not answer as the token's cluster ({detail}): check the address, and that the token is of this cluster")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        detail: String,
    },
    /// The token is not one.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A key or certificate could not be made or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
}
