//! Watches of objects: what a registry's watch tells, seen through selectors.
//!
//! Events come in the order of their revisions, none is left out, and an object that ceases to match
//! is told as deleted. Without a version to start from the present objects come first, as added.

use super::listing::{Listing, ReadAhead};
use super::refuse::{read_refused, watch_refused};
use super::stored::object_at;
use super::{Filter, ListQuery, Reader};
use futures_util::stream::{self, BoxStream, StreamExt};
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use impresario_registry_api::{Consistency, Entry, Revision, Watch, WatchEvent, WatchRequest};
use serde_json::Value;
use std::collections::VecDeque;

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

struct Following {
    resource: &'static Resource,
    filter: Filter,
    /// Whether there is nothing to look at in an object.
    everything: bool,
    /// The objects that were there at the start, while they are told.
    present: Option<Present>,
    /// Changes, as the registry tells them, of this revision.
    changes: VecDeque<WatchEvent>,
    revision: Revision,
    watch: Option<Watch>,
}

struct Present {
    listing: Listing,
    initial_end: bool,
}

impl Reader {
    /// Follows objects.
    pub async fn watch(
        &self,
        resource: &'static Resource,
        query: WatchQuery,
    ) -> Result<ObjectWatch, Status> {
        self.watch_ahead(resource, query, None).await
    }

    /// Follows objects; the present ones are read so far ahead of who takes them.
    pub async fn watch_ahead(
        &self,
        resource: &'static Resource,
        query: WatchQuery,
        ahead: Option<Box<dyn ReadAhead>>,
    ) -> Result<ObjectWatch, Status> {
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
        let watch = self.registry().watch(request).await.map_err(|error| watch_refused(&error))?;
        let following = Following {
            resource,
            everything: query.filter.is_everything(),
            filter: query.filter,
            present,
            changes: VecDeque::new(),
            revision: after,
            watch: Some(watch),
        };
        Ok(stream::unfold(following, |mut following| async move {
            let item = following.next().await?;
            Some((item, following))
        })
        .boxed())
    }

    async fn newest(&self, resource: &'static Resource) -> Result<Revision, Status> {
        let key = super::key_of(resource, "", "");
        let read = self.registry().get(key, Consistency::Linearizable).await;
        read.map(|(_, revision)| revision).map_err(|error| read_refused(&error))
    }
}

impl Following {
    async fn next(&mut self) -> Option<Result<ObjectEvent, Status>> {
        loop {
            if let Some(present) = &mut self.present {
                match present.listing.next().await {
                    Ok(Some(item)) => match item.object() {
                        Some(object) => return Some(Ok(ObjectEvent::Added(object))),
                        None => continue,
                    },
                    Ok(None) => {
                        let (revision, initial_end) = (self.revision, present.initial_end);
                        self.present = None;
                        return Some(Ok(ObjectEvent::Bookmark { revision, initial_end }));
                    }
                    Err(status) => return Some(Err(self.ends(status))),
                }
            }
            if let Some(event) = self.changes.pop_front() {
                match self.see(event, self.revision) {
                    Ok(Some(event)) => return Some(Ok(event)),
                    Ok(None) => {}
                    // It would end every watch that comes by, each time it is opened anew.
                    Err(status) => tracing::error!(%status, "an object is left out of a watch"),
                }
                continue;
            }
            match self.watch.as_mut()?.next().await {
                Some(Ok(batch)) => {
                    self.revision = batch.revision;
                    if batch.events.is_empty() {
                        let (revision, initial_end) = (batch.revision, false);
                        return Some(Ok(ObjectEvent::Bookmark { revision, initial_end }));
                    }
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

    /// One change as this watch sees it.
    fn see(&self, event: WatchEvent, revision: Revision) -> Result<Option<ObjectEvent>, Status> {
        let matching = |entry: &Entry| -> Result<Option<Value>, Status> {
            let object = object_at(entry, revision)?;
            Ok(self.filter.matches(self.resource, &object).then_some(object))
        };
        Ok(match event {
            WatchEvent::Put { entry, previous } => {
                if self.everything {
                    let now = object_at(&entry, revision)?;
                    return Ok(Some(match previous {
                        Some(_) => ObjectEvent::Modified(now),
                        None => ObjectEvent::Added(now),
                    }));
                }
                let before = previous.as_ref().map(matching).transpose()?.flatten();
                match (before, matching(&entry)?) {
                    (None, Some(now)) => Some(ObjectEvent::Added(now)),
                    (Some(_), Some(now)) => Some(ObjectEvent::Modified(now)),
                    (Some(before), None) => Some(ObjectEvent::Deleted(before)),
                    (None, None) => None,
                }
            }
            WatchEvent::Delete { previous, .. } => matching(&previous)?.map(ObjectEvent::Deleted),
        })
    }
}
