//! Every answer that a Kubernetes server was seen to give for a kind that is served here.
//!
//! The rows are facts, not examples of ours: objects and what defaulting made of them, invalid
//! objects and the causes that were named, patches and their outcome, rows of printed tables. A
//! test says all rows that differ at once, so that a rule can be seen behind them.
#![expect(clippy::expect_used, reason = "a row that cannot be read fails the test")]

mod applies;
mod rows;

use impresario_api::admission::{Allocator, Context, Door, admit_create, admit_update, warnings};
use impresario_api::catalog::{find_object, served};
use impresario_api::patch::{self, PatchType};
use impresario_api::resource::{Resource, Row};
use impresario_api::status::Status;
use impresario_api::wire::{self, FieldValidation};
use rows::{alike, differences, patched, recorded_causes, report, rows};
use serde_json::{Value, json};
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

fn decode(resource: &Resource, object: &Value) -> Result<Value, Status> {
    let target = resource.target();
    let body = serde_json::to_vec(object).expect("JSON");
    Ok(wire::decode(target, wire::JSON, &body, FieldValidation::Strict)?.object)
}

fn create(resource: &Row, object: &Value) -> Result<Value, Status> {
    let object = resource.kept(decode(resource, object)?);
    let created = admit_create(&served().kept(resource), object, &context())?;
    Ok(resource.told(created))
}

#[test]
fn defaults_are_as_recorded() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("defaults.jsonl") {
        let Some(resource) = find_object(&row["in"]) else { continue };
        seen += 1;
        let name = row["name"].as_str().expect("a name");
        match create(&resource, &row["in"]) {
            Ok(object) => {
                let warned: Vec<String> = warnings(&resource, &object)
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
        wrong.extend(refusal(&row, create(&resource, &row["in"])));
    }
    report(&wrong, seen);
}

#[test]
fn patches_have_the_recorded_outcome() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("patches.jsonl") {
        let Some(resource) = find_object(&row["object"]) else { continue };
        // Applies are rows of steps, see `applies`. Which revision is the newest is known where objects are stored: the
        // same row is asked on a cluster.
        if !row["steps"].is_null() || row["code"] == 409 {
            continue;
        }
        seen += 1;
        let name = row["name"].as_str().expect("a name");
        let target = resource.target();
        let old = create(&resource, &row["object"]).expect("the object itself is valid");
        let form = PatchType::parse(row["type"].as_str().expect("a type")).expect("a patch type");
        let body = serde_json::to_vec(&row["patch"]).expect("JSON");
        let answer = patch::apply(target, &old, form, &body, FieldValidation::Warn)
            .map_err(|error| Status::patch(&resource, "x", &error))
            .and_then(|decoded| {
                admit_update(&resource, Door::Main, decoded.object, &old, &context())
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
            let theirs = &row["cells"][&*column.name];
            let is_span = ours.as_str().is_some_and(|text| text.ends_with(['s', 'm', 'h', 'd']));
            let is_date = column.kind == "date" && ours == object["metadata"]["creationTimestamp"];
            if ours != *theirs && !(theirs == "$time" && (is_span || is_date)) {
                wrong.push(format!("{name}: {}: ours {ours}, theirs {theirs}", column.name));
            }
        }
    }
    report(&wrong, seen);
}
