//! Signs certificates: for machines that join with a token, for nodes whose certificate nears its
//! end, and for training pods that join as guests.
//!
//! Guarantees: a token makes one machine, once, within its time (consumed by compare-and-set
//! before the certificate is given); only its hash is kept; no certificate is signed for a name
//! that a node has already; a guest's certificate names its job and nothing else; no certificate but a
//! control member's is good for the name or address of any server but the actors'. Who asks for
//! whom is the gate's business, what may be signed is decided here, from the registry.

mod account;
mod guest;
mod join;
mod rations;
pub mod tokens;

use crate::change::{self, ChangeError};
use actix::prelude::*;
use impresario_client::protocol::authority::{
    AccountToken, AccountTokenError, CreateToken, IssueAccountToken, IssueGuest, Join, JoinRole,
    KeepAccountToken, Peer, Renew, RenewError, Renewed, RevokeToken, TokenCreated, TokenError,
};
use impresario_objects::accounts::Accounts;
use impresario_registry_api::protocol::Status;
use impresario_registry_api::{
    Consistency, Key, ListRequest, REGISTRY_ACTOR, ReadError, RegistryHandle, RegistryRole,
    Selection, Transaction,
};
use impresario_runtime::{
    ActorNode, ClusterAuthority, JoinToken, PeerIdentity, PeerRole, clock, pki::PkiError,
};
use k8s_openapi::api::core::v1;
use rations::Rations;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokens::Token;

/// How long a guest's holds: a pod that lives longer gets a new one when it is started again.
const GUEST_VALIDITY: Duration = Duration::from_hours(720);

/// So many tokens are kept before those of pods that are gone are swept out.
const SWEEP_AFTER: usize = 1024;
/// How often it is looked whether tokens are to be swept, at most.
const SWEEP: Duration = Duration::from_mins(1);

/// How long this member's registry has to say who the members are.
const MEMBERS_LIMIT: Duration = Duration::from_secs(2);

/// What an Authority actor is made of; outlives its restarts.
#[derive(Clone)]
pub struct AuthorityParts {
    /// The cluster's key.
    pub authority: Arc<ClusterAuthority>,
    /// This process's actor node.
    pub node: ActorNode,
    /// Where tokens, nodes and pods are.
    pub registry: RegistryHandle,
    /// How long a machine's certificate holds; it asks for the next one after two thirds of that.
    pub machine_lifetime: Duration,
    /// Tokens of pods that were kept since the last sweep.
    pub tokens_kept: Arc<AtomicUsize>,
    /// Signs the tokens of pods.
    pub accounts: Accounts,
}

/// The actor. Each control member has one; the registry keeps them from contradicting each other.
pub struct Authority {
    parts: AuthorityParts,
    sweeping: bool,
    rations: Arc<Rations>,
}

impl Authority {
    /// One life of the actor.
    pub fn new(parts: AuthorityParts) -> Self {
        Self { parts, sweeping: false, rations: Arc::default() }
    }
}

impl Actor for Authority {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(SWEEP, |this, context| {
            let kept = &this.parts.tokens_kept;
            // One at a time: it reads all pods.
            if this.sweeping || kept.load(Ordering::Relaxed) < SWEEP_AFTER {
                return;
            }
            kept.store(0, Ordering::Relaxed);
            this.sweeping = true;
            let sweep = this.parts.clone().sweep().into_actor(this);
            context.spawn(sweep.map(|(), this, _| this.sweeping = false));
        });
    }
}

impl AuthorityParts {
    /// A certificate for the key of a signing request. Clients of the API trust this authority too: who
    /// may choose the names in its certificate can stand in for the API. Nodes reach each other by a name
    /// that all certificates have, so only control members, which have the authority's key, get others.
    fn sign(
        &self,
        csr: &str,
        name: &str,
        role: JoinRole,
        subjects: &[String],
    ) -> Result<String, PkiError> {
        let subjects = if role == JoinRole::Control { subjects } else { &[] };
        self.authority.sign_csr(csr, name, &peer_role(role), subjects, self.machine_lifetime)
    }

    /// All nodes that say where they are reached.
    async fn peers(&self) -> Result<Vec<Peer>, ReadError> {
        let list = ListRequest {
            select: Selection::all("nodes"),
            after: None,
            limit: None,
            at: None,
            consistency: Consistency::Linearizable,
        };
        let entries = self.registry.list(list).await?.entries;
        let members = self.members().await;
        let peers = entries.iter().filter_map(|entry| {
            let skipped = |error: &ChangeError| {
                tracing::warn!(%error, "node skipped: who joins now does not know its address");
            };
            let node: v1::Node = change::decode(entry).inspect_err(skipped).ok()?;
            let address = node.metadata.annotations?.remove(crate::node::object::QUIC_ADDRESS)?;
            let name = node.metadata.name?;
            Some(Peer { control: members.contains(&name), name, address })
        });
        Ok(peers.collect())
    }

    /// The control members: by the membership of the registry, never by what a Node says of itself. This
    /// process is one.
    async fn members(&self) -> BTreeSet<String> {
        let mut members = BTreeSet::from([self.node.name().as_str().to_owned()]);
        let registry = self.node.local::<RegistryRole>(REGISTRY_ACTOR);
        match registry.ask(Status, MEMBERS_LIMIT).await {
            Ok(status) => members.extend(status.voters.into_iter().chain(status.learners)),
            Err(error) => tracing::debug!(%error, "the other control members are not known"),
        }
        members
    }

    async fn create_token(self, asked: CreateToken) -> Result<TokenCreated, TokenError> {
        if asked.ttl.is_zero() || asked.ttl > tokens::LONGEST {
            return Err(TokenError::TimeToLive { asked: asked.ttl, limit: tokens::LONGEST });
        }
        self.forget_old().await;
        let unavailable = |cause: String| TokenError::Unavailable { cause };
        let made = JoinToken::create(&self.authority.fingerprint())
            .map_err(|error| unavailable(error.to_string()))?;
        let made = if asked.role == JoinRole::Client { made.for_client() } else { made };
        let expires_at = clock::timestamp() + asked.ttl;
        let hash = made.secret_hash();
        let token = Token { role: asked.role, expires_at, used: None };
        let value = serde_json::to_vec(&token).map_err(|error| unavailable(error.to_string()))?;
        let key = Key::new(tokens::RESOURCE, "", &hash);
        self.registry
            .transact(Transaction::create(key, value))
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        Ok(TokenCreated {
            token: made.to_string(),
            id: tokens::id(&hash),
            expires_unix_seconds: expires_at.as_second(),
        })
    }

    async fn revoke_token(self, revoke: RevokeToken) -> Result<(), TokenError> {
        let unavailable = |cause: String| TokenError::Unavailable { cause };
        let unknown = || TokenError::Unknown { id: revoke.id.clone() };
        let tokens = self.tokens().await.map_err(|error| unavailable(error.to_string()))?;
        let mut found = tokens
            .into_iter()
            .filter(|(key, token, _)| tokens::id(&key.name) == revoke.id && token.used.is_none());
        let (key, _, revision) = found.next().ok_or_else(unknown)?;
        match self.registry.transact(Transaction::remove(key, revision)).await {
            Ok(_) => Ok(()),
            // Used in this very moment.
            Err(error) if error.remedy() == impresario_registry_api::Remedy::ReadAgain => {
                Err(unknown())
            }
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    async fn tokens(&self) -> Result<Vec<(Key, Token, u64)>, ReadError> {
        let list = ListRequest {
            select: Selection::all(tokens::RESOURCE),
            after: None,
            limit: None,
            at: None,
            consistency: Consistency::Linearizable,
        };
        let entries = self.registry.list(list).await?.entries;
        let read = entries.into_iter().filter_map(|entry| {
            let token = serde_json::from_slice(&entry.value).ok()?;
            Some((entry.key, token, entry.mod_revision))
        });
        Ok(read.collect())
    }

    /// Tokens that have long expired need no answer of their own any more.
    async fn forget_old(&self) {
        let all = match self.tokens().await {
            Ok(all) => all,
            Err(error) => return tracing::debug!(%error, "old tokens stay for now"),
        };
        let now = clock::timestamp();
        for (key, _, revision) in
            all.into_iter().filter(|(_, token, _)| token.is_forgotten(now)).take(64)
        {
            if let Err(error) = self.registry.transact(Transaction::remove(key, revision)).await {
                tracing::debug!(%error, "an old token stays for now");
            }
        }
    }

    async fn renew(self, renew: Renew) -> Result<Renewed, RenewError> {
        if renew.role != JoinRole::Client {
            let key = Key::new("nodes", "", &renew.name);
            let found = self.registry.get(key, Consistency::Linearizable).await;
            match found {
                Ok((Some(_), _)) => {}
                Ok((None, _)) => return Err(RenewError::Deleted { name: renew.name }),
                Err(error) => return Err(RenewError::Unavailable { cause: error.to_string() }),
            }
        }
        let certificate_pem =
            self.sign(&renew.csr_pem, &renew.name, renew.role, &renew.subjects)
                .map_err(|error| RenewError::BadRequest { cause: error.to_string() })?;
        // By it this one can be revoked, if it was not the node itself that asked.
        let fingerprint = PeerIdentity::from_pem(&certificate_pem)
            .map_err(|error| RenewError::BadRequest { cause: error.to_string() })?
            .fingerprint;
        tracing::info!(name = %renew.name, role = %renew.role, %fingerprint, "certificate renewed");
        Ok(Renewed { certificate_pem, authority_pem: self.authority.certificate_pem().to_owned() })
    }
}

fn peer_role(role: JoinRole) -> PeerRole {
    match role {
        JoinRole::Node => PeerRole::Node,
        JoinRole::Control => PeerRole::Control,
        JoinRole::Client => PeerRole::Client,
    }
}

/// Every request is served by a task of its own: one that waits for the registry holds up nobody.
macro_rules! served {
    ($message:ty, $serve:ident) => {
        impl Handler<$message> for Authority {
            type Result = ResponseFuture<<$message as actix::Message>::Result>;

            fn handle(&mut self, message: $message, _: &mut Self::Context) -> Self::Result {
                Box::pin(self.parts.clone().$serve(message))
            }
        }
    };
}

served!(CreateToken, create_token);
served!(RevokeToken, revoke_token);
served!(Join, join);
served!(Renew, renew);
served!(IssueGuest, issue_guest);

impl Handler<KeepAccountToken> for Authority {
    type Result = ResponseFuture<Result<(), AccountTokenError>>;

    fn handle(&mut self, asked: KeepAccountToken, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.parts.clone().keep_account_token(asked, self.rations.clone()))
    }
}

impl Handler<IssueAccountToken> for Authority {
    type Result = ResponseFuture<Result<AccountToken, AccountTokenError>>;

    fn handle(&mut self, asked: IssueAccountToken, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.parts.clone().issue_account_token(asked, self.rations.clone()))
    }
}

#[cfg(test)]
mod tests;
