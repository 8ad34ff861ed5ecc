//! Watches of objects: what a registry's watch tells, seen through selectors.
//!
//! Events come in the order of their revisions, none is left out, and an object that ceases to match
//! is told as deleted. Without a version to start from the present objects come first, as added. A revision may change
//! many objects, and each shows it: a bookmark says where it ends, and from there a watch can go on.

use super::listing::{Item, Listing, ReadAhead, TURN_BYTES};
use super::refuse::{read_refused, watch_refused};
use super::removed::removed;
use super::states::States;
use super::stored::{object_at, readable};
use super::{Filter, ListQuery, Reader};
use futures_util::stream::{self, BoxStream, StreamExt};
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_registry_api::{Consistency, Entry, Revision, Watch, WatchEvent, WatchRequest};
use serde_json::Value;
use std::collections::VecDeque;
use std::future::ready;
use std::sync::Arc;

/// What a watch is asked for.
#[derive(Debug, Clone, Default)]
pub struct WatchQuery {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Which of them.
    pub filter: Filter,
    /// Changes after this state; `None` and `Some(0)` are the newest.
    pub version: Option<Revision>,
    /// Whether the present objects come first and a bookmark tells where they end.
    pub initial_events: Option<bool>,
}

/// What happened to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectEvent {
    /// It is there, or matches, since now.
    Added(Value),
    /// It changed.
    Modified(Value),
    /// It went, or ceased to match.
    Deleted(Value),
    /// Nothing happened up to this revision that was not told.
    Bookmark {
        /// How far the watch has come.
        revision: Revision,
        /// Whether this is the end of the objects that were there at the start.
        initial_end: bool,
    },
}

/// A watch that runs. It ends after an error.
pub type ObjectWatch = BoxStream<'static, Result<ObjectEvent, Status>>;

/// What happened to an object that is not read yet, where it did not have to be looked at. The entry's revision is
/// the one that the object shows.
#[derive(Debug)]
pub enum ItemEvent {
    /// It is there, or matches, since now.
    Added(Item),
    /// It changed.
    Modified(Item),
    /// It went, or ceased to match.
    Deleted(Item),
    /// Nothing happened up to this revision that was not told.
    Bookmark {
        /// How far the watch has come.
        revision: Revision,
        /// Whether this is the end of the objects that were there at the start.
        initial_end: bool,
    },
}

impl ItemEvent {
    /// The same with its object read; `None`, with a line in the log, where it cannot be.
    fn read(self) -> Option<ObjectEvent> {
        Some(match self {
            Self::Added(item) => ObjectEvent::Added(item.object()?),
            Self::Modified(item) => ObjectEvent::Modified(item.object()?),
            Self::Deleted(item) => ObjectEvent::Deleted(item.object()?),
            Self::Bookmark { revision, initial_end } => {
                ObjectEvent::Bookmark { revision, initial_end }
            }
        })
    }
}

/// A watch that runs and reads no more than it must. It ends after an error.
pub type ItemWatch = BoxStream<'static, Result<ItemEvent, Status>>;

struct Following {
    resource: Row,
    filter: Filter,
    /// Whether there is nothing to look at in an object.
    everything: bool,
    /// The objects that were there at the start, while they are told.
    present: Option<Present>,
    /// Changes, as the registry tells them, of this revision.
    changes: VecDeque<WatchEvent>,
    revision: Revision,
    /// Whether its end is still to be told: all of its changes show it, and only the last is all of it.
    amid: bool,
    watch: Option<Watch>,
    /// Bytes of changes that were looked at since others had their turn.
    looked: usize,
    /// What other watches have made of the same changes.
    states: Option<Arc<States>>,
}

struct Present {
    listing: Listing,
    initial_end: bool,
}

impl Reader {
    /// Follows objects.
    pub async fn watch(&self, resource: &Row, query: WatchQuery) -> Result<ObjectWatch, Status> {
        let items = self.watch_items(resource, query, None).await?;
        let read = |event: Result<ItemEvent, Status>| event.map(ItemEvent::read).transpose();
        Ok(items.filter_map(move |event| ready(read(event))).boxed())
    }

    /// Follows objects, of which none is read that does not have to be; the present ones are fetched so far ahead of
    /// who takes them.
    pub async fn watch_items(
        &self,
        resource: &Row,
        query: WatchQuery,
        ahead: Option<Box<dyn ReadAhead>>,
    ) -> Result<ItemWatch, Status> {
        let select = query.filter.selection(resource, query.namespace.as_deref());
        let from = query.version.filter(|version| *version > 0);
        let mut present = None;
        let after = match (from, query.initial_events) {
            (Some(version), None | Some(false)) => version,
            (None, Some(false)) => self.newest(resource).await?,
            (_, initial) => {
                let list = ListQuery {
                    namespace: query.namespace.clone(),
                    filter: query.filter.clone(),
                    version: query.version,
                    ..ListQuery::default()
                };
                let listing = self.listing(resource, &list, ahead).await?;
                let revision = listing.revision();
                present = Some(Present { listing, initial_end: initial == Some(true) });
                revision
            }
        };
        let request = WatchRequest { select, after, bookmarks: true };
        let conditions = query.filter.conditions(resource);
        let watch = self.registry().watch_where(request, conditions).await;
        let watch = watch.map_err(|error| watch_refused(&error))?;
        let following = Following {
            resource: Row::clone(resource),
            everything: query.filter.is_everything(),
            filter: query.filter,
            present,
            changes: VecDeque::new(),
            revision: after,
            amid: false,
            watch: Some(watch),
            looked: 0,
            states: self.states(),
        };
        Ok(stream::unfold(following, |mut following| async move {
            let item = following.next().await?;
            Some((item, following))
        })
        .boxed())
    }

    /// The revision of the newest state.
    pub async fn newest(&self, resource: &Row) -> Result<Revision, Status> {
        let key = super::key_of(resource, "", "");
        let read = self.registry().get(key, Consistency::Linearizable).await;
        read.map(|(_, revision)| revision).map_err(|error| read_refused(&error))
    }
}

impl Following {
    async fn next(&mut self) -> Option<Result<ItemEvent, Status>> {
        loop {
            if let Some(present) = &mut self.present {
                match present.listing.next().await {
                    Ok(Some(item)) => return Some(Ok(ItemEvent::Added(item))),
                    Ok(None) => {
                        let (revision, initial_end) = (self.revision, present.initial_end);
                        self.present = None;
                        return Some(Ok(ItemEvent::Bookmark { revision, initial_end }));
                    }
                    Err(status) => return Some(Err(self.ends(status))),
                }
            }
            if let Some(event) = self.changes.pop_front() {
                self.breathe(&event).await;
                match self.see(event, self.revision) {
                    Ok(Some(event)) => return Some(Ok(event)),
                    Ok(None) => {}
                    // It would end every watch that comes by, each time it is opened anew.
                    Err(status) => tracing::error!(%status, "an object is left out of a watch"),
                }
                continue;
            }
            if std::mem::take(&mut self.amid) {
                let (revision, initial_end) = (self.revision, false);
                return Some(Ok(ItemEvent::Bookmark { revision, initial_end }));
            }
            let watch = self.watch.as_mut()?;
            let told = tokio::select! {
                biased;
                status = removed(&self.resource) => Err(status),
                told = watch.next() => Ok(told),
            };
            let told = match told {
                Ok(told) => told,
                Err(status) => return Some(Err(self.ends(status))),
            };
            match told {
                Some(Ok(batch)) => {
                    (self.revision, self.amid) = (batch.revision, true);
                    // Read one by one as they are taken: parsed they are many times as large.
                    self.changes = batch.events.into();
                }
                Some(Err(error)) => return Some(Err(self.ends(watch_refused(&error)))),
                None => return None,
            }
        }
    }

    /// After an error there is nothing more.
    fn ends(&mut self, status: Status) -> Status {
        (self.present, self.watch) = (None, None);
        status
    }

    /// Lets others have their turn now and then.
    async fn breathe(&mut self, event: &WatchEvent) {
        self.looked += match event {
            WatchEvent::Put { entry, previous } => {
                entry.value.len() + previous.as_ref().map_or(0, |it| it.value.len())
            }
            WatchEvent::Delete { previous, .. } => previous.value.len(),
        };
        if self.looked >= TURN_BYTES {
            self.looked = 0;
            tokio::task::yield_now().await;
        }
    }

    /// One change as this watch sees it.
    fn see(&self, event: WatchEvent, revision: Revision) -> Result<Option<ItemEvent>, Status> {
        let matching = |mut entry: Entry| -> Result<Option<Item>, Status> {
            entry.mod_revision = revision;
            if let Some(states) = &self.states {
                let state = states.of(&entry.value);
                if self.everything {
                    state.readable(&entry)?;
                } else if !self.filter.matches(&self.resource, state.object(&entry)?) {
                    return Ok(None);
                }
                return Ok(Some(Item::shared(entry, state)));
            }
            if self.everything {
                readable(&entry)?;
                return Ok(Some(Item::of(entry, None)));
            }
            let object = object_at(&entry, revision)?;
            let matches = self.filter.matches(&self.resource, &object);
            Ok(matches.then(|| Item::of(entry, Some(object))))
        };
        Ok(match event {
            WatchEvent::Put { entry, previous } => {
                // A state that could not be read was told to nobody.
                let before = previous.and_then(|entry| matching(entry).ok().flatten());
                let now = match matching(entry) {
                    Err(status) if before.is_some() => {
                        tracing::error!(%status, "an object is told as deleted");
                        None
                    }
                    now => now?,
                };
                match (before, now) {
                    (None, Some(now)) => Some(ItemEvent::Added(now)),
                    (Some(_), Some(now)) => Some(ItemEvent::Modified(now)),
                    (Some(before), None) => Some(ItemEvent::Deleted(before)),
                    (None, None) => None,
                }
            }
            WatchEvent::Delete { previous, .. } => matching(previous)?.map(ItemEvent::Deleted),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_api::catalog::find;
    use impresario_api::selector::{FieldSelector, LabelSelector};
    use impresario_registry::MemoryRegistry;
    use impresario_registry_api::{Key, Operation, Registry as _, Transaction};
    use std::time::Duration;

    /// For a busy machine: a passing test never spends it.
    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_object_that_breaks_is_deleted_and_one_that_is_repaired_is_added() {
        let resource = &find("", "v1", "configmaps").unwrap();
        let registry = MemoryRegistry::new();
        let reader = Reader::new(Arc::new(registry.clone()));
        let put = async |value: &str| {
            let key = Key::new("configmaps", "default", "a");
            let put = Operation::Put { key, value: value.to_owned().into() };
            let written = Transaction { operations: vec![put], ..Transaction::default() };
            registry.transact(written).await.unwrap();
        };
        let good = r#"{"metadata":{"name":"a","namespace":"default"}}"#;
        let looks = Filter { name: Some("a".into()), ..Filter::default() };
        let shared = reader.clone().shared();
        for (reader, filter) in [
            (&reader, Filter::default()),
            (&reader, looks.clone()),
            (&shared, Filter::default()),
            (&shared, looks),
        ] {
            put("broken").await;
            let query = WatchQuery { filter, ..WatchQuery::default() };
            let mut watch = reader.watch(resource, query).await.unwrap();
            for value in [good, good, "broken", "broken too", good] {
                put(value).await;
            }
            let mut told = Vec::new();
            while told.len() < 4 {
                let event = tokio::time::timeout(LIMIT, watch.next()).await.expect("in time");
                told.push(match event.unwrap().unwrap() {
                    ObjectEvent::Added(_) => "added",
                    ObjectEvent::Modified(_) => "modified",
                    ObjectEvent::Deleted(_) => "deleted",
                    ObjectEvent::Bookmark { .. } => continue,
                });
            }
            assert_eq!(told, ["added", "modified", "deleted", "added"]);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_revision_is_told_when_all_of_its_changes_are() {
        let resource = &find("", "v1", "configmaps").unwrap();
        let registry = MemoryRegistry::new();
        let reader = Reader::new(Arc::new(registry.clone()));
        let put = |name: &str| Operation::Put {
            key: Key::new("configmaps", "default", name),
            value: format!(r#"{{"metadata":{{"name":"{name}","labels":{{"is":"{name}"}}}}}}"#)
                .into(),
        };
        let one = Filter { labels: LabelSelector::parse("is=a").ok(), ..Filter::default() };
        let mut watches = Vec::new();
        for (filter, count) in [(Filter::default(), 3), (one, 1)] {
            let query =
                WatchQuery { filter, initial_events: Some(false), version: None, namespace: None };
            watches.push((reader.watch(resource, query).await.unwrap(), count));
        }
        let operations = ["a", "b", "c"].map(put).into();
        registry.transact(Transaction { operations, ..Transaction::default() }).await.unwrap();
        for (mut watch, count) in watches {
            let mut changes = 0;
            loop {
                let event = tokio::time::timeout(LIMIT, watch.next()).await.expect("in time");
                match event.unwrap().unwrap() {
                    ObjectEvent::Added(_) => changes += 1,
                    ObjectEvent::Bookmark { revision: 1, .. } => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(changes, count);
        }
    }

    #[tokio::test]
    async fn a_selection_is_entered_and_left_by_labels_and_fields_however_it_is_read() {
        let resource = &find("", "v1", "pods").unwrap();
        let registry = MemoryRegistry::new();
        let put = async |labels: &str, phase: &str| {
            let key = Key::new("pods", "default", "a");
            let value = format!(
                r#"{{"metadata":{{"name":"a","labels":{labels}}},"status":{{"phase":"{phase}"}}}}"#
            );
            let put = Operation::Put { key, value: value.into() };
            let written = Transaction { operations: vec![put], ..Transaction::default() };
            registry.transact(written).await.unwrap();
        };
        let labels = LabelSelector::parse("app in (web,db),n>3,!old").unwrap();
        let fields = FieldSelector::parse("status.phase!=Failed").unwrap();
        let filter = Filter { labels: Some(labels), fields: Some(fields), ..Filter::default() };
        let reader = Reader::new(Arc::new(registry.clone()));
        let mut watches = Vec::new();
        for reader in [reader.clone(), reader.shared()] {
            let query = WatchQuery { filter: filter.clone(), ..WatchQuery::default() };
            watches.push(reader.watch(resource, query).await.unwrap());
        }
        put(r#"{"app":"mail","n":"4"}"#, "Running").await;
        put(r#"{"app":"web","n":"3"}"#, "Running").await;
        put(r#"{"app":"web","n":"4"}"#, "Running").await; // 3: added
        put(r#"{"app":"db","n":"5"}"#, "Running").await; // 4: modified
        put(r#"{"app":"db","n":"5","old":""}"#, "Running").await; // 5: deleted
        put(r#"{"app":"db","n":"5"}"#, "Failed").await;
        put(r#"{"app":"db","n":"5"}"#, "Succeeded").await; // 7: added
        put(r#"{"app":"db","n":"2"}"#, "Succeeded").await; // 8: deleted
        for mut watch in watches {
            let mut told = Vec::new();
            while told.len() < 5 {
                let event = tokio::time::timeout(LIMIT, watch.next()).await.expect("in time");
                let (kind, object) = match event.unwrap().unwrap() {
                    ObjectEvent::Added(object) => ("added", object),
                    ObjectEvent::Modified(object) => ("modified", object),
                    ObjectEvent::Deleted(object) => ("deleted", object),
                    ObjectEvent::Bookmark { .. } => continue,
                };
                let version = object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
                told.push((kind, version));
            }
            let expected = [
                ("added", "3"),
                ("modified", "4"),
                ("deleted", "5"),
                ("added", "7"),
                ("deleted", "8"),
            ];
            assert_eq!(told, expected.map(|(kind, version)| (kind, version.to_owned())));
        }
    }
}
