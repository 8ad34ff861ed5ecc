//! Deleting one object, or every object of a collection that matches.

use super::{show, with_told, write};
use crate::answer::{self, Body};
use crate::call::{ResourceCall, known};
use crate::gateway::Gateway;
use crate::{options, shape};
use hyper::Response;
use impresario_api::status::Status;
use impresario_objects::{DeleteOptions, Deleted, WriteOptions};
use serde_json::{Map, Value};

fn delete_options(call: &ResourceCall) -> Result<(DeleteOptions, WriteOptions), Status> {
    let body = call.call.decode_if_any(known("", "v1", "DeleteOptions")?)?;
    options::delete(&call.resource, &call.call, &body)
}

/// Deletes an object. The answer is the object while it lingers; when it is gone, a Status, or the
/// object as it was at last, where clients of the kind expect that.
pub async fn one(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let (options, writing) = delete_options(call)?;
    let path = &call.path;
    let response = match gateway
        .objects()
        .delete(&call.resource, &path.namespace, &path.name, &options, &writing)
        .await?
    {
        Deleted::Lingers(object) => show(call, 200, object),
        Deleted::Gone(object) if call.resource.deletion.answers_object => show(call, 200, object),
        Deleted::Gone(object) => {
            let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
            Ok(answer::json(
                200,
                &Status::deleted(&call.resource, &path.name, uid),
                call.call.pretty(),
            ))
        }
    };
    with_told(response, &writing)
}

/// Deletes a collection. The answer lists what was deleted.
pub async fn collection(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let (options, writing) = delete_options(call)?;
    let query = options::list(&call.resource, &call.path.namespace, &call.call.query)?;
    let form = call.call.form(true)?;
    let deleted =
        gateway.objects().delete_collection(&call.resource, &query, &options, &writing).await?;
    let shown = shape::list(&call.resource, deleted, Map::new(), form.view, call.call.include()?);
    with_told(write(call, 200, &shown, form.encoding), &writing)
}
