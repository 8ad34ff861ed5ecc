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
//! nothing is created in a namespace that is going or for which its quotas have no room; a conflict is redone a bounded number of times
//! with growing pauses where the caller did not name a version, and told where they did.

pub mod accounts;
mod actor;
mod address;
mod admission;
mod apply;
mod bind;
mod bound;
mod catch_up;
pub mod definitions;
mod delete;
pub mod events;
mod evict;
mod expressions;
mod familiar;
mod followed;
mod foundation;
mod incoming;
mod managers;
pub mod may;
mod named;
mod open;
mod pause;
mod policies;
mod quota;
pub mod rbac;
mod refusals;
mod refuse;
mod serving;
mod signers;
mod storage;
mod webhooks;
mod write;

pub use actor::ObjectsActor;
pub use apply::Applying;
pub use bound::Bindings;
pub use catch_up::CatchUp;
pub use expressions::Policies;
pub use foundation::NAMESPACES;
pub use impresario_api::admission::ServiceRanges;
pub use impresario_client::objects::{
    Binding, DeleteOptions, Deleted, Door, Filter, Form, Item, ItemEvent, ItemWatch, ListQuery,
    Listed, Listing, ObjectEvent, ObjectWatch, Patch, Propagation, ReadAhead, Reader, RemoteDoor,
    RemoteObjects, Stored, VersionMatch, WatchQuery, WriteOptions, fresh_token, key_of, protocol,
    spliced,
};
pub use managers::CONTROLLER;
pub use refusals::Refusals;
pub use serving::{Membership, ObjectsParts};
pub use webhooks::Webhooks;

use crate::familiar::{Familiar, Familiars};
use crate::may::Verb;
use crate::rbac::{Asker, Roles};
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_client::objects::refuse::read_refused;
use impresario_registry_api::{Consistency, Fence, RegistryHandle, Revision, Transaction};
use quota::Desks;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Judges a write by who makes it and by the object before and after, in the loop that makes sure that these are what
/// is replaced and what replaces it.
type Judge = Arc<
    dyn Fn(&WriteOptions, Verb, Option<&Value>, Option<&Value>) -> Result<(), Status> + Send + Sync,
>;

/// Reads and writes objects of a registry.
#[derive(Clone)]
pub struct Objects {
    reads: Reader,
    ranges: ServiceRanges,
    fence: Option<Fence>,
    judge: Option<Judge>,
    roles: Option<Roles>,
    webhooks: Option<Webhooks>,
    policies: Option<Policies>,
    desks: Desks,
    familiars: Familiars,
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
        let reads = Reader::new(registry).shared();
        Self {
            reads,
            ranges: ServiceRanges::default(),
            fence: None,
            judge: None,
            roles: None,
            webhooks: None,
            policies: None,
            desks: Desks::default(),
            familiars: Familiars::default(),
        }
    }

    /// Draws addresses and ports of services from these ranges.
    pub fn with_ranges(mut self, ranges: ServiceRanges) -> Self {
        self.ranges = ranges;
        self
    }

    /// What is written passes these policies.
    pub fn with_policies(mut self, policies: Policies) -> Self {
        self.policies = Some(policies);
        self
    }

    /// What is written passes these webhooks.
    pub fn with_webhooks(mut self, webhooks: Webhooks) -> Self {
        self.webhooks = Some(webhooks);
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

    /// The same, but who writes a role or a binding must have what they give away by it: [`Roles::guard`]. Who decides
    /// about certificates must be allowed to by the role that says so of their signer. And who
    /// writes a policy must be able to read what it is given.
    pub fn guarded(&self, roles: Roles) -> Self {
        let asked = Some(roles.clone());
        let guarded = self.judged(Arc::new(move |options, verb, old, new| {
            if !matches!(verb, Verb::Create | Verb::Update | Verb::Patch) {
                return Ok(());
            }
            let asker = Asker { name: &options.user, groups: &options.groups };
            signers::guard(&roles, asker, old, new)?;
            roles.guard(asker, old, new)
        }));
        Self { roles: asked, ..guarded }
    }

    async fn judge(
        &self,
        options: &WriteOptions,
        verb: Verb,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<(), Status> {
        self.judge.as_ref().map_or(Ok(()), |judge| judge(options, verb, old, new))?;
        match (&self.roles, new) {
            (Some(roles), Some(new)) => self.may_read_params(roles, options, old, new).await,
            _ => Ok(()),
        }
    }

    /// What services draw from.
    pub fn ranges(&self) -> &ServiceRanges {
        &self.ranges
    }

    /// The registry underneath.
    pub fn registry(&self) -> &RegistryHandle {
        self.reads.registry()
    }

    /// What reads, without what writes.
    pub fn reader(&self) -> &Reader {
        &self.reads
    }

    /// One object, as of every write that was acknowledged before.
    pub async fn get(&self, resource: &Row, namespace: &str, name: &str) -> Result<Value, Status> {
        self.get_with(resource, namespace, name, Consistency::Linearizable).await
    }

    /// One object, as fresh as asked for.
    pub async fn get_with(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Value, Status> {
        self.reads.get(resource, namespace, name, consistency).await
    }

    /// One object with its revision, or nothing.
    pub async fn find(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Option<Stored>, Status> {
        self.reads.find(resource, namespace, name, consistency).await
    }

    /// The same, for objects that are looked at far more often than they change.
    async fn familiar(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Option<Familiar>, Status> {
        let read = self.registry().get(key_of(resource, namespace, name), consistency).await;
        let (entry, _) = read.map_err(|error| read_refused(&error))?;
        entry.as_ref().map(|entry| self.familiars.read(entry)).transpose()
    }

    /// Lists objects.
    pub async fn list(&self, resource: &Row, query: &ListQuery) -> Result<Listed, Status> {
        self.reads.list(resource, query).await
    }

    /// Begins to list objects, for who takes them one by one.
    pub async fn listing(
        &self,
        resource: &Row,
        query: &ListQuery,
        ahead: Box<dyn ReadAhead>,
    ) -> Result<Listing, Status> {
        self.reads.listing(resource, query, Some(ahead)).await
    }

    /// Follows objects.
    pub async fn watch(&self, resource: &Row, query: WatchQuery) -> Result<ObjectWatch, Status> {
        self.reads.watch(resource, query).await
    }

    /// Follows objects, of which none is read that does not have to be; the present ones are fetched so far ahead of
    /// who takes them.
    pub async fn watch_items(
        &self,
        resource: &Row,
        query: WatchQuery,
        ahead: Box<dyn ReadAhead>,
    ) -> Result<ItemWatch, Status> {
        self.reads.watch_items(resource, query, Some(ahead)).await
    }

    /// The revision of the newest state.
    pub async fn newest(&self, resource: &Row) -> Result<Revision, Status> {
        self.reads.newest(resource).await
    }

    fn begin(&self) -> Transaction {
        Transaction { fence: self.fence, ..Transaction::default() }
    }
}
