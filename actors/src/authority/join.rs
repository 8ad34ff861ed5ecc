//! A machine joins with a token.

use super::{
    AuthorityParts,
    tokens::{self, Token, Use},
};
use impresario_client::protocol::authority::{Join, JoinError, JoinRole, Joined, NODE_NUMBERS};
use impresario_registry_api::{Compare, Consistency, Key, Remedy, Transaction};
use impresario_runtime::{JoinToken, clock, random};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};

/// How often a join is tried that loses a race against another.
const TRIES: usize = 5;
/// Which machine has which number.
pub(super) const NUMBERS: &str = "impresario.dev/nodenumbers";
/// How many numbers are tried until one is free: with half of them taken, all of these are once in
/// four billion times.
const NUMBERS_DRAWN: usize = 32;
/// Names that were given to machines, so that two do not get the same one before either shows itself.
pub(super) const NAMES: &str = "impresario.dev/joinednames";
/// How long a name is kept for a machine whose Node object does not come.
const NAME_KEPT: Duration = Duration::from_mins(10);

/// What a machine was given, under its name.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    at: Timestamp,
    number: u32,
}

/// Who has a number, and since when.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    name: String,
    at: Timestamp,
}

impl AuthorityParts {
    pub(super) async fn join(self, join: Join) -> Result<Joined, JoinError> {
        let hash = JoinToken::hash_of(&join.secret);
        let key = Key::new(tokens::RESOURCE, "", &hash);
        let request = JoinToken::hash_of(&join.csr_pem);
        let unknown = || JoinError::UnknownToken { cluster: self.authority.cluster().to_owned() };
        let mut last = String::new();
        for _ in 0..TRIES {
            let read = self.registry.get(key.clone(), Consistency::Linearizable).await;
            let (entry, _) = read.map_err(unavailable)?;
            let entry = entry.ok_or_else(unknown)?;
            let token: Token = serde_json::from_slice(&entry.value).map_err(|_| unknown())?;
            let now = clock::timestamp();
            if let Some(name) = token.judge(&request, now)? {
                return self.joined(&join, name, token.role).await;
            }
            let name = match &join.name {
                Some(name) if !tokens::is_node_name(name) => {
                    return Err(JoinError::BadName { name: name.clone() });
                }
                name => tokens::given_name(name.as_deref(), token.role, &letters()),
            };
            // A request that cannot be signed must not cost the token.
            self.sign(&join.csr_pem, &name, token.role, &[])
                .map_err(|error| JoinError::BadRequest { cause: error.to_string() })?;
            let used = Use { by: name.clone(), at: now, request: request.clone() };
            let role = token.role;
            let consumed = Token { used: Some(used), ..token };
            let value = serde_json::to_vec(&consumed).map_err(unavailable)?;
            let mut transaction = Transaction::update(key.clone(), entry.mod_revision, value);
            if role != JoinRole::Client {
                transaction = self.claim(transaction, &name, now).await?;
            }
            match self.registry.transact(transaction).await {
                Ok(_) => return self.joined(&join, &name, role).await,
                Err(error) if error.remedy() == Remedy::ReadAgain => last = error.to_string(),
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(unavailable(last))
    }

    /// Adds what keeps two machines from getting one name.
    async fn claim(
        &self,
        transaction: Transaction,
        name: &str,
        now: Timestamp,
    ) -> Result<Transaction, JoinError> {
        let taken = || JoinError::NameTaken { name: name.to_owned() };
        let (node, claim) = (Key::new("nodes", "", name), Key::new(NAMES, "", name));
        let (found, _) = self
            .registry
            .get(node.clone(), Consistency::Linearizable)
            .await
            .map_err(unavailable)?;
        if found.is_some() {
            return Err(taken());
        }
        let (claimed, _) = self
            .registry
            .get(claim.clone(), Consistency::Linearizable)
            .await
            .map_err(unavailable)?;
        let compare = match claimed {
            Some(entry) => {
                let claimed: Option<Claim> = serde_json::from_slice(&entry.value).ok();
                if claimed.is_some_and(|claimed| now < claimed.at + NAME_KEPT) {
                    return Err(taken());
                }
                Compare::Revision { key: claim.clone(), revision: entry.mod_revision }
            }
            None => Compare::Absent { key: claim.clone() },
        };
        let (transaction, number) = self.draw_number(transaction, name, now).await?;
        let value = serde_json::to_vec(&Claim { at: now, number }).map_err(unavailable)?;
        Ok(transaction.when(Compare::Absent { key: node }).when(compare).put(claim, value))
    }

    /// Adds a number that no other machine has, or had whose node is gone.
    async fn draw_number(
        &self,
        transaction: Transaction,
        name: &str,
        now: Timestamp,
    ) -> Result<(Transaction, u32), JoinError> {
        for _ in 0..NUMBERS_DRAWN {
            let number = random::random_range(NODE_NUMBERS);
            let key = Key::new(NUMBERS, "", number.to_string());
            let found = self.registry.get(key.clone(), Consistency::Linearizable).await;
            let compare = match found.map_err(unavailable)?.0 {
                None => Compare::Absent { key: key.clone() },
                Some(entry) => {
                    let holder: Option<Holder> = serde_json::from_slice(&entry.value).ok();
                    if let Some(holder) = holder
                        && self.holds(&holder, now).await?
                    {
                        continue;
                    }
                    Compare::Revision { key: key.clone(), revision: entry.mod_revision }
                }
            };
            let holder = Holder { name: name.to_owned(), at: now };
            let value = serde_json::to_vec(&holder).map_err(unavailable)?;
            return Ok((transaction.when(compare).put(key, value), number));
        }
        Err(unavailable("no number is free for one more node"))
    }

    async fn holds(&self, holder: &Holder, now: Timestamp) -> Result<bool, JoinError> {
        if now < holder.at + NAME_KEPT {
            return Ok(true);
        }
        let node = Key::new("nodes", "", &holder.name);
        let found = self.registry.get(node, Consistency::Linearizable).await;
        Ok(found.map_err(unavailable)?.0.is_some())
    }

    /// The number that came with a name; 0 for what is no node.
    async fn number_of(&self, name: &str, role: JoinRole) -> Result<u32, JoinError> {
        if role == JoinRole::Client {
            return Ok(0);
        }
        let found = self.registry.get(Key::new(NAMES, "", name), Consistency::Linearizable).await;
        let entry = found.map_err(unavailable)?.0;
        let claim = entry.and_then(|entry| serde_json::from_slice::<Claim>(&entry.value).ok());
        claim.map(|claim| claim.number).ok_or_else(|| {
            unavailable("what the machine was given is not known any more: use a new token")
        })
    }

    async fn joined(&self, join: &Join, name: &str, role: JoinRole) -> Result<Joined, JoinError> {
        let subjects: Vec<_> =
            join.from.parse::<SocketAddr>().map(|from| from.ip().to_string()).into_iter().collect();
        let certificate_pem = self
            .sign(&join.csr_pem, name, role, &subjects)
            .map_err(|error| JoinError::BadRequest { cause: error.to_string() })?;
        let peers = self.peers().await.map_err(unavailable)?;
        let number = self.number_of(name, role).await?;
        tracing::info!(%name, %role, from = %join.from, "a machine joined");
        Ok(Joined {
            certificate_pem,
            authority_pem: self.authority.certificate_pem().to_owned(),
            name: name.to_owned(),
            role,
            cluster: self.authority.cluster().to_owned(),
            number,
            peers,
        })
    }
}

fn unavailable(cause: impl ToString) -> JoinError {
    JoinError::Unavailable { cause: cause.to_string() }
}

fn letters() -> String {
    (0..6).map(|_| char::from(random::random_range(b'a'..=b'z'))).collect()
}
