//! What a controller is shown: its object, and of each kind that it looks at those that concern it.

use super::super::mirror::{Mirrored, Seen};
use super::super::owned::Owner;
use super::contents::{Content, Refused};
use super::kind_name::KindName;
use impresario_registry_api::{Entry, Revision};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Objects of one kind, in order of their names.
pub struct Part {
    kind: KindName,
    /// A `Vec<Arc<T>>` of the kind's type.
    objects: Box<dyn Any + Send + Sync>,
    entries: Vec<Entry>,
    /// Where they are, if that is not where the controller's object is.
    within: Option<String>,
    /// Up to which revision nothing of the kind is missing.
    complete: Revision,
}

impl Part {
    /// These, which are all of one namespace.
    pub(in crate::controllers) fn of<T: Mirrored>(mut seen: Vec<Seen<T>>) -> Self {
        seen.sort_by(|a, b| a.entry.key.name.cmp(&b.entry.key.name));
        let (objects, entries): (Vec<Arc<T>>, Vec<Entry>) =
            seen.into_iter().map(|seen| (seen.object, seen.entry)).unzip();
        Self {
            kind: KindName::of::<T>(),
            objects: Box::new(objects),
            entries,
            within: None,
            complete: Revision::MAX,
        }
    }

    /// The same, of which nothing is missing that came up to this revision.
    pub(in crate::controllers) fn complete(self, revision: Revision) -> Self {
        Self { complete: revision, ..self }
    }

    /// The same, in this namespace.
    pub(super) fn within(self, namespace: &str) -> Self {
        Self { within: Some(namespace.to_owned()), ..self }
    }

    /// The namespace in which they are, if it is not that of the controller's object.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.within.as_deref()
    }

    /// Their kind.
    pub(super) fn kind(&self) -> KindName {
        self.kind
    }

    /// The stored form of the one of this name. It has the uid that the controller saw, since that saw this.
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
    taken: &'a BTreeSet<String>,
    reported: Option<Timestamp>,
    contents: &'a [Content],
    refused: &'a [Refused],
    authority: &'a str,
    revision: Revision,
}

static NONE: BTreeSet<String> = BTreeSet::new();

impl<'a, K: Mirrored> View<'a, K> {
    /// A view of an object and what concerns it.
    pub(in crate::controllers) fn new(object: &'a K, stored: &'a Value, parts: &'a [Part]) -> Self {
        Self {
            object,
            stored,
            parts,
            taken: &NONE,
            reported: None,
            contents: &[],
            refused: &[],
            authority: "",
            revision: 0,
        }
    }

    /// The same, with the names under which the last look could create nothing.
    pub(in crate::controllers) fn with_taken(self, taken: &'a BTreeSet<String>) -> Self {
        Self { taken, ..self }
    }

    /// The same, of a namespace in which this is, and what was refused when the last look emptied it.
    pub(in crate::controllers) fn with_contents(
        self,
        contents: &'a [Content],
        refused: &'a [Refused],
    ) -> Self {
        Self { contents, refused, ..self }
    }

    /// The same, in the cluster of this authority.
    pub(in crate::controllers) fn with_authority(self, authority: &'a str) -> Self {
        Self { authority, ..self }
    }

    /// The same, of an object at this revision.
    pub(in crate::controllers) fn at(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }

    /// Whether all of another kind is shown that was there when the object became as it is: what is not shown is not
    /// there. Each kind is followed for itself, and one may lag behind another.
    #[must_use]
    pub fn shows_all<T: Mirrored>(&self) -> bool {
        let part = self.parts.iter().find(|part| part.kind == KindName::of::<T>());
        part.is_some_and(|part| part.complete >= self.revision)
    }

    /// The certificates of the cluster's authority, in PEM.
    #[must_use]
    pub fn authority(&self) -> &'a str {
        self.authority
    }

    /// Everything that is in the namespace that the object is, where the controller looks at that: what goes first
    /// alone, as long as there is any.
    #[must_use]
    pub fn contents(&self) -> &'a [Content] {
        self.contents
    }

    /// What the last look could not take out of it, and why.
    #[must_use]
    pub fn refused(&self) -> &'a [Refused] {
        self.refused
    }

    /// The same, with the time at which the status was written last.
    pub(in crate::controllers) fn with_reported(self, reported: Option<Timestamp>) -> Self {
        Self { reported, ..self }
    }

    /// When the object's status was written last for what its controller said, as far as this activation of it
    /// knows.
    #[must_use]
    pub fn reported(&self) -> Option<Timestamp> {
        self.reported
    }

    /// Whether the last look wanted to create something of this name, and somebody else's had it.
    #[must_use]
    pub fn is_taken(&self, name: &str) -> bool {
        self.taken.contains(name)
    }

    /// Those of another kind that concern the object, in order of their names. None of a kind that the
    /// controller does not say that it looks at.
    #[must_use]
    pub fn of<T: Mirrored>(&self) -> &'a [Arc<T>] {
        let part = self.parts.iter().find(|part| part.kind == KindName::of::<T>());
        let objects = part.and_then(|part| part.objects.downcast_ref::<Vec<Arc<T>>>());
        objects.map_or(&[], Vec::as_slice)
    }

    /// How many bytes the stored form of each of [`View::of`] has.
    #[must_use]
    pub fn sizes<T: Mirrored>(&self) -> Vec<usize> {
        let part = self.parts.iter().find(|part| part.kind == KindName::of::<T>());
        let entries = part.map_or([].as_slice(), |part| part.entries.as_slice());
        entries.iter().map(|entry| entry.value.len()).collect()
    }

    /// The object as the owner of what is made for it.
    #[must_use]
    pub fn owner(&self) -> Owner<'a> {
        Owner { object: self.stored, api_version: K::API_VERSION, kind: K::KIND }
    }
}
