//! What the registry's refusals of a write mean to who asked for it.

use impresario_api::resource::Resource;
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_registry_api::TransactError;

/// A refusal of a write that is not answered by reading again.
pub(super) fn write_refused(resource: &Resource, name: &str, error: &TransactError) -> Status {
    match error {
        TransactError::Conflict { .. } => Status::modified(resource, name),
        TransactError::Fenced { .. } => {
            let (field, message) = (String::new(), error.to_string());
            let cause = Cause { field, reason: CauseReason::ShardLost, message };
            Status::conflict(resource, name, error).with_cause(cause)
        }
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
