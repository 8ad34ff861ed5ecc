//! A watch that goes on where another one ended.
//!
//! One transaction changes many objects, and each of them shows its revision. A client that was cut off amid these
//! has noted the revision with the first of them and asks for what comes after it; what it has not seen of that
//! revision it would never hear of. Nobody can tell how much it has seen, so that all of a revision that changed several
//! objects of the selection is told once more: to be told twice that an object is what it is does no harm. Of one that
//! changed a single object nothing is left to tell.

use futures_util::{StreamExt, stream};
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_objects::{ItemEvent, ItemWatch, Objects, ReadAhead, WatchQuery};

/// Follows what comes after `from`, of which the client may have seen the beginning only.
pub(super) async fn open(
    objects: &Objects,
    resource: &Row,
    query: WatchQuery,
    from: u64,
    ahead: impl Fn() -> Box<dyn ReadAhead>,
) -> Result<ItemWatch, Status> {
    let before = WatchQuery { version: Some(from.saturating_sub(1)), ..query.clone() };
    // Before the first revision is none.
    if before.version == Some(0) {
        return objects.watch_items(resource, query, ahead()).await;
    }
    match objects.watch_items(resource, before, ahead()).await {
        Ok(watch) => Ok(after(watch, from)),
        // Where it is the newest state, there is no newer one to list and to go on from.
        Err(status) if status.code() == 410 => {
            let newest = objects.newest(resource).await?;
            if newest > from {
                return Err(status);
            }
            objects.watch_items(resource, query, ahead()).await
        }
        Err(status) => Err(status),
    }
}

/// Where a watch from before a revision stands.
struct Resumed {
    watch: ItemWatch,
    from: u64,
    /// Whether it is still to be seen how many objects that revision changed.
    unknown: bool,
    /// The first of them, or the second, which is to be told next.
    held: Option<ItemEvent>,
}

/// Leaves out the only event of a revision.
fn after(watch: ItemWatch, from: u64) -> ItemWatch {
    let resumed = Resumed { watch, from, unknown: true, held: None };
    let events = stream::unfold(resumed, |mut resumed| async move {
        let event = resumed.next().await?;
        Some((event, resumed))
    });
    events.boxed()
}

impl Resumed {
    async fn next(&mut self) -> Option<Result<ItemEvent, Status>> {
        while self.unknown {
            let event = match self.watch.next().await? {
                Ok(event) if revision(&event) < self.from => continue, // a bookmark
                Ok(event) if is_change_at(&event, self.from) => event,
                // All of the revision has been seen, or nothing can be.
                event => {
                    (self.unknown, self.held) = (false, None);
                    return Some(event);
                }
            };
            if let Some(first) = self.held.replace(event) {
                self.unknown = false;
                return Some(Ok(first));
            }
        }
        match self.held.take() {
            Some(second) => Some(Ok(second)),
            None => self.watch.next().await,
        }
    }
}

fn revision(event: &ItemEvent) -> u64 {
    match event {
        ItemEvent::Added(item) | ItemEvent::Modified(item) | ItemEvent::Deleted(item) => {
            item.entry.mod_revision
        }
        ItemEvent::Bookmark { revision, .. } => *revision,
    }
}

fn is_change_at(event: &ItemEvent, at: u64) -> bool {
    !matches!(event, ItemEvent::Bookmark { .. }) && revision(event) == at
}
