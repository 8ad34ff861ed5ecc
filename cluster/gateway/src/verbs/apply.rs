//! Server-side apply: a manager says what it wants of an object, and owns that.

use super::show;
use super::write::{door, other_name};
use crate::answer::{self, Body};
use crate::call::{Call, ResourceCall, refused, target_of};
use crate::gateway::Gateway;
use crate::options;
use hyper::Response;
use impresario_api::catalog::served;
use impresario_api::status::{Reason, Status};
use impresario_api::wire::{self, FieldValidation, Target};
use impresario_objects::Applying;
use serde_json::{Value, json};

/// How often is begun anew where the object comes or goes at the same time.
const ATTEMPTS: usize = 3;

/// What is to be applied, as it came: what is empty in it is owned as well. The second value is what the client is told.
pub(super) fn read(
    call: &Call,
    target: Target<'_>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let (applied, warnings) =
        wire::applied(target, &call.body, validation).map_err(|error| match error {
            wire::DecodeError::Malformed { why, .. } => {
                Status::bad_request(format!("error decoding YAML: {why}"))
            }
            other => refused(&other),
        })?;
    let text = |field: &str| applied.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, expected) = (text("apiVersion"), target.api_version());
    if text("kind").is_empty() {
        return Err(Status::bad_request("Object 'Kind' is missing in what is applied"));
    }
    if version != expected {
        let why = format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {expected}"
        );
        return Err(Status::bad_request(why));
    }
    if applied.pointer("/metadata/managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok((applied, warnings))
}

/// Applies to an object, or to its status. One that is not there is made by that.
pub async fn apply(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let (write, force) = options::apply(&call.call)?;
    let validation = options::field_validation("PatchOptions", &call.call.query)?;
    let (mut object, mut warnings) = read(&call.call, target_of(&call.resource), validation)?;
    let (resource, namespace) = (&served().kept(&call.resource), call.path.namespace.as_str());
    let name = call.path.name.as_str();
    address(&mut object, name, if resource.namespaced { namespace } else { "" })?;
    // Who owns which field is noted in the words in which the object is kept.
    let object = call.resource.kept(object);
    gateway.know_role(call, &object).await;
    let applying = Applying { object: &object, force };
    let objects = gateway.objects();
    let before = objects.before(resource, name).await;
    let mut attempt = 0;
    let (code, applied) = loop {
        attempt += 1;
        let outcome = objects.apply(resource, door(call), namespace, name, applying, &write).await;
        let creates = call.path.subresource.is_empty() && attempt <= ATTEMPTS;
        match outcome {
            Err(status) if status.reason == Reason::NotFound && creates => {}
            outcome => break (200, outcome?),
        }
        gateway.permit_create(call)?;
        match objects.create_applied(resource, namespace, name, applying, &write).await {
            Err(status) if status.reason == Reason::AlreadyExists => {}
            outcome => break (201, outcome?),
        }
    };
    warnings.extend(write.told.take());
    warnings.extend((resource.rules.warnings)(&applied));
    warnings.extend(objects.warnings(resource, namespace, before.as_ref(), &applied).await);
    let mut response = show(call, code, applied)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

/// What is applied is about the object of the path, whether it says so or not.
pub(super) fn address(object: &mut Value, name: &str, namespace: &str) -> Result<(), Status> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    let said = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
    match said("name").as_str() {
        "" => metadata["name"] = name.into(),
        said if said != name => return Err(other_name(said, name)),
        _ => {}
    }
    if namespace.is_empty() {
        return Ok(());
    }
    match metadata["namespace"].as_str().unwrap_or_default() {
        "" => metadata["namespace"] = namespace.into(),
        said if said != namespace => {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(why));
        }
        _ => {}
    }
    Ok(())
}
