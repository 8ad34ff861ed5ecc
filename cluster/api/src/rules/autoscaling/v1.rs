//! Autoscalers in the words of `autoscaling/v1`, which knows one metric: how much of a CPU is used.
//!
//! What the older version has no field for stands in annotations, as Kubernetes writes them, so that nothing is lost
//! on the way there and back. Whoever writes by the older version may write them too.

use super::cpu_metric;
use crate::field::{as_map, at, get, list, number, object_mut, remove, set, text};
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const PERCENT: &str = "targetCPUUtilizationPercentage";
const CURRENT_PERCENT: &str = "currentCPUUtilizationPercentage";

/// A source of a metric, and how its fields are called in both versions: the older name, the newer path. What begins
/// with `=` is the goal in a spec and what was measured in a status.
type Source = (&'static str, &'static [(&'static str, &'static str)]);
const SOURCES: [Source; 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("=Value", "=value"),
            ("averageValue", "=averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("=AverageValue", "=averageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("=AverageUtilization", "=averageUtilization"),
            ("=AverageValue", "=averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("=AverageUtilization", "=averageUtilization"),
            ("=AverageValue", "=averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("=Value", "=value"),
            ("=AverageValue", "=averageValue"),
        ],
    ),
];

/// What a metric is part of.
#[derive(Clone, Copy)]
enum Part {
    Spec,
    Status,
}

impl Part {
    /// How `=` is spelt: before a field of the older version, and as the parent of one of the newer.
    fn word(self) -> &'static str {
        match self {
            Self::Spec => "target",
            Self::Status => "current",
        }
    }

    fn older(self, name: &str) -> String {
        name.strip_prefix('=')
            .map_or_else(|| name.to_owned(), |rest| format!("{}{rest}", self.word()))
    }

    fn newer(self, path: &str) -> String {
        path.strip_prefix('=')
            .map_or_else(|| path.to_owned(), |rest| format!("{}.{rest}", self.word()))
    }
}

/// An autoscaler of `autoscaling/v1` as it is kept.
pub fn to_stored(older: Value) -> Value {
    let mut kept = older;
    let [metrics, behavior, conditions, current] = [METRICS, BEHAVIOR, CONDITIONS, CURRENT_METRICS]
        .map(|name| take_annotation(&mut kept, name));
    let spec = object_mut(&mut kept, "spec");
    let mut all = newer_metrics(metrics.as_ref(), Part::Spec);
    if let Some(percent) = remove(spec, PERCENT).as_ref().and_then(Value::as_i64) {
        all.push(cpu_metric(percent));
    }
    if !all.is_empty() {
        set(spec, "metrics", all);
    }
    if let Some(behavior) = behavior.filter(Value::is_object) {
        set(spec, "behavior", behavior);
    }
    let status = object_mut(&mut kept, "status");
    let mut measured = newer_metrics(current.as_ref(), Part::Status);
    if let Some(percent) = remove(status, CURRENT_PERCENT) {
        measured.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": percent}}}));
    }
    if !measured.is_empty() {
        set(status, "currentMetrics", measured);
    }
    if let Some(conditions) = conditions.filter(Value::is_array) {
        set(status, "conditions", conditions);
    }
    set(&mut kept, "apiVersion", "autoscaling/v2");
    kept
}

/// An autoscaler as it is kept, in the words of `autoscaling/v1`.
pub fn from_stored(kept: Value) -> Value {
    let mut older = kept;
    let is_cpu = |metric: &Value, percent: &str| {
        text(metric, "type") == "Resource"
            && text(metric, "resource.name") == "cpu"
            && number(metric, percent).is_some()
    };
    let mut told = Map::new();
    let spec = object_mut(&mut older, "spec");
    let metrics = list(spec, "metrics").to_vec();
    let percent = "resource.target.averageUtilization";
    let first = metrics.iter().position(|metric| is_cpu(metric, percent));
    if let Some(cpu) = first.and_then(|at| metrics.get(at)) {
        set(spec, PERCENT, at(cpu, percent).clone());
    }
    note(&mut told, METRICS, older_metrics(&metrics, first, Part::Spec));
    remove(spec, "metrics");
    note(&mut told, BEHAVIOR, remove(spec, "behavior").unwrap_or_default());
    let status = object_mut(&mut older, "status");
    let measured = list(status, "currentMetrics").to_vec();
    let percent = "resource.current.averageUtilization";
    let first = measured.iter().position(|metric| is_cpu(metric, percent));
    if let Some(cpu) = first.and_then(|at| measured.get(at)) {
        set(status, CURRENT_PERCENT, at(cpu, percent).clone());
    }
    note(&mut told, CURRENT_METRICS, older_metrics(&measured, first, Part::Status));
    remove(status, "currentMetrics");
    note(&mut told, CONDITIONS, remove(status, "conditions").unwrap_or_default());
    crate::field::default(status, "currentReplicas", 0);
    if !told.is_empty() {
        let annotations = object_mut(object_mut(&mut older, "metadata"), "annotations");
        as_map(annotations).extend(told);
    }
    set(&mut older, "apiVersion", "autoscaling/v1");
    older
}

/// What an annotation says, which is taken away; nothing where it is no JSON, and it is still taken away.
fn take_annotation(object: &mut Value, name: &str) -> Option<Value> {
    let annotations = object.pointer_mut("/metadata/annotations")?;
    let said = remove(annotations, name)?;
    serde_json::from_str(said.as_str()?).ok()
}

fn note(annotations: &mut Map<String, Value>, name: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        _ => false,
    };
    if !empty {
        annotations.insert(name.to_owned(), value.to_string().into());
    }
}

fn newer_metrics(older: Option<&Value>, part: Part) -> Vec<Value> {
    let all = older.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    all.iter().map(|metric| newer_metric(metric, part)).collect()
}

fn newer_metric(older: &Value, part: Part) -> Value {
    let mut metric = json!({"type": get(older, "type")});
    for (source, fields) in SOURCES {
        let told = get(older, source);
        if !told.is_object() {
            continue;
        }
        let mut made = json!({});
        for (name, path) in fields {
            let value = get(told, &part.older(name));
            if value.is_null() {
                continue;
            }
            match part.newer(path).split_once('.') {
                None => set(&mut made, path, value.clone()),
                Some((parent, field)) => set(object_mut(&mut made, parent), field, value.clone()),
            }
        }
        if matches!(part, Part::Spec) {
            let target = object_mut(&mut made, "target");
            let goals = [
                ("averageUtilization", "Utilization"),
                ("averageValue", "AverageValue"),
                ("value", "Value"),
            ];
            if let Some((_, kind)) = goals.iter().find(|(field, _)| !get(target, field).is_null()) {
                set(target, "type", *kind);
            }
        }
        set(&mut metric, source, made);
    }
    metric
}

/// All metrics but the one at `without`.
fn older_metrics(newer: &[Value], without: Option<usize>, part: Part) -> Value {
    let all = newer.iter().enumerate().filter(|(index, _)| Some(*index) != without);
    all.map(|(_, metric)| older_metric(metric, part)).collect()
}

fn older_metric(newer: &Value, part: Part) -> Value {
    let mut metric = json!({"type": get(newer, "type")});
    for (source, fields) in SOURCES {
        let told = get(newer, source);
        if !told.is_object() {
            continue;
        }
        let mut made = json!({});
        for (name, path) in fields {
            let value = at(told, &part.newer(path));
            if !value.is_null() {
                set(&mut made, &part.older(name), value.clone());
            }
        }
        set(&mut metric, source, made);
    }
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(spec: Value, status: Value) -> Value {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"}, "spec": spec, "status": status})
    }

    #[test]
    fn what_the_older_version_has_a_field_for_stands_there() {
        let status = json!({"currentReplicas": 2, "desiredReplicas": 3, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 70}}}]});
        let older =
            from_stored(kept(json!({"maxReplicas": 3, "metrics": [cpu_metric(50)]}), status));
        assert_eq!(older["apiVersion"], "autoscaling/v1");
        assert_eq!(older["spec"], json!({"maxReplicas": 3, PERCENT: 50}));
        let status = json!({"currentReplicas": 2, "desiredReplicas": 3, CURRENT_PERCENT: 70});
        assert_eq!(older["status"], status);
        assert!(older["metadata"].get("annotations").is_none());
    }

    #[test]
    fn what_it_has_no_field_for_is_told_in_its_own_words_in_annotations() {
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "q"},
            "target": {"type": "AverageValue", "averageValue": "10"}}});
        let older = from_stored(kept(json!({"metrics": [pods, cpu_metric(50)]}), json!({})));
        let told = older["metadata"]["annotations"][METRICS].as_str().unwrap();
        let told: Value = serde_json::from_str(told).unwrap();
        assert_eq!(
            told,
            json!([{"type": "Pods", "pods": {"metricName": "q", "targetAverageValue": "10"}}])
        );
        assert_eq!(older["spec"][PERCENT], 50);
    }

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let selector = json!({"matchLabels": {"a": "b"}});
        let reference = json!({"apiVersion": "v1", "kind": "Service", "name": "s"});
        let metrics = json!([
            {"type": "Object", "object": {"describedObject": reference,
                "metric": {"name": "q", "selector": selector}, "target": {"type": "Value", "value": "1"}}},
            {"type": "Object", "object": {"describedObject": reference, "metric": {"name": "q"},
                "target": {"type": "AverageValue", "averageValue": "1"}}},
            {"type": "External", "external": {"metric": {"name": "q", "selector": selector},
                "target": {"type": "AverageValue", "averageValue": "2"}}},
            {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 5}}},
            {"type": "Resource", "resource": {"name": "memory",
                "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            cpu_metric(50),
        ]);
        let spec = json!({"maxReplicas": 3, "minReplicas": 1, "metrics": metrics,
            "behavior": {"scaleUp": {"selectPolicy": "Min"}}});
        let status = json!({"currentReplicas": 1, "desiredReplicas": 1,
            "conditions": [{"type": "AbleToScale", "status": "True"}],
            "currentMetrics": [{"type": "External", "external": {"metric": {"name": "q"},
                "current": {"averageValue": "3"}}}]});
        let kept = kept(spec, status);
        let mut back = to_stored(from_stored(kept.clone()));
        if let Some(metadata) = back["metadata"].as_object_mut() {
            metadata.remove("annotations");
        }
        assert_eq!(back, kept);
    }

    #[test]
    fn an_annotation_that_is_no_json_is_dropped() {
        let mut older = from_stored(kept(json!({}), json!({})));
        older["metadata"]["annotations"] = json!({METRICS: "{", "a": "b"});
        let kept = to_stored(older);
        assert_eq!(kept["metadata"]["annotations"], json!({"a": "b"}));
        assert!(kept["spec"].get("metrics").is_none());
    }
}
