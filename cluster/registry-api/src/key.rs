//! What an object is called and what is kept of it.
//!
//! Keys order by resource, then namespace, then name: the order in which Kubernetes lists and pages.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of the transaction that wrote something; 0 is "before everything", hence "absent".
pub type Revision = u64;

/// The address of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// `group/plural`, or the plural alone for the core group: `pods`, `batch/jobs`.
    pub resource: String,
    /// The namespace, empty for what is cluster scoped.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl Key {
    /// A key from its three parts.
    pub fn new(
        resource: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The bytes of its three parts.
    pub fn bytes(&self) -> usize {
        self.resource.len() + self.namespace.len() + self.name.len()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} \"{}\"", self.resource, self.name)
        } else {
            write!(f, "{} \"{}/{}\"", self.resource, self.namespace, self.name)
        }
    }
}

/// An object as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lives.
    pub key: Key,
    /// The whole object as JSON, without `metadata.resourceVersion`: readers put [`Entry::mod_revision`] there.
    pub value: Bytes,
    /// The revision that created it; a deletion and a new creation change this.
    pub create_revision: Revision,
    /// The revision that last wrote it.
    pub mod_revision: Revision,
}
