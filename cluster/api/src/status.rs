//! What the API answers when it does not do what was asked.
//!
//! Every refusal is a [`Status`] with a reason, the code that belongs to it, a message spelt as
//! Kubernetes clients expect it, and a cause for every wrong field. Clients branch on the reason
//! and on causes, people read the message: [`Status::to_value`] is the body of the answer.

mod reason;

pub use crate::cause::{Cause, CauseReason};
pub use reason::Reason;

use crate::patch::PatchError;
use crate::wire::DecodeError;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt;

/// How a refusal names the resource that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceName<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The plural, as `pods`.
    pub plural: &'a str,
    /// The kind, as `Pod`.
    pub kind: &'a str,
}

/// A refusal, as the API answers it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// Why.
    pub reason: Reason,
    /// What a person reads.
    pub message: String,
    /// The object it is about, when it is about one.
    pub name: String,
    /// Its API group.
    pub group: String,
    /// Its plural, or its kind when the object itself is at fault.
    pub kind: String,
    /// Every wrong field.
    pub causes: Vec<Cause>,
    /// After how many seconds asking again makes sense.
    pub retry_after: Option<u32>,
}

impl From<DecodeError> for Status {
    fn from(error: DecodeError) -> Self {
        let reason = match error.code() {
            413 => Reason::RequestEntityTooLarge,
            415 => Reason::UnsupportedMediaType,
            _ => Reason::BadRequest,
        };
        Self::new(reason, error.to_string())
    }
}

/// `pods`, or `jobs.batch` outside the core group.
fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl Status {
    /// A refusal about no object in particular.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            causes: Vec::new(),
            retry_after: None,
        }
    }

    fn about(resource: ResourceName<'_>, name: &str, reason: Reason, message: String) -> Self {
        Self {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            ..Self::new(reason, message)
        }
    }

    /// 400: the request could not be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 401: no believable credential.
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 403: `why` follows the object's name, as `User "x" cannot get resource "pods" …`.
    pub fn forbidden<'a>(
        resource: impl Into<ResourceName<'a>>,
        name: &str,
        why: impl fmt::Display,
    ) -> Self {
        let resource = resource.into();
        let what = qualified(resource.plural, resource.group);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} {name:?} is forbidden: {why}")
        };
        Self::about(resource, name, Reason::Forbidden, message)
    }

    /// 404: there is no such object.
    pub fn not_found<'a>(resource: impl Into<ResourceName<'a>>, name: &str) -> Self {
        let resource = resource.into();
        let what = qualified(resource.plural, resource.group);
        Self::about(resource, name, Reason::NotFound, format!("{what} {name:?} not found"))
    }

    /// 404 for a path that is no resource's.
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    /// 405: the resource has no such verb.
    pub fn method_not_allowed<'a>(resource: impl Into<ResourceName<'a>>, verb: &str) -> Self {
        let resource = resource.into();
        let what = qualified(resource.plural, resource.group);
        let message = format!("{verb} is not supported on resources of kind {what:?}");
        Self::about(resource, "", Reason::MethodNotAllowed, message)
    }

    /// 406: none of the accepted forms can be produced.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let offered = offered.join(", ");
        Self::new(
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {offered}"),
        )
    }

    /// 409: an object of this name is there already.
    pub fn already_exists<'a>(resource: impl Into<ResourceName<'a>>, name: &str) -> Self {
        let resource = resource.into();
        let what = qualified(resource.plural, resource.group);
        Self::about(
            resource,
            name,
            Reason::AlreadyExists,
            format!("{what} {name:?} already exists"),
        )
    }

    /// 409 with what the request presumed wrongly.
    pub fn conflict<'a>(
        resource: impl Into<ResourceName<'a>>,
        name: &str,
        why: impl fmt::Display,
    ) -> Self {
        let resource = resource.into();
        let what = qualified(resource.plural, resource.group);
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Self::about(resource, name, Reason::Conflict, message)
    }

    /// 409: someone else changed the object since the caller read it.
    pub fn modified<'a>(resource: impl Into<ResourceName<'a>>, name: &str) -> Self {
        let resource = resource.into();
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 410: the revision asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 410: the kind itself is not served any more.
    pub fn kind_removed<'a>(resource: impl Into<ResourceName<'a>>) -> Self {
        let resource = resource.into();
        let what = qualified(resource.plural, resource.group);
        let message =
            format!("the kind {} was removed: {what} are not served any more", resource.kind);
        Self::about(resource, "", Reason::Gone, message)
    }

    /// 413: the body is over the limit.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 415: the body's content type cannot be read.
    pub fn unsupported_media_type(offered: &[&str]) -> Self {
        let offered = offered.join(", ");
        Self::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {offered}"
            ),
        )
    }

    /// 422: the object breaks rules. `kind` is the kind itself, as `Pod`.
    pub fn invalid<'a>(
        resource: impl Into<ResourceName<'a>>,
        name: &str,
        causes: Vec<Cause>,
    ) -> Self {
        let resource = resource.into();
        let what = qualified(resource.kind, resource.group);
        let mut seen = HashSet::new();
        let lines: Vec<String> = causes
            .iter()
            .map(ToString::to_string)
            .filter(|line| seen.insert(line.clone()))
            .collect();
        let all = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Self {
            kind: resource.kind.to_owned(),
            causes,
            ..Self::about(
                resource,
                name,
                Reason::Invalid,
                format!("{what} {name:?} is invalid: {all}"),
            )
        }
    }

    /// 429: ask again after so many seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Reason::TooManyRequests, message) }
    }

    /// 500: something here failed.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self {
            causes: vec![Cause {
                field: String::new(),
                reason: CauseReason::Unexpected,
                message: error.to_string(),
            }],
            ..Self::new(Reason::InternalError, format!("Internal error occurred: {error}"))
        }
    }

    /// 503: nobody can answer for the moment.
    pub fn unavailable(message: impl Into<String>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Reason::ServiceUnavailable, message) }
    }

    /// 504: a revision that is not here yet.
    pub fn revision_too_large(asked: u64, current: u64) -> Self {
        Self {
            causes: vec![Cause {
                field: String::new(),
                reason: CauseReason::ResourceVersionTooLarge,
                message: "Too large resource version".to_owned(),
            }],
            retry_after: Some(1),
            ..Self::new(
                Reason::Timeout,
                format!("Too large resource version: {asked}, current: {current}"),
            )
        }
    }

    /// 504: not done in time; it may still have been.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Reason::Timeout, message)
    }

    /// The same refusal with a cause more.
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.causes.push(cause);
        self
    }

    /// A patch of this object that was not applied.
    pub fn patch<'a>(
        resource: impl Into<ResourceName<'a>>,
        name: &str,
        error: &PatchError,
    ) -> Self {
        match error {
            PatchError::BadRequest(message) => Self::bad_request(message.as_str()),
            PatchError::TooLarge(message) => {
                Self::new(Reason::RequestEntityTooLarge, message.as_str())
            }
            PatchError::NoStrategicMerge => {
                Self::new(Reason::UnsupportedMediaType, error.to_string())
            }
            PatchError::DoesNotApply(_) => Self::new(Reason::Invalid, error.to_string()),
            PatchError::Outcome { outcome, why } => {
                let message = format!("Invalid value: {outcome:?}: {why}");
                let cause = Cause { field: "patch".into(), reason: CauseReason::Invalid, message };
                // Kubernetes does not name the object here: its name is in what could not be read.
                Self {
                    message: error.to_string(),
                    name: String::new(),
                    kind: String::new(),
                    group: String::new(),
                    ..Self::invalid(resource, name, vec![cause])
                }
            }
            PatchError::Unmergeable(message) => Self::new(Reason::InternalError, message.as_str()),
        }
    }

    /// Whether who asked has lost the shard by right of which it writes: nothing that it does can have an effect.
    pub fn is_fenced(&self) -> bool {
        self.causes.iter().any(|cause| cause.reason == CauseReason::ShardLost)
    }

    /// Whether it is refused since its namespace is being deleted: it would go with it.
    pub fn is_of_ending_namespace(&self) -> bool {
        self.causes.iter().any(|cause| cause.reason == CauseReason::NamespaceTerminating)
    }

    /// Whether what was meant is gone, or another than was seen: by no loss of the shard.
    pub fn is_superseded(&self) -> bool {
        matches!(self.code(), 404 | 409) && !self.is_fenced()
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// The body of the answer.
    pub fn to_value(&self) -> Value {
        let mut details = Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut entry = Map::new();
                entry.insert("reason".to_owned(), cause.reason.as_str().into());
                entry.insert("message".to_owned(), cause.message.as_str().into());
                if !cause.field.is_empty() {
                    entry.insert("field".to_owned(), cause.field.as_str().into());
                }
                Value::Object(entry)
            });
            details.insert("causes".to_owned(), causes.collect());
        }
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason.as_str(),
            "code": self.code(),
        });
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }

    /// The answer to a deletion that left nothing behind.
    pub fn deleted<'a>(resource: impl Into<ResourceName<'a>>, name: &str, uid: &str) -> Value {
        let resource = resource.into();
        let mut details = json!({ "name": name, "kind": resource.plural, "uid": uid });
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::find;
    use crate::field::{Causes, Path};

    #[test]
    fn messages_are_spelt_as_clients_expect() {
        let pods = &find("", "v1", "pods").unwrap();
        let jobs = &find("batch", "v1", "jobs").unwrap();
        let mut causes = Causes::default();
        causes.required(&Path::new("spec").child("containers"), "");
        let rows = [
            (Status::not_found(pods, "x"), 404, r#"pods "x" not found"#),
            (Status::not_found(jobs, "x"), 404, r#"jobs.batch "x" not found"#),
            (Status::already_exists(pods, "x"), 409, r#"pods "x" already exists"#),
            (
                Status::modified(pods, "x"),
                409,
                r#"Operation cannot be fulfilled on pods "x": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                Status::invalid(pods, "x", causes.into_vec()),
                422,
                r#"Pod "x" is invalid: spec.containers: Required value"#,
            ),
            (Status::forbidden(pods, "x", "no"), 403, r#"pods "x" is forbidden: no"#),
        ];
        for (status, code, message) in rows {
            assert_eq!((status.code(), status.message.as_str()), (code, message));
            assert_eq!(status.to_value()["code"], code);
        }
    }

    #[test]
    fn many_causes_are_listed_once_each_in_the_message_and_all_in_the_details() {
        let jobs = &find("batch", "v1", "jobs").unwrap();
        let mut causes = Causes::default();
        for _ in 0..2 {
            causes.invalid(&Path::new("spec").child("a"), -1, "must not be negative");
        }
        causes.not_supported(&Path::new("spec").child("b"), "x", &["B", "A"]);
        let status = Status::invalid(jobs, "x", causes.into_vec());
        assert_eq!(
            status.message,
            r#"Job.batch "x" is invalid: [spec.a: Invalid value: -1: must not be negative, spec.b: Unsupported value: "x": supported values: "A", "B"]"#
        );
        let value = status.to_value();
        assert_eq!(value["details"]["causes"].as_array().unwrap().len(), 3);
        assert_eq!(value["details"]["group"], "batch");
        assert_eq!(value["details"]["kind"], "Job");
    }
}
