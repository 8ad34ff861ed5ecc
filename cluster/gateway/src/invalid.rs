//! Refusals of what is said in a request but stored nowhere: options, scales, bindings.

use impresario_api::resource::Resource;
use impresario_api::status::{Cause, CauseReason, Status};
use std::fmt::Display;

/// 422: this breaks rules, each for a cause of its own.
pub fn invalid(group: &'static str, kind: &'static str, name: &str, causes: Vec<Cause>) -> Status {
    Status::invalid(&Resource::named(group, "v1", kind, "", "", ""), name, causes)
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
