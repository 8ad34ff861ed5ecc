//! The keys that tokens of service accounts are signed with: the cluster's, in its registry, where all control members
//! have them, and sealed with what they derive from the authority's key, so that a registry that was stolen signs
//! nothing.
//!
//! A key signs for [`SIGNS`]; then the next is made, by whoever notices. It goes on to verify for as long as a token of
//! it can last. A registry may hold several that were made at once: all verify, the newest signs.

use super::claims::LONGEST_LIFE;
use super::jws::{KeyError, PublicKey, SigningKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use impresario_registry_api::{
    Consistency, Entry, Key, ListRequest, RegistryHandle, Remedy, Selection, Transaction,
};
use impresario_runtime::clock;
use jiff::Timestamp;
use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::Mutex;

/// Under which keys are kept in the registry; no part of the API.
pub const RESOURCE: &str = "impresario.dev/accountkeys";
/// How long a key signs.
const SIGNS: Duration = Duration::from_hours(90 * 24);
/// Clocks of members may be so far apart, and then some.
const SLACK: Duration = Duration::from_hours(24);

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// It cannot be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The registry did not answer.
    #[error("the keys of tokens cannot be read or kept: {0}")]
    Unavailable(String),
}

/// A key as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    created: Timestamp,
    /// PKCS #8, sealed: a nonce, and then what was made with it.
    sealed: String,
}

#[derive(Default)]
struct Known {
    /// By their ids.
    all: BTreeMap<String, Arc<SigningKey>>,
    /// The newest, and when it was made.
    newest: Option<(Timestamp, Arc<SigningKey>)>,
}

/// The keys.
pub struct Keys {
    registry: RegistryHandle,
    seal: LessSafeKey,
    known: RwLock<Known>,
    /// When all keys there were at that moment were read.
    read: Mutex<Option<(Instant, Result<(), KeysError>)>>,
}

impl Keys {
    /// The keys in this registry, sealed with this secret.
    pub fn new(registry: RegistryHandle, secret: &[u8; 32]) -> Result<Self, KeyError> {
        let seal = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| KeyError)?;
        Ok(Self {
            registry,
            seal: LessSafeKey::new(seal),
            known: RwLock::default(),
            read: Mutex::default(),
        })
    }

    /// The key with this id, if it is known here.
    pub fn find(&self, id: &str) -> Option<PublicKey> {
        self.known.read().all.get(id).map(|key| key.public().clone())
    }

    /// The same; looks for it where it is not known here.
    pub async fn seek(&self, id: &str) -> Result<Option<PublicKey>, KeysError> {
        if let Some(key) = self.find(id) {
            return Ok(Some(key));
        }
        // A member that has just started, and has no leader yet, believes what it believed before.
        if self.known.read().all.is_empty() {
            self.look(Consistency::Local).await?;
            if let Some(key) = self.find(id) {
                return Ok(Some(key));
            }
        }
        self.catch_up().await?;
        Ok(self.find(id))
    }

    /// All that are known here.
    pub fn all(&self) -> Vec<PublicKey> {
        self.known.read().all.values().map(|key| key.public().clone()).collect()
    }

    /// Reads what there is, once for all who wait for it at that moment: somebody may make up many ids.
    pub async fn catch_up(&self) -> Result<(), KeysError> {
        let asked = clock::now();
        let mut last = self.read.lock().await;
        if let Some((_, outcome)) = last.as_ref().filter(|(since, _)| *since >= asked) {
            return outcome.clone();
        }
        let since = clock::now();
        let outcome = self.look(Consistency::Linearizable).await.map(drop);
        *last = Some((since, outcome.clone()));
        outcome
    }

    /// The key to sign with. Makes one where there is none, or it is too old.
    pub async fn signing(&self) -> Result<Arc<SigningKey>, KeysError> {
        let now = clock::timestamp();
        if let Some(key) = self.newest(now) {
            return Ok(key);
        }
        let entries = self.look(Consistency::Linearizable).await?;
        if let Some(key) = self.newest(now) {
            return Ok(key);
        }
        let pkcs8 = SigningKey::generate()?;
        let key = SigningKey::of(&pkcs8)?;
        let sealed = self.seal(key.public().id(), pkcs8)?;
        let kept = serde_json::to_vec(&Kept { created: now, sealed }).map_err(|_| KeyError)?;
        let at = Key::new(RESOURCE, "", key.public().id());
        let unavailable = |error: &dyn ToString| KeysError::Unavailable(error.to_string());
        let written = self.registry.transact(Transaction::create(at, kept)).await;
        written.map_err(|error| unavailable(&error))?;
        tracing::info!(key = key.public().id(), "a new key signs tokens of service accounts");
        self.forget(&entries, now).await;
        self.look(Consistency::Linearizable).await?;
        self.newest(now).ok_or_else(|| unavailable(&"the key that was made is not there"))
    }

    fn newest(&self, now: Timestamp) -> Option<Arc<SigningKey>> {
        let known = self.known.read();
        let (created, key) = known.newest.as_ref()?;
        (now < *created + SIGNS).then(|| key.clone())
    }

    /// Removes keys of which no token can be left. One that stays is removed by the next who makes one.
    async fn forget(&self, entries: &[Entry], now: Timestamp) {
        for entry in entries {
            let kept: Option<Kept> = serde_json::from_slice(&entry.value).ok();
            if kept.is_none_or(|kept| kept.created + SIGNS + LONGEST_LIFE + SLACK > now) {
                continue;
            }
            let remove = Transaction::remove(entry.key.clone(), entry.mod_revision);
            match self.registry.transact(remove).await {
                Err(error) if error.remedy() != Remedy::ReadAgain => {
                    return tracing::debug!(%error, "an old key stays for now");
                }
                _ => {}
            }
        }
    }

    async fn look(&self, consistency: Consistency) -> Result<Vec<Entry>, KeysError> {
        let all = ListRequest { consistency, ..ListRequest::of(Selection::all(RESOURCE)) };
        let page = self.registry.list(all).await;
        let entries = page.map_err(|error| KeysError::Unavailable(error.to_string()))?.entries;
        let mut known = Known::default();
        for entry in &entries {
            let id = &entry.key.name;
            let Some((created, key)) = self.open(entry) else {
                tracing::warn!(key = %id, "a key of tokens is skipped: this cluster's authority did not seal it");
                continue;
            };
            let key = Arc::new(key);
            let is_newer = known.newest.as_ref().is_none_or(|(at, newest)| {
                (*at, newest.public().id()) < (created, key.public().id())
            });
            if is_newer {
                known.newest = Some((created, key.clone()));
            }
            known.all.insert(id.clone(), key);
        }
        *self.known.write() = known;
        Ok(entries)
    }

    fn seal(&self, id: &str, mut pkcs8: Vec<u8>) -> Result<String, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| KeyError)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.seal
            .seal_in_place_append_tag(unique, Aad::from(id.as_bytes()), &mut pkcs8)
            .map_err(|_| KeyError)?;
        Ok(BASE64.encode([&nonce[..], &pkcs8].concat()))
    }

    fn open(&self, entry: &Entry) -> Option<(Timestamp, SigningKey)> {
        let kept: Kept = serde_json::from_slice(&entry.value).ok()?;
        let mut sealed = BASE64.decode(kept.sealed).ok()?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let id = Aad::from(entry.key.name.as_bytes());
        let pkcs8 = self.seal.open_in_place(nonce, id, sealed).ok()?;
        let key = SigningKey::of(pkcs8).ok()?;
        (key.public().id() == entry.key.name).then_some((kept.created, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::MemoryRegistry;
    use impresario_registry_api::Registry as _;
    use serde_json::{Value, json};

    fn keys(registry: &MemoryRegistry, secret: u8) -> Keys {
        Keys::new(Arc::new(registry.clone()), &[secret; 32]).unwrap()
    }

    async fn kept(registry: &MemoryRegistry) -> Vec<Entry> {
        registry.list(ListRequest::of(Selection::all(RESOURCE))).await.unwrap().entries
    }

    #[tokio::test]
    async fn all_members_sign_with_the_newest_key_and_a_restart_changes_nothing() {
        let registry = MemoryRegistry::default();
        let (one, other) = (keys(&registry, 1), keys(&registry, 1));
        let signed = one.signing().await.unwrap();
        let id = signed.public().id().to_owned();
        assert_eq!(other.signing().await.unwrap().public().id(), id);
        assert_eq!(other.find(&id), one.find(&id));
        assert_eq!(kept(&registry).await.len(), 1);
    }

    #[tokio::test]
    async fn a_key_that_has_signed_long_enough_is_followed_by_another_and_goes_on_to_verify() {
        let registry = MemoryRegistry::default();
        let first = keys(&registry, 1).signing().await.unwrap().public().id().to_owned();
        let now = clock::timestamp();
        let age = async |days: u64| {
            let entry = kept(&registry).await.remove(0);
            let mut value: Value = serde_json::from_slice(&entry.value).unwrap();
            value["created"] = json!(now - Duration::from_hours(days * 24));
            let put = Transaction::default().put(entry.key, value.to_string());
            registry.transact(put).await.unwrap();
        };
        age(91).await;
        let later = keys(&registry, 1);
        let second = later.signing().await.unwrap().public().id().to_owned();
        assert_ne!(first, second);
        assert!(later.find(&first).is_some() && later.find(&second).is_some());

        let registry = MemoryRegistry::default();
        let gone = keys(&registry, 1).signing().await.unwrap().public().id().to_owned();
        let entry = kept(&registry).await.remove(0);
        let mut value: Value = serde_json::from_slice(&entry.value).unwrap();
        value["created"] = json!(now - Duration::from_hours(24 * 500));
        registry.transact(Transaction::default().put(entry.key, value.to_string())).await.unwrap();
        let later = keys(&registry, 1);
        later.signing().await.unwrap();
        assert!(later.find(&gone).is_none(), "no token of it can be left");
    }

    #[tokio::test]
    async fn what_another_authority_sealed_is_no_key_and_nothing_in_the_registry_signs_by_itself() {
        let registry = MemoryRegistry::default();
        let foreign = keys(&registry, 2).signing().await.unwrap();
        let own = keys(&registry, 1);
        own.catch_up().await.unwrap();
        assert!(own.find(foreign.public().id()).is_none());
        let stored = kept(&registry).await.remove(0);
        let text: Value = serde_json::from_slice(&stored.value).unwrap();
        let bytes = BASE64.decode(text["sealed"].as_str().unwrap()).unwrap();
        assert!(SigningKey::of(&bytes[NONCE_LEN..]).is_err());
        assert_ne!(own.signing().await.unwrap().public().id(), foreign.public().id());
    }
}
