//! What tokens of service accounts are issued and reviewed with.

use super::jws::KeyError;
use super::keys::{Keys, KeysError};
use crate::catch_up::CatchUp;
use impresario_registry_api::{Consistency, Entry, Key, RegistryHandle};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccountError {
    /// It is wrong: ask for another one.
    #[error("{0}")]
    Wrong(String),
    /// It could not be looked up; it may be good.
    #[error("the token of a service account could not be checked: {0}; try again")]
    Unavailable(String),
}

impl From<KeysError> for AccountError {
    fn from(error: KeysError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Issues and reviews tokens of service accounts.
#[derive(Clone)]
pub struct Accounts {
    pub(super) registry: RegistryHandle,
    pub(super) keys: Arc<Keys>,
    pub(super) caught_up: CatchUp,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}

impl Accounts {
    /// Tokens of the accounts in this registry; the secret, which all control members have, seals their keys.
    pub fn new(registry: RegistryHandle, secret: &[u8; 32]) -> Result<Self, KeyError> {
        let keys = Arc::new(Keys::new(registry.clone(), secret)?);
        Ok(Self { registry, keys, caught_up: CatchUp::default() })
    }

    /// The keys with which anybody can verify tokens, as a JSON Web Key Set.
    pub async fn web_keys(&self) -> Result<Value, AccountError> {
        self.keys.catch_up().await?;
        let keys: Vec<Value> = self.keys.all().iter().map(super::jws::PublicKey::jwk).collect();
        Ok(json!({ "keys": keys }))
    }

    pub(super) async fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> Result<Option<Entry>, AccountError> {
        let read = self.registry.get(key, consistency).await;
        Ok(read.map_err(|error| AccountError::Unavailable(error.to_string()))?.0)
    }
}
