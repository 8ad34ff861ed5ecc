//! Objects: the one door of a cluster to them.
//!
//! Whoever wants to read or change an object, over REST, by message, or as a node that writes the status of
//! its pods, comes through here: [`may`] decides whether they may, [`Objects`] admits, validates, writes,
//! lists and watches. Control actors call [`Objects`] in their own process, under the fence of their shard;
//! everybody else asks [`ObjectsActor`] on a control member, through [`RemoteObjects`] or [`RemoteDoor`].
//!
//! [`Objects`] puts the table of resources in front of a registry: what is written has been
//! defaulted and validated, has its uid, times and generation, and replaces only what its writer
//! saw; what is read carries its `resourceVersion`. Wherever it runs, an object comes out the same.
//!
//! Guarantees: a write is one transaction, together with the addresses it takes or gives back, and
//! nothing is created in a namespace that is going; a conflict is redone a bounded number of times
//! with growing pauses where the caller did not name a version, and told where they did.

mod actor;
mod address;
mod bind;
mod bound;
mod delete;
mod foundation;
mod list;
pub mod may;
pub mod protocol;
mod refusals;
mod refuse;
mod remote;
mod stored;
mod watch;
mod write;

pub use actor::{ObjectsActor, ObjectsParts};
pub use address::ServiceRanges;
pub use bind::Binding;
pub use bound::Bindings;
pub use delete::Deleted;
pub use foundation::NAMESPACES;
pub use impresario_api::admission::{DeleteOptions, Door, Propagation};
pub use list::{Filter, ListQuery, Listed, VersionMatch, fresh_token};
pub use refusals::{Refusals, Refused};
pub use remote::{RemoteDoor, RemoteObjects};
pub use stored::Stored;
pub use watch::{ObjectEvent, ObjectWatch, WatchQuery};
pub use write::{Patch, WriteOptions, patch_refused};

use crate::may::Verb;
use crate::refuse::read_refused;
use impresario_api::resource::{Resource, resource_key};
use impresario_api::status::Status;
use impresario_registry::{Consistency, Fence, Key, RegistryHandle, Transaction};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Judges a write by the object before and after, in the loop that makes sure that these are what is
/// replaced and what replaces it.
type Judge = Arc<dyn Fn(Verb, Option<&Value>, Option<&Value>) -> Result<(), Status> + Send + Sync>;

/// Reads and writes objects of a registry.
#[derive(Clone)]
pub struct Objects {
    registry: RegistryHandle,
    ranges: ServiceRanges,
    fence: Option<Fence>,
    judge: Option<Judge>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("ranges", &self.ranges)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// Objects of this registry, with the default ranges for services.
    pub fn new(registry: RegistryHandle) -> Self {
        Self { registry, ranges: ServiceRanges::default(), fence: None, judge: None }
    }

    /// Draws addresses and ports of services from these ranges.
    pub fn with_ranges(mut self, ranges: ServiceRanges) -> Self {
        self.ranges = ranges;
        self
    }

    /// The same, but every write is by right of a shard epoch and refused once it has passed.
    pub fn fenced(&self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self.clone() }
    }

    /// The same, but a write goes through only where the judge finds nothing against it.
    fn judged(&self, judge: Judge) -> Self {
        Self { judge: Some(judge), ..self.clone() }
    }

    fn judge(&self, verb: Verb, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        self.judge.as_ref().map_or(Ok(()), |judge| judge(verb, old, new))
    }

    /// What services draw from.
    pub fn ranges(&self) -> &ServiceRanges {
        &self.ranges
    }

    /// The registry underneath.
    pub fn registry(&self) -> &RegistryHandle {
        &self.registry
    }

    /// One object, as of every write that was acknowledged before.
    pub async fn get(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Value, Status> {
        self.get_with(resource, namespace, name, Consistency::Linearizable).await
    }

    /// One object, as fresh as asked for.
    pub async fn get_with(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Value, Status> {
        let found = self.find(resource, namespace, name, consistency).await?;
        found.map(|stored| stored.object).ok_or_else(|| Status::not_found(resource, name))
    }

    /// One object with its revision, or nothing.
    pub async fn find(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Option<Stored>, Status> {
        let key = key_of(resource, namespace, name);
        let (entry, _) =
            self.registry.get(key, consistency).await.map_err(|error| read_refused(&error))?;
        entry.as_ref().map(Stored::read).transpose()
    }

    fn begin(&self) -> Transaction {
        Transaction { fence: self.fence, ..Transaction::default() }
    }
}

/// Where an object is kept.
pub fn key_of(resource: &Resource, namespace: &str, name: &str) -> Key {
    let namespace = if resource.namespaced { namespace } else { "" };
    Key { resource: resource_key(resource), namespace: namespace.into(), name: name.into() }
}
