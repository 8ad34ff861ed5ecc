//! Creating and changing objects: admission, one transaction, a bounded number of retries.
//!
//! [`Objects::settle`] is the one loop that reads, lets a plain function decide, writes on condition
//! that nothing changed in between, and starts again if it did. A change that leaves an object marked
//! for deletion with nothing to hold it removes it in the same transaction.

use super::Objects;
use super::address::{already_held, closing, exchange, held, is_drawn};
use super::incoming::decoded;
use super::refuse::write_refused;
use crate::may::Verb;
use impresario_api::admission::{self, Context, Door, RandomAllocator};
use impresario_api::catalog::{find, served};
use impresario_api::resource::{Resource, Row};
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_api::wire::Decoded;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::{bytes_of, set_revision, take_revision, text};
use impresario_client::objects::{Stored, WriteOptions, key_of};
use impresario_registry_api::{
    Compare, Consistency, Operation, Revision, TransactError, Transaction,
};
use impresario_runtime::{clock, random};
use rand::Rng;
use serde_json::Value;
use std::time::Duration;

/// How often a write that somebody else was quicker than is redone.
const ATTEMPTS: usize = 10;
/// How often a name or an address is drawn anew.
const CREATE_ATTEMPTS: usize = 20;

/// What is to become of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// Write this in its place.
    Put(Value),
    /// Nothing.
    Keep,
    /// Remove it; this is how it looked at last.
    Remove(Value),
}

/// What a write needs of the namespace that it is made in.
#[derive(Debug, Default)]
struct Opened {
    compares: Vec<Compare>,
    operations: Vec<Operation>,
}

pub(super) async fn pause(attempt: usize) {
    let most = 4_u64 << attempt.min(6);
    let wait = random::rng().random_range(1..=most);
    tokio::time::sleep(Duration::from_millis(wait)).await;
}

impl Objects {
    /// Creates an object that this process has made; the answer is as it was stored.
    pub async fn create(
        &self,
        resource: &Row,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.create_along(resource, namespace, object, &[], options).await
    }

    /// Creates an object that this process has made and does this along with it: all of it in one transaction, or nothing.
    /// Where something of that is not as it was, it is a conflict.
    pub async fn create_along(
        &self,
        resource: &Row,
        namespace: &str,
        object: Value,
        along: &[(Compare, Operation)],
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let decoded = decoded(resource, object)?;
        self.create_with(resource, namespace, decoded, along, options).await
    }

    /// Creates an object that came in by a door.
    pub async fn create_decoded(
        &self,
        resource: &Row,
        namespace: &str,
        decoded: Decoded,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.create_with(resource, namespace, decoded, &[], options).await
    }

    async fn create_with(
        &self,
        resource: &Row,
        namespace: &str,
        decoded: Decoded,
        along: &[(Compare, Operation)],
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let object = decoded.object;
        let namespace = if resource.namespaced { namespace } else { "" };
        let generated = text(&object, "/metadata/name").is_empty();
        let mut is_closed = false;
        for attempt in 0..CREATE_ATTEMPTS {
            served_still(resource)?;
            let asked = text(&object, "/metadata/name");
            let mut draws = self.draws(resource, namespace, asked, attempt).await?;
            if let Some((name, account)) = self.account(resource, namespace, &object).await? {
                draws = draws.with_account(namespace, &name, account);
            }
            let context = Context {
                namespace,
                user: &options.user,
                now: clock::timestamp(),
                allocator: &draws,
            };
            let mut admitted = admission::admit_create(resource, object.clone(), &context)?;
            self.judge(Verb::Create, None, Some(&admitted))?;
            let name = text(&admitted, "/metadata/name").to_owned();
            let key = key_of(resource, namespace, &name);
            let mut transaction = self.begin().when(Compare::Absent { key: key.clone() });
            let Opened { compares, operations } =
                self.open_namespace(resource, namespace, &name, attempt, is_closed).await?;
            transaction.compares.extend(compares);
            transaction.compares.extend(self.open_kind(resource, attempt).await?);
            transaction.operations.extend(operations);
            transaction
                .operations
                .push(Operation::Put { key: key.clone(), value: bytes_of(&admitted)? });
            exchange(resource, None, Some(&admitted), &mut transaction)?;
            for (compare, operation) in along {
                transaction.compares.push(compare.clone());
                transaction.operations.push(operation.clone());
            }
            let outcome = if options.dry_run {
                self.would_apply(&transaction).await?
            } else {
                self.registry().transact(transaction).await.map(|committed| committed.revision)
            };
            match outcome {
                Ok(revision) => {
                    if !options.dry_run {
                        set_revision(&mut admitted, revision);
                    }
                    return Ok(admitted);
                }
                Err(TransactError::Conflict { key: at, .. }) if at == key => {
                    if !generated {
                        return Err(self.name_taken(resource, namespace, &name).await?);
                    }
                }
                Err(TransactError::Conflict { key: at, .. })
                    if along.iter().any(|(compare, _)| *compare.key() == at) =>
                {
                    return Err(Status::modified(resource, &name));
                }
                Err(TransactError::Conflict { key: at, .. }) if is_drawn(&at) => {
                    if held(resource, &object).contains_key(&at) {
                        return Err(already_held(resource, &name, &object, &at));
                    }
                }
                Err(TransactError::Conflict { key: at, .. }) => {
                    is_closed = at == closing(namespace); // the namespace goes, or is gone
                    pause(attempt).await;
                }
                Err(error) => return Err(write_refused(resource, &name, &error)),
            }
        }
        Err(Status::unavailable("somebody else was quicker each time: try again", 1))
    }

    /// Why nothing can be created under a name that has been given: who waits for it to be free is
    /// told when it is about to be.
    async fn name_taken(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
    ) -> Result<Status, Status> {
        let mut status = Status::already_exists(resource, name);
        let found = self.find(resource, namespace, name, Consistency::Local).await?;
        if found.is_some_and(|it| it.object.pointer("/metadata/deletionTimestamp").is_some()) {
            status.message = format!("object is being deleted: {}", status.message);
        }
        Ok(status)
    }

    /// Replaces an object by one that came in by a door. With a resourceVersion in it only that very state is
    /// replaced, with a uid only that very object.
    pub async fn update(
        &self,
        resource: &Row,
        door: Door,
        namespace: &str,
        name: &str,
        decoded: Decoded,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let change = |old: &Value| {
            check_uid(resource, name, old, &decoded.object)?;
            Ok(decoded.clone())
        };
        self.modify_decoded(resource, door, namespace, name, options, change).await
    }

    /// Changes an object by a function of this process of what it is, which runs again when somebody else was quicker.
    ///
    /// If what the function gives has another resourceVersion than what it got, that is a conflict.
    pub async fn modify(
        &self,
        resource: &Row,
        door: Door,
        namespace: &str,
        name: &str,
        options: &WriteOptions,
        mut change: impl FnMut(&Value) -> Result<Value, Status> + Send,
    ) -> Result<Value, Status> {
        let change = |old: &Value| decoded(resource, change(old)?);
        self.modify_decoded(resource, door, namespace, name, options, change).await
    }

    /// The same, by what came in by a door.
    pub async fn modify_decoded(
        &self,
        resource: &Row,
        door: Door,
        namespace: &str,
        name: &str,
        options: &WriteOptions,
        mut change: impl FnMut(&Value) -> Result<Decoded, Status> + Send,
    ) -> Result<Value, Status> {
        let (_, object) = self
            .settle(Verb::Update, resource, namespace, name, options, &mut |stored, draws| {
                let mut new = change(&stored.object)?.object;
                let mut old = stored.object.clone();
                take_revision(&mut old);
                if let Some(seen) = take_revision(&mut new)
                    && seen != "0"
                    && seen != stored.revision.to_string()
                {
                    return Err(Status::modified(resource, name));
                }
                let context = Context {
                    namespace,
                    user: &options.user,
                    now: clock::timestamp(),
                    allocator: draws,
                };
                let admitted = admission::admit_update(resource, door, new, &old, &context)?;
                Ok(if admission::is_finished(resource, &admitted) {
                    Change::Remove(admitted)
                } else if admitted == old {
                    Change::Keep
                } else {
                    Change::Put(admitted)
                })
            })
            .await?;
        Ok(object)
    }

    /// Reads, decides, writes; again if the object changed in between. Tells what was done and the
    /// object as it is now, or was at last.
    pub(super) async fn settle(
        &self,
        verb: Verb,
        resource: &Row,
        namespace: &str,
        name: &str,
        options: &WriteOptions,
        decide: &mut (dyn FnMut(&Stored, &RandomAllocator) -> Result<Change, Status> + Send),
    ) -> Result<(Change, Value), Status> {
        let key = key_of(resource, namespace, name);
        for attempt in 0..ATTEMPTS {
            served_still(resource)?;
            let found = self.find(resource, namespace, name, Consistency::Linearizable).await?;
            let stored = found.ok_or_else(|| Status::not_found(resource, name))?;
            // Before anything is made of it: the words of a later refusal would tell what it holds.
            self.judge(Verb::Get, Some(&stored.object), None)?;
            let draws = self.draws(resource, namespace, name, attempt).await?;
            let change = decide(&stored, &draws)?;
            let new = match &change {
                Change::Put(object) => Some(object),
                Change::Keep => Some(&stored.object),
                Change::Remove(_) => None,
            };
            self.judge(verb, Some(&stored.object), new)?;
            let condition = Compare::Revision { key: key.clone(), revision: stored.revision };
            let mut transaction = self.begin().when(condition);
            let mut object = match &change {
                Change::Keep => return Ok((change, stored.object)),
                Change::Put(object) => {
                    let defined = self.defined(resource, attempt).await?;
                    transaction.compares.extend(defined.map(|(_, condition)| condition));
                    exchange(resource, Some(&stored.object), Some(object), &mut transaction)?;
                    transaction
                        .operations
                        .push(Operation::Put { key: key.clone(), value: bytes_of(object)? });
                    object.clone()
                }
                Change::Remove(object) => {
                    exchange(resource, Some(&stored.object), None, &mut transaction)?;
                    transaction.operations.push(Operation::Delete { key: key.clone() });
                    object.clone()
                }
            };
            let outcome = if options.dry_run {
                self.would_apply(&transaction).await?.map(|_| stored.revision)
            } else {
                self.registry().transact(transaction).await.map(|committed| committed.revision)
            };
            match outcome {
                Ok(revision) => {
                    set_revision(&mut object, revision);
                    return Ok((change, object));
                }
                Err(TransactError::Conflict { key: at, .. }) if is_drawn(&at) => {
                    if attempt + 1 == ATTEMPTS {
                        return Err(already_held(resource, name, &object, &at));
                    }
                }
                Err(TransactError::Conflict { .. }) => pause(attempt).await,
                Err(error) => return Err(write_refused(resource, name, &error)),
            }
        }
        Err(Status::modified(resource, name))
    }

    /// What a transaction would come to, as far as its compares tell.
    async fn would_apply(
        &self,
        transaction: &Transaction,
    ) -> Result<Result<Revision, TransactError>, Status> {
        for compare in &transaction.compares {
            let key = compare.key();
            let read = self.registry().get(key.clone(), Consistency::Linearizable).await;
            let (found, _) = read.map_err(|error| read_refused(&error))?;
            let found = found.map_or(0, |entry| entry.mod_revision);
            let (holds, expected) = match compare {
                Compare::Absent { .. } => (found == 0, 0),
                Compare::Exists { .. } => (found > 0, Revision::MAX),
                Compare::Revision { revision, .. } => (found == *revision, *revision),
            };
            if !holds {
                return Ok(Err(TransactError::Conflict { key: key.clone(), expected, found }));
            }
        }
        Ok(Ok(0))
    }

    /// The conditions that the namespace is there, and not going. What else is changed of it stops nobody: a
    /// controller that writes its conditions all the time must not keep everything from being made in it. Where an
    /// earlier try found it closed, and it is open all the same, what closed it is left of another of its name, which
    /// a program removed that knows of no such keys: it is taken away if both are still so.
    async fn open_namespace(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        attempt: usize,
        is_closed: bool,
    ) -> Result<Opened, Status> {
        if !resource.namespaced {
            return Ok(Opened::default());
        }
        let namespaces = find("", "v1", "namespaces")
            .ok_or_else(|| Status::internal("no namespaces are served"))?;
        // The first look may be at an older state: the compare finds out. Absence must be certain.
        let mut found = None;
        if attempt == 0 {
            found = self.find(&namespaces, "", namespace, Consistency::Local).await?;
        }
        if found.is_none() {
            found = self.find(&namespaces, "", namespace, Consistency::Linearizable).await?;
        }
        let Some(stored) = found else { return Err(Status::not_found(&namespaces, namespace)) };
        if !text(&stored.object, "/metadata/deletionTimestamp").is_empty() {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let status = Status::forbidden(resource, name, why);
            return Err(status.with_cause(Cause {
                field: "metadata.namespace".into(),
                reason: CauseReason::NamespaceTerminating,
                message: format!("namespace {namespace} is being terminated"),
            }));
        }
        let (open, key) = (key_of(&namespaces, "", namespace), closing(namespace));
        if is_closed {
            let left = self.registry().get(key.clone(), Consistency::Linearizable).await;
            if let Some(left) = left.map_err(|error| read_refused(&error))?.0 {
                tracing::warn!(
                    namespace,
                    "what closed an earlier namespace of this name is removed"
                );
                let compares = vec![
                    Compare::Revision { key: open, revision: stored.revision },
                    Compare::Revision { key: key.clone(), revision: left.mod_revision },
                ];
                return Ok(Opened { compares, operations: vec![Operation::Delete { key }] });
            }
        }
        let compares = vec![Compare::Exists { key: open }, Compare::Absent { key }];
        Ok(Opened { compares, operations: Vec::new() })
    }
}

impl Objects {
    /// The condition that a kind, where it has a definition, is open for new objects: nothing is created of one that goes,
    /// whichever member knows it by then.
    async fn open_kind(&self, resource: &Row, attempt: usize) -> Result<Option<Compare>, Status> {
        let Some((stored, condition)) = self.defined(resource, attempt).await? else {
            return Ok(None);
        };
        if !text(&stored.object, "/metadata/deletionTimestamp").is_empty() {
            let status = Status::method_not_allowed(resource, "create");
            let message = "create not allowed while custom resource definition is terminating";
            return Err(Status { message: message.to_owned(), ..status });
        }
        Ok(Some(condition))
    }

    /// The definition of a kind, where it has one, and the condition that it stays as it is. A row of an earlier one does
    /// not know the fields that are new, and would take them out of every object that it writes.
    async fn defined(
        &self,
        resource: &Row,
        attempt: usize,
    ) -> Result<Option<(Stored, Compare)>, Status> {
        let Some(made_of) = &resource.definition else { return Ok(None) };
        let name = &made_of.name;
        let definitions = find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .ok_or_else(|| Status::internal("no definitions are served"))?;
        // As of namespaces: the first look may be at an older state.
        let mut found = None;
        if attempt == 0 {
            found = self.find(&definitions, "", name, Consistency::Local).await?;
        }
        if found.is_none() {
            found = self.find(&definitions, "", name, Consistency::Linearizable).await?;
        }
        let stored = found.ok_or_else(Status::no_such_path)?;
        let generation = stored.object.pointer("/metadata/generation").and_then(Value::as_u64);
        let is_present = text(&stored.object, "/metadata/uid") == made_of.uid
            && generation.unwrap_or(1) == made_of.generation;
        if !is_present {
            let why =
                format!("the definition {name} has changed and is not served here yet: try again");
            return Err(Status::unavailable(why, 1));
        }
        let condition =
            Compare::Revision { key: key_of(&definitions, "", name), revision: stored.revision };
        Ok(Some((stored, condition)))
    }
}

/// Refuses to write objects of a kind that was removed since it was looked up.
fn served_still(resource: &Resource) -> Result<(), Status> {
    if served().is_served(resource) { Ok(()) } else { Err(Status::no_such_path()) }
}

/// A uid in an object that is put says which object is meant; in a patch it would be a change, which admission refuses.
fn check_uid(resource: &Resource, name: &str, old: &Value, new: &Value) -> Result<(), Status> {
    let (was, is) = (text(old, "/metadata/uid"), text(new, "/metadata/uid"));
    if !is.is_empty() && was != is {
        let why =
            format!("Precondition failed: UID in precondition: {is}, UID in object meta: {was}");
        return Err(Status::conflict(resource, name, why));
    }
    Ok(())
}
