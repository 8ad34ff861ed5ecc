//! Events are deleted an hour after they were last seen, as in Kubernetes: what happened once must not
//! fill the registry.
//!
//! One singleton looks through them, a page at a time, and again when the next one is due. An event
//! that is written again meanwhile stays: it is deleted as it was read, or not at all.

use super::control::{Look, LookError, Next};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_registry_api::{
    Compare, Consistency, Entry, Fence, ListRequest, Operation, RegistryHandle, Remedy, Selection,
    Transaction,
};
use impresario_runtime::clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::sync::Arc;

/// How long an event is kept after it was last seen.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// Events are looked through at least this often, and at most.
const PACE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(60), SignedDuration::from_secs(600));
/// Events that are read, and deleted, at a time.
const PAGE: usize = 200;

/// Looks for events that are over.
pub struct EventExpiryLook {
    registry: RegistryHandle,
    fence: Fence,
}

impl EventExpiryLook {
    /// A look at all events, by right of a shard.
    #[must_use]
    pub fn new(registry: RegistryHandle, fence: Fence) -> Self {
        Self { registry, fence }
    }

    /// The look, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    async fn look_once(&self, now: Timestamp) -> Result<Next, LookError> {
        let mut request = ListRequest {
            limit: Some(PAGE),
            consistency: Consistency::Local,
            ..ListRequest::of(Selection::all("events"))
        };
        let mut due = now + PACE.1;
        loop {
            let page = self.registry.list(request.clone()).await?;
            let mut over = Vec::new();
            for entry in &page.entries {
                let ends = ends(entry, now);
                if ends <= now {
                    over.push(entry);
                } else {
                    due = due.min(ends);
                }
            }
            self.delete(over).await?;
            let last = page.entries.last().map(|entry| &entry.key);
            request.after = last.map(|key| (key.namespace.clone(), key.name.clone()));
            if page.remaining == 0 || request.after.is_none() {
                return Ok(Next::At(due.max(now + PACE.0)));
            }
        }
    }

    /// Deletes these as they were read; who changed meanwhile is left for the next look.
    async fn delete(&self, mut over: Vec<&Entry>) -> Result<(), LookError> {
        while !over.is_empty() {
            let compare = |entry: &&Entry| Compare::Revision {
                key: entry.key.clone(),
                revision: entry.mod_revision,
            };
            let remove = |entry: &&Entry| Operation::Delete { key: entry.key.clone() };
            let transaction = Transaction {
                compares: over.iter().map(compare).collect(),
                operations: over.iter().map(remove).collect(),
                fence: Some(self.fence),
                ..Transaction::default()
            };
            match self.registry.transact(transaction).await {
                Ok(_) => return Ok(()),
                Err(impresario_registry_api::TransactError::Conflict { key, .. }) => {
                    over.retain(|entry| entry.key != key);
                }
                Err(error) if error.remedy() == Remedy::ReadAgain => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Look for EventExpiryLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once(clock::timestamp()).boxed()
    }
}

/// When an event is over: an hour after it was last seen, at once where it does not say or is no event.
/// Who writes it chooses the times in it, so one that is still to come is none: only the time of its
/// creation, which the API sets, counts then.
fn ends(entry: &Entry, now: Timestamp) -> Timestamp {
    let Ok(event) = serde_json::from_slice::<Value>(&entry.value) else { return now };
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/firstTimestamp",
        "/metadata/creationTimestamp",
    ];
    let time = |pointer| event.pointer(pointer)?.as_str()?.parse::<Timestamp>().ok();
    // Clocks of reporters differ a little: a time that is not an hour ahead is taken as it is.
    let is_plausible = |seen: &Timestamp| seen.duration_since(now) < KEPT;
    let seen = times.into_iter().filter_map(time).filter(is_plausible).max();
    seen.and_then(|seen| seen.checked_add(KEPT).ok()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::{Epoch, Key, MemoryRegistry, Registry as _, Shard};
    use serde_json::json;

    #[tokio::test]
    async fn events_go_an_hour_after_they_were_last_seen() {
        let registry = MemoryRegistry::default();
        let old = "2026-01-01T00:00:00Z";
        for (name, event) in [
            ("over", json!({"metadata": {"creationTimestamp": old}, "lastTimestamp": old})),
            (
                "again",
                json!({"metadata": {"creationTimestamp": old}, "lastTimestamp": "2026-01-01T00:59:00Z"}),
            ),
            (
                "series",
                json!({"metadata": {"creationTimestamp": old}, "lastTimestamp": null,
                "series": {"lastObservedTime": "2026-01-01T00:30:00.000000Z"}}),
            ),
        ] {
            let key = Key::new("events", "ns", name);
            registry.transact(Transaction::create(key, event.to_string())).await.unwrap();
        }
        registry.assign_shards(&["test".to_owned()]);
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let look = EventExpiryLook::new(Arc::new(registry.clone()), fence);
        let left = async || {
            let all = ListRequest::of(Selection::all("events"));
            let page = registry.list(all).await.unwrap();
            page.entries.into_iter().map(|entry| entry.key.name).collect::<Vec<_>>()
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let next = look.look_once(at("2026-01-01T00:59:59Z")).await.unwrap();
        assert_eq!(left().await.len(), 3);
        assert_eq!(next, Next::At(at("2026-01-01T01:00:59Z")), "soon, but not at once again");
        let next = look.look_once(at("2026-01-01T01:00:00Z")).await.unwrap();
        assert_eq!(left().await, ["again", "series"]);
        assert_eq!(next, Next::At(at("2026-01-01T01:10:00Z")));
    }

    #[test]
    fn a_time_that_is_still_to_come_keeps_no_event() {
        let now: Timestamp = "2026-01-01T00:30:00Z".parse().unwrap();
        let created = "2026-01-01T00:00:00Z";
        for late in
            ["9999-12-30T21:30:00Z", "9999-12-30T22:00:00.999999999Z", "3000-01-01T00:00:00Z"]
        {
            for field in ["lastTimestamp", "firstTimestamp", "eventTime"] {
                let event = json!({"metadata": {"creationTimestamp": created}, field: late});
                let entry = Entry {
                    key: Key::new("events", "ns", "a"),
                    value: event.to_string().into(),
                    create_revision: 1,
                    mod_revision: 1,
                };
                assert_eq!(ends(&entry, now).to_string(), "2026-01-01T01:00:00Z", "{field} {late}");
            }
        }
    }

    #[tokio::test]
    async fn an_event_that_is_written_again_meanwhile_stays() {
        let registry = MemoryRegistry::default();
        let old = json!({"lastTimestamp": "2026-01-01T00:00:00Z"}).to_string();
        for name in ["a", "b"] {
            let create = Transaction::create(Key::new("events", "ns", name), old.clone());
            registry.transact(create).await.unwrap();
        }
        let all = registry.list(ListRequest::of(Selection::all("events"))).await.unwrap().entries;
        let again = Transaction::default().put(Key::new("events", "ns", "a"), "{}");
        registry.transact(again).await.unwrap();
        registry.assign_shards(&["test".to_owned()]);
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let look = EventExpiryLook::new(Arc::new(registry.clone()), fence);
        look.delete(all.iter().collect()).await.unwrap();
        let left = registry.list(ListRequest::of(Selection::all("events"))).await.unwrap().entries;
        assert_eq!(left.iter().map(|entry| entry.key.name.as_str()).collect::<Vec<_>>(), ["a"]);
    }
}
