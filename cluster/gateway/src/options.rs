//! The options of a request, read from its query: what to select, how to write, how to delete.
//!
//! What cannot be meant is refused here, before anything is read or written.

use crate::call::Call;
use crate::invalid::{bad_value, invalid, no_number};
use crate::query::Query;
use impresario_api::managed::LONGEST_MANAGER;
use impresario_api::resource::Resource;
use impresario_api::selector::{FieldSelector, LabelSelector};
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_api::wire::FieldValidation;
use impresario_objects::{
    DeleteOptions, Filter, ListQuery, Propagation, VersionMatch, WatchQuery, WriteOptions,
};
use serde_json::Value;
use std::time::Duration;

fn invalid_option(kind: &'static str, field: &str, reason: CauseReason, message: String) -> Status {
    invalid("meta.k8s.io", kind, "", vec![Cause { field: field.into(), reason, message }])
}

/// Which objects, by label and field.
pub fn filter(resource: &Resource, query: &Query) -> Result<Filter, Status> {
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
    let labels =
        query.get("labelSelector").map(LabelSelector::parse).transpose().map_err(|error| {
            Status::bad_request(format!("unable to parse requirement: {error}"))
        })?;
    let fields = query
        .get("fieldSelector")
        .map(FieldSelector::parse)
        .transpose()
        .map_err(|error| bad(&error))?;
    if let Some(fields) = &fields {
        fields.check(resource).map_err(|error| bad(&error))?;
    }
    Ok(Filter { labels, fields, name: None })
}

fn version(query: &Query) -> Result<Option<u64>, Status> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let cause = bad_value("resourceVersion", format_args!("{text:?}"), &why);
        invalid("meta.k8s.io", "ListOptions", "", vec![cause])
    })
}

fn version_match(query: &Query) -> Result<Option<VersionMatch>, Status> {
    let refuse = |reason, message: &str| {
        Err(invalid_option("ListOptions", "resourceVersionMatch", reason, message.to_owned()))
    };
    let value = match query.get("resourceVersionMatch") {
        None => return Ok(None),
        Some("Exact") => VersionMatch::Exact,
        Some("NotOlderThan") => VersionMatch::NotOlderThan,
        Some(other) => {
            let message = format!(
                "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            );
            return refuse(CauseReason::NotSupported, &message);
        }
    };
    if query.flag("sendInitialEvents") && query.flag("watch") {
        return Ok(Some(value));
    }
    match query.get("resourceVersion") {
        None => refuse(
            CauseReason::Forbidden,
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        Some("0") if value == VersionMatch::Exact => refuse(
            CauseReason::Forbidden,
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        Some(_) => Ok(Some(value)),
    }
}

/// A list. A name in the path narrows it to that object.
pub fn list(resource: &Resource, namespace: &str, query: &Query) -> Result<ListQuery, Status> {
    let limit = query.get("limit").map(|text| text.parse::<i64>().map_err(|_| no_number(text)));
    Ok(ListQuery {
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        filter: filter(resource, query)?,
        // What is no amount is no limit.
        limit: limit.transpose()?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
        token: query.get("continue").map(ToOwned::to_owned),
        version: version(query)?,
        version_match: version_match(query)?,
    })
}

/// A watch and how it is shown.
#[derive(Debug)]
pub struct WatchOptions {
    /// What the engine is asked.
    pub query: WatchQuery,
    /// Whether bookmarks are wanted.
    pub bookmarks: bool,
    /// After how long the watch ends.
    pub timeout: Option<Duration>,
}

/// A watch.
pub fn watch(resource: &Resource, namespace: &str, query: &Query) -> Result<WatchOptions, Status> {
    let forbidden = |field: &str, message: &str| {
        Err(invalid_option(
            "ListOptions",
            field,
            CauseReason::Forbidden,
            format!("Forbidden: {message}"),
        ))
    };
    let version_match = version_match(query)?;
    let initial_events = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
    match (initial_events, version_match) {
        (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => {}
        (Some(_), _) => {
            return forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        (None, Some(_)) => {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
    }
    let bookmarks = query.flag("allowWatchBookmarks");
    let timeout = match query.get("timeoutSeconds").map(str::parse::<u64>) {
        None | Some(Ok(0)) => None,
        Some(Ok(seconds)) => Some(Duration::from_secs(seconds.min(86_400))),
        Some(Err(_)) => {
            return Err(no_number(query.get("timeoutSeconds").unwrap_or_default()));
        }
    };
    Ok(WatchOptions {
        query: WatchQuery {
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            filter: filter(resource, query)?,
            version: version(query)?,
            initial_events,
        },
        bookmarks,
        timeout,
    })
}

fn dry_run<'a>(kind: &'static str, values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            let message = format!("Unsupported value: {value:?}: supported values: \"All\"");
            return Err(invalid_option(kind, "dryRun", CauseReason::NotSupported, message));
        }
        dry = true;
    }
    Ok(dry)
}

fn written_by(call: &Call) -> WriteOptions {
    let (user, groups) = (call.user.name.clone(), call.user.groups.clone());
    WriteOptions { user, groups, ..WriteOptions::default() }
}

/// How to write. `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
pub fn write(kind: &'static str, call: &Call) -> Result<WriteOptions, Status> {
    if kind == "PatchOptions" && call.query.has("force") && !call.applies() {
        let message = "Forbidden: may not be specified for non-apply patch".to_owned();
        return Err(invalid_option(kind, "force", CauseReason::Forbidden, message));
    }
    let manager = match manager(kind, &call.query)? {
        "" => call.agent(),
        manager => manager.to_owned(),
    };
    let dry_run = dry_run(kind, call.query.all("dryRun"))?;
    Ok(WriteOptions { dry_run, manager, ..written_by(call) })
}

/// The manager that a request names, if it does.
fn manager<'q>(kind: &'static str, query: &'q Query) -> Result<&'q str, Status> {
    let manager = query.get("fieldManager").unwrap_or_default();
    let refuse = |reason, message| Err(invalid_option(kind, "fieldManager", reason, message));
    if manager.len() > LONGEST_MANAGER {
        let message = format!("Too long: may not be more than {LONGEST_MANAGER} bytes");
        return refuse(CauseReason::TooLong, message);
    }
    if manager.chars().any(char::is_control) {
        let message =
            format!("Invalid value: {manager:?}: should only contain printable characters");
        return refuse(CauseReason::Invalid, message);
    }
    Ok(manager)
}

/// How to apply: who does must say so. The other value tells whether what others own is taken over.
pub fn apply(call: &Call) -> Result<(WriteOptions, bool), Status> {
    const KIND: &str = "PatchOptions";
    let options = write(KIND, call)?;
    if manager(KIND, &call.query)?.is_empty() {
        let message = "Required value: is required for apply patch".to_owned();
        return Err(invalid_option(KIND, "fieldManager", CauseReason::Required, message));
    }
    Ok((options, call.query.flag("force")))
}

/// What to do about fields that are not known.
pub fn field_validation(kind: &'static str, query: &Query) -> Result<FieldValidation, Status> {
    match query.get("fieldValidation") {
        None | Some("Warn") => Ok(FieldValidation::Warn),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some(other) => {
            let message = format!(
                "Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            );
            Err(invalid_option(kind, "fieldValidation", CauseReason::NotSupported, message))
        }
    }
}

/// How to delete: the body's word first, then the query's.
pub fn delete(
    resource: &Resource,
    call: &Call,
    body: &Value,
) -> Result<(DeleteOptions, WriteOptions), Status> {
    let query = &call.query;
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let grace = match (
        body.get("gracePeriodSeconds").and_then(Value::as_i64),
        query.get("gracePeriodSeconds"),
    ) {
        (Some(grace), _) => Some(grace),
        (None, Some(word)) => Some(word.parse::<i64>().map_err(|_| no_number(word))?),
        (None, None) => None,
    };
    let orphan = body.get("orphanDependents").and_then(Value::as_bool);
    let orphan =
        orphan.or_else(|| query.has("orphanDependents").then(|| query.flag("orphanDependents")));
    let refused = |reason, message: String| {
        Err(invalid_option("DeleteOptions", "propagationPolicy", reason, message))
    };
    let propagation = match (
        text("propagationPolicy").or_else(|| query.get("propagationPolicy")),
        orphan,
    ) {
        (Some(_), Some(_)) => {
            let message =
                "Invalid value: orphanDependents and deletionPropagation cannot be both set"
                    .to_owned();
            return refused(CauseReason::Invalid, message);
        }
        (None, None) if resource.deletion.orphans => Propagation::Orphan,
        (Some("Background"), None) | (None, Some(false) | None) => Propagation::Background,
        (Some("Foreground"), None) => Propagation::Foreground,
        (Some("Orphan"), None) | (None, Some(true)) => Propagation::Orphan,
        (Some(word), None) => {
            let message = format!(
                "Unsupported value: {word:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            );
            return refused(CauseReason::NotSupported, message);
        }
    };
    let listed = body
        .get("dryRun")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let condition = |name: &str| {
        let value = body.pointer(&format!("/preconditions/{name}")).and_then(Value::as_str);
        value.map(ToOwned::to_owned)
    };
    let options = DeleteOptions {
        grace_period_seconds: grace,
        propagation,
        uid: condition("uid"),
        resource_version: condition("resourceVersion"),
    };
    let dry_run = dry_run("DeleteOptions", listed.chain(query.all("dryRun")))?;
    Ok((options, WriteOptions { dry_run, ..written_by(call) }))
}
