//! Event: what happened to an object, and how often.

use crate::cause::Cause;
use crate::field::{Causes, Path, default, get, has, number, object_mut, text};
use crate::names;
use crate::resource::{Column, Effect, FieldLabel, Resource, Rules, words};
use crate::table::{UNKNOWN, name, since};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["ev"]),
        put_creates: true,
        columns: vec![
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
        cells: Arc::new(cells),
        name: |_| Vec::new(),
        effect: Effect::by("the actor that lets them go when they are old"),
        rules: Rules {
            default: Arc::new(default_event),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        fields: vec![
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
    }
}

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

fn validate(event: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let namespace = text(event, "metadata.namespace");
    let involved = text(event, "involvedObject.namespace");
    let newer = has(event, "eventTime");
    // Events of objects that live in no namespace are kept in `default`; newer clients also use
    // `kube-system`, and may keep events of one namespace in another.
    let fits = match involved {
        "" => matches!(namespace, "" | "default") || newer && namespace == "kube-system",
        involved => newer || involved == namespace,
    };
    if !fits {
        let path = Path::new("involvedObject").child("namespace");
        causes.invalid(&path, involved, "does not match event.namespace");
    }
    // What clients of the newer event API write must be complete.
    if newer {
        let reporter = text(event, "reportingComponent");
        let reporter_path = Path::new("reportingComponent");
        if reporter.is_empty() {
            causes.required(&reporter_path, "");
        }
        causes.invalid_all(&reporter_path, reporter, names::qualified(reporter));
        for (field, max, needed) in [
            ("reportingInstance", 128, true),
            ("action", 128, true),
            ("reason", 128, true),
            ("message", 1024, false),
        ] {
            let length = text(event, field).len();
            if length == 0 && needed {
                causes.required(&Path::new(field), "");
            } else if length > max {
                let why = format!("can have at most {max} characters");
                causes.invalid(&Path::new(field), "", &why);
            }
        }
    }
    causes.into_vec()
}

pub(super) fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_kept_where_its_object_lives_and_newer_ones_are_complete() {
        let newer = json!({
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "example.org/c",
            "reportingInstance": "c-1", "action": "Pull", "reason": "Pulled",
        });
        let long = "x".repeat(129);
        let rows = [
            (json!({}), "a", "a", ""),
            (json!({}), "a", "b", "involvedObject.namespace"),
            (json!({}), "default", "", ""),
            (json!({}), "a", "", "involvedObject.namespace"),
            (newer.clone(), "kube-system", "", ""),
            (newer.clone(), "a", "", "involvedObject.namespace"),
            (newer.clone(), "a", "b", ""),
            (
                json!({"eventTime": newer["eventTime"]}),
                "a",
                "a",
                "reportingComponent reportingComponent reportingComponent reportingInstance action reason",
            ),
            (
                json!({"eventTime": newer["eventTime"], "reportingComponent": "c", "reportingInstance": "i", "action": long, "reason": "r"}),
                "a",
                "a",
                "action",
            ),
        ];
        for (mut event, namespace, involved, expected) in rows {
            event["metadata"] = json!({ "namespace": namespace });
            event["involvedObject"] = json!({ "namespace": involved });
            let causes = validate(&event);
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{event}");
        }
    }
}
