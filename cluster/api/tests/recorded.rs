//! Every answer that a Kubernetes server was seen to give for a kind that is served here.
//!
//! The rows are facts, not examples of ours: objects and what defaulting made of them, invalid
//! objects and the causes that were named, patches and their outcome, rows of printed tables. A
//! test says all rows that differ at once, so that a rule can be seen behind them.
#![expect(clippy::expect_used, reason = "a row that cannot be read fails the test")]

use impresario_api::admission::{Allocator, Context, Door, admit_create, admit_update, warnings};
use impresario_api::patch::{self, PatchType};
use impresario_api::resource::{Resource, find_object};
use impresario_api::status::Status;
use impresario_api::wire::{self, FieldValidation, Target};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

const NAMESPACE: &str = "gold";
const UID: &str = "d1b654b8-a117-4b5d-a2cc-85cbac3cf8ca";

/// Draws the same every time, node ports one after the other.
#[derive(Debug)]
struct Fixed(AtomicU16);

impl Allocator for Fixed {
    fn uid(&self) -> String {
        UID.to_owned()
    }
    fn name_suffix(&self) -> String {
        "bcdfg".to_owned()
    }
    fn cluster_ip(&self, wanted: Option<&str>) -> Result<String, String> {
        Ok(wanted.unwrap_or("10.96.0.0").to_owned())
    }
    fn node_port(&self, wanted: Option<u16>) -> Result<u16, String> {
        Ok(wanted.unwrap_or_else(|| self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

fn context() -> Context<'static> {
    static FIXED: Fixed = Fixed(AtomicU16::new(30_000));
    Context {
        namespace: NAMESPACE,
        user: "tester",
        now: "2026-01-01T00:00:00Z".parse().expect("a time"),
        allocator: &FIXED,
    }
}

fn rows(file: &str) -> Vec<Value> {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let root = std::env::var("IMPRESARIO_SHARED").unwrap_or_else(|_| here.to_owned());
    let path = PathBuf::from(root).join("data/kubernetes").join(file);
    let lines = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; set IMPRESARIO_SHARED to the folder that holds data/", path.display())
    });
    lines.lines().map(|line| expand(serde_json::from_str(line).expect("a row of JSON"))).collect()
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

fn decode(resource: &Resource, object: &Value) -> Result<Value, Status> {
    let target = Target::of(resource.group, resource.version, resource.kind).expect("a schema");
    let body = serde_json::to_vec(object).expect("JSON");
    Ok(wire::decode(target, wire::JSON, &body, FieldValidation::Strict)?.object)
}

fn create(resource: &Resource, object: &Value) -> Result<Value, Status> {
    admit_create(resource, decode(resource, object)?, &context())
}

/// What a server draws itself is made alike: uids, times, names of token volumes, addresses.
fn alike(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                let drawn = matches!(
                    key.as_str(),
                    "uid" | "creationTimestamp" | "resourceVersion" | "managedFields" | "nodePort"
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

fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
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

fn report(wrong: &[String], seen: usize) {
    assert!(seen > 0, "no row was of a kind that is served");
    assert!(wrong.is_empty(), "{} of {seen} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn defaults_are_as_recorded() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("defaults.jsonl") {
        let Some(resource) = find_object(&row["in"]) else { continue };
        seen += 1;
        let name = row["name"].as_str().expect("a name");
        match create(resource, &row["in"]) {
            Ok(object) => {
                let warned: Vec<String> = warnings(resource, &object)
                    .into_iter()
                    .map(|warning| format!("299 - {warning:?}"))
                    .collect();
                let mut found = Vec::new();
                differences("", &alike(object), &alike(row["out"].clone()), &mut found);
                differences("warnings", &json!(warned), &row["warnings"], &mut found);
                wrong.extend(found.into_iter().map(|difference| format!("{name}: {difference}")));
            }
            Err(status) => wrong.push(format!("{name}: refused: {status}")),
        }
    }
    report(&wrong, seen);
}

fn causes(status: &Status) -> Vec<(String, String)> {
    let mut causes: Vec<_> = status
        .causes
        .iter()
        .map(|cause| (cause.field.clone(), cause.reason.as_str().to_owned()))
        .collect();
    causes.sort();
    causes
}

fn recorded_causes(row: &Value) -> Vec<(String, String)> {
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

/// How an answer differs from the recorded refusal.
fn refusal(row: &Value, answer: Result<Value, Status>) -> Option<String> {
    let name = row["name"].as_str().expect("a name");
    let Err(status) = answer else { return Some(format!("{name}: taken")) };
    let ours = (u64::from(status.code()), status.reason.as_str(), causes(&status));
    let code = row["code"].as_u64().expect("a code");
    let theirs = (code, row["reason"].as_str().unwrap_or_default(), recorded_causes(row));
    let reason_matters = !theirs.1.is_empty();
    let alike = ours.0 == theirs.0 && (!reason_matters || ours.1 == theirs.1) && ours.2 == theirs.2;
    (!alike).then(|| format!("{name}: ours {ours:?} ({status}), theirs {theirs:?}"))
}

#[test]
fn invalid_objects_are_refused_for_every_recorded_cause_and_no_other() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("rejected.jsonl") {
        let Some(resource) = find_object(&row["in"]) else { continue };
        seen += 1;
        wrong.extend(refusal(&row, create(resource, &row["in"])));
    }
    report(&wrong, seen);
}

/// What the recording of patches leaves out: what the server drew, the namespace and the status.
fn patched(object: Value) -> Value {
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

/// Without token volumes, drawn labels and addresses, and without what is left empty by that.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| {
                !["controller-uid", "job-name"].iter().any(|drawn| key.ends_with(drawn))
                    && !key.starts_with("clusterIP")
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

#[test]
fn patches_have_the_recorded_outcome() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("patches.jsonl") {
        let Some(resource) = find_object(&row["object"]) else { continue };
        if !row["steps"].is_null() {
            continue;
        }
        seen += 1;
        let name = row["name"].as_str().expect("a name");
        let target = Target::of(resource.group, resource.version, resource.kind).expect("a schema");
        let old = create(resource, &row["object"]).expect("the object itself is valid");
        let form = PatchType::parse(row["type"].as_str().expect("a type")).expect("a patch type");
        let body = serde_json::to_vec(&row["patch"]).expect("JSON");
        let answer = patch::apply(target, &old, form, &body, FieldValidation::Warn)
            .map_err(|error| Status::patch(resource, "x", &error))
            .and_then(|decoded| {
                admit_update(resource, Door::Main, decoded.object, &old, &context())
            });
        if row["code"] != 200 {
            wrong.extend(refusal(&row, answer));
            continue;
        }
        match answer {
            Ok(object) => {
                let mut found = Vec::new();
                differences("", &patched(object), &patched(row["out"].clone()), &mut found);
                wrong.extend(found.into_iter().map(|difference| format!("{name}: {difference}")));
            }
            Err(status) => wrong.push(format!("{name}: refused: {status}")),
        }
    }
    report(&wrong, seen);
}

#[test]
fn tables_print_the_recorded_cells() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("tables.jsonl") {
        let Some(resource) = find_object(&row["object"]) else { continue };
        seen += 1;
        let name = row["name"].as_str().expect("a name");
        let mut object = row["object"].clone();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        let now = "2026-01-02T00:00:00Z".parse().expect("a time");
        let cells = (resource.cells)(&object, now);
        assert_eq!(cells.len(), resource.columns.len(), "{name}");
        for (column, ours) in resource.columns.iter().zip(cells) {
            let theirs = &row["cells"][column.name];
            let is_span = ours.as_str().is_some_and(|text| text.ends_with(['s', 'm', 'h', 'd']));
            if ours != *theirs && !(theirs == "$time" && is_span) {
                wrong.push(format!("{name}: {}: ours {ours}, theirs {theirs}", column.name));
            }
        }
    }
    report(&wrong, seen);
}
