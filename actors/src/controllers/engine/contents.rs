//! What is in a namespace, whatever its kind, as the registry itself has it.

use super::super::control::LookError;
use super::super::owned;
use super::super::partial::Partial;
use super::kind_name::KindName;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_api::catalog::resources;
use impresario_api::resource::{Row, Verb, resource_key};
use impresario_objects::{DeleteOptions, Objects, WriteOptions};
use impresario_registry_api::{Consistency, Entry, Key, ListRequest, Revision, Selection};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Objects that are read at a time, and about how many bytes of them.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// An object in a namespace.
#[derive(Debug, Clone)]
pub struct Content {
    /// Of which resource.
    pub resource: Row,
    /// Its name.
    pub name: String,
    /// Its uid: another one of its name is not meant.
    pub uid: String,
    /// Whether its deletion was asked for.
    pub goes: bool,
    /// What it waits for then.
    pub finalizers: Vec<String>,
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        Row::ptr_eq(&self.resource, &other.resource)
            && (&self.name, &self.uid) == (&other.name, &other.uid)
    }
}

/// Objects of one resource that could not be deleted.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The resource.
    pub resource: Row,
    /// Why the first of them could not.
    pub message: String,
}

/// What was read of objects at their revisions: what stays as it is, since others hold it, is not read again by each
/// look, however large it is.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Key, (Revision, Content)>);

/// Everything in the namespace that a seen object is, or of the kinds that go `first` alone as long as there is any;
/// `None` where the registry has another by now, or one that is not being deleted. A mirror may show it after its end,
/// when another has its name.
///
/// The object is looked at last: whatever was there while it still is was in this namespace and in no other.
pub(super) async fn of(
    objects: &Objects,
    seen: &Entry,
    first: &[KindName],
    known: &Mutex<Known>,
) -> Result<Option<Vec<Content>>, LookError> {
    let mut contents = Vec::new();
    let before = std::mem::take(&mut *known.lock());
    let mut now = Known::default();
    let deletable = |verbs: &[Verb]| verbs.contains(&Verb::List) && verbs.contains(&Verb::Delete);
    let all = resources();
    let all = all.iter().filter(|r| r.is_as_kept() && r.namespaced && deletable(r.verbs));
    let is_first =
        |r: &&Row| first.iter().any(|kind| kind.group == r.group && kind.plural == r.plural);
    let (first, then): (Vec<_>, Vec<_>) = all.partition(is_first);
    for some in [first, then] {
        for resource in some {
            read(objects, resource, &seen.key.name, (&before, &mut now), &mut contents).await?;
        }
        if !contents.is_empty() {
            break;
        }
    }
    *known.lock() = now;
    Ok(still_goes(objects, seen).await?.then_some(contents))
}

async fn read(
    objects: &Objects,
    resource: &Row,
    namespace: &str,
    (before, now): (&Known, &mut Known),
    contents: &mut Vec<Content>,
) -> Result<(), LookError> {
    let select = Selection::all(resource_key(resource)).within(namespace);
    let mut request = ListRequest { limit: Some(PAGE), ..ListRequest::of(select) };
    request.consistency = Consistency::Linearizable;
    loop {
        let page = objects.registry().part(request.clone(), PAGE_BYTES).await?;
        for entry in &page.entries {
            let known = before.0.get(&entry.key).filter(|(at, _)| *at == entry.mod_revision);
            let content = known.map_or_else(|| content(resource, entry), |(_, it)| it.clone());
            now.0.insert(entry.key.clone(), (entry.mod_revision, content.clone()));
            contents.push(content);
        }
        let last = page.entries.last().map(|entry| &entry.key);
        request.after = last.map(|key| (key.namespace.clone(), key.name.clone()));
        if page.remaining == 0 || request.after.is_none() {
            return Ok(());
        }
    }
}

fn content(resource: &Row, entry: &Entry) -> Content {
    // Of what cannot be read the name is known: it is tried, and what becomes of it is told.
    let partial: Partial = serde_json::from_slice(&entry.value).unwrap_or_default();
    let metadata = partial.into_metadata();
    Content {
        resource: Row::clone(resource),
        name: entry.key.name.clone(),
        uid: metadata.uid.unwrap_or_default(),
        goes: metadata.deletion_timestamp.is_some(),
        finalizers: metadata.finalizers.unwrap_or_default(),
    }
}

/// Deletes these very objects, and no others of their names. All are tried; what was refused is told, one of each
/// resource. An error where nothing else would go better.
pub(super) async fn empty(
    objects: &Objects,
    namespace: &str,
    contents: Vec<Content>,
) -> Result<Vec<Refused>, LookError> {
    let write = WriteOptions::default();
    let deletions = contents.into_iter().map(|content| {
        let write = &write;
        async move {
            let Content { resource, name, uid, .. } = content;
            let uid = Some(uid).filter(|uid| !uid.is_empty());
            let options = DeleteOptions { uid, ..DeleteOptions::default() };
            let outcome = objects.delete(&resource, namespace, &name, &options, write).await;
            (resource, outcome)
        }
        .boxed()
    });
    let deletions: Vec<BoxFuture<'_, _>> = deletions.collect();
    let mut outcomes = futures_util::stream::iter(deletions).buffer_unordered(owned::CONCURRENT);
    let mut refused: Vec<Refused> = Vec::new();
    while let Some((resource, outcome)) = outcomes.next().await {
        match outcome {
            Ok(_) => {}
            Err(status) if status.is_fenced() => return Err(status.into()),
            Err(status) if status.is_superseded() => {}
            Err(status) if matches!(status.code(), 429 | 503 | 504) => return Err(status.into()),
            Err(status) => {
                if !refused.iter().any(|said| Row::ptr_eq(&said.resource, &resource)) {
                    refused.push(Refused { resource, message: status.message });
                }
            }
        }
    }
    Ok(refused)
}

async fn still_goes(objects: &Objects, seen: &Entry) -> Result<bool, LookError> {
    let key: Key = seen.key.clone();
    let found = objects.registry().get(key, Consistency::Linearizable).await?.0;
    let metadata = |entry: &Entry| {
        serde_json::from_slice::<Partial>(&entry.value).ok().map(Partial::into_metadata)
    };
    let (was, is) = (metadata(seen), found.as_ref().and_then(metadata));
    let is_this = was.zip(is).filter(|(was, is)| was.uid.is_some() && was.uid == is.uid);
    Ok(is_this.is_some_and(|(_, is)| is.deletion_timestamp.is_some()))
}
