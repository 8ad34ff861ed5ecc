//! What can be done with a resource: one module a verb, the same for every kind.
//!
//! Subresources that only some kinds have stand in modules of their own name.

pub mod apply;
pub mod delete;
pub mod log;
pub mod metrics;
pub mod namespace;
pub mod pod;
pub mod read;
pub mod review;
pub mod scale;
pub mod stream;
pub mod token;
pub mod watch;
pub mod write;

use crate::answer::{self, Body};
use crate::call::ResourceCall;
use crate::negotiate::Encoding;
use crate::shape;
use hyper::Response;
use impresario_api::status::Status;
use impresario_api::wire;
use impresario_objects::WriteOptions;
use serde_json::Value;

/// An object in the form that the client wants.
pub(crate) fn show(
    call: &ResourceCall,
    code: u16,
    object: Value,
) -> Result<Response<Body>, Status> {
    let form = call.call.form(false)?;
    let shown = shape::one(&call.resource, object, form.view, call.call.include()?);
    write(call, code, &shown, form.encoding)
}

/// The answer to a write, with what those who were asked about it want the writer to know.
pub(crate) fn with_told(
    response: Result<Response<Body>, Status>,
    write: &WriteOptions,
) -> Result<Response<Body>, Status> {
    let mut response = response?;
    answer::warn(&mut response, &write.told.take());
    Ok(response)
}

pub(crate) fn write(
    call: &ResourceCall,
    code: u16,
    shown: &Value,
    encoding: Encoding,
) -> Result<Response<Body>, Status> {
    match encoding {
        Encoding::Json => Ok(answer::json(code, shown, call.call.pretty())),
        Encoding::Yaml => {
            let bytes = wire::encode(wire::YAML, shown)
                .ok_or_else(|| Status::internal("the answer is no YAML"))?;
            Ok(answer::bytes(code, "application/yaml", bytes))
        }
    }
}
