//! What the registry's errors mean to who asked for an object.

use impresario_api::resource::Resource;
use impresario_api::status::{Reason, Status};
use impresario_registry::{ReadError, TransactError, WatchError};

pub(super) fn read_refused(error: &ReadError) -> Status {
    match error {
        ReadError::Gone { requested, oldest } => Status::expired(format!(
            "The resourceVersion for the provided list is too old: {requested} (oldest kept: {oldest})"
        )),
        ReadError::Future { requested, current } => {
            Status::revision_too_large(*requested, *current)
        }
        ReadError::Refused { reason } => Status::new(Reason::Forbidden, reason.clone()),
        other => Status::unavailable(other.to_string(), 1),
    }
}

pub(super) fn watch_refused(error: &WatchError) -> Status {
    match error {
        WatchError::Gone { oldest } => {
            Status::expired(format!("too old resource version (oldest kept: {oldest})"))
        }
        WatchError::Refused { reason } => Status::new(Reason::Forbidden, reason.clone()),
        other => Status::unavailable(other.to_string(), 1),
    }
}

/// A refusal of a write that is not answered by reading again.
pub(super) fn write_refused(resource: &Resource, name: &str, error: &TransactError) -> Status {
    match error {
        TransactError::Conflict { .. } => Status::modified(resource, name),
        TransactError::Fenced { .. } => Status::conflict(resource, name, error),
        TransactError::TooLarge { limit, .. } => Status::too_large(*limit),
        // Of a forgotten one, what is there now is not known to be what was asked for: as after a write
        // without an answer.
        TransactError::Unknown { .. } | TransactError::Forgotten { .. } => {
            Status::timeout(error.to_string())
        }
        TransactError::Refused { reason } => Status::forbidden(resource, name, reason),
        TransactError::Unavailable { .. } | TransactError::NoSpace { .. } => {
            Status::unavailable(error.to_string(), 1)
        }
        other => Status::bad_request(other.to_string()),
    }
}
