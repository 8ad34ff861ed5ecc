//! What readers ask for and what they get: lists, pages and watch batches.

use crate::key::{Entry, Key, Revision};
use serde::{Deserialize, Serialize};

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// Sees a prefix of the history: cheap, never backwards on one member, possibly old.
    Local,
}

/// Which objects of a resource are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The resource, as in [`Key::resource`].
    pub resource: String,
    /// One namespace, or all of them.
    pub namespace: Option<String>,
    /// One name, or all of them.
    pub name: Option<String>,
    /// A JSON pointer and the string that must be there; a missing field counts as the empty string.
    pub field: Option<(String, String)>,
}

impl Selection {
    /// All objects of a resource.
    pub fn all(resource: impl Into<String>) -> Self {
        Self { resource: resource.into(), ..Self::default() }
    }

    /// Only those in this namespace.
    pub fn within(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only the one (per namespace) with this name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only those with this string at this JSON pointer.
    pub fn with_field(mut self, pointer: impl Into<String>, value: impl Into<String>) -> Self {
        self.field = Some((pointer.into(), value.into()));
        self
    }

    /// Whether the key, value aside, is meant.
    pub fn covers(&self, key: &Key) -> bool {
        key.resource == self.resource
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }

    /// Whether the value, key aside, is meant.
    pub fn accepts(&self, value: &[u8]) -> bool {
        self.field
            .as_ref()
            .is_none_or(|(pointer, wanted)| crate::field::equals(value, pointer, wanted))
    }
}

/// Asks for the objects of a selection, in key order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// Which objects.
    pub select: Selection,
    /// Go on behind this namespace and name.
    pub after: Option<(String, String)>,
    /// At most so many entries.
    pub limit: Option<usize>,
    /// As it was at this revision; answered with `Gone` when that is no longer kept.
    pub at: Option<Revision>,
    /// How fresh the answer must be.
    pub consistency: Consistency,
}

impl ListRequest {
    /// Everything that a selection means, linearizable.
    pub fn of(select: Selection) -> Self {
        Self { select, ..Self::default() }
    }
}

/// A list, or one page of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The objects, in key order.
    pub entries: Vec<Entry>,
    /// The state that was listed; ask `at` this for the next page, or watch after it.
    pub revision: Revision,
    /// How many more objects match behind this page; where the selection has a field, 1 if there are any.
    pub remaining: usize,
}

/// Asks to be told of every change to a selection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRequest {
    /// Which objects.
    pub select: Selection,
    /// Changes after this revision; a future one is waited for in silence.
    pub after: Revision,
    /// Whether batches without events tell how far the watch has come.
    pub bookmarks: bool,
}

/// All matching changes of one revision. Without events it is a bookmark: nothing matching at or before it is left to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchBatch {
    /// The revision of all these events.
    pub revision: Revision,
    /// In the order in which the transaction wrote them.
    pub events: Vec<WatchEvent>,
}

/// One change, as seen through the selection: an object that no longer matches is deleted to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEvent {
    /// The object was created, changed, or began to match.
    Put {
        /// The object now.
        entry: Entry,
        /// The object before, if it matched then.
        previous: Option<Entry>,
    },
    /// The object was deleted, or ceased to match.
    Delete {
        /// The object as it last matched.
        previous: Entry,
        /// The revision at which it went.
        revision: Revision,
    },
}

impl WatchEvent {
    /// The object that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { entry, .. } => &entry.key,
            Self::Delete { previous, .. } => &previous.key,
        }
    }
}
