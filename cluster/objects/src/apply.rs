//! Applying: what a manager wants of an object is merged into it, and noted as the manager's.

use super::Objects;
use super::incoming::decoded;
use super::managers::through;
use super::write::{Change, Step, check_uid};
use crate::may::Verb;
use impresario_api::admission::{self, Context, Door, RandomAllocator};
use impresario_api::managed;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_client::objects::stored::{take_revision, text};
use impresario_client::objects::{Stored, WriteOptions};
use impresario_runtime::clock;
use parking_lot::Mutex;
use serde_json::Value;

/// What is applied to an object.
#[derive(Debug, Clone, Copy)]
pub struct Applying<'a> {
    /// It, with its type, as it came: [`Objects::apply`] does not check more of it than whether it can be owned.
    pub object: &'a Value,
    /// Whether what others own is taken over.
    pub force: bool,
}

impl Objects {
    /// Applies to an object that is there.
    pub async fn apply(
        &self,
        resource: &Row,
        door: Door,
        namespace: &str,
        name: &str,
        applying: Applying<'_>,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let mut applied = applying.object.clone();
        let seen = take_revision(&mut applied).filter(|seen| seen != "0");
        // What it came to is known before webhooks see it, and noted on what they leave.
        let outcome = Mutex::new(None);
        let mut propose = |stored: &Stored| {
            check_uid(resource, name, &stored.object, &applied)?;
            if seen.as_ref().is_some_and(|seen| *seen != stored.revision.to_string()) {
                return Err(Status::modified(resource, name));
            }
            let mut old = stored.object.clone();
            take_revision(&mut old);
            let writer = self.writer(options, through(door));
            let merged = managed::apply(resource, &old, &applied, &writer, applying.force)?;
            let new = decoded(resource, merged.object.clone())?.object;
            *outcome.lock() = Some(merged);
            Ok(new)
        };
        let mut admit = |stored: &Stored, new: Value, draws: &RandomAllocator| {
            let mut old = stored.object.clone();
            take_revision(&mut old);
            let now = clock::timestamp();
            let context = Context { namespace, user: &options.user, now, allocator: draws };
            let mut admitted = admission::admit_update(resource, door, new, &old, &context)?;
            if let Some(merged) = outcome.lock().take() {
                merged.note(resource, &mut admitted);
            }
            Ok(if admission::is_finished(resource, &admitted) {
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

    /// Creates an object by applying to one that is not there.
    pub async fn create_applied(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        applying: Applying<'_>,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let uid = text(applying.object, "/metadata/uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Status::conflict(resource, name, why));
        }
        let writer = self.writer(options, "");
        let merged =
            managed::apply(resource, &Value::Null, applying.object, &writer, applying.force)?;
        let decoded = decoded(resource, merged.object.clone())?;
        let mut note = |object: &mut Value| {
            merged.note(resource, object);
            Ok(())
        };
        self.create_noting(resource, namespace, decoded, &[], options, &mut note).await
    }
}
