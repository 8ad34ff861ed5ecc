//! Creating and changing objects: admission, one transaction, a bounded number of retries.
//!
//! [`Objects::settle`] is the one loop that reads, lets a plain function decide, writes on condition
//! that nothing changed in between, and starts again if it did. A change that leaves an object marked
//! for deletion with nothing to hold it removes it in the same transaction.

use super::Objects;
use super::address::{already_held, closing, exchange, held, is_drawn};
use super::incoming::decoded;
use super::managers::{refused, through};
use super::open::Opened;
use super::pause::pause;
use super::refuse::write_refused;
use crate::admission::{Action, Asked};
use crate::may::Verb;
use impresario_api::admission::{self as rules, Context, Door, RandomAllocator};
use impresario_api::catalog::served;
use impresario_api::managed;
use impresario_api::resource::{Resource, Row};
use impresario_api::status::Status;
use impresario_api::wire::Decoded;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::{bytes_of, set_revision, take_revision, text};
use impresario_client::objects::{Stored, WriteOptions, key_of};
use impresario_registry_api::{
    Compare, Consistency, Operation, Revision, TransactError, Transaction,
};
use impresario_runtime::clock;
use serde_json::Value;

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

/// How it is decided what becomes of an object; each function runs again when somebody else was quicker.
pub(super) enum Step<'f> {
    /// By this process alone.
    Decided(&'f mut (dyn FnMut(&Stored, &RandomAllocator) -> Result<Change, Status> + Send)),
    /// The same, of a deletion, which webhooks are told of.
    Deleted(&'f mut (dyn FnMut(&Stored, &RandomAllocator) -> Result<Change, Status> + Send)),
    /// By what somebody proposes, as webhooks leave it.
    Proposed {
        /// By which door.
        door: Door,
        /// What is proposed.
        propose: &'f mut (dyn FnMut(&Stored) -> Result<Value, Status> + Send),
        /// What is made of it.
        admit:
            &'f mut (dyn FnMut(&Stored, Value, &RandomAllocator) -> Result<Change, Status> + Send),
    },
}

impl Step<'_> {
    fn subresource(&self) -> &'static str {
        match self {
            Self::Proposed { door: Door::Status, .. } => "status",
            Self::Proposed { door: Door::Scale, .. } => "scale",
            Self::Proposed { door: Door::Finalize, .. } => "finalize",
            Self::Proposed { door: Door::Approval, .. } => "approval",
            _ => "",
        }
    }
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
        self.create_noting(resource, namespace, decoded, along, options, &mut |object| {
            self.note_created(resource, object, options)
        })
        .await
    }

    /// Creates an object that came in by a door.
    pub async fn create_decoded(
        &self,
        resource: &Row,
        namespace: &str,
        decoded: Decoded,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.create_noting(resource, namespace, decoded, &[], options, &mut |object| {
            self.note_created(resource, object, options)
        })
        .await
    }

    fn note_created(
        &self,
        resource: &Row,
        object: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let writer = self.writer(options, "");
        managed::created(resource, object, &writer)
            .map_err(|error| refused(resource, object, &error))
    }

    /// The same, and this along with it; who owns what of the object is noted by a function of what is to be stored.
    pub(super) async fn create_noting(
        &self,
        resource: &Row,
        namespace: &str,
        decoded: Decoded,
        along: &[(Compare, Operation)],
        options: &WriteOptions,
        note: &mut (dyn FnMut(&mut Value) -> Result<(), Status> + Send),
    ) -> Result<Value, Status> {
        let namespace = if resource.namespaced { namespace } else { "" };
        let asked = Asked {
            resource,
            subresource: "",
            action: Action::Create,
            namespace,
            name: "",
            options,
        };
        let object = self.with_default_class(resource, decoded.object).await?;
        let object = self.mutated_new(resource, asked, object).await?;
        let generated = text(&object, "/metadata/name").is_empty();
        let mut is_closed = false;
        self.has_room(resource, text(&object, "/metadata/name")).await?;
        for attempt in 0..CREATE_ATTEMPTS {
            served_still(resource)?;
            let given = text(&object, "/metadata/name");
            let mut draws = self.draws(resource, namespace, given, attempt).await?;
            if let Some((name, account)) = self.account(resource, namespace, &object).await? {
                draws = draws.with_account(namespace, &name, account);
            }
            draws = self.looked_up(resource, namespace, &object, draws).await?;
            let context = Context {
                namespace,
                user: &options.user,
                now: clock::timestamp(),
                allocator: &draws,
            };
            let mut admitted = rules::admit_create(resource, object.clone(), &context)?;
            note(&mut admitted)?;
            self.judge(options, Verb::Create, None, Some(&admitted)).await?;
            let name = text(&admitted, "/metadata/name").to_owned();
            let asked = Asked { name: &name, ..asked };
            self.permitted(resource, asked, &admitted, &Value::Null).await?;
            let key = key_of(resource, namespace, &name);
            let mut transaction = self.begin().when(Compare::Absent { key: key.clone() });
            let Opened { compares, operations, space } =
                self.open_namespace(resource, namespace, &name, attempt, is_closed).await?;
            Self::allow(resource, &admitted, &draws, &space)?;
            self.sole_default(resource, &admitted).await?;
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
                self.would_be_counted(resource, namespace, &admitted).await?;
                self.would_apply(&transaction).await?
            } else {
                self.create_counted(resource, namespace, &admitted, transaction, attempt).await?
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

    /// What webhooks make of what is to be created: they see it with its type, its namespace and its defaults.
    async fn mutated_new(
        &self,
        resource: &Row,
        asked: Asked<'_>,
        mut object: Value,
    ) -> Result<Value, Status> {
        if !self.is_told(asked) {
            return Ok(object);
        }
        rules::settle(resource, &mut object, asked.namespace)?;
        let name = text(&object, "/metadata/name").to_owned();
        self.mutated(resource, Asked { name: &name, ..asked }, object, &Value::Null).await
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
        let mut propose = |stored: &Stored| Ok(change(&stored.object)?.object);
        let mut admit = |stored: &Stored, mut new: Value, draws: &RandomAllocator| {
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
            let mut admitted = rules::admit_update(resource, door, new, &old, &context)?;
            let writer = self.writer(options, through(door));
            managed::updated(resource, &old, &mut admitted, &writer)
                .map_err(|error| refused(resource, &admitted, &error))?;
            Ok(if rules::is_finished(resource, &admitted) {
                Change::Remove(admitted)
            } else if admitted == old {
                Change::Keep
            } else {
                Change::Put(admitted)
            })
        };
        let step = Step::Proposed { door, propose: &mut propose, admit: &mut admit };
        let (_, object) =
            self.settle(Verb::Update, resource, namespace, name, options, step).await?;
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
        mut step: Step<'_>,
    ) -> Result<(Change, Value), Status> {
        let asked = Asked {
            resource,
            subresource: step.subresource(),
            action: if verb == Verb::Delete { Action::Delete } else { Action::Update },
            namespace: if resource.namespaced { namespace } else { "" },
            name,
            options,
        };
        let key = key_of(resource, namespace, name);
        for attempt in 0..ATTEMPTS {
            served_still(resource)?;
            let found = self.find(resource, namespace, name, Consistency::Linearizable).await?;
            let stored = found.ok_or_else(|| Status::not_found(resource, name))?;
            // Before anything is made of it: the words of a later refusal would tell what it holds.
            self.judge(options, Verb::Get, Some(&stored.object), None).await?;
            let draws = self.draws(resource, namespace, name, attempt).await?;
            let change = match &mut step {
                Step::Decided(decide) => decide(&stored, &draws)?,
                Step::Deleted(decide) => {
                    let change = decide(&stored, &draws)?;
                    if change != Change::Keep {
                        self.mutated(resource, asked, Value::Null, &stored.object).await?;
                    }
                    change
                }
                Step::Proposed { propose, admit, .. } => {
                    let new = propose(&stored)?;
                    let new = self.mutated(resource, asked, new, &stored.object).await?;
                    admit(&stored, new, &draws)?
                }
            };
            let new = match &change {
                Change::Put(object) => Some(object),
                Change::Keep => Some(&stored.object),
                Change::Remove(_) => None,
            };
            self.judge(options, verb, Some(&stored.object), new).await?;
            match (&step, &change) {
                (Step::Decided(_), _) | (Step::Deleted(_), Change::Keep) => {}
                (Step::Deleted(_), _) => {
                    self.permitted(resource, asked, &Value::Null, &stored.object).await?;
                }
                (Step::Proposed { .. }, Change::Put(new) | Change::Remove(new)) => {
                    self.permitted(resource, asked, new, &stored.object).await?;
                }
                (Step::Proposed { .. }, Change::Keep) => {
                    self.permitted(resource, asked, &stored.object, &stored.object).await?;
                }
            }
            let condition = Compare::Revision { key: key.clone(), revision: stored.revision };
            let mut transaction = self.begin().when(condition);
            let mut object = match &change {
                Change::Keep => return Ok((change, stored.object)),
                Change::Put(object) => {
                    let defined = self.defined(resource, attempt).await?;
                    transaction.compares.extend(defined.map(|(_, condition)| condition));
                    exchange(resource, Some(&stored.object), Some(object), &mut transaction)?;
                    let change = (&stored.object, object);
                    self.allow_change(resource, namespace, change).await?;
                    self.count_change(resource, namespace, change, &mut transaction, attempt)
                        .await?;
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
}

/// Refuses to write objects of a kind that was removed since it was looked up.
fn served_still(resource: &Resource) -> Result<(), Status> {
    if served().is_served(resource) { Ok(()) } else { Err(Status::no_such_path()) }
}

/// A uid in an object that is put or applied says which object is meant; in a patch it would be a change, which admission refuses.
pub(super) fn check_uid(
    resource: &Resource,
    name: &str,
    old: &Value,
    new: &Value,
) -> Result<(), Status> {
    let (was, is) = (text(old, "/metadata/uid"), text(new, "/metadata/uid"));
    if !is.is_empty() && was != is {
        let why =
            format!("Precondition failed: UID in precondition: {is}, UID in object meta: {was}");
        return Err(Status::conflict(resource, name, why));
    }
    Ok(())
}
