//! What a look must not miss in its mirrors: what it has written, and what the activation before it has.
//!
//! A mirror's revision rises with changes of its own resource (and with an occasional bookmark), so
//! what was written is remembered by resource. What others wrote, or a look of which the answers were
//! lost, has no revision that is known here: the registry is asked for its newest, once.

use super::control::LookError;
use super::mirror::{Mirror, Mirrored};
use super::view::CATCH_UP;
use impresario_registry_api::{ReadError, Revision};
use impresario_runtime::clock;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long after its answer was given up a write may still come: it waits at the leader, who gives it so long at most
/// from when it came there, and is then on its way to the log.
const COMES_LATE: Duration = Duration::from_secs(10);

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
    /// What was written before this time, which may not have come yet.
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
        *self.unknown.lock() = Unknown::Before(now());
    }

    /// The same where nobody has said what became of some of it: it may be done a while later.
    pub(super) fn ended_unheard(&self) {
        *self.unknown.lock() = Unknown::Before(now() + COMES_LATE);
    }

    /// Waits until `mirror`, of the same resource, has seen everything that was written.
    pub(super) async fn seen_by<K: Mirrored>(&self, mirror: &Mirror<K>) -> Result<(), LookError> {
        let since = {
            let mut unknown = self.unknown.lock();
            if matches!(*unknown, Unknown::UnderWay) {
                // Nobody has waited for the answers.
                *unknown = Unknown::Before(now() + COMES_LATE);
            }
            match *unknown {
                Unknown::Nothing | Unknown::UnderWay => None,
                Unknown::Before(since) => Some(since),
            }
        };
        if let Some(since) = since {
            tokio::time::sleep_until(since.into()).await;
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

/// By the clock that is waited by.
fn now() -> Instant {
    clock::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::{Key, MemoryRegistry, Registry as _, RegistryHandle, Transaction};
    use k8s_openapi::api::core::v1::Pod;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_comes_after_its_answer_was_given_up_is_waited_for_though_another_look_lists()
     {
        let registry = MemoryRegistry::default();
        let mirror: Mirror<Pod> =
            Mirror::start(Arc::new(registry.clone()) as RegistryHandle, "pods");
        let create = async |name: &str| {
            let pod = format!(r#"{{"metadata": {{"name": "{name}", "namespace": "ns"}}}}"#);
            let create = Transaction::create(Key::new("pods", "ns", name), pod);
            registry.transact(create).await.unwrap().revision
        };
        create("before").await;
        for is_given_up in [false, true] {
            let (wrote, other) = (Wrote::default(), Wrote::default());
            wrote.begin();
            if !is_given_up {
                wrote.ended_unheard();
            }
            other.ended_unknown();
            let listed = async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                other.seen_by(&mirror).await.unwrap();
            };
            let comes = async {
                tokio::time::sleep(COMES_LATE / 2).await;
                create(&format!("late-{is_given_up}")).await
            };
            let (seen, (), late) = tokio::join!(wrote.seen_by(&mirror), listed, comes);
            seen.unwrap();
            assert_eq!(wrote.newest.load(Ordering::Relaxed), late);
            assert!(other.newest.load(Ordering::Relaxed) < late, "it waits for nobody else");
        }
    }

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
