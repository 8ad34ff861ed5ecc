//! Event of `events.k8s.io`: the same events as those of the core group, in newer words. Kept as the others.

use crate::cause::Cause;
use crate::field::{Causes, Path, as_map, has, remove, set, text};
use crate::kinds::events;
use crate::resource::{Conversion, FieldLabel, Resource};
use serde_json::Value;
use std::sync::Arc;

/// How fields are called here, and as they are kept.
const NAMES: [(&str, &str); 7] = [
    ("reportingController", "reportingComponent"),
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// The row.
pub fn resource() -> Resource {
    let kept = events::resource();
    let mut row =
        Resource::named("events.k8s.io", "v1", "Event", "events", "event", "api.events.v1.Event");
    row.cells = Arc::new(|event, now| events::cells(&to_stored(event.clone()), now));
    row.fields = [
        ("regarding.kind", "/involvedObject/kind"),
        ("regarding.namespace", "/involvedObject/namespace"),
        ("regarding.name", "/involvedObject/name"),
        ("regarding.uid", "/involvedObject/uid"),
        ("regarding.apiVersion", "/involvedObject/apiVersion"),
        ("regarding.resourceVersion", "/involvedObject/resourceVersion"),
        ("regarding.fieldPath", "/involvedObject/fieldPath"),
        ("reason", "/reason"),
        ("reportingController", "/reportingComponent"),
        ("type", "/type"),
    ]
    .map(|(label, pointer)| FieldLabel::new(label, pointer))
    .into();
    row.conversion = Some(Conversion {
        group: "",
        version: "v1",
        plural: "events",
        validate_create,
        to_stored,
        from_stored,
    });
    Resource {
        short_names: kept.short_names,
        put_creates: kept.put_creates,
        columns: kept.columns,
        name: kept.name,
        rules: kept.rules,
        effect: kept.effect,
        ..row
    }
}

fn to_stored(mut event: Value) -> Value {
    for (name, kept) in NAMES {
        if let Some(value) = remove(&mut event, name) {
            set(&mut event, kept, value);
        }
    }
    set(&mut event, "apiVersion", "v1");
    event
}

fn from_stored(mut event: Value) -> Value {
    for (name, kept) in NAMES {
        if let Some(value) = remove(&mut event, kept) {
            set(&mut event, name, value);
        }
    }
    let written_anyway = ["eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"];
    for field in written_anyway {
        as_map(&mut event).entry(field).or_insert(Value::Null);
    }
    set(&mut event, "apiVersion", "events.k8s.io/v1");
    event
}

/// Who makes an event in these words says when it was, and nothing in the older ones.
fn validate_create(event: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    if !has(event, "eventTime") {
        causes.required(&Path::new("eventTime"), "");
    }
    let kind = text(event, "type");
    if !["Normal", "Warning"].contains(&kind) {
        causes.invalid(&Path::new("type"), kind, "has invalid value: Normal and Warning are known");
    }
    for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount"] {
        if has(event, field) {
            causes.invalid(&Path::new(field), event[field].clone(), "needs to be unset");
        }
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_says_the_same_in_both_words() {
        let newer = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "a.b/c",
            "reportingInstance": "c-1", "action": "Pull", "reason": "Pulled", "type": "Normal",
            "regarding": {"kind": "Pod", "name": "p"}, "note": "hello", "deprecatedCount": 1,
            "deprecatedSource": {"component": "c"}, "deprecatedFirstTimestamp": null,
            "deprecatedLastTimestamp": "2026-01-01T00:00:00Z",
        });
        let kept = to_stored(newer.clone());
        assert_eq!(
            (&kept["involvedObject"]["name"], &kept["message"]),
            (&json!("p"), &json!("hello"))
        );
        assert_eq!((&kept["apiVersion"], &kept["count"]), (&json!("v1"), &json!(1)));
        assert_eq!(from_stored(kept), newer);
    }

    #[test]
    fn who_makes_one_says_when_it_was_and_of_what_sort() {
        let fields = |event: Value| {
            let causes = validate_create(&event).into_iter().map(|cause| cause.field);
            causes.collect::<Vec<_>>().join(" ")
        };
        let time = "2026-01-01T00:00:00.000000Z";
        assert_eq!(fields(json!({"eventTime": time, "type": "Normal"})), "");
        assert_eq!(fields(json!({"type": "Odd"})), "eventTime type");
        let old = json!({"eventTime": time, "type": "Normal", "deprecatedCount": 1});
        assert_eq!(fields(old), "deprecatedCount");
    }
}
