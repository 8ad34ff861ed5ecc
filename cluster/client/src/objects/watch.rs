//! Watches of objects: what a registry's watch tells, seen through selectors.
//!
//! Events come in the order of their revisions, none is left out, and an object that ceases to match
//! is told as deleted. Without a version to start from the present objects come first, as added.

use super::refuse::{read_refused, watch_refused};
use super::stored::object_at;
use super::{Filter, ListQuery, Reader};
use futures_util::stream::{self, BoxStream, StreamExt};
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use impresario_registry_api::{
    Consistency, Entry, Revision, Watch, WatchBatch, WatchEvent, WatchRequest,
};
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
    ready: VecDeque<Result<ObjectEvent, Status>>,
    watch: Option<Watch>,
}

impl Reader {
    /// Follows objects.
    pub async fn watch(
        &self,
        resource: &'static Resource,
        query: WatchQuery,
    ) -> Result<ObjectWatch, Status> {
        let select = query.filter.selection(resource, query.namespace.as_deref());
        let mut ready = VecDeque::new();
        let from = query.version.filter(|version| *version > 0);
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
                let listed = self.list(resource, &list).await?;
                ready.extend(listed.items.into_iter().map(|object| Ok(ObjectEvent::Added(object))));
                ready.push_back(Ok(ObjectEvent::Bookmark {
                    revision: listed.revision,
                    initial_end: initial == Some(true),
                }));
                listed.revision
            }
        };
        let request = WatchRequest { select, after, bookmarks: true };
        let watch = self.registry().watch(request).await.map_err(|error| watch_refused(&error))?;
        let following = Following { resource, filter: query.filter, ready, watch: Some(watch) };
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
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.watch.as_mut()?.next().await {
                Some(Ok(batch)) => self.take(batch),
                Some(Err(error)) => {
                    self.watch = None;
                    return Some(Err(watch_refused(&error)));
                }
                None => return None,
            }
        }
    }

    fn take(&mut self, batch: WatchBatch) {
        if batch.events.is_empty() {
            self.ready.push_back(Ok(ObjectEvent::Bookmark {
                revision: batch.revision,
                initial_end: false,
            }));
        }
        for event in batch.events {
            match self.see(event, batch.revision) {
                Ok(event) => self.ready.extend(event.map(Ok)),
                // It would end every watch that comes by, each time it is opened anew.
                Err(status) => tracing::error!(%status, "an object is left out of a watch"),
            }
        }
    }

    /// One change as this watch sees it.
    fn see(&self, event: WatchEvent, revision: Revision) -> Result<Option<ObjectEvent>, Status> {
        let matching = |entry: &Entry| -> Result<Option<Value>, Status> {
            let object = object_at(entry, revision)?;
            Ok(self.filter.matches(self.resource, &object).then_some(object))
        };
        Ok(match event {
            WatchEvent::Put { entry, previous } => {
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
