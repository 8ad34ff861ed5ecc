//! What wakes controllers: changes of what they look at.

use super::super::labels;
use super::super::mirror::{Change, Mirror, Mirrored, Seen};
use super::kind_name::KindName;
use super::selectors::Selectors;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// Who should look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concerned {
    /// The controllers of the objects of these uids, where they live here.
    Uids(Vec<String>),
    /// All controllers: changes were missed.
    Everybody,
}

/// Where hints come from. Two of one name are the same, and one of them is enough.
#[derive(Clone)]
pub struct Source {
    name: String,
    run: Arc<dyn Fn(mpsc::Sender<Concerned>) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Source").field(&self.name).finish()
    }
}

impl Source {
    /// What it follows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Follows until nobody listens or the mirror has ended.
    #[must_use]
    pub fn run(&self, told: mpsc::Sender<Concerned>) -> BoxFuture<'static, ()> {
        (self.run)(told)
    }

    /// Changes of a kind, told to the controllers of what changes.
    #[must_use]
    pub fn controllers_of<T: Mirrored>(mirror: &Mirror<T>) -> Self {
        let mirror = mirror.clone();
        Self {
            name: format!("controllers of {}", KindName::of::<T>()),
            run: Arc::new(move |told| controllers_of(mirror.clone(), told).boxed()),
        }
    }

    /// Changes of objects that nobody controls, told to those that select them by their labels.
    #[must_use]
    pub fn selectors_of<K: Mirrored, T: Mirrored>(
        selecting: &Mirror<K>,
        selected: &Mirror<T>,
        selector: fn(&K) -> Option<LabelSelector>,
    ) -> Self {
        let (selecting, selected) = (selecting.clone(), selected.clone());
        Self {
            name: format!("orphans of {} for {}", KindName::of::<T>(), KindName::of::<K>()),
            run: Arc::new(move |told| {
                selectors_of(selecting.clone(), selected.clone(), selector, told).boxed()
            }),
        }
    }
}

/// The uid of the controller of an object.
fn controller(metadata: &ObjectMeta) -> Option<&str> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

async fn controllers_of<T: Mirrored>(mirror: Mirror<T>, told: mpsc::Sender<Concerned>) {
    let mut changes = mirror.changes();
    loop {
        let versions = match changes.recv().await {
            Ok(Change::Put { now, before }) => [Some(now), before],
            Ok(Change::Deleted { before }) => [Some(before), None],
            Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                if told.send(Concerned::Everybody).await.is_err() {
                    return;
                }
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let uids: BTreeSet<&str> = versions
            .iter()
            .flatten()
            .filter_map(|seen| controller(seen.object.metadata()))
            .collect();
        if uids.is_empty() {
            continue;
        }
        let uids = uids.into_iter().map(str::to_owned).collect();
        if told.send(Concerned::Uids(uids)).await.is_err() {
            return;
        }
    }
}

async fn selectors_of<K: Mirrored, T: Mirrored>(
    selecting: Mirror<K>,
    selected: Mirror<T>,
    selector: fn(&K) -> Option<LabelSelector>,
    told: mpsc::Sender<Concerned>,
) {
    let (mut selectors, mut changes) = (selecting.changes(), selected.changes());
    let mut index = Selectors::default();
    fill(&mut index, &selecting, selector);
    loop {
        tokio::select! {
            // Selectors first: one that was there before a label changed is filed before that is looked up.
            biased;
            change = selectors.recv() => match change {
                Ok(Change::Put { now, .. }) => file(&mut index, &now, selector),
                Ok(Change::Deleted { before }) => {
                    index.remove(before.object.metadata().uid.as_deref().unwrap_or_default());
                }
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                    fill(&mut index, &selecting, selector);
                }
                Err(RecvError::Closed) => return,
            },
            change = changes.recv() => {
                let uids = match change {
                    Ok(Change::Put { now, before }) => found(&index, &now, before.as_ref()),
                    Ok(Change::Deleted { before }) => found(&index, &before, None),
                    Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                        index.all().map(str::to_owned).collect()
                    }
                    Err(RecvError::Closed) => return,
                };
                if !uids.is_empty() && told.send(Concerned::Uids(uids)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Those that select the object as it is, and as it was while nobody controlled it.
fn found<T: Mirrored>(index: &Selectors, now: &Seen<T>, before: Option<&Seen<T>>) -> Vec<String> {
    let mut uids = BTreeSet::new();
    for seen in [Some(now), before].into_iter().flatten() {
        let metadata = seen.object.metadata();
        if controller(metadata).is_none() {
            uids.extend(index.selecting(&seen.entry.key.namespace, labels::of(metadata)));
        }
    }
    uids.into_iter().map(str::to_owned).collect()
}

fn fill<K: Mirrored>(
    index: &mut Selectors,
    selecting: &Mirror<K>,
    selector: fn(&K) -> Option<LabelSelector>,
) {
    index.clear();
    for seen in selecting.all() {
        file(index, &seen, selector);
    }
}

fn file<K: Mirrored>(
    index: &mut Selectors,
    seen: &Seen<K>,
    selector: fn(&K) -> Option<LabelSelector>,
) {
    let uid = seen.object.metadata().uid.as_deref().unwrap_or_default();
    match selector(&seen.object) {
        Some(selector) => index.put(uid, &seen.entry.key.namespace, selector),
        None => index.remove(uid),
    }
}
