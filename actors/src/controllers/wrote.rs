//! What a look must not miss in its mirrors: what it has written, and what the activation before it has.
//!
//! A mirror's revision rises with changes of its own resource (and with an occasional bookmark), so
//! what was written is remembered by resource. What others wrote, or a look of which the answers were
//! lost, has no revision that is known here: the registry is asked for its newest, once.

use super::control::LookError;
use super::mirror::{Mirror, Mirrored};
use super::view::CATCH_UP;
use impresario_registry_api::{ReadError, Revision};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The newest revision that one look wrote to one resource, and what it does not know of.
#[derive(Debug)]
pub(super) struct Wrote {
    newest: AtomicU64,
    unknown: Mutex<Unknown>,
}

/// Writes whose revisions are not known.
#[derive(Debug, Clone, Copy)]
enum Unknown {
    /// None.
    Nothing,
    /// What was written before this time.
    Before(Instant),
    /// What is being written, or was when the look was given up.
    UnderWay,
}

impl Default for Wrote {
    /// Nothing yet: a mirror is waited for until it is filled.
    fn default() -> Self {
        Self { newest: AtomicU64::new(1), unknown: Mutex::new(Unknown::Nothing) }
    }
}

impl Wrote {
    /// Of an activation that may write since then: until then another one may have written.
    pub(super) fn since(held: Instant) -> Self {
        Self { unknown: Mutex::new(Unknown::Before(held)), ..Self::default() }
    }

    /// Remembers a write.
    pub(super) fn at(&self, revision: Revision) {
        self.newest.fetch_max(revision, Ordering::Relaxed);
    }

    /// Writes are about to be made. If their answers are lost, or nobody waits for them any more, the
    /// next look asks the registry what became of them.
    pub(super) fn begin(&self) {
        *self.unknown.lock() = Unknown::UnderWay;
    }

    /// All that was begun is known: it has a revision, or is not done.
    pub(super) fn all_known(&self) {
        *self.unknown.lock() = Unknown::Nothing;
    }

    /// What was begun has ended, and some of it may be done although its answer was lost or a refusal. Whoever
    /// else asks about a time before, or of, this one is served by the same listing of the registry.
    pub(super) fn ended_unknown(&self) {
        *self.unknown.lock() = Unknown::Before(Instant::now());
    }

    /// Waits until `mirror`, of the same resource, has seen everything that was written.
    pub(super) async fn seen_by<K: Mirrored>(&self, mirror: &Mirror<K>) -> Result<(), LookError> {
        let since = match *self.unknown.lock() {
            Unknown::Nothing => None,
            Unknown::Before(since) => Some(since),
            Unknown::UnderWay => Some(Instant::now()),
        };
        if let Some(since) = since {
            let asked = tokio::time::timeout(CATCH_UP, mirror.newest(since)).await;
            let late = || ReadError::Unavailable {
                reason: format!("what was written last is not known within {CATCH_UP:?}"),
            };
            self.at(asked.unwrap_or_else(|_| Err(late()))?);
        }
        mirror.reached(self.newest.load(Ordering::Relaxed), CATCH_UP).await?;
        self.all_known();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::{Key, MemoryRegistry, Registry as _, RegistryHandle, Transaction};
    use k8s_openapi::api::core::v1::Pod;
    use std::sync::Arc;

    #[tokio::test]
    async fn looks_that_failed_together_share_one_listing_of_the_registry() {
        let registry = MemoryRegistry::default();
        let mirror: Mirror<Pod> =
            Mirror::start(Arc::new(registry.clone()) as RegistryHandle, "pods");
        let create = async |name: &str| {
            let pod = format!(r#"{{"metadata": {{"name": "{name}", "namespace": "ns"}}}}"#);
            let create = Transaction::create(Key::new("pods", "ns", name), pod);
            registry.transact(create).await.unwrap().revision
        };
        let (one, other) = (Wrote::default(), Wrote::default());
        for wrote in [&one, &other] {
            wrote.begin();
        }
        let done = create("done").await;
        one.ended_unknown();
        other.ended_unknown();
        one.seen_by(&mirror).await.unwrap();
        // What is written since concerns neither: the listing that the other goes by does not show it.
        create("later").await;
        other.seen_by(&mirror).await.unwrap();
        for wrote in [&one, &other] {
            assert_eq!(wrote.newest.load(Ordering::Relaxed), done);
        }
    }
}
