//! Refusals of what is said in a request but stored nowhere: options, scales, bindings.

use impresario_api::status::{Cause, CauseReason, ResourceName, Status};
use std::fmt::Display;

/// 422: this breaks rules, each for a cause of its own.
pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
    Status::invalid(ResourceName { group, plural: "", kind }, name, causes)
}

/// A cause whose value is quoted in its message.
pub fn bad_value(field: &str, value: impl Display, why: &str) -> Cause {
    Cause {
        field: field.into(),
        reason: CauseReason::Invalid,
        message: format!("Invalid value: {value}: {why}"),
    }
}

/// 400: a number that is none.
pub fn no_number(text: &str) -> Status {
    Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}
