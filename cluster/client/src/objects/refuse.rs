//! What the registry's errors mean to who asked for an object.

use impresario_api::status::{Reason, Status};
use impresario_registry_api::{ReadError, WatchError};

/// What a read that failed is answered.
pub fn read_refused(error: &ReadError) -> Status {
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

/// What a watch that failed is answered.
pub fn watch_refused(error: &WatchError) -> Status {
    match error {
        WatchError::Gone { oldest } => {
            Status::expired(format!("too old resource version (oldest kept: {oldest})"))
        }
        WatchError::Refused { reason } => Status::new(Reason::Forbidden, reason.clone()),
        WatchError::Removed { .. } => Status::new(Reason::Gone, error.to_string()),
        other => Status::unavailable(other.to_string(), 1),
    }
}
