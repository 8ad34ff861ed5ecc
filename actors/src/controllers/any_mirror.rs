//! A mirror seen by who does not care of which kind it is: who looks at the metadata of all kinds shares the
//! mirrors of those that look at one.

use super::mirror::{Behind, Change, Changes, Mirror, Mirrored, Seen};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, select, unfold};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use impresario_registry_api::{Entry, Revision};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An object of any kind.
pub trait AnyObject: Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
}

impl<K: Mirrored> AnyObject for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

impl fmt::Debug for dyn AnyObject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.meta().fmt(out)
    }
}

/// Whether an object is wanted, by how it is stored and by its metadata.
pub type Wanted<'a> = dyn Fn(&Entry, &ObjectMeta) -> bool + 'a;

/// A mirror of objects of some kind, those too that its type cannot read; see [`Mirror`].
pub trait AnyMirror: Send + Sync {
    /// As [`Mirror::reached`].
    fn reached(&self, revision: Revision, limit: Duration) -> BoxFuture<'_, Result<(), Behind>>;
    /// As [`Mirror::revision`].
    fn revision(&self) -> Revision;
    /// As [`Mirror::file`].
    fn file(&self, entry: &Entry) -> bool;
    /// As [`Mirror::get`].
    fn get(&self, namespace: &str, name: &str) -> Option<Seen<dyn AnyObject>>;
    /// As [`Mirror::picked_as_stored`], by the metadata.
    fn picked(&self, wanted: &Wanted<'_>) -> Vec<Seen<dyn AnyObject>>;
    /// As [`Mirror::is_owned_by`].
    fn is_owned_by(&self, uid: &str) -> bool;
    /// What changes from now on; [`Change::Everything`] where some were missed. None is lost between two: what is
    /// not read yet waits. Ends with the mirror.
    fn stream(&self) -> BoxStream<'static, Change<dyn AnyObject>>;
}

impl<K: Mirrored> AnyMirror for Mirror<K> {
    fn reached(&self, revision: Revision, limit: Duration) -> BoxFuture<'_, Result<(), Behind>> {
        self.reached(revision, limit).boxed()
    }

    fn revision(&self) -> Revision {
        self.revision()
    }

    fn file(&self, entry: &Entry) -> bool {
        self.file(entry)
    }

    fn get(&self, namespace: &str, name: &str) -> Option<Seen<dyn AnyObject>> {
        let misread = || self.get_misread(namespace, name).map(any);
        self.get(namespace, name).map(any).or_else(misread)
    }

    fn picked(&self, wanted: &Wanted<'_>) -> Vec<Seen<dyn AnyObject>> {
        let read = self.picked_as_stored(|entry, object| wanted(entry, object.metadata()));
        let misread = self.picked_misread(|entry, object| wanted(entry, object.meta()));
        read.into_iter().map(any).chain(misread.into_iter().map(any)).collect()
    }

    fn is_owned_by(&self, uid: &str) -> bool {
        self.is_owned_by(uid)
    }

    fn stream(&self) -> BoxStream<'static, Change<dyn AnyObject>> {
        select(stream(self.changes()), stream(self.misread_changes())).boxed()
    }
}

fn stream<K: Mirrored>(changes: Changes<K>) -> impl Stream<Item = Change<dyn AnyObject>> + Send {
    unfold(changes, |mut changes| async move {
        let change = match changes.next().await? {
            Change::Put { now, before } => Change::Put { now: any(now), before: before.map(any) },
            Change::Deleted { before } => Change::Deleted { before: any(before) },
            Change::Everything => Change::Everything,
        };
        Some((change, changes))
    })
}

fn any<K: Mirrored>(seen: Seen<K>) -> Seen<dyn AnyObject> {
    let object: Arc<dyn AnyObject> = seen.object;
    Seen { object, entry: seen.entry }
}
