//! The scale door: how many copies there are, and how many there should be, for any kind that has it.

use super::write::patch_of;
use crate::answer::{self, Body};
use crate::call::{ResourceCall, known};
use crate::gateway::Gateway;
use crate::options;
use crate::request::Action;
use hyper::Response;
use impresario_api::admission::Door;
use impresario_api::patch;
use impresario_api::resource::{Resource, ScalePaths};
use impresario_api::selector::LabelSelector;
use impresario_api::status::{Cause, CauseReason, Reason, Status};
use impresario_api::wire;
use impresario_client::objects::Patch;
use serde_json::{Map, Value, json};

/// Reads or changes the scale of an object.
pub async fn scale(gateway: &Gateway, action: Action, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let resource = call.resource;
    let paths = resource.scale.ok_or_else(Status::no_such_path)?;
    let (namespace, name) = (call.path.namespace.as_str(), call.path.name.as_str());
    let target = known("autoscaling", "v1", "Scale")?;
    let query = &call.call.query;
    let object = match action {
        Action::Get => gateway.objects().get(resource, namespace, name).await?,
        Action::Update => {
            let write = options::write("UpdateOptions", query)?;
            let validation = options::field_validation("UpdateOptions", query)?;
            let wanted = call.call.decode(target, validation)?.object;
            let change = |old: &Value| scaled(resource, paths, old, &wanted);
            gateway.objects().modify(resource, Door::Scale, namespace, name, &write, change).await?
        }
        Action::Patch => {
            let write = options::write("PatchOptions", query)?;
            let validation = options::field_validation("PatchOptions", query)?;
            let change = patch_of(&call.call, true)?;
            let apply = |old: &Value| {
                let scale = scale_of(paths, old);
                let mut wanted = match &change {
                    Patch::Json(operations) => patch::json_patch(&scale, operations)?,
                    Patch::Merge(fields) => patch::merge_patch(&scale, fields)?,
                    Patch::Strategic(fields) => patch::strategic_merge(target.message.name, &scale, fields)?,
                };
                wire::check(target.message, &mut wanted, Vec::new(), validation)
                    .map_err(|wrong| Status::bad_request(wrong.to_string()))?;
                scaled(resource, paths, old, &wanted)
            };
            gateway.objects().modify(resource, Door::Scale, namespace, name, &write, apply).await?
        }
        _ => return Err(Status::method_not_allowed(resource, action.as_str())),
    };
    Ok(answer::json(200, &scale_of(paths, &object), call.call.pretty()))
}

/// The object with the number of copies that a scale asks for.
fn scaled(resource: &Resource, paths: ScalePaths, old: &Value, wanted: &Value) -> Result<Value, Status> {
    let name = old.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let cause = Cause {
            field: "spec.replicas".into(),
            reason: CauseReason::Invalid,
            message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
        };
        let mut status =
            Status::new(Reason::Invalid, format!("Scale.autoscaling {name:?} is invalid: {cause}"));
        (status.group, status.kind, status.name) = ("autoscaling".into(), "Scale".into(), name.into());
        status.causes = vec![cause];
        return Err(status);
    }
    let mut new = old.clone();
    // A version in the scale is the object's: only that very state is scaled.
    let version = wanted.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    new["metadata"]["resourceVersion"] = version.into();
    let uid = wanted.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    if !uid.is_empty() && old.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) {
        return Err(Status::conflict(resource, name, "Precondition failed: UID in the scale is another object's"));
    }
    set(&mut new, paths.spec, replicas.into());
    Ok(new)
}

/// Sets what a JSON pointer names, making objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[part];
    }
    *at = value;
}

/// The scale of an object.
fn scale_of(paths: ScalePaths, object: &Value) -> Value {
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let selector = object.pointer(paths.selector).cloned().unwrap_or(Value::Null);
    let selector = if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        LabelSelector::from_object(&selector).ok()
    } else {
        Some(LabelSelector::from_map(&selector))
    };
    let mut status = json!({ "replicas": count(paths.status) });
    if let Some(selector) = selector.map(|selector| selector.to_string()).filter(|text| !text.is_empty()) {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": count(paths.spec) },
        "status": status,
    })
}
