//! Creating, replacing and patching objects.

use super::show;
use crate::answer::{self, Body};
use crate::call::{self, Call, ResourceCall, target_of};
use crate::gateway::Gateway;
use crate::options;
use hyper::Response;
use impresario_api::admission::Door;
use impresario_api::resource::Resource;
use impresario_api::status::Status;
use impresario_api::wire::{self, FieldValidation};
use impresario_client::objects::Patch;
use serde_json::Value;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The namespace in the body must be the path's; where it is missing it becomes that.
fn place(call: &ResourceCall, object: &mut Value) -> Result<(), Status> {
    let namespace = &call.path.namespace;
    let said = text(object, "/metadata/namespace");
    if !call.resource.namespaced && said.is_empty() {
        return Ok(());
    }
    if !said.is_empty() && said != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !object["metadata"].is_object() {
        object["metadata"] = serde_json::json!({});
    }
    object["metadata"]["namespace"] = namespace.as_str().into();
    Ok(())
}

/// Creates an object.
pub async fn create(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    let write = options::write("CreateOptions", query)?;
    let validation = options::field_validation("CreateOptions", query)?;
    let mut decoded = call.call.decode(target_of(call.resource)?, validation)?;
    place(call, &mut decoded.object)?;
    let mut warnings = decoded.warnings;
    let created = gateway.objects().create(call.resource, &call.path.namespace, decoded.object, &write).await?;
    warnings.extend((call.resource.rules.warnings)(&created));
    let mut response = show(call, 201, created)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

fn door(call: &ResourceCall) -> Door {
    if call.path.subresource == "status" { Door::Status } else { Door::Main }
}

/// Replaces an object, or its status.
pub async fn update(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    let write = options::write("UpdateOptions", query)?;
    let validation = options::field_validation("UpdateOptions", query)?;
    let mut decoded = call.call.decode(target_of(call.resource)?, validation)?;
    place(call, &mut decoded.object)?;
    let (said, name) = (text(&decoded.object, "/metadata/name"), call.path.name.as_str());
    if said.is_empty() {
        return Err(Status::bad_request("the name of the object must be given"));
    }
    if said != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        )));
    }
    let mut warnings = decoded.warnings;
    let updated = gateway
        .objects()
        .update(call.resource, door(call), &call.path.namespace, name, decoded.object, &write)
        .await?;
    warnings.extend((call.resource.rules.warnings)(&updated));
    let mut response = show(call, 200, updated)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

/// Reads the body of a patch.
pub(super) fn patch_of(call: &Call, strategic: bool) -> Result<Patch, Status> {
    let kind = call.content_type().split(';').next().unwrap_or_default().trim();
    let document = || wire::parse(wire::JSON, &call.body).map_err(|error| call::refused(&error));
    match kind {
        JSON_PATCH => Ok(Patch::Json(document()?)),
        MERGE_PATCH => Ok(Patch::Merge(document()?)),
        STRATEGIC_PATCH if strategic => Ok(Patch::Strategic(document()?)),
        wire::APPLY_YAML => {
            let mut status = Status::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH]);
            status.message = format!(
                "server-side apply ({}) is not served yet: use client-side apply, or one of {JSON_PATCH}, {MERGE_PATCH}, {STRATEGIC_PATCH}",
                wire::APPLY_YAML
            );
            Err(status)
        }
        _ if strategic => Err(Status::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH])),
        _ => Err(Status::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH])),
    }
}

/// Resources that Kubernetes would define by a CustomResourceDefinition know no strategic merge.
pub(super) fn is_built_in(resource: &Resource) -> bool {
    !resource.group.ends_with("impresario.dev")
}

/// Changes parts of an object, or of its status.
pub async fn patch(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    let write = options::write("PatchOptions", query)?;
    let validation = options::field_validation("PatchOptions", query)?;
    let patch = patch_of(&call.call, is_built_in(call.resource))?;
    let target = target_of(call.resource)?;
    let mut warnings = Vec::new();
    let (resource, name) = (call.resource, call.path.name.as_str());
    let patched = gateway
        .objects()
        .modify(resource, door(call), &call.path.namespace, name, &write, |old| {
            let mut new = patch.apply(resource, old)?;
            warnings = checked(target.message, &mut new, validation)?;
            for (field, said, is) in [
                ("name", text(&new, "/metadata/name"), name),
                ("namespace", text(&new, "/metadata/namespace"), text(old, "/metadata/namespace")),
            ] {
                if said != is {
                    return Err(Status::bad_request(format!(
                        "the {field} of the provided object does not match the {field} sent on the request"
                    )));
                }
            }
            Ok(new)
        })
        .await?;
    warnings.extend((call.resource.rules.warnings)(&patched));
    let mut response = show(call, 200, patched)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

/// The outcome of a patch must be an object of the kind, like one that was sent whole.
fn checked(
    message: &'static impresario_api::schema::Message,
    object: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    wire::check(message, object, Vec::new(), validation).map_err(|wrong| Status::bad_request(wrong.to_string()))
}
