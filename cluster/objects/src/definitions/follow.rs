//! What a process serves of the definitions that there are.

use crate::{Filter, ObjectEvent, Reader, WatchQuery};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use impresario_api::catalog::{CatalogError, find, served};
use impresario_api::crd;
use impresario_api::resource::{Resource, Row};
use impresario_client::objects::stored::text;
use impresario_runtime::{Backoff, random, tasks};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Until the definitions are followed again after their watch has ended.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// A definition, and what this process serves of it.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The definition as it was seen last.
    pub object: Arc<Value>,
    /// The row by which its kind is served.
    pub row: Option<Row>,
    /// Why it is not served as it is written.
    pub fault: Option<String>,
    /// Of which object, which of its specs and which accepted names the row was made.
    made_of: (String, Value, Value),
}

/// Serves the kinds of all definitions, in the catalog of this process. Cheap to clone; ends with the last clone, and
/// what is served then stays so.
#[derive(Debug, Clone)]
pub struct Definitions(Arc<Following>);

#[derive(Debug)]
struct Following {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    all: Mutex<BTreeMap<String, Followed>>,
    /// How often it was told that something changed; none before the definitions were read.
    changes: watch::Sender<u64>,
}

impl Definitions {
    /// Begins to follow. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(objects: Reader) -> Self {
        let shared = Arc::new(Shared { all: Mutex::default(), changes: watch::channel(0).0 });
        let followed = shared.clone();
        let task = tasks::spawn(async move {
            let mut attempt = 0;
            loop {
                attempt = if follow_once(&objects, &followed).await { 0 } else { attempt + 1 };
                tokio::time::sleep(PAUSES.wait(attempt, random::random())).await;
            }
        });
        Self(Arc::new(Following { shared, task }))
    }

    /// Waits so long until the definitions have been read; whether they have.
    pub async fn has_read_within(&self, limit: Duration) -> bool {
        let mut changes = self.0.shared.changes.subscribe();
        let read = timeout(limit, changes.wait_for(|changes| *changes > 0)).await;
        matches!(read, Ok(Ok(_)))
    }

    /// All definitions, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<Followed> {
        self.0.shared.all.lock().values().cloned().collect()
    }

    /// Tells whenever a definition changed, after what is served did, and at once what is there now.
    #[must_use]
    pub fn changes(&self) -> BoxStream<'static, ()> {
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

/// Until the watch ends; says whether it had begun. What cannot be read changes nothing: what was served stays so.
async fn follow_once(objects: &Reader, shared: &Shared) -> bool {
    let mut begun = false;
    let Some(kind) = find("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
        return begun;
    };
    let query = WatchQuery {
        filter: Filter::default(),
        initial_events: Some(true),
        ..WatchQuery::default()
    };
    let mut events = match objects.watch(&kind, query).await {
        Ok(events) => events,
        Err(error) => {
            tracing::debug!(%error, "the definitions of kinds cannot be read yet");
            return begun;
        }
    };
    let mut present = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(ObjectEvent::Added(object) | ObjectEvent::Modified(object)) => {
                if !begun {
                    present.insert(text(&object, "/metadata/name").to_owned());
                }
                shared.put(object);
            }
            Ok(ObjectEvent::Deleted(object)) => shared.remove(text(&object, "/metadata/name")),
            Ok(ObjectEvent::Bookmark { initial_end: true, .. }) => {
                begun = true;
                shared.keep(&std::mem::take(&mut present));
            }
            Ok(ObjectEvent::Bookmark { .. }) => continue,
            Err(error) => {
                tracing::debug!(%error, "the watch of the definitions of kinds ended");
                return begun;
            }
        }
        if begun {
            shared.changes.send_modify(|changes| *changes += 1);
        }
    }
    begun
}

impl Shared {
    fn put(&self, object: Value) {
        let mut all = self.all.lock();
        put(&mut all, Arc::new(object));
    }

    fn remove(&self, name: &str) {
        let mut all = self.all.lock();
        if let Some(gone) = all.remove(name) {
            end(gone.row.as_ref());
            again(&mut all);
        }
    }

    /// Forgets all definitions but these.
    fn keep(&self, names: &BTreeSet<String>) {
        let mut all = self.all.lock();
        all.retain(|name, followed| {
            let is_there = names.contains(name);
            if !is_there {
                end(followed.row.as_ref());
            }
            is_there
        });
        again(&mut all);
    }
}

/// Tries those again that could not be served: what was in their way may be gone.
fn again(all: &mut BTreeMap<String, Followed>) {
    let faulty = all.values().filter(|followed| followed.fault.is_some());
    let faulty: Vec<Arc<Value>> = faulty.map(|followed| followed.object.clone()).collect();
    for object in faulty {
        put(all, object);
    }
}

fn put(all: &mut BTreeMap<String, Followed>, object: Arc<Value>) {
    let name = text(&object, "/metadata/name").to_owned();
    let part = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    let uid = text(&object, "/metadata/uid").to_owned();
    let made_of = (uid, part("/metadata/generation"), part("/status/acceptedNames"));
    let mut before = all.remove(&name);
    if let Some(followed) = &mut before {
        if followed.made_of == made_of && followed.fault.is_none() {
            let followed = Followed { object, ..followed.clone() };
            all.insert(name, followed);
            return;
        }
        if followed.made_of.0 != made_of.0 {
            // Another of its name: who follows objects of the kind that was is told that it ended.
            end(followed.row.take().as_ref());
        }
    }
    let row = before.as_ref().and_then(|followed| followed.row.clone());
    let known = before.and_then(|followed| followed.fault);
    let (row, fault) = match crd::row(&object) {
        Err(causes) => {
            let said: Vec<String> = causes.iter().map(ToString::to_string).collect();
            (row, Some(format!("it is not valid for this program: {}", said.join(", "))))
        }
        Ok(None) => {
            end(row.as_ref());
            (None, None)
        }
        Ok(Some(made)) => match serve(row.as_ref(), made) {
            Ok(row) => (Some(row), None),
            Err(error) => (None, Some(error.to_string())),
        },
    };
    if let Some(why) = fault.as_ref().filter(|_| known != fault) {
        tracing::warn!(definition = name, "the kind is not served as it is defined: {why}");
    }
    all.insert(name, Followed { object, row, fault, made_of });
}

/// Serves a kind by this row in the place of the one before.
fn serve(before: Option<&Row>, row: Resource) -> Result<Row, CatalogError> {
    let Some(before) = before else { return served().take(row) };
    if (&before.group, &before.plural) == (&row.group, &row.plural)
        && let Ok(row) = served().replace(row.clone())
    {
        return Ok(row);
    }
    end(Some(before));
    served().take(row)
}

fn end(row: Option<&Row>) {
    let Some(row) = row.filter(|row| served().is_served(row)) else { return };
    if let Err(error) = served().drop_row(&row.group, &row.plural) {
        tracing::debug!(%error, "a kind had ended before");
    }
}
