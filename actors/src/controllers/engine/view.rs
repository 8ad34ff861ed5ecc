//! What a controller is shown: its object, and of each kind that it looks at those that concern it.

use super::super::mirror::{Mirrored, Seen};
use super::super::owned::Owner;
use super::kind_name::KindName;
use impresario_registry_api::Entry;
use serde_json::Value;
use std::any::Any;
use std::sync::Arc;

/// Objects of one kind, in order of their names.
pub struct Part {
    kind: KindName,
    /// A `Vec<Arc<T>>` of the kind's type.
    objects: Box<dyn Any + Send + Sync>,
    entries: Vec<Entry>,
}

impl Part {
    /// These, which are all of one namespace.
    pub(in crate::controllers) fn of<T: Mirrored>(mut seen: Vec<Seen<T>>) -> Self {
        seen.sort_by(|a, b| a.entry.key.name.cmp(&b.entry.key.name));
        let (objects, entries): (Vec<Arc<T>>, Vec<Entry>) =
            seen.into_iter().map(|seen| (seen.object, seen.entry)).unzip();
        Self { kind: KindName::of::<T>(), objects: Box::new(objects), entries }
    }

    /// Their kind.
    pub(super) fn kind(&self) -> KindName {
        self.kind
    }

    /// The stored form of the one of this name.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.key.name.as_str().cmp(name)).ok()?;
        Some(&self.entries[at])
    }
}

/// What was seen at one time.
pub struct View<'a, K> {
    /// The object.
    pub object: &'a K,
    /// The object as it is stored, with what its type does not know.
    pub stored: &'a Value,
    parts: &'a [Part],
}

impl<'a, K: Mirrored> View<'a, K> {
    /// A view of an object and what concerns it.
    pub(in crate::controllers) fn new(object: &'a K, stored: &'a Value, parts: &'a [Part]) -> Self {
        Self { object, stored, parts }
    }

    /// Those of another kind that concern the object, in order of their names. None of a kind that the
    /// controller does not say that it looks at.
    #[must_use]
    pub fn of<T: Mirrored>(&self) -> &'a [Arc<T>] {
        let part = self.parts.iter().find(|part| part.kind == KindName::of::<T>());
        let objects = part.and_then(|part| part.objects.downcast_ref::<Vec<Arc<T>>>());
        objects.map_or(&[], Vec::as_slice)
    }

    /// The object as the owner of what is made for it.
    #[must_use]
    pub fn owner(&self) -> Owner<'a> {
        Owner { object: self.stored, api_version: K::API_VERSION, kind: K::KIND }
    }
}
