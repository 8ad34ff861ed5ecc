//! Event: what happened to an object, and how often.

use crate::field::{Causes, Path, default, get, has, number, object_mut, text};
use crate::names;
use crate::resource::{Column, FieldLabel, Resource, Rules};
use crate::status::Cause;
use crate::table::{UNKNOWN, name, since};
use jiff::Timestamp;
use serde_json::Value;

/// The row.
pub const RESOURCE: Resource = Resource {
    short_names: &["ev"],
    put_creates: true,
    columns: &[
        Column::text("Last Seen", "How long ago it happened last."),
        Column::text("Type", "Normal or Warning."),
        Column::text("Reason", "What happened, in a word."),
        Column::text("Object", "What it happened to."),
        Column::text("Subobject", "The part of it.").wide(),
        Column::text("Source", "Who says so.").wide(),
        Column::text("Message", "What happened, for people."),
        Column::text("First Seen", "How long ago it happened first.").wide(),
        Column::text("Count", "How often it happened.").wide(),
        Column { priority: 1, ..Column::name() },
    ],
    cells,
    name: |_| Vec::new(),
    rules: Rules {
        default: default_event,
        validate,
        validate_update: |new, _| validate(new),
        ..Rules::PLAIN
    },
    fields: &[
        FieldLabel::new("involvedObject.kind", "/involvedObject/kind"),
        FieldLabel::new("involvedObject.namespace", "/involvedObject/namespace"),
        FieldLabel::new("involvedObject.name", "/involvedObject/name"),
        FieldLabel::new("involvedObject.uid", "/involvedObject/uid"),
        FieldLabel::new("involvedObject.apiVersion", "/involvedObject/apiVersion"),
        FieldLabel::new("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
        FieldLabel::new("involvedObject.fieldPath", "/involvedObject/fieldPath"),
        FieldLabel::new("reason", "/reason"),
        FieldLabel::new("reportingComponent", "/reportingComponent"),
        FieldLabel::new("source", "/source/component"),
        FieldLabel::new("type", "/type"),
    ],
    ..Resource::named("", "v1", "Event", "events", "event", "api.core.v1.Event")
};

/// Fields that are always written, set or not.
fn default_event(event: &mut Value) {
    for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
        if !has(event, field) {
            crate::field::set(event, field, Value::Null);
        }
    }
    object_mut(event, "source");
    object_mut(event, "involvedObject");
    default(event, "reportingComponent", "");
    default(event, "reportingInstance", "");
}

/// Kinds that live in no namespace; their events are kept in `default`.
const CLUSTER_KINDS: &[&str] = &["Node", "Namespace", "PersistentVolume"];

fn validate(event: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let namespace = text(event, "metadata.namespace");
    let involved = text(event, "involvedObject.namespace");
    let path = Path::new("involvedObject").child("namespace");
    if involved.is_empty() {
        if !matches!(namespace, "" | "default") {
            causes.invalid(&path, involved, "does not match event.namespace");
        }
    } else if CLUSTER_KINDS.contains(&text(event, "involvedObject.kind"))
        && text(event, "involvedObject.apiVersion") == "v1"
    {
        causes.invalid(&path, involved, "not allowed for an object that is not namespaced");
    } else if involved != namespace {
        causes.invalid(&path, involved, "does not match event.namespace");
    }
    // What clients of the newer event API write must be complete.
    if has(event, "eventTime") {
        let reporter = text(event, "reportingComponent");
        if reporter.is_empty() {
            causes.required(&Path::new("reportingController"), "");
        }
        causes.invalid_all(
            &Path::new("reportingController"),
            reporter,
            if reporter.is_empty() { Vec::new() } else { names::qualified(reporter) },
        );
        let instance = text(event, "reportingInstance");
        if instance.is_empty() {
            causes.required(&Path::new("reportingInstance"), "");
        } else if instance.len() > 128 {
            causes.too_long(&Path::new("reportingInstance"), 128);
        }
        for (field, max) in [("action", 128), ("reason", 128)] {
            match text(event, field).len() {
                0 => causes.required(&Path::new(field), ""),
                length if length > max => causes.too_long(&Path::new(field), max),
                _ => {}
            }
        }
        if text(event, "message").len() > 1024 {
            causes.too_long(&Path::new("message"), 1024);
        }
    }
    causes.into_vec()
}

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let span = |field: &str| since(text(event, field), now);
    let or = |first: String, second: String| if first == UNKNOWN { second } else { first };
    let first = or(span("firstTimestamp"), span("eventTime"));
    let mut last = or(span("lastTimestamp"), first.clone());
    let mut count = number(event, "count").filter(|count| *count != 0).unwrap_or(1);
    let series = get(event, "series");
    if !series.is_null() {
        last = since(text(series, "lastObservedTime"), now);
        count = number(series, "count").unwrap_or(0);
    }
    let kind = text(event, "involvedObject.kind").to_lowercase();
    let object = match text(event, "involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let or_reporting = |text_of: &str, reporting: &str| match text(event, text_of) {
        "" => text(event, reporting).to_owned(),
        given => given.to_owned(),
    };
    let component = or_reporting("source.component", "reportingComponent");
    let host = or_reporting("source.host", "reportingInstance");
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        last.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        object.into(),
        text(event, "involvedObject.fieldPath").into(),
        source.into(),
        text(event, "message").trim().into(),
        first.into(),
        count.into(),
        name(event),
    ]
}
