//! The row of an autoscaler in a table.

use crate::field::{at, get, list, number, text};
use crate::table::{NONE, UNKNOWN, age, name};
use jiff::Timestamp;
use serde_json::Value;

/// So many metrics are told in a row.
const METRICS: usize = 2;

/// The cells, one a column.
pub fn cells(autoscaler: &Value, now: Timestamp) -> Vec<Value> {
    let target = at(autoscaler, "spec.scaleTargetRef");
    let least = number(autoscaler, "spec.minReplicas");
    vec![
        name(autoscaler),
        format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
        targets(autoscaler).into(),
        least.map_or_else(|| "<unset>".into(), |least| least.to_string().into()),
        number(autoscaler, "spec.maxReplicas").unwrap_or(0).into(),
        number(autoscaler, "status.currentReplicas").unwrap_or(0).into(),
        age(autoscaler, now),
    ]
}

/// What is measured, and what it should be.
fn targets(autoscaler: &Value) -> String {
    let (wanted, measured) =
        (list(autoscaler, "spec.metrics"), list(autoscaler, "status.currentMetrics"));
    if wanted.is_empty() {
        return NONE.to_owned();
    }
    let told: Vec<String> = wanted
        .iter()
        .enumerate()
        .take(METRICS)
        .map(|(index, wanted)| target(wanted, measured.get(index).unwrap_or(&Value::Null)))
        .collect();
    let told = told.join(", ");
    match wanted.len().saturating_sub(METRICS) {
        0 => told,
        more => format!("{told} + {more} more..."),
    }
}

fn target(wanted: &Value, measured: &Value) -> String {
    let (source, prefix) = match text(wanted, "type") {
        "External" => ("external", String::new()),
        "Pods" => ("pods", String::new()),
        "Object" => ("object", String::new()),
        "Resource" => ("resource", format!("{}: ", text(wanted, "resource.name"))),
        "ContainerResource" => {
            ("containerResource", format!("{}: ", text(wanted, "containerResource.name")))
        }
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) =
        (at(get(wanted, source), "target"), at(get(measured, source), "current"));
    let amount = |field: &str| match text(current, field) {
        "" => UNKNOWN.to_owned(),
        amount => amount.to_owned(),
    };
    let (average, value) = (text(target, "averageValue"), text(target, "value"));
    match (source, average) {
        ("external" | "object", "") => format!("{}/{value}", amount("value")),
        ("external" | "object", average) => format!("{}/{average} (avg)", amount("averageValue")),
        ("resource" | "containerResource", "") => {
            let percent = |value: Option<i64>, absent: &str| {
                value.map_or_else(|| absent.to_owned(), |percent| format!("{percent}%"))
            };
            let current = percent(number(current, "averageUtilization"), UNKNOWN);
            let target = percent(number(target, "averageUtilization"), "<auto>");
            format!("{prefix}{current}/{target}")
        }
        (_, average) => format!("{prefix}{}/{average}", amount("averageValue")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_more_than_two_metrics_are_told_and_how_many_more_there_are() {
        let metric = |value: &str| {
            json!({"type": "External", "external": {"metric": {"name": "q"},
                "target": {"type": "Value", "value": value}}})
        };
        let current = json!([{"type": "External", "external": {"current": {"value": "3"}}}]);
        let object = |metrics: Value| json!({"spec": {"metrics": metrics}, "status": {"currentMetrics": current}});
        assert_eq!(targets(&object(json!([]))), "<none>");
        assert_eq!(targets(&object(json!([metric("1")]))), "3/1");
        let three = object(json!([metric("1"), metric("2"), metric("4")]));
        assert_eq!(targets(&three), "3/1, <unknown>/2 + 1 more...");
    }
}
