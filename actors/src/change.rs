//! Reading and changing single objects, as actors need it.
//!
//! A change is compare-and-set: read, edit a copy, write where nothing else was written in
//! between, else read again. It ends by itself: after [`TRIES`] lost races or when the registry
//! stays away for about half a minute. Nothing is written where the edit changes nothing.

use bytes::Bytes;
use impresario_registry_api::{
    Consistency, Entry, Fence, Key, ReadError, RegistryHandle, Remedy, Revision, TransactError,
    Transaction,
};
use impresario_runtime::random;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;

/// How often a change is tried.
pub const TRIES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Why an object was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no such object, or another one by that name.
    #[error("{key} is gone: forget it")]
    Gone {
        /// Its key.
        key: Key,
    },
    /// The bytes that are there are no object of this kind.
    #[error("{key} cannot be read ({cause}): delete it and create it anew")]
    Unreadable {
        /// Its key.
        key: Key,
        /// What is wrong with it.
        cause: String,
    },
    /// It could not be read in time.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be written: fenced, too large, or still in the race after all tries.
    #[error(transparent)]
    Write(#[from] TransactError),
}

impl ChangeError {
    /// Whether the right to write is lost: the activation must stop.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Write(error) if error.remedy() == Remedy::Stop)
    }
}

/// Reads an entry as a typed object.
pub fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, ChangeError> {
    serde_json::from_slice(&entry.value).map_err(|error| ChangeError::Unreadable {
        key: entry.key.clone(),
        cause: error.to_string(),
    })
}

/// The object with this key, if there is one.
pub async fn get<T: DeserializeOwned>(
    registry: &RegistryHandle,
    key: Key,
) -> Result<Option<T>, ChangeError> {
    let (entry, _) = registry.get(key, Consistency::Linearizable).await?;
    entry.as_ref().map(decode).transpose()
}

/// Edits the object with this key and, where one is given, this uid. `edit` may be called again.
/// The revision of the object as it is now.
pub async fn change(
    registry: &RegistryHandle,
    key: &Key,
    uid: Option<&str>,
    fence: Option<Fence>,
    edit: impl FnMut(&mut Value),
) -> Result<Revision, ChangeError> {
    Ok(change_known(registry, key, uid, fence, None, edit).await?.mod_revision)
}

/// As [`change`], from the entry that the caller knows already: one round trip where it is still
/// the newest. The entry as it is now.
pub async fn change_known(
    registry: &RegistryHandle,
    key: &Key,
    uid: Option<&str>,
    fence: Option<Fence>,
    mut known: Option<Entry>,
    mut edit: impl FnMut(&mut Value),
) -> Result<Entry, ChangeError> {
    let mut tries = Tries::default();
    loop {
        let found = match known.take() {
            Some(entry) => decode(&entry).map(|value| (entry, value)),
            None => read(registry, key, uid).await,
        };
        let written = match found {
            Ok((entry, mut value)) => {
                let before = value.clone();
                edit(&mut value);
                if value == before {
                    return Ok(entry);
                }
                let bytes = Bytes::from(value.to_string());
                let mut transaction =
                    Transaction::update(key.clone(), entry.mod_revision, bytes.clone());
                transaction.fence = fence;
                let committed = registry.transact(transaction).await;
                committed.map_err(ChangeError::from).map(|committed| Entry {
                    value: bytes,
                    mod_revision: committed.revision,
                    ..entry
                })
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(entry) => return Ok(entry),
            Err(error) => tries.again(error).await?,
        }
    }
}

/// Removes the object with this key and uid, where `may` says so of its present form. Whether it
/// is gone.
pub async fn remove(
    registry: &RegistryHandle,
    key: &Key,
    uid: &str,
    may: impl Fn(&Value) -> bool,
) -> Result<bool, ChangeError> {
    let mut tries = Tries::default();
    loop {
        let removed = match read(registry, key, Some(uid)).await {
            Ok((_, value)) if !may(&value) => return Ok(false),
            Ok((entry, _)) => {
                let transaction = Transaction::remove(key.clone(), entry.mod_revision);
                registry.transact(transaction).await.map_err(ChangeError::from)
            }
            // Someone else removed it, or our own removal was answered late.
            Err(ChangeError::Gone { .. }) => return Ok(true),
            Err(error) => Err(error),
        };
        match removed {
            Ok(_) => return Ok(true),
            Err(error) => tries.again(error).await?,
        }
    }
}

async fn read(
    registry: &RegistryHandle,
    key: &Key,
    uid: Option<&str>,
) -> Result<(Entry, Value), ChangeError> {
    let gone = || ChangeError::Gone { key: key.clone() };
    let (entry, _) = registry.get(key.clone(), Consistency::Linearizable).await?;
    let entry = entry.ok_or_else(gone)?;
    let value: Value = decode(&entry)?;
    let found = value.pointer("/metadata/uid").and_then(Value::as_str);
    if uid.is_some() && uid != found { Err(gone()) } else { Ok((entry, value)) }
}

/// Counts the tries of one operation, and waits between them.
#[derive(Debug, Default)]
pub struct Tries(u32);

impl Tries {
    /// Returns when it is time to try again, or the error where that does not help (any more).
    pub async fn again(&mut self, error: ChangeError) -> Result<(), ChangeError> {
        let remedy = match &error {
            ChangeError::Gone { .. } | ChangeError::Unreadable { .. } => Remedy::GiveUp,
            ChangeError::Read(error) => error.remedy(),
            ChangeError::Write(error) => error.remedy(),
        };
        self.0 += 1;
        if self.0 >= TRIES || matches!(remedy, Remedy::Stop | Remedy::GiveUp) {
            return Err(error);
        }
        let longest = FIRST_PAUSE.saturating_mul(1 << self.0.min(16)).min(LONGEST_PAUSE);
        tokio::time::sleep(longest.mul_f64(random::random_range(0.5..1.0))).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::MemoryRegistry;
    use serde_json::json;
    use std::sync::Arc;

    async fn registry(key: &Key) -> RegistryHandle {
        let registry: RegistryHandle = Arc::new(MemoryRegistry::new());
        let value = json!({"metadata": {"name": "a", "uid": "u"}, "n": 0}).to_string();
        registry.transact(Transaction::create(key.clone(), value)).await.unwrap();
        registry
    }

    #[tokio::test]
    async fn changes_made_at_once_are_all_kept() {
        let key = Key::new("pods", "ns", "a");
        let registry = registry(&key).await;
        let add = || {
            change(&registry, &key, Some("u"), None, |value| {
                value["n"] = json!(value["n"].as_u64().unwrap_or(0) + 1);
            })
        };
        let (a, b, c) = tokio::join!(add(), add(), add());
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(get::<Value>(&registry, key).await.unwrap().unwrap()["n"], 3);
    }

    #[tokio::test]
    async fn another_object_of_the_same_name_is_left_alone() {
        let key = Key::new("pods", "ns", "a");
        let registry = registry(&key).await;
        let error =
            change(&registry, &key, Some("other"), None, |value| value["n"] = json!(9)).await;
        assert_eq!(error, Err(ChangeError::Gone { key: key.clone() }));
        assert_eq!(remove(&registry, &key, "other", |_| true).await, Ok(true));
        assert_eq!(get::<Value>(&registry, key).await.unwrap().unwrap()["n"], 0);
    }

    #[tokio::test]
    async fn an_edit_that_changes_nothing_writes_nothing() {
        let key = Key::new("pods", "ns", "a");
        let registry = registry(&key).await;
        let before = registry.get(key.clone(), Consistency::Local).await.unwrap().1;
        change(&registry, &key, None, None, |_| {}).await.unwrap();
        assert_eq!(registry.get(key, Consistency::Local).await.unwrap().1, before);
    }
}
