//! The webhooks that there are, as this process sees them.

use super::hook::Hook;
use super::review::Asked;
use super::rule::Rule;
use crate::{Filter, ObjectEvent, Reader, WatchQuery};
use futures_util::StreamExt as _;
use impresario_api::catalog::find;
use impresario_api::rules::webhooks::is_exempt;
use impresario_client::objects::stored::text;
use impresario_runtime::{Backoff, random, tasks};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The group of the configurations.
const GROUP: &str = "admissionregistration.k8s.io";
/// Until the configurations are followed again after their watch has ended.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(200), most: Duration::from_secs(10) };

/// Questions that may be under way at once, each with its object and its answer.
const PLACES: usize = 256;
/// How long a question waits for a place.
const FREE: Duration = Duration::from_secs(5);

/// Which of the two turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// They may change the object, one after the other.
    Mutating,
    /// They only say yes or no, all at once.
    Validating,
}

impl Turn {
    fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

/// A webhook, or what cannot be read as one but asks to be told all the same.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// What it asks to be told of.
    pub(super) rules: Vec<Rule>,
    /// Whether a request goes on without it.
    pub(super) fails_open: bool,
    /// The webhook, or why it cannot be called.
    pub(super) hook: Result<Hook, String>,
}

impl Entry {
    fn read(entry: &Value) -> Self {
        Self {
            name: text(entry, "/name").to_owned(),
            rules: entry["rules"].as_array().into_iter().flatten().map(Rule::read).collect(),
            fails_open: text(entry, "/failurePolicy") == "Ignore",
            hook: Hook::read(entry),
        }
    }

    /// Whether one of its rules is about this.
    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        let is = |rule: &Rule| rule.matches(asked.resource, asked.subresource, asked.action);
        self.rules.iter().any(is)
    }
}

type All = Arc<BTreeMap<String, Vec<Arc<Entry>>>>;

/// The configurations of one turn.
#[derive(Debug)]
struct Followed {
    /// None before they were read for the first time.
    all: watch::Sender<Option<All>>,
}

/// The webhooks of a cluster, followed. Cheap to clone; ends with the last clone.
#[derive(Debug, Clone)]
pub struct Webhooks(Arc<Following>);

#[derive(Debug)]
struct Following {
    mutating: Arc<Followed>,
    validating: Arc<Followed>,
    places: Semaphore,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().drain(..) {
            task.abort();
        }
    }
}

impl Webhooks {
    /// Begins to follow. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(objects: &Reader) -> Self {
        let mut all = Vec::new();
        let mut begin = |turn: Turn| {
            let followed = Arc::new(Followed { all: watch::channel(None).0 });
            let (objects, told) = (objects.clone(), followed.clone());
            all.push(tasks::spawn(async move {
                let mut attempt = 0;
                loop {
                    let begun = follow_once(&objects, turn, &told).await;
                    attempt = if begun { 0 } else { attempt + 1 };
                    tokio::time::sleep(PAUSES.wait(attempt, random::random())).await;
                }
            }));
            followed
        };
        let (mutating, validating) = (begin(Turn::Mutating), begin(Turn::Validating));
        let places = Semaphore::new(PLACES);
        Self(Arc::new(Following { mutating, validating, places, tasks: Mutex::new(all) }))
    }

    /// Those that ask to be told of this, in the order of their configurations' names and of their places there; nothing
    /// where the configurations have not been read yet.
    pub(super) fn of(&self, turn: Turn, asked: &Asked<'_>) -> Option<Vec<Arc<Entry>>> {
        if is_exempt(asked.resource) {
            return Some(Vec::new());
        }
        let all = self.turn(turn).all.borrow().clone()?;
        let told = all.values().flatten().filter(|entry| entry.matches(asked));
        Some(told.cloned().collect())
    }

    /// One of the places for questions that are under way; nothing where none is free for a while.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        timeout(FREE, self.0.places.acquire()).await.ok()?.ok()
    }

    /// Resolves when the configurations have been read.
    pub(super) async fn has_read(&self, turn: Turn) {
        let mut all = self.turn(turn).all.subscribe();
        // The sender lives as long as this does.
        _ = all.wait_for(Option::is_some).await;
    }

    fn turn(&self, turn: Turn) -> &Followed {
        match turn {
            Turn::Mutating => &self.0.mutating,
            Turn::Validating => &self.0.validating,
        }
    }
}

impl Followed {
    /// Those that are known now; while they are read anew nobody sees a part of them.
    fn known(&self) -> BTreeMap<String, Vec<Arc<Entry>>> {
        self.all.borrow().as_deref().cloned().unwrap_or_default()
    }
}

fn read(object: &Value) -> (String, Vec<Arc<Entry>>) {
    let name = text(object, "/metadata/name").to_owned();
    let hooks = object["webhooks"].as_array().into_iter().flatten();
    let hooks: Vec<Arc<Entry>> = hooks.map(|hook| Arc::new(Entry::read(hook))).collect();
    for entry in &hooks {
        if let Err(why) = &entry.hook {
            tracing::warn!(configuration = name, webhook = entry.name, "cannot be called: {why}");
        }
    }
    (name, hooks)
}

/// Until the watch ends; says whether it had begun. What cannot be read changes nothing: who was told goes on to be.
async fn follow_once(objects: &Reader, turn: Turn, followed: &Followed) -> bool {
    let mut begun = false;
    let Some(kind) = find(GROUP, "v1", turn.plural()) else { return begun };
    let query = WatchQuery {
        filter: Filter::default(),
        initial_events: Some(true),
        ..WatchQuery::default()
    };
    let mut events = match objects.watch(&kind, query).await {
        Ok(events) => events,
        Err(error) => {
            tracing::debug!(%error, "the configurations of webhooks cannot be read yet");
            return begun;
        }
    };
    let mut present = BTreeSet::new();
    let mut all = followed.known();
    while let Some(event) = events.next().await {
        match event {
            Ok(ObjectEvent::Added(object) | ObjectEvent::Modified(object)) => {
                let (name, hooks) = read(&object);
                if !begun {
                    present.insert(name.clone());
                }
                all.insert(name, hooks);
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
                tracing::debug!(%error, "the watch of the configurations of webhooks ended");
                return begun;
            }
        }
        if begun {
            followed.all.send_replace(Some(Arc::new(all.clone())));
        }
    }
    begun
}
