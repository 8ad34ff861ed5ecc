//! Creating, replacing and patching objects.

use super::show;
use crate::answer::{self, Body};
use crate::call::{Call, ResourceCall, target_of};
use crate::gateway::Gateway;
use crate::options;
use hyper::Response;
use impresario_api::catalog::served;
use impresario_api::managed;
use impresario_api::patch::{self, PatchType};
use impresario_api::resource::Resource;
use impresario_api::status::{Reason, Status};
use impresario_api::wire;
use impresario_objects::Door;
use serde_json::Value;
use std::borrow::Cow;

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Creates an object.
pub async fn create(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    let write = options::write("CreateOptions", &call.call)?;
    let validation = options::field_validation("CreateOptions", query)?;
    let mut decoded = call.call.decode(target_of(&call.resource), validation)?;
    let mut warnings = std::mem::take(&mut decoded.warnings);
    gateway.know_role(call, &decoded.object).await;
    decoded.object = call.resource.kept_first(decoded.object)?;
    let kept = served().kept(&call.resource);
    let (objects, namespace) = (gateway.objects(), &call.path.namespace);
    let created = objects.create_decoded(&kept, namespace, decoded, &write).await?;
    warnings.extend(write.told.take());
    warnings.extend((kept.rules.warnings)(&created));
    warnings.extend(objects.warnings(&kept, namespace, None, &created).await);
    let mut response = show(call, 201, created)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

pub(super) fn door(call: &ResourceCall) -> Door {
    match call.path.subresource.as_str() {
        "status" => Door::Status,
        "approval" => Door::Approval,
        _ => Door::Main,
    }
}

/// The body is about another object than the address.
pub(super) fn other_name(said: &str, name: &str) -> Status {
    Status::bad_request(format!(
        "the name of the object ({said}) does not match the name on the URL ({name})"
    ))
}

/// Replaces an object, or its status. Some kinds are made by that where there is none.
pub async fn update(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    let write = options::write("UpdateOptions", &call.call)?;
    let validation = options::field_validation("UpdateOptions", query)?;
    let mut decoded = call.call.decode(target_of(&call.resource), validation)?;
    let name = call.path.name.as_str();
    match text(&decoded.object, "/metadata/name") {
        "" => {
            let why = "the name of the object must be given in its metadata";
            return Err(Status::bad_request(why));
        }
        said if said != name => return Err(other_name(said, name)),
        _ => {}
    }
    let mut warnings = std::mem::take(&mut decoded.warnings);
    let objects = gateway.objects();
    let (resource, namespace) = (&served().kept(&call.resource), call.path.namespace.as_str());
    let names_one = ["/metadata/uid", "/metadata/resourceVersion"]
        .iter()
        .any(|identity| !text(&decoded.object, identity).is_empty());
    let before = objects.before(resource, name).await;
    // Who has seen the object does not mean another one.
    let spare = (resource.put_creates && call.path.subresource.is_empty() && !names_one)
        .then(|| decoded.clone());
    decoded.object = call.resource.kept(decoded.object);
    let outcome = objects.update(resource, door(call), namespace, name, decoded, &write).await;
    let (code, updated) = match (outcome, spare) {
        (Err(status), Some(mut decoded)) if status.reason == Reason::NotFound => {
            gateway.permit_create(call)?;
            decoded.object = call.resource.kept_first(decoded.object)?;
            (201, objects.create_decoded(resource, namespace, decoded, &write).await?)
        }
        (outcome, _) => (200, outcome?),
    };
    warnings.extend(write.told.take());
    warnings.extend((resource.rules.warnings)(&updated));
    warnings.extend(objects.warnings(resource, namespace, before.as_ref(), &updated).await);
    let mut response = show(call, code, updated)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

/// The form of a patch, from its content type.
pub(super) fn patch_form(call: &Call, built_in: bool) -> Result<PatchType, Status> {
    let form = PatchType::parse(call.content_type());
    match form.filter(|form| built_in || *form != PatchType::Strategic) {
        Some(form) => Ok(form),
        None => {
            let strategic = "application/strategic-merge-patch+json";
            let offered: Vec<&str> = PatchType::MEDIA_TYPES
                .into_iter()
                .filter(|media| built_in || *media != strategic)
                .chain([wire::APPLY_YAML])
                .collect();
            Err(Status::unsupported_media_type(&offered))
        }
    }
}

/// The object that a patch is applied to: who owns what of it is written out where the patch may be about that.
fn base<'a>(resource: &Resource, form: PatchType, body: &[u8], old: &'a Value) -> Cow<'a, Value> {
    // What is written with escapes may be any name.
    let may_name = |text: &str| text.contains("managedFields") || text.contains("\\u");
    let is_about = form == PatchType::Json || std::str::from_utf8(body).is_ok_and(may_name);
    if !is_about {
        return Cow::Borrowed(old);
    }
    let mut told = old.clone();
    managed::tell(resource, &mut told);
    Cow::Owned(told)
}

/// Changes parts of an object, or of its status.
pub async fn patch(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let write = options::write("PatchOptions", &call.call)?;
    let validation = options::field_validation("PatchOptions", &call.call.query)?;
    let form = patch_form(&call.call, call.resource.is_built_in())?;
    let target = target_of(&call.resource);
    let mut warnings = Vec::new();
    let (resource, name) = (&served().kept(&call.resource), call.path.name.as_str());
    let (objects, namespace) = (gateway.objects(), call.path.namespace.as_str());
    let before = objects.before(resource, name).await;
    let patched = objects
        .modify_decoded(resource, door(call), namespace, name, &write, |old| {
            let base = base(resource, form, &call.call.body, old);
            let base = if call.resource.is_as_kept() {
                base
            } else {
                Cow::Owned(call.resource.told(base.into_owned()))
            };
            let mut outcome = patch::apply(target, &base, form, &call.call.body, validation)
                .map_err(|error| Status::patch(resource, name, &error))?;
            outcome.object = call.resource.kept(outcome.object);
            warnings = std::mem::take(&mut outcome.warnings);
            Ok(outcome)
        })
        .await?;
    warnings.extend(write.told.take());
    warnings.extend((resource.rules.warnings)(&patched));
    warnings.extend(objects.warnings(resource, namespace, before.as_ref(), &patched).await);
    let mut response = show(call, 200, patched)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}
