//! Counts anew what is used of the quotas of namespaces when something goes.
//!
//! ```text
//! follow   the quotas, and the objects of each kind that one of them counts: which namespaces are to be counted
//! look     counts those, each once in a second at most (`impresario_objects::Objects::recount`)
//! ```
//!
//! What is created is charged where it is written; here is what is deleted, what ends, and what a quota asks for anew. A
//! hint that was lost heals: an activation counts everything once, and again every few minutes.

mod follow;

use super::activation::Kind;
use super::control::{Look, LookError, Next};
use super::engine::sources::Source;
use super::looking;
use follow::Followed;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::Objects;
use impresario_runtime::clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The singleton that counts what is used of quotas.
pub const QUOTAS: &str = "resource-quotas";

/// Between two counts of a namespace, at least.
const PACE: SignedDuration = SignedDuration::from_secs(1);
/// Until a count is tried again to which something was created all the time.
const AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// After so long a namespace is counted although nothing was heard, whenever there is a look.
const ANYWAY: SignedDuration = SignedDuration::from_secs(240);

struct QuotaLook {
    objects: Objects,
    followed: Followed,
    /// When each namespace was counted last; of those alone that have quotas.
    counted: Mutex<BTreeMap<String, Timestamp>>,
    /// Namespaces that are to be counted.
    due: Mutex<BTreeSet<String>>,
}

impl QuotaLook {
    fn new(objects: Objects, followed: Followed) -> Self {
        Self { objects, followed, counted: Mutex::default(), due: Mutex::default() }
    }

    async fn look_once(&self, now: Timestamp) -> Result<Next, LookError> {
        let told = self.followed.take();
        let spaces = self.followed.namespaces();
        let due = {
            let (mut due, mut counted) = (self.due.lock(), self.counted.lock());
            counted.retain(|space, _| spaces.contains(space));
            let is_stale =
                |space: &&String| counted.get(*space).is_none_or(|last| *last + ANYWAY <= now);
            due.extend(spaces.iter().filter(is_stale).cloned());
            due.extend(told);
            due.retain(|space| spaces.contains(space));
            due.clone()
        };
        let (mut next, mut failed) = (None::<Timestamp>, None);
        let mut at = |time: Timestamp| next = Some(next.map_or(time, |next| next.min(time)));
        for space in due {
            let last = self.counted.lock().get(&space).copied();
            if let Some(from) = last.map(|last| last + PACE).filter(|from| *from > now) {
                at(from);
                continue;
            }
            match self.objects.recount(&space).await {
                // What was told meanwhile waits to be taken by the next look.
                Ok(true) => {
                    self.due.lock().remove(&space);
                }
                Ok(false) => at(now + AGAIN),
                // One that cannot be counted keeps no other from it.
                Err(status) => {
                    let error = LookError::from(status);
                    if !error.is_of_one_object() {
                        return Err(error);
                    }
                    failed = failed.or(Some(error));
                }
            }
            self.counted.lock().insert(space, now);
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(next.map_or(Next::WhenTold, Next::At)),
        }
    }
}

impl Look for QuotaLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once(clock::timestamp()).boxed()
    }
}

/// The kind of this singleton's actor.
#[must_use]
pub fn kind(objects: &Objects) -> Kind {
    let followed = Followed::follow(objects.registry().clone());
    let (objects, signals) = (objects.clone(), followed.clone());
    Kind::One {
        name: QUOTAS,
        sources: vec![Source::signals(QUOTAS, move || signals.changes())],
        start: looking(move |activation| {
            Arc::new(QuotaLook::new(objects.fenced(activation.fence), followed.clone()))
        }),
    }
}

#[cfg(test)]
mod tests;
