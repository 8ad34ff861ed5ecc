//! The recorded rows, and what makes an answer comparable with one.
//!
//! Used twice: on the objects alone, and over HTTPS on a cluster (`tests/e2e/tests/recorded`).

use serde_json::{Map, Value, json};
use std::path::Path;

/// A recorded file (`tests/data/README.md`). Both crates that use this are two folders deep.
pub fn recorded(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/kubernetes").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn rows(file: &str) -> Vec<Value> {
    let rows = recorded(file);
    rows.lines().map(|line| expand(serde_json::from_str(line).expect("a row of JSON"))).collect()
}

/// Writes out `{"$repeat": ["x", n]}`.
fn expand(value: Value) -> Value {
    match value {
        Value::Object(map) => match map.get("$repeat").and_then(Value::as_array) {
            Some(repeat) => {
                let text = repeat[0].as_str().expect("a text");
                text.repeat(repeat[1].as_u64().expect("a count") as usize).into()
            }
            None => map.into_iter().map(|(key, value)| (key, expand(value))).collect(),
        },
        Value::Array(list) => list.into_iter().map(expand).collect(),
        other => other,
    }
}

/// What a server draws itself is made alike: uids, times, names of token volumes, addresses.
pub fn alike(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                let drawn = matches!(
                    key.as_str(),
                    "uid"
                        | "creationTimestamp"
                        | "lastPhaseTransitionTime"
                        | "resourceVersion"
                        | "managedFields"
                        | "nodePort"
                );
                let value = match (key.as_str(), value) {
                    ("clusterIP", Value::String(ip)) if ip != "None" => "10.96.0.0".into(),
                    ("clusterIPs", Value::Array(ips)) if ips[0] != "None" => json!(["10.96.0.0"]),
                    (key, _) if key.ends_with("controller-uid") => "UID".into(),
                    (_, value) => alike(value),
                };
                if !drawn {
                    out.insert(key, value);
                }
            }
            Value::Object(out)
        }
        Value::Array(list) => list.into_iter().map(alike).collect(),
        Value::String(text) if text.starts_with("kube-api-access-") => "kube-api-access-x".into(),
        other => other,
    }
}

pub fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let missing = Value::String("<absent>".into());
                let (a, b) = (a.get(key).unwrap_or(&missing), b.get(key).unwrap_or(&missing));
                differences(&format!("{path}/{key}"), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}/{index}"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{path}: ours {a}, theirs {b}")),
    }
}

pub fn report(wrong: &[String], seen: usize) {
    assert!(seen > 0, "no row was of a kind that is served");
    assert!(wrong.is_empty(), "{} differences in {seen} rows:\n{}", wrong.len(), wrong.join("\n"));
}

pub fn recorded_causes(row: &Value) -> Vec<(String, String)> {
    let text = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
    let mut causes: Vec<_> = row["causes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|cause| (text(cause, "field"), text(cause, "reason")))
        .collect();
    causes.sort();
    causes
}

/// What the recording of patches leaves out: what the server drew, the namespace and the status.
pub fn patched(object: Value) -> Value {
    let mut object = alike(object);
    for field in ["apiVersion", "status"] {
        object.as_object_mut().expect("an object").remove(field);
    }
    for field in ["namespace", "generation"] {
        object["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    strip(&mut object);
    object
}

/// Without token volumes, drawn labels and addresses, and what a controller has noted, and without what
/// is left empty by that.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| {
                !["controller-uid", "job-name"].iter().any(|drawn| key.ends_with(drawn))
                    && !key.starts_with("clusterIP")
                    // No controller ran where patches were recorded.
                    && key != "deployment.kubernetes.io/revision"
            });
            for value in map.values_mut() {
                strip(value);
            }
            map.retain(|key, value| {
                !(matches!(
                    key.as_str(),
                    "volumeMounts" | "volumes" | "matchLabels" | "selector" | "labels"
                ) && (value == &json!([]) || value == &json!({})))
            });
        }
        Value::Array(list) => {
            list.retain(|entry| entry["name"] != "kube-api-access-x");
            for value in list {
                strip(value);
            }
        }
        _ => {}
    }
}
