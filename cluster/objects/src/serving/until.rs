//! When a watch by message ends that nobody has ended.

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use impresario_api::resource::{Row, resource_key};
use impresario_client::objects::removed::removed;
use impresario_registry_api::{Watch, WatchError};

/// A watch that ends with the kind of its objects.
pub(super) fn until_removed(watch: Watch, resource: Row) -> Watch {
    let following = (Some(watch), resource);
    Watch::new(stream::unfold(following, |(watch, resource)| async move {
        let mut watch = watch?;
        tokio::select! {
            biased;
            _ = removed(&resource) => {
                let gone = WatchError::Removed { resource: resource_key(&resource) };
                Some((Err(gone), (None, resource)))
            }
            told = watch.next() => Some((told?, (Some(watch), resource))),
        }
    }))
}

/// A watch that ends when a change of the roles takes the right to it. Who then watches again is told why not.
pub(super) fn until_denied(
    watch: Watch,
    changes: BoxStream<'static, ()>,
    may: impl Fn() -> bool + Send + Sync + 'static,
) -> Watch {
    let following = (Some(watch), changes, may);
    Watch::new(stream::unfold(following, |(watch, mut changes, may)| async move {
        let mut watch = watch?;
        loop {
            tokio::select! {
                biased;
                change = changes.next() => {
                    // Where nobody follows the roles any more nobody can tell.
                    if change.is_none() || !may() {
                        return Some((Err(WatchError::Closed), (None, changes, may)));
                    }
                }
                told = watch.next() => return Some((told?, (Some(watch), changes, may))),
            }
        }
    }))
}
