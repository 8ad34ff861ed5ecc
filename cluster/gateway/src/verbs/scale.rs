//! The scale door: how many copies there are, and how many there should be, for any kind that has it.

use super::write::{other_name, patch_form};
use super::{apply, with_told};
use crate::answer::{self, Body};
use crate::call::{ResourceCall, known};
use crate::gateway::Gateway;
use crate::invalid::{bad_value, invalid};
use crate::options;
use crate::request::Action;
use hyper::Response;
use impresario_api::admission::{apply_scale, scale_of};
use impresario_api::patch;
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use impresario_objects::{Applying, Door, WriteOptions};
use serde_json::{Value, json};

/// Reads or changes the scale of an object.
pub async fn scale(
    gateway: &Gateway,
    action: Action,
    call: &ResourceCall,
) -> Result<Response<Body>, Status> {
    let resource = &call.resource;
    let (namespace, name) = (call.path.namespace.as_str(), call.path.name.as_str());
    let target = known("autoscaling", "v1", "Scale")?;
    let objects = gateway.objects();
    let (object, write) = match action {
        Action::Get => (objects.get(resource, namespace, name).await?, WriteOptions::default()),
        Action::Update => {
            let write = options::write("UpdateOptions", &call.call)?;
            let validation = options::field_validation("UpdateOptions", &call.call.query)?;
            let wanted = call.call.decode(target, validation)?.object;
            let change = |old: &Value| scaled(resource, name, old, &wanted);
            let changed =
                objects.modify(resource, Door::Scale, namespace, name, &write, change).await?;
            (changed, write)
        }
        Action::Patch if call.call.applies() => {
            let (write, force) = options::apply(&call.call)?;
            let validation = options::field_validation("PatchOptions", &call.call.query)?;
            let (mut wanted, _) = apply::read(&call.call, target, validation)?;
            apply::address(&mut wanted, name, namespace)?;
            let object = applied(resource, &wanted)?;
            let applying = Applying { object: &object, force };
            let changed =
                objects.apply(resource, Door::Scale, namespace, name, applying, &write).await?;
            (changed, write)
        }
        Action::Patch => {
            let write = options::write("PatchOptions", &call.call)?;
            let validation = options::field_validation("PatchOptions", &call.call.query)?;
            let form = patch_form(&call.call, resource.is_built_in())?;
            let change = |old: &Value| {
                let scale = scale_of(resource, old).ok_or_else(Status::no_such_path)?;
                let wanted = patch::apply(target, &scale, form, &call.call.body, validation)
                    .map_err(|error| Status::patch(resource, name, &error))?;
                scaled(resource, name, old, &wanted.object)
            };
            let changed =
                objects.modify(resource, Door::Scale, namespace, name, &write, change).await?;
            (changed, write)
        }
        _ => return Err(Status::method_not_allowed(resource, action.as_str())),
    };
    let scale = scale_of(resource, &object).ok_or_else(Status::no_such_path)?;
    with_told(Ok(answer::json(200, &scale, call.call.pretty())), &write)
}

/// What is applied to an object by who applies to its scale: the number of copies, where it is said.
fn applied(resource: &Resource, wanted: &Value) -> Result<Value, Status> {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(said) = wanted.pointer(&format!("/metadata/{field}")) {
            metadata[field] = said.clone();
        }
    }
    let object = json!({ "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": metadata });
    match wanted.pointer("/spec/replicas").and_then(Value::as_i64) {
        None => Ok(object),
        Some(copies) if copies < 0 => {
            let cause = bad_value("spec.replicas", copies, "must be greater than or equal to 0");
            Err(invalid("autoscaling", "Scale", text(wanted, "/metadata/name"), vec![cause]))
        }
        Some(_) => apply_scale(resource, &object, wanted),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The object with the number of copies that a scale asks for. What the scale says of version and uid
/// is meant of the object.
fn scaled(resource: &Resource, name: &str, old: &Value, wanted: &Value) -> Result<Value, Status> {
    let said = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let named = said("/metadata/name");
    if !named.is_empty() && named != name {
        return Err(other_name(named, name));
    }
    let copies = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if copies < 0 {
        let cause = bad_value("spec.replicas", copies, "must be greater than or equal to 0");
        return Err(invalid("autoscaling", "Scale", name, vec![cause]));
    }
    let mut new = apply_scale(resource, old, wanted)?;
    for field in ["resourceVersion", "uid"] {
        new["metadata"][field] = said(&format!("/metadata/{field}")).into();
    }
    Ok(new)
}
