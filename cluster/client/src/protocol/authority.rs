//! What the Authority actor (`authority` on each control member) can be asked.
//!
//! It alone turns a join token, a running node's request or a training pod into a certificate of
//! the cluster. Every refusal says what to do next, and changes nothing.

use impresario_runtime::{message, role};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};
use thiserror::Error;

/// The name under which each control member's Authority actor is registered.
pub const AUTHORITY: &str = "authority";

role! {
    /// The actor that signs certificates.
    pub AuthorityRole = "authority" {
        asks: [CreateToken, RevokeToken, Join, Renew, IssueGuest, KeepAccountToken, IssueAccountToken],
        streams: []
    }
}

/// What a machine joins as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRole {
    /// A node that runs pods.
    Node,
    /// A node that is a control member too.
    Control,
    /// A program that uses the SDK.
    Client,
}

impl fmt::Display for JoinRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Control => "control",
            Self::Client => "client",
        })
    }
}

/// Asks for a token with which one machine can join, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateToken {
    /// What it joins as.
    pub role: JoinRole,
    /// How long the token is good for; a day at most.
    pub ttl: Duration,
}
message!(CreateToken => Result<TokenCreated, TokenError>, "authority.CreateToken");

/// A new token. Only its hash is kept by the cluster: it cannot be shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The token in the form that `--token` takes.
    pub token: String,
    /// What to name in a [`RevokeToken`].
    pub id: String,
    /// When it ends, in seconds since 1970.
    pub expires_unix_seconds: i64,
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Makes a token that was not used yet useless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeToken {
    /// The token's id.
    pub id: String,
}
message!(RevokeToken => Result<(), TokenError>, "authority.RevokeToken");

/// Why a token was not made or revoked.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum TokenError {
    /// The time to live is zero or more than a day.
    #[error("a token is good for {limit:?} at most, not {asked:?}: ask for a shorter time")]
    TimeToLive {
        /// What was asked for.
        asked: Duration,
        /// The most that is given.
        limit: Duration,
    },
    /// No such token.
    #[error("there is no token {id}: it was used, revoked, or never made")]
    Unknown {
        /// The id that was named.
        id: String,
    },
    /// The registry did not answer.
    #[error("the registry is not available ({cause}): try again in a moment")]
    Unavailable {
        /// What it said.
        cause: String,
    },
}

/// A machine that has only a token asks to become part of the cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The secret part of the token.
    pub secret: String,
    /// Its certificate signing request (PEM).
    pub csr_pem: String,
    /// The name that it would like; one is made up when missing.
    pub name: Option<String>,
    /// The address that it speaks from; its certificate is good for that one.
    pub from: String,
}
message!(Join => Result<Joined, JoinError>, "authority.Join");

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("name", &self.name)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// Numbers of nodes that join. A node derives from its number what must be its own, such as the
/// range of its pods' addresses; `imp up` numbers its own nodes from 1 to 64.
pub const NODE_NUMBERS: std::ops::RangeInclusive<u32> = 65..=24_575;

/// What a machine needs to be part of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its certificate (PEM).
    pub certificate_pem: String,
    /// The authority's certificate (PEM), against which it checks everyone else.
    pub authority_pem: String,
    /// Its name from now on.
    pub name: String,
    /// What it is from now on.
    pub role: JoinRole,
    /// The cluster's name.
    pub cluster: String,
    /// Its number, one of [`NODE_NUMBERS`]; 0 for what is no node.
    pub number: u32,
    /// Whom it can talk to.
    pub peers: Vec<Peer>,
}

/// A node that one can talk to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its QUIC address.
    pub address: String,
    /// Whether it is a control member.
    pub control: bool,
}

/// Why a machine may not join.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum JoinError {
    /// The token was never one of this cluster's, or has been revoked.
    #[error(
        "this cluster ({cluster}) does not know the token: make one with `imp token create` on \
         the cluster that you want to join"
    )]
    UnknownToken {
        /// The cluster's name.
        cluster: String,
    },
    /// The token's time is up.
    #[error("the token expired at {at}: make a new one with `imp token create`")]
    Expired {
        /// When (RFC 3339).
        at: String,
    },
    /// The token joined someone already.
    #[error(
        "the token has been used by {by} at {at}, and each is good for one machine: make another \
         with `imp token create`; if {by} is not a machine of yours, delete that node"
    )]
    Used {
        /// The node that it joined.
        by: String,
        /// When (RFC 3339).
        at: String,
    },
    /// A node with that name is there already.
    #[error(
        "there is a node {name} already: choose another with `--name`, or delete that node first"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name is none that a node can have.
    #[error(
        "{name:?} is no name for a machine: use small letters, digits, `-` and `.` only, and no \
         `.client` at its end"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The signing request cannot be read, or its signature is wrong.
    #[error("the certificate signing request is not valid ({cause}): join with the same version")]
    BadRequest {
        /// What is wrong.
        cause: String,
    },
    /// The registry did not answer; the token is still good.
    #[error("the registry is not available ({cause}): try again with the same token")]
    Unavailable {
        /// What it said.
        cause: String,
    },
}

/// A node whose certificate nears its end asks for the next one. A caller is only ever answered
/// for its own name: the gate compares it with the caller's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The caller's name.
    pub name: String,
    /// What it is.
    pub role: JoinRole,
    /// The addresses and names that its certificate should be good for. A control member's alone: others
    /// are servers to nobody but actors, whose name all certificates have.
    pub subjects: Vec<String>,
    /// Its certificate signing request (PEM).
    pub csr_pem: String,
}
message!(Renew => Result<Renewed, RenewError>, "authority.Renew");

/// A fresh certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The certificate (PEM).
    pub certificate_pem: String,
    /// The authority's certificate (PEM).
    pub authority_pem: String,
}

/// Why a certificate was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum RenewError {
    /// The node's object is gone: an operator deleted it.
    #[error("node {name} was deleted from the cluster: join again with a new token")]
    Deleted {
        /// The node's name.
        name: String,
    },
    /// The signing request cannot be read, or its signature is wrong.
    #[error("the certificate signing request is not valid ({cause}): make a new one")]
    BadRequest {
        /// What is wrong.
        cause: String,
    },
    /// The registry did not answer.
    #[error("the registry is not available ({cause}): try again in a moment")]
    Unavailable {
        /// What it said.
        cause: String,
    },
}

/// A node asks for the credential of a training pod that is bound to it: with it the pod's own
/// process can join as a guest, and message its own job only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueGuest {
    /// The node that asks.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The uid of the job that it works for.
    pub job: String,
    /// Not used any more: a guest's certificate is good for no address. Here for the wire's sake.
    pub subjects: Vec<String>,
}
message!(IssueGuest => Result<GuestCredential, GuestError>, "authority.IssueGuest");

/// A guest's credential, to be kept in files that only its process can read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCredential {
    /// The certificate (PEM).
    pub certificate_pem: String,
    /// The private key (PEM).
    pub key_pem: String,
    /// The authority's certificate (PEM).
    pub authority_pem: String,
    /// The name under which the guest speaks.
    pub name: String,
    /// The control members that it can dial, and its own node.
    pub peers: Vec<Peer>,
}

impl fmt::Debug for GuestCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestCredential").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a pod gets no guest credential.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum GuestError {
    /// The pod is not there, has another uid, or is bound elsewhere.
    #[error("pod {namespace}/{pod} ({uid}) is not bound to node {node}: nothing to do")]
    NotYours {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The uid that was named.
        uid: String,
        /// The node that asked.
        node: String,
    },
    /// The pod is none of a training job's.
    #[error(
        "pod {namespace}/{pod} has no training job {job} as its controller: only a job's own \
         pods can be guests"
    )]
    NoGuest {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The job that was named.
        job: String,
    },
    /// The certificate could not be made.
    #[error("the certificate could not be made: {cause}")]
    Signing {
        /// What failed.
        cause: String,
    },
    /// The registry did not answer.
    #[error("the registry is not available ({cause}): try again in a moment")]
    Unavailable {
        /// What it said.
        cause: String,
    },
}

/// A node asks for a token of the service account of a pod that is bound to it. It is good for these
/// audiences, for about so long, and ends with the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueAccountToken {
    /// The node that asks.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// For whom it is to be; for the API where there is none.
    pub audiences: Vec<String>,
    /// For how many seconds it is to be good.
    pub seconds: i64,
}
message!(IssueAccountToken => Result<AccountToken, AccountTokenError>, "authority.IssueAccountToken");

/// A token of a pod's service account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountToken {
    /// The token.
    pub token: String,
    /// By when the pod needs another one, in seconds since 1970.
    pub expires_unix_seconds: i64,
}

impl fmt::Debug for AccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountToken")
            .field("expires_unix_seconds", &self.expires_unix_seconds)
            .finish_non_exhaustive()
    }
}

/// Of nodes of earlier versions: a node asks that the token which it made for a pod stands for the pod's service
/// account. The token itself never leaves the node's machine; it is worth nothing once the pod is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAccountToken {
    /// The node that asks.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The digest of the token, as `tokens::hash_token` makes it.
    pub hash: String,
}
message!(KeepAccountToken => Result<(), AccountTokenError>, "authority.KeepAccountToken");

/// Why a pod gets no token of its account.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum AccountTokenError {
    /// The pod is not there, has another uid, or is bound elsewhere.
    #[error("pod {namespace}/{pod} ({uid}) is not bound to node {node}: nothing to do")]
    NotYours {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The uid that was named.
        uid: String,
        /// The node that asked.
        node: String,
    },
    /// The registry did not answer, or the pod got too many tokens in a short time.
    #[error("the token is not kept now ({cause}): try again in a moment")]
    Unavailable {
        /// What it said.
        cause: String,
    },
    /// What was sent is no digest, or one under which another pod's token is kept.
    #[error(
        "this is no digest of a new token: make another token and send its SHA-256 in hexadecimal"
    )]
    BadDigest,
}
