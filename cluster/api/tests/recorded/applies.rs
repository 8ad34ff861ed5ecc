//! The recorded applies: rows of steps, each of which is applied to what came of the ones before.

use crate::rows::{differences, patched, recorded_causes, report, rows};
use crate::{NAMESPACE, context};
use impresario_api::admission::{Door, admit_create, admit_update};
use impresario_api::catalog::{find, find_object};
use impresario_api::managed::{self, Writer};
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_api::wire;
use serde_json::{Value, json};

/// What a step applies, and to which kind; rows of config maps do not say it.
fn applied(step: &Value) -> (Row, Value) {
    let mut applied = step["apply"].clone();
    if applied["kind"].is_null() {
        applied["apiVersion"] = "v1".into();
        applied["kind"] = "ConfigMap".into();
    }
    applied["metadata"]["name"] = "x".into();
    applied["metadata"]["namespace"] = NAMESPACE.into();
    let resource = find_object(&applied).or_else(|| find("", "v1", "configmaps"));
    (resource.expect("a kind that is served"), applied)
}

/// The code and the object that comes of a step.
fn apply(step: &Value, live: &Value) -> Result<(u64, Value), Status> {
    let (resource, applied) = applied(step);
    if applied["metadata"].get("managedFields").is_some() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let manager = step["manager"].as_str().expect("a manager");
    let writer = Writer { manager, subresource: "", now: context().now };
    let force = step["force"] == true;
    let merged = managed::apply(&resource, live, &applied, &writer, force)?;
    let typed = wire::decoded(resource.target(), merged.object.clone())?.object;
    let (code, mut object) = if live.is_null() {
        (201, admit_create(&resource, typed, &context())?)
    } else {
        (200, admit_update(&resource, Door::Main, typed, live, &context())?)
    };
    merged.note(&resource, &mut object);
    Ok((code, object))
}

#[test]
fn applies_have_the_recorded_outcome() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for row in rows("patches.jsonl") {
        let Some(steps) = row["steps"].as_array() else { continue };
        let mut live = Value::Null;
        for (index, step) in steps.iter().enumerate() {
            seen += 1;
            let name = format!("{} ({index})", row["name"].as_str().expect("a name"));
            match apply(step, &live) {
                Ok((code, object)) => {
                    let mut found = Vec::new();
                    differences("code", &json!(code), &step["code"], &mut found);
                    let mut told = object.clone();
                    managed::tell(&applied(step).0, &mut told);
                    let mut managers = json!({});
                    for entry in managed::kept(&told) {
                        managers[entry["manager"].as_str().expect("a name")] =
                            entry["fieldsV1"].clone();
                    }
                    differences("managers", &managers, &step["managers"], &mut found);
                    let (mut ours, theirs) =
                        (patched(object.clone()), patched(step["out"].clone()));
                    // Applies were recorded without the name.
                    ours["metadata"].as_object_mut().expect("metadata").remove("name");
                    differences("", &ours, &theirs, &mut found);
                    wrong.extend(found.into_iter().map(|it| format!("{name}: {it}")));
                    live = object;
                }
                Err(status) => {
                    let causes: Vec<_> = status
                        .causes
                        .iter()
                        .map(|cause| (cause.field.clone(), cause.reason.as_str().to_owned()))
                        .collect();
                    let ours = (json!(status.code()), json!(status.reason.as_str()), causes);
                    let theirs =
                        (step["code"].clone(), step["reason"].clone(), recorded_causes(step));
                    if ours != theirs {
                        wrong.push(format!("{name}: ours {ours:?} ({status}), theirs {theirs:?}"));
                    }
                }
            }
        }
    }
    report(&wrong, seen);
}
