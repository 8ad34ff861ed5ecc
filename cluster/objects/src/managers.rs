//! Who is noted as the manager of what is written.
//!
//! Whoever says no name of its own is told by what it is: a control actor, a node, or another part of the program.

use super::Objects;
use impresario_api::admission::Door;
use impresario_api::managed::{self, EntriesError, Writer};
use impresario_api::resource::{Resource, Row};
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_client::objects::WriteOptions;
use impresario_client::objects::stored::text;
use impresario_runtime::clock;
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
        Door::Approval => "approval",
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

impl Objects {
    pub(super) fn writer<'o>(&self, options: &'o WriteOptions, subresource: &'o str) -> Writer<'o> {
        let manager = match options.manager.as_str() {
            "" if self.fence.is_some() => CONTROLLER,
            "" => PROGRAM,
            manager => manager,
        };
        Writer { manager, subresource, now: clock::timestamp() }
    }
}
