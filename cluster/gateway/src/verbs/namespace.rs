//! What can be done with namespaces alone: finalizing them.

use super::{show, with_told};
use crate::answer::Body;
use crate::call::{ResourceCall, target_of};
use crate::gateway::Gateway;
use crate::options;
use hyper::Response;
use impresario_api::status::Status;
use impresario_api::wire::FieldValidation;
use impresario_objects::Door;

/// Sets the finalizers of a namespace's content; without any, a namespace that is going is gone.
pub async fn finalize(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let write = options::write("UpdateOptions", &call.call)?;
    let body = call.call.decode(target_of(&call.resource), FieldValidation::Ignore)?;
    let name = call.path.name.as_str();
    let object =
        gateway.objects().update(&call.resource, Door::Finalize, "", name, body, &write).await?;
    with_told(show(call, 200, object), &write)
}
