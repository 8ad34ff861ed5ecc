//! The keys that tokens of service accounts are signed with: the cluster's, in its registry, where all control members
//! have them, and sealed with what they derive from the authority's key, so that a registry that was stolen signs
//! nothing.
//!
//! A key signs for [`SIGNS`]; then the next is made, by whoever notices. It goes on to verify for as long as a token of
//! it can last. Of those who notice at one moment one makes it: in a process one tries for all, and who writes it must
//! have seen the last one, by a mark beside the keys. Several that were made all the same verify, the newest signs.

use super::claims::LONGEST_LIFE;
use super::jws::{KeyError, PublicKey, SigningKey};
use crate::catch_up::CatchUp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use impresario_registry_api::{
    Compare, Consistency, Entry, Key, ListRequest, RegistryHandle, Remedy, Revision, Selection,
    Transaction,
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
/// Which key was made last: who makes the next one must have seen it.
const MARK: &str = "impresario.dev/accountkeymarks";
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

/// A key that was opened, as its entry was at that revision.
#[derive(Clone)]
struct Opened {
    revision: Revision,
    created: Timestamp,
    key: Arc<SigningKey>,
}

/// When something was done for all who waited for it, and what came of it.
type Last<T> = Mutex<Option<(Instant, Result<T, KeysError>)>>;

/// The keys.
pub struct Keys {
    registry: RegistryHandle,
    seal: LessSafeKey,
    /// By their ids.
    known: RwLock<BTreeMap<String, Opened>>,
    /// When all keys there were at that moment were read.
    read: Last<()>,
    /// When a key to sign with was last looked for, or made.
    made: Last<Arc<SigningKey>>,
    caught_up: CatchUp,
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
            made: Mutex::default(),
            caught_up: CatchUp::default(),
        })
    }

    /// The key with this id, if it is known here.
    pub fn find(&self, id: &str) -> Option<PublicKey> {
        self.known.read().get(id).map(|it| it.key.public().clone())
    }

    /// The same; looks for it where it is not known here. Somebody may make up many ids: nothing is listed or opened
    /// for one that is not there, and the others are asked once for all who wait.
    pub async fn seek(&self, id: &str) -> Result<Option<PublicKey>, KeysError> {
        if let Some(key) = self.find(id) {
            return Ok(Some(key));
        }
        if !PublicKey::is_id(id) {
            return Ok(None);
        }
        let at = Key::new(RESOURCE, "", id);
        // A member that has just started, and has no leader yet, believes what it believed before.
        if let Some(key) = self.fetch(&at).await? {
            return Ok(Some(key));
        }
        let caught_up = self.caught_up.wait(&self.registry, &at).await;
        caught_up.map_err(KeysError::Unavailable)?;
        self.fetch(&at).await
    }

    /// One key, as far as this member has it.
    async fn fetch(&self, at: &Key) -> Result<Option<PublicKey>, KeysError> {
        let found = self.registry.get(at.clone(), Consistency::Local).await;
        let Some(entry) = found.map_err(|error| unavailable(&error))?.0 else { return Ok(None) };
        let Some(opened) = self.open(&entry) else { return Ok(None) };
        let key = opened.key.public().clone();
        self.known.write().insert(at.name.clone(), opened);
        Ok(Some(key))
    }

    /// All that are known here.
    pub fn all(&self) -> Vec<PublicKey> {
        self.known.read().values().map(|it| it.key.public().clone()).collect()
    }

    /// Reads what there is, once for all who wait for it at that moment.
    pub async fn catch_up(&self) -> Result<(), KeysError> {
        once(&self.read, async { self.look(Consistency::Linearizable).await.map(drop) }).await
    }

    /// The key to sign with. Makes one where there is none, or it is too old.
    pub async fn signing(&self) -> Result<Arc<SigningKey>, KeysError> {
        let now = clock::timestamp();
        match self.newest(now) {
            Some(key) => Ok(key),
            None => once(&self.made, self.make(now)).await,
        }
    }

    async fn make(&self, now: Timestamp) -> Result<Arc<SigningKey>, KeysError> {
        // The mark before the keys: of what is made meanwhile the mark tells.
        let mark = Key::new(MARK, "", "newest");
        let marked = self.registry.get(mark.clone(), Consistency::Linearizable).await;
        let marked = marked.map_err(|error| unavailable(&error))?.0;
        let entries = self.look(Consistency::Linearizable).await?;
        if let Some(key) = self.newest(now) {
            return Ok(key);
        }
        let pkcs8 = SigningKey::generate()?;
        let key = SigningKey::of(&pkcs8)?;
        let id = key.public().id();
        let sealed = self.seal(id, pkcs8)?;
        let kept = serde_json::to_vec(&Kept { created: now, sealed }).map_err(|_| KeyError)?;
        let is_as_seen = match marked {
            Some(entry) => Compare::Revision { key: mark.clone(), revision: entry.mod_revision },
            None => Compare::Absent { key: mark.clone() },
        };
        let create = Transaction::create(Key::new(RESOURCE, "", id), kept).when(is_as_seen);
        match self.registry.transact(create.put(mark, id.to_owned())).await {
            Ok(_) => {
                tracing::info!(key = id, "a new key signs tokens of service accounts");
                self.forget(&entries, now).await;
            }
            // Another member was quicker: its key signs.
            Err(error) if error.remedy() == Remedy::ReadAgain => {}
            Err(error) => return Err(unavailable(&error)),
        }
        self.look(Consistency::Linearizable).await?;
        self.newest(now).ok_or_else(|| unavailable(&"the key that was made is not there"))
    }

    fn newest(&self, now: Timestamp) -> Option<Arc<SigningKey>> {
        let known = self.known.read();
        let newest = known.iter().max_by_key(|(id, it)| (it.created, *id))?.1;
        (now < newest.created + SIGNS).then(|| newest.key.clone())
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

    /// Reads all keys; opens those alone that are not known yet, or not so.
    async fn look(&self, consistency: Consistency) -> Result<Vec<Entry>, KeysError> {
        let all = ListRequest { consistency, ..ListRequest::of(Selection::all(RESOURCE)) };
        let page = self.registry.list(all).await;
        let entries = page.map_err(|error| unavailable(&error))?.entries;
        let before = self.known.read().clone();
        let mut known = BTreeMap::new();
        for entry in &entries {
            let id = &entry.key.name;
            let same = before.get(id).filter(|it| it.revision == entry.mod_revision).cloned();
            match same.or_else(|| self.open(entry)) {
                Some(opened) => drop(known.insert(id.clone(), opened)),
                None => {
                    tracing::warn!(key = %id, "a key of tokens is skipped: this cluster's authority did not seal it");
                }
            }
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

    fn open(&self, entry: &Entry) -> Option<Opened> {
        let kept: Kept = serde_json::from_slice(&entry.value).ok()?;
        let mut sealed = BASE64.decode(kept.sealed).ok()?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let id = Aad::from(entry.key.name.as_bytes());
        let pkcs8 = self.seal.open_in_place(nonce, id, sealed).ok()?;
        let key = SigningKey::of(pkcs8).ok()?;
        let is_it = key.public().id() == entry.key.name;
        let (revision, created) = (entry.mod_revision, kept.created);
        is_it.then(|| Opened { revision, created, key: Arc::new(key) })
    }
}

fn unavailable(error: &dyn ToString) -> KeysError {
    KeysError::Unavailable(error.to_string())
}

/// Does something once for all who ask for it before it begins: they wait for what is under way, and for one more.
async fn once<T: Clone>(
    last: &Last<T>,
    work: impl Future<Output = Result<T, KeysError>>,
) -> Result<T, KeysError> {
    let asked = clock::now();
    let mut last = last.lock().await;
    if let Some((_, outcome)) = last.as_ref().filter(|(since, _)| *since >= asked) {
        return outcome.clone();
    }
    let since = clock::now();
    let outcome = work.await;
    *last = Some((since, outcome.clone()));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{BoxFuture, join_all};
    use impresario_registry::MemoryRegistry;
    use impresario_registry_api::{Around, Committed, Page, ReadError, Registry, TransactError};
    use serde_json::{Value, json};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Lets others go on before it answers, as the network does, and counts.
    #[derive(Default)]
    struct Slow {
        inner: MemoryRegistry,
        listed: AtomicUsize,
        asked: AtomicUsize,
    }

    impl Around for Slow {
        fn inner(&self) -> &dyn Registry {
            &self.inner
        }

        fn get(
            &self,
            key: Key,
            consistency: Consistency,
        ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
            if consistency != Consistency::Local {
                self.asked.fetch_add(1, Ordering::SeqCst);
            }
            Box::pin(async move {
                tokio::task::yield_now().await;
                self.inner.get(key, consistency).await
            })
        }

        fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, ReadError>> {
            self.listed.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::task::yield_now().await;
                self.inner.list(request).await
            })
        }

        fn transact(
            &self,
            transaction: Transaction,
        ) -> BoxFuture<'_, Result<Committed, TransactError>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                self.inner.transact(transaction).await
            })
        }
    }

    #[tokio::test]
    async fn of_many_who_ask_for_a_key_at_one_moment_at_all_members_one_makes_it() {
        let registry = Arc::new(Slow::default());
        let members: Vec<Keys> =
            (0..3).map(|_| Keys::new(registry.clone(), &[1; 32]).unwrap()).collect();
        let all = members.iter().flat_map(|keys| (0..50).map(move |_| keys.signing()));
        let ids: std::collections::BTreeSet<String> =
            join_all(all).await.into_iter().map(|key| key.unwrap().public().id().into()).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(kept(&registry.inner).await.len(), 1);
    }

    #[tokio::test]
    async fn ids_that_somebody_makes_up_list_nothing_and_cost_few_questions_together() {
        let registry = Arc::new(Slow::default());
        let keys = Keys::new(registry.clone(), &[1; 32]).unwrap();
        let id = keys.signing().await.unwrap().public().id().to_owned();
        let other = Keys::new(registry.clone(), &[1; 32]).unwrap();
        let (listed, asked) =
            (registry.listed.load(Ordering::SeqCst), registry.asked.load(Ordering::SeqCst));
        let guesses: Vec<String> = (0..100).map(|number| format!("{number:A>43}")).collect();
        for found in join_all(guesses.iter().map(|guess| other.seek(guess))).await {
            assert_eq!(found, Ok(None));
        }
        let asked = registry.asked.load(Ordering::SeqCst) - asked;
        assert!(asked <= 2, "one under way, and one for all who came meanwhile: {asked}");
        assert_eq!(other.seek("short").await, Ok(None));
        assert!(other.seek(&id).await.unwrap().is_some());
        assert_eq!(registry.listed.load(Ordering::SeqCst), listed);
    }

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
