//! All objects of a kind, read once and followed, as something else that is made of each.

use futures_util::StreamExt as _;
use impresario_api::catalog::find;
use impresario_client::objects::stored::text;
use impresario_client::objects::{Filter, ObjectEvent, Reader, WatchQuery};
use impresario_runtime::{Backoff, random, tasks};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Until a kind is followed again after its watch has ended.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) };
/// How long somebody waits until a kind has been read for the first time.
const READ: Duration = Duration::from_secs(5);

/// What was made of each object, by its name.
pub(crate) type All<T> = Arc<BTreeMap<String, T>>;

/// The objects of a kind without namespaces. Ends when it is dropped.
pub(crate) struct Followed<T> {
    /// None before they were read for the first time.
    all: Arc<watch::Sender<Option<All<T>>>>,
    task: JoinHandle<()>,
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed")
            .field("is_read", &self.all.borrow().is_some())
            .finish_non_exhaustive()
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Clone + Send + Sync + 'static> Followed<T> {
    /// Begins to follow this kind of `group` in `v1`. Must be called within a tokio runtime.
    pub(crate) fn follow(
        objects: &Reader,
        group: &'static str,
        plural: &'static str,
        read: fn(&str, &Value) -> T,
    ) -> Self {
        let all = Arc::new(watch::channel(None).0);
        let (objects, told) = (objects.clone(), all.clone());
        let task = tasks::spawn(async move {
            let mut attempt = 0;
            loop {
                let begun = follow_once(&objects, group, plural, read, &told).await;
                attempt = if begun { 0 } else { attempt + 1 };
                tokio::time::sleep(PAUSES.wait(attempt, random::random())).await;
            }
        });
        Self { all, task }
    }

    /// All of them, in the order of their names; nothing before they were read for the first time.
    pub(crate) fn all(&self) -> Option<All<T>> {
        self.all.borrow().clone()
    }

    /// All of them; waits a while if they have not been read yet.
    pub(crate) async fn read(&self) -> Option<All<T>> {
        if let Some(all) = self.all() {
            return Some(all);
        }
        let mut all = self.all.subscribe();
        let read = timeout(READ, all.wait_for(Option::is_some)).await;
        read.ok()?.ok()?.clone()
    }
}

/// Until the watch ends; says whether it had begun. What cannot be read changes nothing.
async fn follow_once<T: Clone>(
    objects: &Reader,
    group: &str,
    plural: &str,
    read: fn(&str, &Value) -> T,
    told: &watch::Sender<Option<All<T>>>,
) -> bool {
    let mut begun = false;
    let Some(kind) = find(group, "v1", plural) else { return begun };
    let query = WatchQuery {
        filter: Filter::default(),
        initial_events: Some(true),
        ..WatchQuery::default()
    };
    let mut events = match objects.watch(&kind, query).await {
        Ok(events) => events,
        Err(error) => {
            tracing::debug!(%error, plural, "cannot be read yet");
            return begun;
        }
    };
    let mut present = BTreeSet::new();
    // While they are read anew nobody sees a part of them.
    let mut all = told.borrow().as_deref().cloned().unwrap_or_default();
    while let Some(event) = events.next().await {
        match event {
            Ok(ObjectEvent::Added(object) | ObjectEvent::Modified(object)) => {
                let name = text(&object, "/metadata/name");
                if !begun {
                    present.insert(name.to_owned());
                }
                all.insert(name.to_owned(), read(name, &object));
            }
            Ok(ObjectEvent::Deleted(object)) => {
                all.remove(text(&object, "/metadata/name"));
            }
            Ok(ObjectEvent::Bookmark { initial_end: true, .. }) => {
                begun = true;
                all.retain(|name, _| present.contains(name));
            }
            Ok(ObjectEvent::Bookmark { .. }) => continue,
            Err(error) => {
                tracing::debug!(%error, plural, "the watch ended");
                return begun;
            }
        }
        if begun {
            told.send_replace(Some(Arc::new(all.clone())));
        }
    }
    begun
}
