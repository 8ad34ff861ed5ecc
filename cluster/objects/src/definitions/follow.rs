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
                shared.put(Arc::new(object)).await;
            }
            Ok(ObjectEvent::Deleted(object)) => {
                shared.remove(text(&object, "/metadata/name")).await;
            }
            Ok(ObjectEvent::Bookmark { initial_end: true, .. }) => {
                begun = true;
                shared.keep(&std::mem::take(&mut present)).await;
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

// Only the task that follows changes anything, one thing at a time: what it has read stays so until it writes. The lock is
// held for moments alone, by it and by those who look.
impl Shared {
    async fn remove(&self, name: &str) {
        let gone = self.all.lock().remove(name);
        if let Some(gone) = gone {
            end(gone.row.as_ref());
            self.again().await;
        }
    }

    /// Forgets all definitions but these.
    async fn keep(&self, names: &BTreeSet<String>) {
        let gone: Vec<_> =
            self.all.lock().extract_if(.., |name, _| !names.contains(name)).collect();
        for (_, gone) in gone {
            end(gone.row.as_ref());
        }
        self.again().await;
    }

    /// Tries those again that could not be served: what was in their way may be gone.
    async fn again(&self) {
        let faulty: Vec<Arc<Value>> = {
            let all = self.all.lock();
            let faulty = all.values().filter(|followed| followed.fault.is_some());
            faulty.map(|followed| followed.object.clone()).collect()
        };
        for object in faulty {
            self.put(object).await;
        }
    }

    async fn put(&self, object: Arc<Value>) {
        let name = text(&object, "/metadata/name").to_owned();
        let part = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
        let uid = text(&object, "/metadata/uid").to_owned();
        let made_of = (uid, part("/metadata/generation"), part("/status/acceptedNames"));
        let before = self.all.lock().get(&name).cloned();
        let followed = match before {
            Some(same) if same.made_of == made_of && same.fault.is_none() => {
                Followed { object, ..same }
            }
            before => made(&name, before, object, made_of).await,
        };
        self.all.lock().insert(name, followed);
    }
}

/// What a process serves of a definition from now on.
async fn made(
    name: &str,
    mut before: Option<Followed>,
    object: Arc<Value>,
    made_of: (String, Value, Value),
) -> Followed {
    if let Some(followed) = before.as_mut().filter(|followed| followed.made_of.0 != made_of.0) {
        // Another of its name: who follows objects of the kind that was is told that it ended.
        end(followed.row.take().as_ref());
    }
    let row = before.as_ref().and_then(|followed| followed.row.clone());
    let known = before.and_then(|followed| followed.fault);
    let (row, fault) = match read(object.clone()).await {
        Err(why) => (row, Some(format!("it is not valid for this program: {why}"))),
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
    Followed { object, row, fault, made_of }
}

/// Reads a definition. A large schema with its rules takes its time, which is not that of the threads for what waits.
async fn read(object: Arc<Value>) -> Result<Option<Resource>, String> {
    let read = tasks::spawn_blocking(move || {
        crd::row(&object).map_err(|causes| {
            let said: Vec<String> = causes.iter().map(ToString::to_string).collect();
            said.join(", ")
        })
    });
    read.await.unwrap_or_else(|error| Err(format!("it cannot be read ({error}): report a bug")))
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
