//! Which namespaces have quotas, and in which of them something went that one of these counts.

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll, unfold};
use impresario_api::catalog::served;
use impresario_api::policy::quota::Quota;
use impresario_api::resource::resource_key;
use impresario_registry_api::{
    Entry, Key, ListRequest, RegistryHandle, Revision, Selection, Watch, WatchBatch, WatchError,
    WatchEvent, WatchRequest, field,
};
use impresario_runtime::{Backoff, random, tasks};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Until all is followed again after a watch has ended.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) };
const QUOTAS: &str = "resourcequotas";

/// What is followed. Cheap to clone; ends with the last clone.
#[derive(Clone)]
pub(super) struct Followed(Arc<Following>);

struct Following {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Shared {
    /// The resources that each quota counts.
    quotas: Mutex<BTreeMap<Key, BTreeSet<String>>>,
    /// Namespaces in which something went, of those alone that have quotas.
    told: Mutex<BTreeSet<String>>,
    changes: watch::Sender<u64>,
}

impl Followed {
    /// Begins to follow. Must be called within a tokio runtime.
    pub(super) fn follow(registry: RegistryHandle) -> Self {
        let shared = Arc::<Shared>::default();
        let followed = shared.clone();
        let task = tasks::spawn(async move {
            let mut attempt = 0;
            loop {
                let begun = follow_once(&registry, &followed).await;
                attempt = if begun { 0 } else { attempt + 1 };
                tokio::time::sleep(PAUSES.wait(attempt, random::random())).await;
            }
        });
        Self(Arc::new(Following { shared, task }))
    }

    /// The namespaces that have quotas.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        self.0.shared.quotas.lock().keys().map(|key| key.namespace.clone()).collect()
    }

    /// The namespaces in which something went since this was asked last.
    pub(super) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.0.shared.told.lock())
    }

    /// Tells whenever something went, and at once.
    pub(super) fn changes(&self) -> BoxStream<'static, ()> {
        let mut changes = self.0.shared.changes.subscribe();
        changes.mark_changed();
        unfold(changes, |mut changes| async move {
            changes.changed().await.ok()?;
            changes.borrow_and_update();
            Some(((), changes))
        })
        .boxed()
    }
}

impl Shared {
    fn tell(&self, namespace: &str) {
        self.told.lock().insert(namespace.to_owned());
        self.changes.send_modify(|count| *count += 1);
    }

    /// Notes a quota as it is now. Whether it is to be counted: it does not say what it should.
    fn note(&self, entry: &Entry) -> bool {
        let Ok(object) = serde_json::from_slice::<Value>(&entry.value) else { return false };
        let is_current = object["status"]["hard"] == object["spec"]["hard"];
        let quota = Quota::read(object);
        let rows = served().resources();
        let counted = rows.iter().filter(|row| row.namespaced && quota.is_about(row));
        let counted = counted.map(|row| resource_key(row)).collect();
        self.quotas.lock().insert(entry.key.clone(), counted);
        !is_current
    }

    /// The resources that are counted in some namespace.
    fn counted(&self) -> BTreeSet<String> {
        self.quotas.lock().values().flatten().cloned().collect()
    }

    /// Whether a resource is counted in a namespace.
    fn counts(&self, key: &Key) -> bool {
        let quotas = self.quotas.lock();
        // From the first key of the namespace on: `resourcequotas` is the resource of all of them.
        let first = Key::new(QUOTAS, key.namespace.as_str(), "");
        quotas
            .range(first..)
            .take_while(|(quota, _)| quota.namespace == key.namespace)
            .any(|(_, counted)| counted.contains(&key.resource))
    }

    fn heard(&self, batch: &WatchBatch) {
        for event in &batch.events {
            let key = event.key();
            if key.resource == QUOTAS {
                match event {
                    WatchEvent::Put { entry, .. } => {
                        if self.note(entry) {
                            self.tell(&key.namespace);
                        }
                    }
                    WatchEvent::Delete { .. } => {
                        self.quotas.lock().remove(key);
                    }
                }
            }
            if goes(event) && self.counts(key) {
                self.tell(&key.namespace);
            }
        }
    }
}

/// Whether something needs less from now on. What comes anew was charged when it was created.
fn goes(event: &WatchEvent) -> bool {
    let WatchEvent::Put { entry, previous: Some(previous) } = event else {
        return matches!(event, WatchEvent::Delete { .. });
    };
    match entry.key.resource.as_str() {
        "pods" => {
            let is_over = |value: &[u8]| {
                let phase = field::string_at(value, "/status/phase");
                matches!(phase.as_deref(), Some("Succeeded" | "Failed"))
            };
            is_over(&entry.value) != is_over(&previous.value)
        }
        // Ports and sizes may be fewer than before.
        "services" | "persistentvolumeclaims" => true,
        _ => false,
    }
}

async fn watch_of(
    registry: &RegistryHandle,
    resource: &str,
    after: Revision,
) -> Result<Watch, WatchError> {
    let select = Selection::all(resource);
    registry.watch(WatchRequest { select, after, bookmarks: false }).await
}

/// Until a watch ends; says whether all had begun.
async fn follow_once(registry: &RegistryHandle, shared: &Shared) -> bool {
    let Ok(listed) = registry.list(ListRequest::of(Selection::all(QUOTAS))).await else {
        return false;
    };
    shared.quotas.lock().clear();
    for entry in &listed.entries {
        shared.note(entry);
    }
    // What went while nobody watched is not known.
    let spaces: BTreeSet<&String> = listed.entries.iter().map(|it| &it.key.namespace).collect();
    for space in spaces {
        shared.tell(space);
    }
    let mut watches = SelectAll::new();
    let mut watched = BTreeSet::new();
    match watch_of(registry, QUOTAS, listed.revision).await {
        Ok(watch) => watches.push(watch),
        Err(_) => return false,
    }
    let mut after = listed.revision;
    loop {
        for resource in shared.counted() {
            if resource == QUOTAS || watched.contains(&resource) {
                continue;
            }
            match watch_of(registry, &resource, after).await {
                Ok(watch) => watches.push(watch),
                Err(error) => {
                    tracing::debug!(%error, resource, "what quotas count cannot be followed yet");
                    return false;
                }
            }
            watched.insert(resource);
        }
        match watches.next().await {
            Some(Ok(batch)) => {
                // A quota that counts a further kind is to be counted itself, after what went until then.
                after = batch.revision;
                shared.heard(&batch);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "what quotas count is followed anew");
                return true;
            }
            None => return true,
        }
    }
}
