//! Who is noted as the manager of what is written, and applying.
//!
//! Whoever says no name of its own is told by what it is: a control actor, a node, or another part of the program.

use super::Objects;
use super::incoming::decoded;
use super::write::{Change, Step, check_uid};
use crate::may::Verb;
use impresario_api::admission::{self, Context, Door, RandomAllocator};
use impresario_api::managed::{self, EntriesError, Writer};
use impresario_api::resource::{Resource, Row};
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_client::objects::stored::{take_revision, text};
use impresario_client::objects::{Stored, WriteOptions};
use impresario_runtime::clock;
use parking_lot::Mutex;
use serde_json::Value;

/// The manager of what the program writes by right of no shard.
const PROGRAM: &str = "impresario";
/// The manager of what control actors write.
pub const CONTROLLER: &str = "impresario-controller";

/// The manager of what somebody of this role writes by message: `impresario-node`.
pub(super) fn of_role(role: &str) -> String {
    format!("{PROGRAM}-{}", role.replace(' ', "-"))
}

/// How entries call a door.
pub(super) fn through(door: Door) -> &'static str {
    match door {
        Door::Main => "",
        Door::Status => "status",
        Door::Scale => "scale",
        Door::Finalize => "finalize",
    }
}

/// Notes what a node owns of its objects: of a pod the status alone is its own.
pub(super) fn note(resource: &Row, old: &Value, new: &mut Value, role: &str) -> Result<(), String> {
    let manager = of_role(role);
    let now = clock::timestamp();
    let doors: &[&str] = if resource.kind == "Pod" { &["status"] } else { &["", "status"] };
    let writer = Writer { manager: &manager, subresource: "status", now };
    managed::updated_through(resource, old, new, &writer, doors).map_err(|error| error.to_string())
}

/// Entries that somebody sent and that are none.
pub(super) fn refused(resource: &Resource, object: &Value, error: &EntriesError) -> Status {
    let cause =
        Cause { field: error.field(), reason: CauseReason::Invalid, message: error.to_string() };
    Status::invalid(resource, text(object, "/metadata/name"), vec![cause])
}

/// What is applied to an object.
#[derive(Debug, Clone, Copy)]
pub struct Applying<'a> {
    /// It, with its type, as it came: [`Objects::apply`] does not check more of it than whether it can be owned.
    pub object: &'a Value,
    /// Whether what others own is taken over.
    pub force: bool,
}

impl Objects {
    pub(super) fn writer<'o>(&self, options: &'o WriteOptions, subresource: &'o str) -> Writer<'o> {
        let manager = match options.manager.as_str() {
            "" if self.fence.is_some() => CONTROLLER,
            "" => PROGRAM,
            manager => manager,
        };
        Writer { manager, subresource, now: clock::timestamp() }
    }

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
        let seen = take_revision(&mut applied);
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
        self.create_noting(resource, namespace, decoded, options, &mut note).await
    }
}
